"""What a student can learn beside the teacher's answers, and what guides the generator to them."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from keras_mosaickd import InputError, losses, practical_recipe, recipe
from keras_mosaickd.cli import flags
from keras_mosaickd.config import PRACTICAL, ExperimentConfig
from keras_mosaickd.methods import KnowledgeDistillation, MosaicKD
from keras_mosaickd.methods.imitation import projection_error, relative_squared_error
from keras_mosaickd.methods.practical import generator_multiple
from keras_mosaickd.methods.statistics import TeacherStatistics
from keras_mosaickd.networks.features import copy_layers
from keras_mosaickd.optimizers import SGD
from tests.game import (
    BATCH,
    CLASSES,
    SHAPE,
    STEPS,
    classifier,
    discriminator,
    game,
    generator,
    images,
    moved,
    values,
)
from tests.parity_program import played

MATERIAL = Path(__file__).parent / "material"


def numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def still():
    """An optimizer that moves nothing."""
    return keras.optimizers.SGD(0.0, name="student_optimizer")


def pooled_map(network, data, training=False):
    """What enters the global average pooling."""
    pooling = next(
        layer for layer in network.layers if isinstance(layer, layers.GlobalAveragePooling2D)
    )
    return numpy(keras.Model(network.inputs[0], pooling.input)(data, training=training))


# ---- features --------------------------------------------------------------------------------


def relative_error(target, own):
    axes = tuple(range(1, target.ndim))
    return np.mean(np.sum((target - own) ** 2, axis=axes) / np.sum(target**2, axis=axes))


def test_relative_squared_error_by_hand():
    target = np.array([[3.0, 4.0], [0.0, 2.0]], "float32")
    guided = np.array([[3.0, 5.0], [1.0, 0.0]], "float32")
    # 1 / 25 and 5 / 4
    assert numpy(relative_squared_error(target, guided)) == pytest.approx((0.04 + 1.25) / 2)
    # Features ten times as large count as much.
    assert numpy(relative_squared_error(10 * target, 10 * guided)) == pytest.approx(0.645)


def test_projection_error_by_hand():
    # Root mean squares 5 and 0.1: what is predicted is [5, 10] for [3, 4] of the one image, and
    # [0, 0.1] for [0, 0.1 * 2**0.5] of the other.
    target = np.array([[1.0, 7.0], [0.0, 0.1 * 2**0.5]], "float32")
    projected = np.array([[0.5, 1.0], [0.0, 0.5]], "float32")
    second = (2**0.5 - 1) ** 2 / 2
    error = projection_error(target, projected, gain=2.0)
    assert numpy(error) == pytest.approx(((4**2 + 3**2) / 50 + second) / 2, rel=1e-4)


# What is learnt is the same arithmetic everywhere.
@pytest.mark.long_on("tensorflow", "jax")
@pytest.mark.parametrize("scale", [1e-2, 1e2])
def test_a_projection_learns_alike_whatever_the_scale_of_the_teachers_features(scale):
    def losses(scale):
        # Few channels, which a student of many has to predict.
        teacher, student = of_width(2), of_width(48)
        body, head = teacher.get_layer("body"), teacher.layers[-1]
        body.set_weights([weight * scale for weight in body.get_weights()])
        head.kernel.assign(head.kernel / scale)
        model = KnowledgeDistillation(teacher, student, feature_weight=10.0, seed=3)
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9, name="student_optimizer"))
        return model.fit(images(BATCH), batch_size=BATCH, epochs=12, verbose=0).history

    expected, found = losses(1.0), losses(scale)
    assert found["feature_loss"] == pytest.approx(expected["feature_loss"], rel=0.05)
    assert found["feature_loss"][-1] < 0.5 * found["feature_loss"][0]


def test_feature_loss_by_hand():
    model = KnowledgeDistillation(
        classifier(1), classifier(2), temperature=2.0, feature_weight=3.0, seed=3
    )
    model.compile(still())
    data = images(BATCH)
    # A twin, because a pass in training mode moves BatchNorm's statistics.
    own = pooled_map(classifier(2), data, training=True)
    expected = relative_error(pooled_map(classifier(1), data), own)
    logs = model.fit(data, batch_size=BATCH, verbose=0).history
    assert logs["feature_loss"][0] == pytest.approx(expected, rel=1e-4)
    assert logs["loss"][0] == pytest.approx(logs["distillation_loss"][0] + 3.0 * expected, rel=1e-4)


def of_width(channels, strides=2):
    keras.utils.set_random_seed(channels)
    inputs = keras.Input(SHAPE)
    x = layers.Conv2D(channels, 3, strides=strides, padding="same", name="body")(inputs)
    return keras.Model(inputs, layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(x)))


@pytest.mark.long_on("jax")
def test_features_of_other_widths_and_sizes_are_projected_and_averaged():
    teacher, student = of_width(6, strides=2), of_width(3, strides=1)
    model = KnowledgeDistillation(teacher, student, feature_weight=1.0, seed=3)
    model.compile(keras.optimizers.SGD(0.1, name="student_optimizer"))
    kernel, bias = map(numpy, model.projection.weights)
    data = images(BATCH)
    averaged = pooled_map(student, data).reshape(BATCH, 4, 2, 4, 2, 3).mean(axis=(2, 4))
    taught = pooled_map(teacher, data)
    scale = np.sqrt(np.square(taught).mean(axis=(1, 2, 3), keepdims=True))
    expected = relative_error(taught, scale * (averaged @ kernel + bias))
    logs = model.fit(data, batch_size=BATCH, verbose=0).history
    assert logs["feature_loss"][0] == pytest.approx(expected, rel=1e-4)
    # The projection learns, and is no part of the student.
    assert moved([kernel], values(model.projection.weights)[:1])
    assert model.student.count_params() == of_width(3).count_params()


def test_hidden_features_are_refused_by_name():
    class Hidden(keras.Model):
        def __init__(self):
            super().__init__(name="hidden")
            self.inner = classifier(1)

        def call(self, inputs):
            return self.inner(inputs)

    teacher = Hidden()
    teacher(images(1))
    with pytest.raises(InputError, match="feature_weight.*the teacher 'hidden'"):
        KnowledgeDistillation(teacher, classifier(2), feature_weight=1.0)


# ---- the student's start ---------------------------------------------------------------------


def named(blocks, seed, end="logits"):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input(SHAPE)
    x = inputs
    for block in range(blocks):
        x = layers.Conv2D(4, 3, padding="same", name=f"conv{block}")(x)
        x = layers.BatchNormalization(name=f"bn{block}")(x)
    return keras.Model(inputs, layers.Dense(CLASSES, name=end)(layers.GlobalAveragePooling2D()(x)))


def test_layers_of_the_same_name_and_the_last_are_copied():
    teacher, student = named(3, seed=1), named(2, seed=2, end="own_end")
    teacher.get_layer("bn1").moving_mean.assign([1.0, 2.0, 3.0, 4.0])
    assert copy_layers(teacher, student) == (5, 5)
    pairs = [("conv0", "conv0"), ("bn1", "bn1"), ("logits", "own_end")]
    for theirs, own in pairs:
        for a, b in zip(
            teacher.get_layer(theirs).weights, student.get_layer(own).weights, strict=True
        ):
            np.testing.assert_array_equal(numpy(a), numpy(b))


def test_a_student_starts_once(capsys):
    student = named(2, seed=2)
    model = KnowledgeDistillation(named(3, seed=1), student, student_start="teacher")
    assert "in 5 of its 5 layers" in capsys.readouterr().out
    before = values(student.weights)
    KnowledgeDistillation.from_config(model.get_config())
    assert "Student starts" not in capsys.readouterr().out
    assert not moved(before, values(student.weights))


# ---- mixing ----------------------------------------------------------------------------------


class Told(KnowledgeDistillation):
    """Draws what it was told instead of random numbers."""

    def global_normal(self, batch, size, seed_generator):
        return keras.ops.convert_to_tensor(self.told)


def test_mixed_images_by_hand():
    model = Told(classifier(1), classifier(2), mixup=0.5)
    # The distribution function: 0 -> 0.5 (not below 0.5: unmixed), -1 -> 0.158655, 1 -> 0.841345.
    model.told = np.array([[0, 0], [-1, 0], [-1, 1], [-1, -1]], "float32")
    data = images(4)
    mixed = numpy(model._mixed(keras.ops.convert_to_tensor(data), None))
    shares = [0.0, 0.5, 0.841345, 0.158655]
    for index, (partner, share) in enumerate(zip([1, 0, 3, 2], shares, strict=True)):
        expected = (1 - share) * data[index] + share * data[partner]
        np.testing.assert_allclose(mixed[index], expected, atol=1e-5)


def test_the_last_of_an_odd_batch_is_not_mixed():
    model = Told(classifier(1), classifier(2), mixup=1.0)
    model.told = np.zeros((3, 2), "float32")
    data = images(3)
    mixed = numpy(model._mixed(keras.ops.convert_to_tensor(data), None))
    np.testing.assert_allclose(mixed[:2], (data[:2] + data[1::-1]) / 2, atol=1e-6)
    np.testing.assert_array_equal(mixed[2], data[2])
    model = KnowledgeDistillation(classifier(1), classifier(2), mixup=0.5)
    model.compile(still())
    assert np.isfinite(model.fit(images(7), batch_size=4, verbose=0).history["loss"][0])


def test_the_game_mixes_synthetic_with_real_images(monkeypatch):
    model = game(mixup=1.0)
    seen = []
    monkeypatch.setattr(
        model, "update_student", lambda images, partners: seen.append((images, partners))
    )
    patches = keras.ops.convert_to_tensor(images(BATCH))
    ood = keras.ops.convert_to_tensor(images(BATCH * 2, seed=1).reshape(BATCH, 2, *SHAPE))
    model.student_step(1, patches, ood)
    own, partners = map(numpy, seen[0])
    np.testing.assert_array_equal(own[BATCH:], numpy(ood)[:, 1])
    np.testing.assert_array_equal(partners[:BATCH], numpy(ood)[:, 1])
    np.testing.assert_array_equal(partners[BATCH:], own[:BATCH])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"feature_weight": -1}, "feature_weight must be at least 0. Received: -1"),
        ({"mixup": 1.5}, "mixup must be from 0 to 1. Received: 1.5"),
        ({"student_start": "zero"}, "student_start must be one of own, teacher. Received: 'zero'"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(InputError, match=message):
        KnowledgeDistillation(classifier(1), classifier(2), **options)


# ---- the teacher's BatchNorm statistics ------------------------------------------------------


def test_statistics_distance_by_hand():
    mean, variance = np.array([[1.0, 2.0], [3.0, 5.0]], "float32")
    moving_mean, moving_variance = np.array([[4.0, 6.0], [3.0, 3.0]], "float32")
    # |(-3, -4)| / |(sqrt 3, sqrt 3)| + |(0, 2)| / |(3, 3)|
    distance = losses.statistics_distance(mean, variance, moving_mean, moving_variance)
    assert numpy(distance) == pytest.approx(5 / 6**0.5 + 2 / 18**0.5)
    same = losses.statistics_distance(moving_mean, moving_variance, moving_mean, moving_variance)
    assert numpy(same) == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_statistics_distance_has_no_unit(scale):
    mean, variance, moving_mean, moving_variance = np.random.default_rng(0).random((4, 5))
    once = losses.statistics_distance(mean, variance, moving_mean, moving_variance)
    scaled = losses.statistics_distance(
        scale * mean, scale**2 * variance, scale * moving_mean, scale**2 * moving_variance
    )
    assert numpy(scaled) == pytest.approx(float(numpy(once)), rel=1e-4)


@pytest.mark.parametrize("is_nested", [False, True])
def test_distance_of_generated_images_by_hand(is_nested):
    teacher = whole = named(2, seed=1)
    for block in range(2):
        layer = teacher.get_layer(f"bn{block}")
        layer.moving_mean.assign(np.arange(4) / 2)
        layer.moving_variance.assign(np.arange(1, 5) / 3)
    if is_nested:
        inputs = keras.Input(SHAPE)
        whole = keras.Model(inputs, teacher(inputs))
    statistics = TeacherStatistics(whole)
    assert statistics.layers == 2
    data = images(6)
    logits, distance = statistics(keras.ops.convert_to_tensor(data), lambda values: values)
    np.testing.assert_allclose(numpy(logits), numpy(teacher(data)), atol=1e-5)
    expected = 0.0
    for block in range(2):
        entering = keras.Model(teacher.inputs[0], teacher.get_layer(f"bn{block}").input)
        entering = numpy(entering(data, training=False))
        known = np.arange(4) / 2, np.arange(1, 5) / 3
        shift = np.linalg.norm(entering.mean(axis=(0, 1, 2)) - known[0])
        expected += shift / np.linalg.norm(known[1] ** 0.5)
        expected += np.linalg.norm(entering.var(axis=(0, 1, 2)) - known[1]) / np.linalg.norm(
            known[1]
        )
    assert numpy(distance) == pytest.approx(expected / 2, rel=1e-4)


@pytest.mark.slow
@pytest.mark.long_on("jax")
@pytest.mark.graph
def test_the_generator_follows_the_statistics():
    model = game(
        "none",
        compiled=False,
        batch_norm_weight=1.0,
        adversarial_weight=0,
        balance_weight=0,
        regularization_weight=0,
    )
    model.compile(**recipe(40, STEPS, generator_learning_rate=0.05))
    logs = model.fit(images(80), batch_size=BATCH, epochs=4, verbose=0).history
    assert logs["batch_norm_loss"][-1] < 0.9 * logs["batch_norm_loss"][0]
    assert logs["generator_loss"][-1] == pytest.approx(logs["batch_norm_loss"][-1], rel=1e-5)


def test_a_teacher_without_batch_norm_is_refused():
    with pytest.raises(InputError, match="batch_norm_weight needs a teacher with BatchNorm"):
        MosaicKD(
            of_width(3),
            classifier(2),
            generator(),
            discriminator(),
            latent_dim=6,
            batch_norm_weight=1.0,
        )


# ---- recipes ---------------------------------------------------------------------------------


def test_a_recipe_sets_what_is_not_given():
    assert ExperimentConfig() == ExperimentConfig(recipe="paper")
    config = ExperimentConfig(recipe="practical", temperature=2.0)
    expected = {**vars(ExperimentConfig()), **PRACTICAL, "recipe": "practical", "temperature": 2.0}
    assert vars(config) == expected
    arguments = ["--recipe=practical", "--temperature=2"]
    assert flags.parse("train", arguments).settings() == expected
    # What was given stays, also through flags.txt, where everything is.
    plain = {**expected, "feature_weight": 0.0}
    assert vars(ExperimentConfig(**plain)) == plain


def test_multipliers_that_find_themselves_take_the_place_of_the_recipes_weight():
    weightless = {name: value for name, value in PRACTICAL.items() if name != "local_weight"}
    given = {"recipe": "practical", "regularization": "adaptive"}
    expected = {**vars(ExperimentConfig()), **weightless, **given}
    assert vars(ExperimentConfig(**given)) == expected
    assert flags.parse("train", [f"--{k}={v}" for k, v in given.items()]).settings() == expected
    found = practical_recipe(classifier(1), classifier(2), regularization="adaptive")
    assert found == {**weightless, "regularization": "adaptive", "generator_multiple": 1}
    assert game(**found).multipliers is not None


def test_the_practical_recipe_leaves_out_what_the_networks_lack(capsys):
    expected = {**PRACTICAL, "generator_multiple": 1}
    assert practical_recipe(classifier(1), classifier(2)) == expected
    assert capsys.readouterr().out == ""
    found = practical_recipe(of_width(3), classifier(2))
    assert found == {**expected, "batch_norm_weight": 0.0}
    assert "without batch_norm_weight: the teacher" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("batch", "sides", "times"),
    [
        (1, (8, 8), 4),
        (16, (8, 8), 4),
        (32, (64, 64), 4),
        (48, (8, 8), 2),
        (64, (8, 8), 2),
        (100, (8, 8), 1),
        (256, (8, 8), 1),
        (8, (32, 65), 1),
        (8, (None, None), 1),
    ],
)
def test_synthetic_images_of_the_practical_recipe(batch, sides, times):
    assert generator_multiple(batch, (None, *sides, 3)) == times


def test_the_practical_recipe_of_a_subclassed_student():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.flatten, self.dense = keras.layers.Flatten(), keras.layers.Dense(3)

        def call(self, images):
            return self.dense(self.flatten(images))

    student = Subclassed()
    student(np.zeros((1, *SHAPE), "float32"))
    found = practical_recipe(classifier(1), student, batch_size=32)
    assert found["generator_multiple"] == 4 and found["feature_weight"] == 0


@pytest.mark.slow
@pytest.mark.graph
def test_the_practical_game_is_saved_and_continued_bit_for_bit(tmp_path):
    options = {**PRACTICAL, "generator_multiple": 4, "mixup": 0.5}
    whole, half = game(**options), game(**options)
    data = images(BATCH * 4)
    for model in (whole, half):
        model.fit(data, batch_size=BATCH, verbose=0)
    half.save(tmp_path / "half.keras")
    loaded = keras.saving.load_model(tmp_path / "half.keras")
    for model in (whole, loaded):
        model.fit(data, batch_size=BATCH, verbose=0)
    for a, b in zip(whole.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(numpy(a), numpy(b), err_msg=a.path)


@pytest.mark.slow
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_papers_game_is_what_it_was(reduction):
    """Variables after five iterations of SGD, as version 0.1 (commit 1d88c6f) left them."""
    optimizers = {
        f"{role}_optimizer": SGD(0.01, name=f"{role}_optimizer")
        for role in ("student", "generator", "discriminator")
    }
    now = played(5, optimizers, local_reduction=reduction, temperature=2.0, align_weight=0.5)
    with np.load(MATERIAL / "five_sgd_iterations_of_1d88c6f.npz", allow_pickle=False) as stored:
        for name, value in stored.items():
            kind, _, name = name.partition("/")
            if kind == reduction:
                # Backends round sums in their own ways.
                np.testing.assert_allclose(now[name], value, rtol=2e-6, atol=1e-6, err_msg=name)
