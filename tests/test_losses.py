"""Hand-computed values, limits and gradients of the mathematics."""

import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from keras import ops

from keras_mosaickd import losses
from tests.gradients import gradient

LOGITS = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(2, 6)),
    elements=st.floats(-50, 50, width=32),
)


def values(tensor):
    return np.asarray(ops.convert_to_numpy(tensor), "float64")


def class_balance(logits, base=2.0):
    """L_balance (equation 1)."""
    return losses.negative_entropy(losses.mean_probabilities(logits), base)


def test_kl_divergence_by_hand():
    teacher = np.log([[0.5, 0.25, 0.25]]).astype("float32")
    student = np.log([[0.25, 0.5, 0.25]]).astype("float32")
    expected = 0.5 * math.log(2) + 0.25 * math.log(0.5)
    np.testing.assert_allclose(values(losses.kl_divergence(teacher, student)), [expected], 1e-6)


def test_kl_divergence_with_temperature_by_hand():
    # At temperature 2 the softened odds are the square roots of the odds: 2:1 against 1:1.
    teacher = np.log([[4.0, 1.0]]).astype("float32")
    student = np.log([[1.0, 1.0]]).astype("float32")
    p = np.array([2 / 3, 1 / 3])
    expected = 4 * (p * np.log(p / 0.5)).sum()
    result = losses.kl_divergence(teacher, student, temperature=2.0)
    np.testing.assert_allclose(values(result), [expected], 1e-6)


def test_kl_divergence_is_not_clipped():
    teacher = np.array([[0.0, -30.0]], "float32")
    student = np.array([[-30.0, 0.0]], "float32")
    np.testing.assert_allclose(values(losses.kl_divergence(teacher, student)), [30.0], 1e-5)


@given(LOGITS)
@settings(deadline=None, max_examples=40)
def test_kl_divergence_of_equals_is_zero_and_never_negative(logits):
    np.testing.assert_allclose(values(losses.kl_divergence(logits, logits)), 0.0, atol=1e-5)
    other = logits[:, ::-1].copy()
    assert (values(losses.kl_divergence(logits, other)) >= -1e-4).all()


def test_entropy_by_hand():
    logits = np.log([[0.5, 0.25, 0.25], [1 / 3, 1 / 3, 1 / 3]]).astype("float32")
    np.testing.assert_allclose(
        values(losses.entropy(logits)), [1.5 * math.log(2), math.log(3)], 1e-6
    )


@given(LOGITS)
@settings(deadline=None, max_examples=40)
def test_entropy_bounds(logits):
    result = values(losses.entropy(logits))
    assert (result >= -1e-5).all() and (result <= math.log(logits.shape[-1]) + 1e-5).all()


def test_class_balance_by_hand():
    # Two confident images of different classes: the mean is (1/2, 1/2, 0), one bit.
    logits = np.array([[100.0, 0.0, 0.0], [0.0, 100.0, 0.0]], "float32")
    np.testing.assert_allclose(values(class_balance(logits)), -1.0, 1e-6)
    np.testing.assert_allclose(values(class_balance(logits, base=math.e)), -math.log(2), 1e-6)


def test_class_balance_is_of_the_mean_prediction():
    uniform = np.zeros((4, 8), "float32")
    np.testing.assert_allclose(values(class_balance(uniform)), -3.0, 1e-6)
    collapsed = np.tile([[50.0] + [0.0] * 7], (4, 1)).astype("float32")
    np.testing.assert_allclose(values(class_balance(collapsed)), 0.0, atol=1e-6)


def test_pixels_count_like_images():
    logits = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype("float32")
    flat = logits.reshape(-1, 5)
    student = flat[:, ::-1].copy()
    np.testing.assert_allclose(
        values(losses.kl_divergence(logits, student.reshape(logits.shape))).ravel(),
        values(losses.kl_divergence(flat, student)),
        1e-6,
    )
    np.testing.assert_allclose(
        values(losses.entropy(logits)).ravel(), values(losses.entropy(flat)), 1e-6
    )
    np.testing.assert_allclose(values(class_balance(logits)), values(class_balance(flat)), 1e-6)


