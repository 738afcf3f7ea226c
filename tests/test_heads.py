"""Classes and labels: every number by hand, and both through the methods, judges and exports."""

import json
import math

import keras
import numpy as np
import pytest
from keras import layers, ops
from PIL import Image

from keras_mosaickd import (
    InputError,
    KnowledgeDistillation,
    MosaicKD,
    export_saved_model,
    load_teacher,
    losses,
    measure_agreement,
    recipe,
)
from keras_mosaickd.callbacks import draw_samples
from keras_mosaickd.data.balance import predicted_classes
from keras_mosaickd.data.scores import entropies
from keras_mosaickd.evaluation.verdict import verdict
from keras_mosaickd.methods import Supervised
from keras_mosaickd.networks.heads import Bernoulli, Categorical, LabelLogits, head_of, new_head
from keras_mosaickd.networks.logits import as_logits, recognized
from keras_mosaickd.optimizers import student_recipe
from tests import game

SHAPE = (8, 8, 1)


def numpy(tensor):
    return ops.convert_to_numpy(tensor).astype("float64")


def logit(p):
    return np.log(np.asarray(p) / (1 - np.asarray(p))).astype("float32")


def network(units, activation=None, own_layer=False, seed=0):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input(SHAPE)
    dense = layers.Dense(units, activation=None if own_layer else activation)
    outputs = dense(layers.Flatten()(inputs))
    return keras.Model(inputs, layers.Activation(activation)(outputs) if own_layer else outputs)


def images(count=12):
    return np.random.default_rng(5).random((count, *SHAPE), dtype="float32")


def bernoulli_kl(p, q):
    return p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))


# ---- by hand -------------------------------------------------------------------------------


def test_labels_add_up_and_agree_by_their_share():
    head = Bernoulli(3)
    teacher, student = logit([[0.9, 0.2, 0.5]]), logit([[0.6, 0.7, 0.5]])
    expected = bernoulli_kl(0.9, 0.6) + bernoulli_kl(0.2, 0.7)
    np.testing.assert_allclose(numpy(head.kl_divergence(teacher, student)), [expected], rtol=1e-5)
    # The first label agrees, the second does not, the third is not above one half in either.
    np.testing.assert_allclose(numpy(head.agreement(teacher, student)), [2 / 3], rtol=1e-6)
    entropy = sum(-p * math.log(p) - (1 - p) * math.log(1 - p) for p in (0.9, 0.2, 0.5))
    np.testing.assert_allclose(numpy(head.entropy(teacher)), [entropy], rtol=1e-5)
    np.testing.assert_allclose(numpy(head.confidence(teacher)), [(0.9 + 0.8 + 0.5) / 3], rtol=1e-5)
    np.testing.assert_allclose(numpy(head.probabilities(teacher)), [[0.9, 0.2, 0.5]], rtol=1e-5)
    assert numpy(head.predictions(teacher)).tolist() == [[1, 0, 0]]
    cross = -math.log(0.9) - math.log(0.2) - math.log(0.5)
    labels = np.array([[1, 1, 0]])
    np.testing.assert_allclose(numpy(head.cross_entropy(labels, teacher)), [cross], rtol=1e-5)
    np.testing.assert_allclose(numpy(head.accuracy(labels, teacher)), [2 / 3], rtol=1e-6)
    assert head.most_entropy == pytest.approx(3 * math.log(2))


def test_the_temperature_softens_each_label():
    # Logits 2 and 0 at temperature 2 are 1 and 0, and the divergence is multiplied by 4.
    p = 1 / (1 + math.exp(-1))
    found = Bernoulli(2).kl_divergence(np.array([[2.0, 0]]), np.zeros((1, 2)), 2.0)
    np.testing.assert_allclose(numpy(found), [4 * bernoulli_kl(p, 0.5)], rtol=1e-5)


def test_balance_of_labels_is_that_of_each():
    # The first label holds in half of the images, the second in all of them: one bit and none.
    logits = np.array([[50.0, 50], [-50, 50]], "float32")
    found = losses.negative_entropy(Bernoulli(2).mean_distribution(logits))
    assert float(found) == pytest.approx(-1, abs=1e-6)
    even = losses.negative_entropy(Bernoulli(5).mean_distribution(np.zeros((3, 5), "float32")))
    assert float(even) == pytest.approx(-5, rel=1e-6)


