"""The baselines through the public API: what each learns from, what it moves, what it saves."""

import json
import zipfile

import keras
import numpy as np
import pytest
from keras import layers

from keras_mosaickd import InputError, networks, recipe, supervised_stream
from keras_mosaickd.methods import (
    FitNet,
    KnowledgeDistillation,
    MosaicKD,
    Supervised,
    data_free,
    data_free_stream,
)
from keras_mosaickd.methods.data_free import DataFree
from keras_mosaickd.methods.feature_maps import feature_maps, hint_maps, layer_like
from keras_mosaickd.methods.imitation import mean_squared_error
from keras_mosaickd.optimizers import student_recipe
from tests.game import (
    BATCH,
    CLASSES,
    LATENT,
    SHAPE,
    STEPS,
    classifier,
    generator,
    images,
    moved,
    values,
)

LABELS = np.arange(16) % CLASSES


def still():
    """An optimizer that moves nothing."""
    return keras.optimizers.SGD(0.0, name="student_optimizer")


def segmenter(seed=0):
    """Images to logits of every pixel."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input(SHAPE)
    x = layers.ReLU()(layers.Conv2D(4, 3, strides=2, padding="same")(inputs))
    x = layers.UpSampling2D()(layers.Conv2D(CLASSES, 1)(x))
    return keras.Model(inputs, layers.Activation("linear", dtype="float32")(x))


def make(kind, **options):
    """A compiled baseline and what its `fit` takes."""
    teacher, student = classifier(1), classifier(2)
    if kind == "data_free":
        made = data_free(
            teacher, student, generator(), latent_dim=LATENT, student_steps=STEPS, seed=3, **options
        )
        made.compile(**recipe(10, STEPS))
        return made, data_free_stream(BATCH, 4)
    classes = {"supervised": Supervised, "kd": KnowledgeDistillation, "fitnet": FitNet}
    made = classes[kind](teacher, student, seed=3, **options)
    made.compile(student_recipe(20))
    labels = LABELS if kind == "supervised" else None
    return made, supervised_stream(images(), labels, BATCH)


KINDS = {
    "supervised": {"student_loss"},
    "kd": {"student_loss"},
    "fitnet": {"student_loss", "distillation_loss", "hint_loss"},
    "data_free": {
        "student_loss",
        "generator_loss",
        "adversarial_loss",
        "align_loss",
        "balance_loss",
    },
}
# Where a method is no other than another one: JAX compiles, TensorFlow traces what PyTorch shows.
LONG = {
    "supervised": ["tensorflow"],
    "kd": ["tensorflow"],
    "fitnet": [],
    "data_free": ["tensorflow", "jax"],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "losses"),
    [pytest.param(*item, marks=pytest.mark.long_on(*LONG[item[0]])) for item in KINDS.items()],
)
def test_fit_moves_the_student_and_never_the_teacher(kind, losses):
    model, data = make(kind)
    teacher = values(model.teacher.variables)
    student = values(model.student.trainable_variables)
    validation = (images(), LABELS)
    options = {"validation_data": validation, "shuffle": False, "verbose": 0}
    logs = model.fit(data, epochs=2, **options).history
    rates = {"student_learning_rate"}
    if kind == "data_free":
        rates |= {"generator_learning_rate"}
    assert set(logs) == {"loss", "val_loss", "val_accuracy", "val_agreement"} | losses | rates
    assert all(np.isfinite(log).all() for log in logs.values())
    assert logs["loss"] == logs["student_loss"]
    assert not moved(teacher, values(model.teacher.variables))
    assert moved(student, values(model.student.trainable_variables))
    assert int(keras.ops.convert_to_numpy(model.optimizer.iterations)) == 8
    by_hand = model.student.predict(images(), verbose=0)
    np.testing.assert_array_equal(model.predict(images(), verbose=0), by_hand)
    scores = model.evaluate(images(), LABELS, verbose=0, return_dict=True)
    assert scores["accuracy"] == pytest.approx(np.mean(by_hand.argmax(axis=-1) == LABELS))


@pytest.mark.slow
@pytest.mark.graph
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.long_on("tensorflow") if kind == "kd" else ())
        for kind in KINDS
    ],
)
def test_saved_in_mid_training_and_continued_bit_for_bit(tmp_path, kind):
    model, data = make(kind)
    model.fit(data, verbose=0, shuffle=False)
    model.save(tmp_path / "half.keras")
    restored = keras.models.load_model(tmp_path / "half.keras")
    states = []
    for trainer in (model, restored):
        # Data of their own, at the same position.
        trainer.fit(make(kind)[1], verbose=0, shuffle=False)
        states.append(values([*trainer.weights, *trainer.optimizer.variables]))
    assert not moved(*states)
    config = model.get_config()
    assert {name: config[name] for name in config if name not in model.networks} == {
        name: value for name, value in restored.get_config().items() if name not in model.networks
    }


# ---- supervised ------------------------------------------------------------------------------


def test_cross_entropy_by_hand():
    model = Supervised(classifier(1), classifier(2))
    logits = np.log([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]).astype("float32")
    loss = keras.ops.convert_to_numpy(model.cross_entropy(np.array([0, 1]), logits))
    assert loss == pytest.approx((np.log(2) + np.log(10)) / 2, rel=1e-6)
    # Half precision logits are widened first: 1e-3 of a nat is below its resolution at 20.
    narrow = np.array([[20.0, 0.0, 0.0]], "float16")
    loss = keras.ops.convert_to_numpy(model.cross_entropy(np.array([1]), narrow))
    assert loss == pytest.approx(20.0, abs=1e-5)


@pytest.mark.long_on("jax")
def test_void_pixels_do_not_count():
    model = Supervised(segmenter(1), segmenter(2))
    logits = np.log([[[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8], [0.9, 0.05, 0.05]]]]).astype("float32")
    loss = model.cross_entropy(np.array([[[0, 1, 255]]], "uint8"), logits)
    expected = (np.log(2) + np.log(10)) / 2
    assert keras.ops.convert_to_numpy(loss) == pytest.approx(expected, rel=1e-6)
    nothing = model.cross_entropy(np.full((1, 1, 3), 255), logits)
    assert keras.ops.convert_to_numpy(nothing) == 0


def test_class_255_of_images_is_a_class():
    model = Supervised(classifier(1), classifier(2))
    logits = np.zeros((2, 300), "float32")
    loss = keras.ops.convert_to_numpy(model.cross_entropy(np.array([255, 0]), logits))
    assert loss == pytest.approx(np.log(300), rel=1e-6)


# Keras's MeanIoU counts in int64, of which JAX makes int32 and says so.
@pytest.mark.long_on("tensorflow", "jax")
@pytest.mark.filterwarnings("ignore:Explicitly requested dtype int64:UserWarning")
def test_supervised_segmentation():
    model = Supervised(segmenter(1), segmenter(2))
    model.compile(keras.optimizers.Adam(0.01, name="student_optimizer"))
    labels = (images()[..., 0] * CLASSES).astype("uint8")
    labels[:, 0] = 255
    history = model.fit(images(), labels, batch_size=BATCH, epochs=4, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    logits = model.predict(images(), verbose=0)
    known = labels != 255
    scores = model.evaluate(images(), labels, verbose=0, return_dict=True)
    expected = np.mean(logits.argmax(axis=-1)[known] == labels[known])
    assert scores["accuracy"] == pytest.approx(expected, abs=1e-6)


def test_supervised_needs_integer_labels():
    model, _ = make("supervised")
    with pytest.raises(InputError, match="integer labels.*Received: labels of shape None"):
        model.fit(images(), batch_size=BATCH, verbose=0)
    # A new one: on JAX a fit that fails takes the trainer's state with it.
    model, _ = make("supervised")
    one_hot = np.eye(CLASSES, dtype="float32")[LABELS]
    with pytest.raises(InputError, match=r"integer labels.*Received: labels of shape \("):
        model.fit(images(), one_hot, batch_size=BATCH, verbose=0)


# ---- FitNet ----------------------------------------------------------------------------------


def test_mean_squared_error_by_hand():
    hint = np.array([1.0, 2.0, 3.0, 4.0], "float32").reshape(1, 1, 2, 2)
    regressed = np.array([1.0, 0.0, 3.0, 1.0], "float32").reshape(1, 1, 2, 2)
    # (0 + 4 + 0 + 9) / 4
    assert keras.ops.convert_to_numpy(mean_squared_error(hint, regressed)) == pytest.approx(3.25)


def maps(network, data, training=False):
    features = keras.Model(network.inputs[0], network.get_layer(layer_like(network, "x")).output)
    return keras.ops.convert_to_numpy(features(data, training=training))


def test_fitnet_loss_by_hand():
    model = FitNet(classifier(1), classifier(2), temperature=2.0, hint_weight=3.0)
    model.compile(still())
    kernel, bias = (keras.ops.convert_to_numpy(value) for value in model.regressor.weights)
    data = images(BATCH)
    # A twin, because a pass in training mode moves BatchNorm's statistics.
    guided = maps(classifier(2), data, training=True)
    regressed = np.einsum("bhwi,io->bhwo", guided, kernel[0, 0]) + bias
    expected = np.mean((maps(classifier(1), data) - regressed) ** 2)
    logs = model.fit(data, batch_size=BATCH, verbose=0).history
    assert logs["hint_loss"][0] == pytest.approx(expected, rel=1e-4)
    plain = KnowledgeDistillation(classifier(1), classifier(2), temperature=2.0)
    plain.compile(still())
    distillation = plain.fit(data, batch_size=BATCH, verbose=0).history["loss"][0]
    assert logs["distillation_loss"][0] == pytest.approx(distillation, rel=1e-4)
    assert logs["loss"][0] == pytest.approx(distillation + 3.0 * expected, rel=1e-4)


def test_fitnet_moves_regressor_and_statistics_once_per_update():
    model, _ = make("fitnet")
    normalization = next(
        layer for layer in model.student.layers if isinstance(layer, layers.BatchNormalization)
    )
    entering = keras.Model(model.student.inputs[0], normalization.input)
    data = images(BATCH)
    mean = keras.ops.convert_to_numpy(entering(data)).mean(axis=(0, 1, 2))
    before = values([normalization.moving_mean])[0]
    regressor = values(model.regressor.weights)
    model.fit(data, batch_size=BATCH, verbose=0)
    assert moved(regressor, values(model.regressor.weights))
    # A second move of momentum 0.9 would leave 0.81 of the old.
    after = values([normalization.moving_mean])[0]
    np.testing.assert_allclose(after, 0.9 * before + 0.1 * mean, atol=1e-6)
    # The regressor is no part of the student.
    assert model.student.count_params() == classifier(2).count_params()


@pytest.mark.long_on("tensorflow", "jax")
def test_fitnets_hint_reaches_the_guided_layers():
    # With a hint alone (the regressor held still) nothing behind the guided layer has a gradient.
    results = []
    for weight in (0.0, 10.0):
        model = FitNet(classifier(1), classifier(2), hint_weight=weight, seed=1)
        model.compile(keras.optimizers.SGD(0.1, name="student_optimizer"))
        model.fit(images(BATCH), batch_size=BATCH, verbose=0)
        results.append(values(model.student.trainable_variables))
    assert (results[0][0] != results[1][0]).any()
    for head, other in zip(results[0][-2:], results[1][-2:], strict=True):
        np.testing.assert_allclose(head, other, atol=1e-6)


@pytest.mark.long_on("jax")
def test_the_larger_map_is_averaged():
    def strided(seed, filters, strides):
        keras.utils.set_random_seed(seed)
        inputs = keras.Input(SHAPE)
        x = layers.Conv2D(filters, 3, strides=strides, padding="same", name="body")(inputs)
        return keras.Model(inputs, layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(x)))

    teacher, student = strided(1, 6, 1), strided(2, 3, 2)
    model = FitNet(teacher, student)
    hint, _ = model.teacher_with_maps(images(2))
    full = keras.Model(teacher.inputs[0], teacher.get_layer("body").output)(images(2))
    averaged = keras.ops.convert_to_numpy(full).reshape(2, 4, 2, 4, 2, 6).mean(axis=(2, 4))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(hint), averaged, atol=1e-5)
    assert model.student_with_maps.output_shape[0] == (None, 4, 4, 6)
    # And the other way round.
    model = FitNet(student, teacher)
    assert model.student_with_maps.output_shape[0] == (None, 4, 4, 3)
    with pytest.raises(InputError, match=r"a multiple.*\(8, 8, 6\).*teacher.*\(3, 3, 5\)"):
        FitNet(teacher, classifier(2))


def test_layers_by_name():
    teacher, student = classifier(1), classifier(2)
    hint, guided = teacher.layers[2].name, student.layers[3].name
    model = FitNet(teacher, student, hint_layer=hint, guided_layer=guided)
    assert (model.hint_layer, model.guided_layer) == (hint, guided)
    model = FitNet(teacher, student, guided_layer=guided)
    assert model.hint_layer == layer_like(teacher, "teacher")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hint_weight": -1}, "hint_weight must be at least 0. Received: -1"),
        ({"hint_weight": float("nan")}, "hint_weight must be at least 0. Received: nan"),
        ({"temperature": 0}, "temperature must be positive. Received: 0"),
        ({"hint_layer": "x"}, "a layer of the teacher .* one of .*conv2d.* Received: 'x'"),
        ({"guided_layer": "x"}, "a layer of the student .* one of .*conv2d.* Received: 'x'"),
    ],
)
def test_bad_arguments_of_fitnet(options, message):
    with pytest.raises(InputError, match=message):
        FitNet(classifier(1), classifier(2), **options)


def test_fitnet_needs_a_feature_map():
    inputs = keras.Input(SHAPE)
    flat = keras.Model(inputs, layers.Dense(CLASSES)(layers.Flatten()(inputs)))
    with pytest.raises(InputError, match="feature map.* in the student .*Received: layers .*dense"):
        FitNet(classifier(1), flat)


def test_a_hint_comes_from_inside_a_wrapped_teacher():
    inner = classifier(1)
    inputs = keras.Input(SHAPE)
    scaled = layers.Rescaling(2.0, -1.0)(inputs)
    wrapped = keras.Model(inputs, layers.Activation("linear")(inner(scaled)))
    (name, hint), _ = hint_maps(wrapped, classifier(2))
    (plain_name, plain), _ = hint_maps(inner, classifier(2))
    assert name == plain_name
    x = np.random.default_rng(0).random((2, *SHAPE), "float32")
    found = keras.Model(inputs, hint).predict_on_batch(x)
    expected = keras.Model(inner.inputs[0], plain).predict_on_batch(2 * x - 1)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    model = FitNet(wrapped, classifier(2))
    model.compile(student_recipe(4))
    assert np.isfinite(model.fit(images(), batch_size=8, verbose=0).history["loss"]).all()


@pytest.mark.long_on("tensorflow", "jax")
def test_fitnet_takes_sequential_networks():
    student = keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.Conv2D(4, 3, strides=2, name="body"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(CLASSES),
        ]
    )
    model = FitNet(classifier(1), student)
    model.compile(student_recipe(4))
    assert model.guided_layer == "body"
    assert np.isfinite(model.fit(images(), batch_size=8, verbose=0).history["loss"]).all()


# Of each network its middle on 32 x 32 images: 16 x 16, behind an activation.
@pytest.mark.slow
@pytest.mark.backend("tensorflow")
@pytest.mark.parametrize(
    ("name", "middle"),
    [
        ("wrn10_1", "group3_block1_relu1"),
        ("resnet20", "group2_block3_relu2"),
        ("resnet18", "group2_block2_relu2"),
        ("vgg11", "group2_relu1"),
        ("mobilenetv2", "group4_block1_expand_relu"),
    ],
)
def test_middle_of_the_papers_networks(name, middle):
    network = networks.build(name, (32, 32, 3), 10, mean=0.5, std=0.25)
    assert layer_like(network, "teacher") == middle
    assert feature_maps(network)[(16, 16)] == middle
    student = networks.build("wrn10_1", (32, 32, 3), 10, mean=0.5, std=0.25)
    model = FitNet(network, student, teacher_outputs="logits")
    channels = network.get_layer(middle).output.shape[-1]
    assert model.student_with_maps.output_shape == [(None, 16, 16, channels), (None, 10)]


@pytest.mark.slow
@pytest.mark.graph
@pytest.mark.backend("tensorflow")
def test_middle_of_larger_networks():
    network = networks.build("mobilenetv2", (96, 96, 3), 10, mean=0.5, std=0.25)
    # The image, its normalisation and the padded maps are none of them.
    assert list(feature_maps(network)) == [(48, 48), (24, 24), (12, 12), (6, 6), (3, 3)]
    segmenters = [
        networks.build(name, (64, 64, 3), 5, task="segmentation")
        for name in ("deeplabv3_mobilenetv2", "wrn10_1")
    ]
    # Neither the pooled branch nor the way back up.
    assert list(feature_maps(segmenters[0])) == [(32, 32), (16, 16), (8, 8), (4, 4)]
    model = FitNet(*segmenters, teacher_outputs="logits")
    assert model.student_with_maps.output_shape[1] == (None, 64, 64, 5)


# ---- data-free -------------------------------------------------------------------------------


@pytest.mark.long_on("jax")
def test_data_free_is_the_game_without_images():
    model, _ = make("data_free", regularization_weight=3.0, align_weight=0.5, balance_weight=4.0)
    assert model.discriminator is None
    logs = model.fit(data_free_stream(BATCH, 1), verbose=0).history
    expected = (
        logs["adversarial_loss"][0]
        + 3.0 * 0.5 * logs["align_loss"][0]
        + 4.0 * logs["balance_loss"][0]
    )
    assert logs["generator_loss"][0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.long_on("tensorflow")
def test_data_free_over_several_epochs_of_given_length():
    model, _ = make("data_free")
    # As an experiment does it, and after a resume.
    data = data_free_stream(BATCH, 3)
    model.fit(data, epochs=3, initial_epoch=1, steps_per_epoch=3, verbose=0)
    assert int(keras.ops.convert_to_numpy(model.optimizer.iterations)) == 6


def test_data_free_takes_no_labels():
    model, data = make("data_free")
    with pytest.raises(InputError, match="takes no labels"):
        model.fit(data, np.zeros(4), verbose=0)
    with pytest.raises(InputError, match="batch_size: expected a whole number of at least 1"):
        data_free_stream(0, 3)


@pytest.mark.slow
@pytest.mark.long_on("tensorflow", "jax")
def test_data_free_as_version_0_1_saved_it_is_loaded(tmp_path):
    model, data = make("data_free", align_weight=0.5)
    model.fit(data, verbose=0)
    model.save(tmp_path / "new.keras")
    with zipfile.ZipFile(tmp_path / "new.keras") as new:
        contents = {name: new.read(name) for name in new.namelist()}
    config = json.loads(contents["config.json"])
    config |= {
        "module": "keras_mosaickd.data_free",
        "class_name": "DataFree",
        "registered_name": "keras_mosaickd>DataFree",
    }
    for name in ("discriminator", "local_weight", "local_reduction", "synthetic_only"):
        del config["config"][name]
    contents["config.json"] = json.dumps(config)
    with zipfile.ZipFile(tmp_path / "old.keras", "w") as old:
        for name, content in contents.items():
            old.writestr(name, content)
    restored = keras.models.load_model(tmp_path / "old.keras")
    assert type(restored) is MosaicKD
    options = (
        {k: v for k, v in m.get_config().items() if k not in m.networks} for m in (restored, model)
    )
    assert next(options) == next(options)
    for trainer in (model, restored):
        trainer.fit(make("data_free")[1], verbose=0)
    assert not moved(values(model.weights), values(restored.weights))


def test_data_free_by_its_name_of_version_0_1():
    with pytest.warns(DeprecationWarning, match="data_free"):
        made = DataFree(classifier(1), classifier(2), generator(), latent_dim=LATENT)
    assert type(made) is MosaicKD and made.discriminator is None and made.synthetic_only