def test_patch_adversarial_by_hand():
    # log(1 + e^0) = ln 2 for every cell, whatever the answer.
    undecided = np.zeros((2, 8, 8, 1), "float32")
    for real in (True, False):
        mean = values(losses.patch_adversarial(undecided, real))
        np.testing.assert_allclose(mean, [64 * math.log(2)] * 2, 1e-6)
    sure = np.full((1, 2, 2, 1), 3.0, "float32")
    by_hand = math.log(1 + math.exp(-3))
    np.testing.assert_allclose(values(losses.patch_adversarial(sure, True)), [64 * by_hand], 1e-5)
    np.testing.assert_allclose(
        values(losses.patch_adversarial(sure, True, "sum")), [4 * by_hand], 1e-5
    )


def test_reductions_are_equal_on_the_published_map_only():
    logits = np.random.default_rng(1).normal(size=(3, 8, 8, 1)).astype("float32")
    np.testing.assert_allclose(
        values(losses.patch_adversarial(logits, False, "mean")),
        values(losses.patch_adversarial(logits, False, "sum")),
        1e-5,
    )
    smaller = logits[:, :4, :4]
    assert values(losses.patch_adversarial(smaller, False, "mean"))[0] == pytest.approx(
        4 * values(losses.patch_adversarial(smaller, False, "sum"))[0], rel=1e-5
    )


def test_discriminator_loss_is_the_mean_of_both_halves():
    # However many there are of each kind.
    real, synthetic = np.full((1, 8, 8, 1), 2.0, "float32"), np.full((2, 8, 8, 1), -1.0, "float32")
    expected = 64 * (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-1))) / 2
    np.testing.assert_allclose(values(losses.discriminator_loss(real, synthetic)), expected, 1e-5)


def test_unknown_reduction():
    with pytest.raises(ValueError, match="mean, sum. Received: 'max'"):
        losses.patch_adversarial(np.zeros((1, 2, 2, 1), "float32"), True, "max")


@pytest.mark.parametrize(
    "function",
    [
        lambda x: ops.sum(losses.entropy(x)),
        class_balance,
        lambda x: ops.sum(losses.kl_divergence(x, -x)),
        lambda x: ops.sum(losses.patch_adversarial(x, True)),
        lambda x: ops.sum(losses.patch_adversarial(x, False)),
    ],
    ids=["entropy", "balance", "kl", "real", "synthetic"],
)
def test_gradients_are_finite_at_extreme_logits(function):
    logits = np.array([[1000.0, -1000.0, 0.0], [-1000.0, 1000.0, 1000.0]], "float32")
    assert np.isfinite(gradient(function, logits)).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_logits_are_computed_in_float32(dtype):
    logits = ops.cast(np.array([[1.0, 2.0, 3.0]], "float32"), dtype)
    for result in (
        losses.kl_divergence(logits, logits),
        losses.entropy(logits),
        class_balance(logits),
        losses.patch_adversarial(logits, True),
    ):
        assert keras.backend.standardize_dtype(result.dtype) == "float32"


def test_divergence_share_by_hand():
    # A discriminator that guesses knows no divergence; one that is never wrong, the largest; worse
    # than guessing is none.
    cross_entropy = np.array([math.log(2), 0.0, math.log(2) / 4, 3.0], "float32")
    found = values(losses.divergence_share(cross_entropy))
    np.testing.assert_allclose(found, [0.0, 1.0, 0.75, 0.0], atol=1e-7)


def test_divergence_share_is_that_of_two_distributions():
    # Of p = (0.9, 0.1) and q = (0.5, 0.5), seen by the best discriminator p / (p + q).
    real, fake = np.array([0.9, 0.1]), np.array([0.5, 0.5])
    best = np.log(real / fake).astype("float32")
    given, made = (
        values(losses.patch_adversarial(best[:, None], real=flag)) / 64 for flag in (True, False)
    )
    cross_entropy = ((real * given).sum() + (fake * made).sum()) / 2
    middle = (real + fake) / 2
    divergence = sum((p * np.log(p / middle)).sum() for p in (real, fake)) / 2
    share = values(losses.divergence_share(cross_entropy.astype("float32")))
    assert share == pytest.approx(divergence / math.log(2), rel=1e-5)