def test_one_unit_is_the_two_classes_0_and_z():
    head, z, other = Categorical(2), np.array([[1.5], [-0.5]]), np.array([[0.3], [0.4]])
    two, two_other = (np.concatenate([0 * x, x], axis=-1) for x in (z, other))
    for name in ("entropy", "predictions", "probabilities", "confidence", "mean_distribution"):
        found, expected = (numpy(getattr(head, name)(x)) for x in (z, two))
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    for pair in ((z, other), (z, two_other), (two, other)):
        found = numpy(head.kl_divergence(*pair))
        p, q = 1 / (1 + np.exp(-z[:, 0])), 1 / (1 + np.exp(-other[:, 0]))
        np.testing.assert_allclose(found, bernoulli_kl(p, q), rtol=1e-4)
        assert numpy(head.agreement(*pair)).tolist() == [1, 0]
    assert numpy(head.accuracy(np.array([1, 1]), z)).tolist() == [1, 0]
    assert numpy(head.accuracy(np.array([[1], [0]]), z)).tolist() == [1, 1]


def test_pixels_have_heads_too():
    logits = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype("float32")
    for head in (Categorical(3), Bernoulli(3)):
        flat = logits.reshape(-1, 3)
        np.testing.assert_allclose(
            numpy(head.entropy(logits)).ravel(), numpy(head.entropy(flat)), rtol=1e-5
        )
        assert numpy(head.leading(logits)).shape == (2,)
        np.testing.assert_allclose(
            numpy(head.mean_distribution(logits)), numpy(head.mean_distribution(flat)), rtol=1e-5
        )


# ---- what a model has ------------------------------------------------------------------------


class Opaque(keras.Model):
    """A subclassed model, whose layers cannot be inspected."""

    def __init__(self, units, function):
        super().__init__()
        self.flatten, self.dense, self.function = layers.Flatten(), layers.Dense(units), function
        self(images(1))

    def call(self, inputs):
        return self.function(self.dense(self.flatten(inputs)))


@pytest.mark.parametrize(
    ("model", "head", "words"),
    [
        (lambda: network(3), Categorical(3), "3 classes (logits)"),
        (lambda: network(3, "softmax"), Categorical(3), "3 classes (softmax)"),
        (lambda: network(1), Categorical(2), "a binary classifier of one unit (logits)"),
        (
            lambda: network(1, "sigmoid"),
            Categorical(2),
            "a binary classifier of one unit (sigmoid)",
        ),
        (lambda: network(4, "sigmoid"), Bernoulli(4), "4 independent labels (sigmoid)"),
        (lambda: network(4, "sigmoid", True), Bernoulli(4), "4 independent labels (sigmoid)"),
        (lambda: load_teacher(network(4), head="labels"), Bernoulli(4), "independent labels"),
    ],
)
def test_heads_are_recognised_and_survive_saving(model, head, words, tmp_path):
    logits, text = recognized(model())
    assert head_of(logits) == head and words in text
    logits.save(tmp_path / "t.keras")
    again = keras.saving.load_model(tmp_path / "t.keras", safe_mode=True)
    assert head_of(as_logits(again)) == head


@pytest.mark.parametrize("units", [1, 2, 5])
@pytest.mark.parametrize("opaque", [False, True])
def test_the_logits_of_sigmoids_give_their_probabilities_again(units, opaque):
    if opaque:
        keras.utils.set_random_seed(0)
        teacher = load_teacher(model := Opaque(units, ops.sigmoid))
    else:
        teacher = load_teacher(model := network(units, "sigmoid"))
    assert head_of(teacher) == new_head("labels", units)
    np.testing.assert_allclose(
        numpy(ops.sigmoid(teacher(images()))), numpy(model(images())), atol=1e-6
    )


def test_opaque_logits_are_not_taken_for_probabilities():
    for function in (lambda x: x, ops.relu, lambda x: x / 1000 + 0.5):
        assert "logits" in recognized(load_teacher(Opaque(3, function)))[1]


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (lambda: network(3, "softmax"), {"head": "labels"}, r"head \(--head\) must be 'classes'"),
        (lambda: network(3, "sigmoid"), {"head": "classes"}, r"head \(--head\) must be 'labels'"),
        (lambda: network(3), {"head": "both"}, "one of auto, classes, labels. Received: 'both'"),
        (lambda: network(1, "softmax"), {}, "softmax of one unit"),
    ],
)
def test_heads_that_contradict_what_is_seen(model, options, message):
    with pytest.raises(InputError, match=message):
        load_teacher(model(), **options)


# ---- students --------------------------------------------------------------------------------


def test_an_activation_that_is_a_layer_of_its_own_is_left_out_of_the_student():
    student = network(3, "softmax", own_layer=True, seed=1)
    model = KnowledgeDistillation(network(3), student)
    np.testing.assert_allclose(
        numpy(ops.softmax(model.student(images()))), numpy(student(images())), atol=1e-6
    )
    assert model.student.trainable_variables[0] is student.trainable_variables[0]


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_an_activation_inside_the_last_layer_of_a_student_is_refused(activation):
    with pytest.raises(InputError, match=f"must give logits.*{activation}"):
        KnowledgeDistillation(network(3, activation), network(3, activation))
    with pytest.raises(InputError, match="must give logits"):
        KnowledgeDistillation(network(3), Opaque(3, ops.softmax))


