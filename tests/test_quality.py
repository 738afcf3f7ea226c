"""Numbers of synthetic images, by hand, and the callback that logs them."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest

from keras_mosaickd import callbacks
from keras_mosaickd.callbacks.image_quality import ImageQuality
from keras_mosaickd.data.image_set import ImageSet
from keras_mosaickd.errors import InputError
from keras_mosaickd.evaluation import image_quality as quality
from keras_mosaickd.evaluation.scores import scores
from keras_mosaickd.networks.heads import Categorical
from keras_mosaickd.teachers.features import Features

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.random((40, 4, 4, 1), dtype="float32")


def seen(rows, head=None):
    """The numbers of images whose predictions are these."""
    logits = np.log(np.asarray(rows, "float32") + 1e-30)
    return quality.summarize(head or Categorical(logits.shape[-1]), (None, logits))


def test_class_entropy_is_that_of_the_mean_prediction():
    # The mean is (1/2, 1/2), though every row alone is certain.
    found = seen([[1, 0], [0, 1]])
    assert found["class_entropy"] == pytest.approx(math.log(2), rel=1e-6)
    assert found["class_entropy_share"] == pytest.approx(1, rel=1e-6)
    assert seen([[1, 0], [1, 0]])["class_entropy"] == pytest.approx(0, abs=1e-6)
    # The mean is (3/4, 1/4).
    expected = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert seen([[1, 0], [0.5, 0.5]])["class_entropy"] == pytest.approx(expected, rel=1e-6)


def test_confidence_is_the_mean_of_the_highest_probabilities():
    assert seen([[0.9, 0.1], [0.4, 0.6]])["confidence"] == pytest.approx(0.75)


def test_frechet_distance_of_normal_distributions_on_a_line():
    # Means 0 and 3, standard deviations 1 and 2: (0 - 3)^2 + (1 - 2)^2 = 10.
    assert quality.frechet_distance([[-1], [1]], [[1], [5]]) == pytest.approx(10)


def test_frechet_distance_of_covariances_that_do_not_commute():
    # C1 = diag(4, 1), C2 = [[1, r], [r, 1]] and no difference of means. In two dimensions
    # tr sqrt(M) = sqrt(tr M + 2 sqrt(det M)); tr(C1 C2) = 5 and det = 4 (1 - r^2), r = 0.6.
    root = np.linalg.cholesky([[1, 0.6], [0.6, 1]])
    corners = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]], float)
    expected = 5 + 2 - 2 * math.sqrt(5 + 2 * math.sqrt(4 * (1 - 0.36)))
    found = quality.frechet_distance(corners * [2, 1], corners @ root.T)
    assert found == pytest.approx(expected)


def test_frechet_distance_is_zero_for_equal_sets_and_symmetric():
    first, second = RANDOM.standard_normal((30, 50)), RANDOM.standard_normal((20, 50)) + 1
    assert quality.frechet_distance(first, first) == pytest.approx(0, abs=1e-6)
    there, back = (quality.frechet_distance(*p) for p in ((first, second), (second, first)))
    assert there == pytest.approx(back) and there > 40


def test_frechet_distance_of_what_is_no_number_and_of_what_does_not_fit():
    assert math.isnan(quality.frechet_distance([[math.nan]], [[1.0]]))
    with pytest.raises(InputError, match=r"expected two sets .* Received: \[1, 1\] and \[1, 2\]"):
        quality.frechet_distance([[1]], [[1, 2]])


def test_nearest_distances_by_hand():
    assert quality.nearest_distances([[0.0], [1.0], [5.0]]).tolist() == pytest.approx([1, 1, 4])
    # Equal points far from zero are exactly 0 apart.
    assert quality.nearest_distances([[1e6, 3], [1e6, 3], [0, 0]])[:2].tolist() == [0, 0]
    with pytest.raises(InputError, match="at least 2 points"):
        quality.nearest_distances([[1.0]])


def test_near_duplicates_are_measured_against_the_usual_distance_of_neighbours():
    reference = [[0.0], [4.0], [8.0], [12.0]]  # neighbours are 4 apart; a quarter of it is 1
    points = [[0.0], [0.9], [10.0], [11.1]]
    assert quality.near_duplicate_rate(points, reference, share=0.25) == 0.5
    assert quality.near_duplicate_rate(points, reference, share=0.2) == 0
    assert quality.near_duplicate_rate(points, reference, share=0.3) == 1
    assert quality.near_duplicate_rate([[7.0]] * 4, reference) == 1


def test_near_duplicates_compare_sets_of_one_size():
    # Of the reference only two rows count, the first and the last: 10 apart, not 0.1.
    reference = [[0.0], [0.1], [10.1], [10.0]]
    assert quality.near_duplicate_rate([[0.0], [1.0]], reference, share=0.2) == 1


def teacher(last="dense"):
    inputs = keras.Input((4, 4, 1))
    x = keras.layers.Conv2D(3, 3, name="body")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(5, name="features")(x)
    logits = keras.layers.Dense(2, name="head")(x)
    if last == "rescaled":
        logits = keras.layers.Rescaling(1.0)(logits)
    return keras.Model(inputs, logits)


def expected_features(model):
    inner = keras.Model(model.inputs[0], model.get_layer("features").output)
    return keras.ops.convert_to_numpy(inner(IMAGES))


def generator():
    return keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(16, activation="sigmoid"),
            keras.layers.Reshape((4, 4, 1)),
        ]
    )


@pytest.mark.parametrize("last", ["dense", "rescaled"])
def test_features_enter_the_last_layer_with_weights(last):
    model = teacher(last)
    points, logits = Features(model).see(IMAGES)
    np.testing.assert_allclose(points, expected_features(model), atol=1e-6)
    np.testing.assert_allclose(logits, keras.ops.convert_to_numpy(model(IMAGES)), atol=1e-6)


def test_features_of_a_teacher_inside_another_model():
    model = teacher()
    inputs = keras.Input((4, 4, 1))
    wrapped = keras.Model(inputs, keras.layers.Rescaling(2.0)(model(inputs)))
    points, _ = Features(wrapped).see(IMAGES)
    np.testing.assert_allclose(points, expected_features(model), atol=1e-6)


def test_a_nested_teacher_may_be_called_as_keras_calls_the_first_model():
    """In a file from another process it is; here the next model would have the same name."""
    keras.utils.clear_session()
    inputs = keras.Input((4, 4, 1))
    inner = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(inputs)))
    assert inner.name == "functional"
    images = keras.Input((4, 4, 1))
    teacher = keras.Model(images, inner(keras.layers.Rescaling(255.0)(images)), name="teacher")
    keras.utils.clear_session()
    points, logits = Features(teacher).see(IMAGES)
    assert points.shape == (40, 16) and logits.shape == (40, 3)


def test_bytes_are_images_in_0_to_1():
    features = Features(teacher())
    whole = np.rint(IMAGES * 255).astype("uint8")
    scaled = whole.astype("float32") / 255
    np.testing.assert_allclose(features.see(whole)[0], features.see(scaled)[0], atol=1e-6)


class Trained(keras.Model):
    """The least that has a generator and a teacher and goes through fit."""

    def __init__(self):
        super().__init__()
        self.generator, self.teacher = generator(), teacher()
        self.generator.trainable = self.teacher.trainable = False
        self.head = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])

    def call(self, inputs):
        return self.head(inputs)


def fit(*used, epochs=2):
    model = Trained()
    model.build((None, 3))
    model.compile("sgd", "mse", jit_compile=False)
    model.fit(np.ones((4, 3)), np.zeros((4, 1)), epochs=epochs, verbose=0, callbacks=list(used))
    return model


NAMES = {
    f"synthetic_{name}"
    for name in (
        "class_entropy",
        "class_entropy_share",
        "confidence",
        "frechet_distance",
        "near_duplicates",
    )
}
LATENTS = RANDOM.standard_normal((20, 3)).astype("float32")


def test_the_callback_adds_to_what_the_next_callbacks_write(tmp_path):
    model = fit(ImageQuality(LATENTS, IMAGES), callbacks.HistoryCsv(tmp_path / "history.csv"))
    rows = callbacks.read_history(tmp_path / "history.csv")
    assert len(rows) == 2 and all(set(row) >= NAMES for row in rows)
    expected = quality.image_quality(model.generator, model.teacher, LATENTS, IMAGES)
    for name, value in expected.items():
        assert rows[-1][f"synthetic_{name}"] == pytest.approx(value, rel=1e-4, abs=1e-6), name


def test_without_out_of_domain_images_what_needs_them_is_left_out(tmp_path):
    model = fit(ImageQuality(LATENTS), callbacks.HistoryCsv(tmp_path / "history.csv"))
    last = callbacks.read_history(tmp_path / "history.csv")[-1]
    left_out = {"synthetic_frechet_distance", "synthetic_near_duplicates"}
    found = {name: value for name, value in last.items() if name.startswith("synthetic_")}
    assert set(found) == NAMES - left_out
    whole = quality.image_quality(model.generator, model.teacher, LATENTS, IMAGES)
    for name, value in found.items():
        assert whole[name.removeprefix("synthetic_")] == pytest.approx(value, rel=1e-4), name


def test_the_callback_takes_its_turn_and_the_last_epoch(tmp_path):
    fit(
        ImageQuality(LATENTS, IMAGES, every=2),
        callbacks.HistoryCsv(tmp_path / "history.csv"),
        epochs=3,
    )
    rows = callbacks.read_history(tmp_path / "history.csv")
    assert [bool(NAMES & set(row)) for row in rows] == [False, True, True]


def test_the_histogram_of_predicted_classes_in_tensorboard(tmp_path):
    name = "tensorboard.backend.event_processing.event_accumulator"
    accumulator = pytest.importorskip(name)
    fit(ImageQuality(LATENTS, IMAGES, log_dir=tmp_path))
    events = accumulator.EventAccumulator(str(tmp_path / "quality"), {"histograms": 0})
    events.Reload()
    histograms = events.Histograms("predicted_classes")
    assert [event.step for event in histograms] == [0, 1]
    found = histograms[-1].histogram_value
    assert list(found.bucket_limit) == [0.5, 1.5] and sum(found.bucket) == len(LATENTS) == found.num


def test_latency_is_a_positive_number_of_milliseconds():
    assert 0 < quality.latency_milliseconds(teacher(), repetitions=3) < 60_000
    with pytest.raises(InputError, match="at least 1"):
        quality.latency_milliseconds(teacher(), repetitions=0)


def test_logits_that_are_no_numbers_have_no_accuracy():
    network = teacher()
    network.set_weights([np.full(weight.shape, np.nan) for weight in network.get_weights()])
    images = ImageSet(
        np.zeros((4, 4, 4, 1), "uint8"), np.zeros(4), ("a", "b"), "mine", "test", False
    )
    with pytest.raises(InputError, match="must be numbers. Received: NaN"):
        scores(network, images)
