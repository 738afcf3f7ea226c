"""What all networks share: normalisation, padding, sizes, dtypes."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_mosaickd import networks
from keras_mosaickd.errors import InputError
from keras_mosaickd.networks.adversaries import scalings
from keras_mosaickd.networks.layers import convolution

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


@pytest.fixture
def mixed_bfloat16():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape).astype("float32")


@pytest.mark.parametrize(
    "build",
    [
        lambda **options: networks.build("wrn10_1", (16, 16, 3), 10, **options),
        lambda **options: networks.discriminator((16, 16, 3), **options),
    ],
    ids=["classifier", "discriminator"],
)
def test_normalising_inside_equals_normalising_outside(build, outputs_of):
    inside, outside = build(mean=MEAN, std=STD), build()
    outside.set_weights(inside.get_weights())
    x = images(3, 16, 16, 3)
    np.testing.assert_allclose(
        outputs_of(inside, x),
        outputs_of(outside, (x - np.float32(MEAN)) / np.float32(STD)),
        atol=2e-5,
    )


def test_one_number_serves_all_channels(outputs_of):
    one = networks.build("wrn10_1", (16, 16, 3), 10, mean=0.5, std=[0.25])
    many = networks.build("wrn10_1", (16, 16, 3), 10, mean=[0.5] * 3, std=[0.25] * 3)
    many.set_weights(one.get_weights())
    x = images(2, 16, 16, 3)
    np.testing.assert_array_equal(outputs_of(one, x), outputs_of(many, x))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mean": 0.5}, "both mean and std"),
        ({"std": 0.5}, "both mean and std"),
        ({"mean": (0.5, 0.5), "std": 0.2}, "one per channel"),
        ({"mean": 0.5, "std": (0.2, 0.0, 0.2)}, "above 0"),
    ],
)
def test_statistics_that_do_not_fit_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        networks.build("wrn10_1", (16, 16, 3), 10, **options)


def test_mixed_bfloat16_keeps_images_statistics_and_logits_in_float32(mixed_bfloat16, outputs_of):
    model = networks.build("wrn10_1", (16, 16, 3), 10, mean=MEAN, std=STD)
    x = images(2, 16, 16, 3)
    normalized = keras.Model(model.input, model.get_layer("normalization").output)
    np.testing.assert_allclose(
        outputs_of(normalized, x), (x - np.float32(MEAN)) / np.float32(STD), atol=1e-5
    )
    assert model.get_layer("group1_block1_conv1").compute_dtype == "bfloat16"
    made = [
        model,
        networks.discriminator((16, 16, 3), mean=MEAN, std=STD),
        networks.discriminator((16, 16, 3), preset="official"),
        networks.generator((16, 16, 3)),
    ]
    assert {made_model.output.dtype for made_model in made} == {"float32"}
    assert model.predict(x, verbose=0).dtype == np.float32


@pytest.mark.parametrize("kernel_size", [3, 4])
def test_strided_convolutions_pad_both_sides(kernel_size, outputs_of):
    """A bright first pixel meets the kernel's second row and column, as in PyTorch."""
    inputs = keras.Input((8, 8, 1))
    outputs = convolution(inputs, 1, kernel_size, 2, padding=1, name="conv")
    model = keras.Model(inputs, outputs)
    x = np.zeros((1, 8, 8, 1), "float32")
    x[0, 0, 0, 0] = 1
    kernel = keras.ops.convert_to_numpy(model.get_layer("conv").kernel)
    assert model.output.shape == (None, 4, 4, 1)
    np.testing.assert_allclose(outputs_of(model, x)[0, 0, 0, 0], kernel[1, 1, 0, 0], rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "count"),
    [
        ((8, 8, 1), 2),
        ((16, 16, 1), 2),
        ((28, 28, 1), 2),
        ((32, 32, 3), 2),
        ((32, 64, 3), 2),
        ((48, 48, 3), 3),
        ((64, 64, 3), 3),
        ((128, 128, 3), 4),
        ((224, 224, 3), 5),
    ],
)
def test_scalings_grow_with_the_shorter_side(shape, count):
    assert scalings(shape) == count


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        ((30, 30, 1), "28 or 32"),
        ((32, 33, 3), "32 or 36"),
        ((2, 2, 1), "4"),
        ((50, 50, 3), "48 or"),
    ],
)
def test_sizes_that_do_not_divide_are_refused_with_sizes_that_do(shape, sizes):
    for build in (networks.generator, networks.discriminator):
        with pytest.raises(InputError, match="--image_size") as caught:
            build(shape)
        assert sizes in str(caught.value)
        assert f"Received: {shape[0]}x{shape[1]}" in str(caught.value)