@pytest.mark.parametrize(("teacher", "student"), [(1, 1), (1, 2), (2, 1)])
def test_a_binary_student_has_one_unit_or_two(teacher, student):
    model = kd(network(teacher), network(student, seed=1))
    assert np.isfinite(model.evaluate(images(), verbose=0, return_dict=True)["loss"])


def test_shapes_that_do_not_fit():
    for teacher, student in ((network(3), network(1)), (network(3, "sigmoid"), network(2))):
        with pytest.raises(InputError, match="same output shape"):
            KnowledgeDistillation(teacher, student)


# ---- methods -----------------------------------------------------------------------------------


def kd(teacher, student):
    model = KnowledgeDistillation(teacher, student)
    model.compile(student_recipe(4, learning_rate=0.01))
    return model


@pytest.mark.parametrize("units", [1, 5])
def test_evaluation_of_sigmoids(units):
    teacher, student = network(units, "sigmoid"), network(units, seed=1)
    p, z = teacher.predict(images(), verbose=0), student.predict(images(), verbose=0)
    expected = bernoulli_kl(p.astype("float64"), 1 / (1 + np.exp(-z.astype("float64"))))
    labels = np.random.default_rng(0).integers(0, 2, z.shape)
    found = kd(teacher, student).evaluate(images(), labels, verbose=0, return_dict=True)
    assert found["loss"] == pytest.approx(expected.sum(-1).mean(), rel=1e-3)
    assert found["agreement"] == pytest.approx(((p > 0.5) == (z > 0)).mean())
    assert found["accuracy"] == pytest.approx((labels == (z > 0)).mean())
    agreement = measure_agreement(load_teacher(teacher), student, images())
    assert agreement.kl == pytest.approx(found["loss"], rel=1e-4)
    assert agreement.agreement == pytest.approx(found["agreement"])


@pytest.mark.slow
@pytest.mark.backend("tensorflow", "jax", "torch")
@pytest.mark.long_on("tensorflow")
@pytest.mark.parametrize(
    "units", [pytest.param(1, marks=pytest.mark.long_on("tensorflow", "jax")), 4]
)
def test_the_game_with_sigmoids_trains_saves_and_goes_on(units, tmp_path):
    def made():
        keras.utils.set_random_seed(0)
        model = MosaicKD(
            network(units, "sigmoid"),
            network(units, seed=1),
            game.generator(),
            game.discriminator(),
            latent_dim=game.LATENT,
            student_steps=2,
            seed=3,
        )
        model.compile(**recipe(8, 2))
        return model

    model = made()
    history = model.fit(images(16), batch_size=4, epochs=2, verbose=0).history
    assert -max(1, units) <= history["balance_loss"][0] <= 0
    assert 0 <= history["align_loss"][0] <= units * math.log(2)
    model.save(tmp_path / "game.keras")
    again = keras.saving.load_model(tmp_path / "game.keras", safe_mode=True)
    assert again.head == model.head == new_head("labels", units)
    expected = model.evaluate(images(), verbose=0)
    assert again.evaluate(images(), verbose=0) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("units", [1, 3])
def test_supervision_by_labels(units):
    model = Supervised(network(units, "sigmoid"), network(units, seed=1))
    model.compile(student_recipe(4, learning_rate=0.01))
    z = model.student.predict(images(), verbose=0).astype("float64")
    labels = np.random.default_rng(0).integers(0, 2, z.shape)
    given = labels[:, 0] if units == 1 else labels
    expected = (np.log1p(np.exp(z)) - labels * z).sum(-1).mean()
    found = model.fit(images(), given, batch_size=12, verbose=0).history["loss"][0]
    assert found == pytest.approx(expected, rel=1e-4)


# ---- what asks the head ----------------------------------------------------------------------


def test_selection_scores_by_the_sum_of_the_labels_entropies():
    teacher = load_teacher(network(3, "sigmoid"))
    p = numpy(ops.sigmoid(teacher(images())))
    expected = -(p * np.log(p) + (1 - p) * np.log(1 - p)).sum(axis=-1)
    np.testing.assert_allclose(entropies(teacher, images()), expected, rtol=1e-4)


def test_classes_of_a_binary_teacher_are_those_of_two_logits():
    teacher = load_teacher(network(1, "sigmoid"))
    p = network(1, "sigmoid").predict(images(), verbose=0)[:, 0]
    np.testing.assert_array_equal(predicted_classes(teacher, images()), p > 0.5)


def test_agreement_of_each_label_and_the_verdict():
    teacher, student = load_teacher(network(3, "sigmoid")), network(3, seed=1)
    found = measure_agreement(teacher, student, images(40))
    t, s = (numpy(model(images(40))) > 0 for model in (teacher, student))
    assert found.counts == (40, 40, 40)
    np.testing.assert_allclose(found.per_class, (t == s).mean(axis=0))
    assert found.classes_seen == (t.sum(axis=0) > 0).sum()
    numbers = {f"held_out_{key}": value for key, value in found.summary("abc").items()}
    text = verdict(
        {
            "teacher_parameters": 20,
            "student_parameters": 10,
            "class_names": list("abc"),
            "head": "labels",
            **numbers,
        }
    )
    assert f"{found.agreement:.1%} of the labels of the held-out" in text


def test_samples_of_labels_are_drawn():
    teacher = load_teacher(network(3, "sigmoid"))
    drawn = draw_samples(game.generator(), teacher, np.zeros((4, game.LATENT)), class_names="abc")
    assert drawn.dtype == np.uint8


def test_the_marker_is_a_layer_of_this_package_and_does_nothing_to_logits():
    layer = LabelLogits()
    assert numpy(layer(np.array([[1.0, -2]]))).tolist() == [[1, -2]]
    assert LabelLogits.from_config(layer.get_config()).from_probabilities is False


@pytest.mark.backend("tensorflow")
@pytest.mark.parametrize(("units", "head"), [(1, "classes"), (3, "labels")])
def test_the_served_endpoint_has_the_heads_probabilities(units, head, tmp_path):
    import tensorflow

    student = network(units)
    names = ["no", "yes"] if units == 1 else ["even", "large", "round"]
    export_saved_model(student, tmp_path / "sm", class_names=names, head=head)
    raw = (images() * 255).astype("uint8")
    z = student.predict(raw.astype("float32") / 255, verbose=0)
    p = 1 / (1 + np.exp(-z))
    expected = np.concatenate([1 - p, p], axis=-1) if units == 1 else p
    restored = tensorflow.saved_model.load(tmp_path / "sm")  # owns the variables
    found = restored.classify(raw)
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-5)
    chosen = [names[index].encode() for index in expected.argmax(axis=-1)]
    assert found["class_name"].numpy().tolist() == chosen
    assert ("holds" in found) == (head == "labels")
    if head == "labels":
        np.testing.assert_array_equal(found["holds"], p > 0.5)


@pytest.mark.backend("tensorflow")
@pytest.mark.parametrize(("ending", "head"), [("sigmoid", "labels"), ("softmax", "classes")])
def test_the_served_probabilities_are_those_that_a_student_ends_in(ending, head, tmp_path):
    import tensorflow

    student = network(3, ending)
    export_saved_model(student, tmp_path / "sm")
    raw = (images() * 255).astype("uint8")
    restored = tensorflow.saved_model.load(tmp_path / "sm")  # owns the variables
    found = restored.classify(raw)
    expected = student.predict(raw.astype("float32") / 255, verbose=0)
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-5)
    assert ("holds" in found) == (head == "labels")
    other = {"labels": "classes", "classes": "labels"}[head]
    with pytest.raises(InputError, match=f"must be '{head}', or 'auto'.*Received: '{other}'"):
        export_saved_model(student, tmp_path / "sm", head=other)


# A whole job: those of test_experiment show that JAX runs one.
@pytest.mark.slow
@pytest.mark.backend("tensorflow", "torch")
@pytest.mark.long_on("tensorflow")
def test_the_command_line_distils_labels(tmp_path, monkeypatch):
    from keras_mosaickd.cli import runner, train

    monkeypatch.chdir(tmp_path)
    network(3, "sigmoid").save("labels.keras")
    pixels = (images(40) * 255).astype("uint8")
    (tmp_path / "pool").mkdir()
    for index, image in enumerate(pixels):
        Image.fromarray(image[..., 0]).save(f"pool/{index}.png")
    common = "--teacher=labels.keras --ood=folder:pool --batch_size=4 --student_updates=4"
    common += " --evaluations=1 --student=wrn10_1 --export=keras --cache_dir=cache"

    def ends(options):
        return runner.run(train.main, "train", f"{common} {options}".split())

    assert ends("--method=kd --run_dir=kd --dry_run") == 0
    assert ends("--method=kd --run_dir=kd") == 0
    metrics = json.loads((tmp_path / "kd" / "metrics.json").read_text())
    assert metrics["head"] == "labels" and metrics["class_names"] == ["0", "1", "2"]
    assert set(metrics["held_out_agreement_per_class"]) == {"0", "1", "2"}
    student = keras.saving.load_model(tmp_path / "kd" / "student.keras")
    assert student.output_shape == (None, 3)
    assert ends("--method=balanced --run_dir=b") == ends("--head=classes --run_dir=b") == 2
    assert ends("--eval=folder:pool --run_dir=b") == 2
