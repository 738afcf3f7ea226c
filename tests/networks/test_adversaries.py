"""The generator and the discriminators: tables 2 and 3 of the supplement, and the authors' code."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from keras_mosaickd import networks
from keras_mosaickd.errors import InputError

SHAPES = [(16, 16, 1), (28, 28, 1), (32, 32, 3), (64, 64, 3), (128, 128, 3), (32, 64, 3)]
PRESETS = ["paper", "official"]


def convolutions(model: keras.Model) -> list[layers.Conv2D]:
    return [layer for layer in model.layers if isinstance(layer, layers.Conv2D)]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("shape", SHAPES)
def test_generator_makes_images_of_any_shape(preset, shape):
    model = networks.generator(shape, latent_dim=10, preset=preset)
    assert model.input.shape == (None, 10)
    assert model.output.shape == (None, *shape)


def test_generator_channels_are_those_of_the_table():
    def channels(shape, preset):
        model = networks.generator(shape, preset=preset)
        stem = model.get_layer("stem_reshape").output.shape[-1]
        return [stem, *(layer.filters for layer in convolutions(model))]

    assert channels((32, 32, 3), "paper") == [128, 128, 64, 3]
    assert channels((32, 32, 3), "official") == [256, 128, 64, 3]
    assert channels((128, 128, 3), "paper") == [128, 128, 128, 128, 64, 3]
    assert channels((64, 64, 3), "official") == [256, 128, 128, 64, 3]


def test_generator_parameters_by_hand():
    stem = 100 * 8192 + 8192 + 2 * 128
    body = 9 * 128 * 128 + 2 * 128 + 9 * 128 * 64 + 2 * 64
    image = 9 * 64 * 3 + 3
    model = networks.generator((32, 32, 3))
    assert sum(np.prod(w.shape) for w in model.trainable_weights) == stem + body + image


@pytest.mark.parametrize("preset", PRESETS)
def test_generated_images_lie_between_0_and_1_and_follow_z(preset, outputs_of):
    model = networks.generator((16, 16, 1), preset=preset)
    x = outputs_of(model, 100 * np.random.default_rng(0).normal(size=(4, 100)))
    assert x.dtype == np.float32
    assert 0 <= x.min() < x.max() <= 1
    assert not np.allclose(x[0], x[1])


def test_generator_presets_differ_as_the_table_says():
    paper, official = (networks.generator((16, 16, 1), preset=preset) for preset in PRESETS)
    names = [{layer.name for layer in model.layers} for model in (paper, official)]
    assert names[0] - names[1] == {"stem_leaky_relu"}
    assert names[1] <= names[0]
    for model in (paper, official):
        assert model.get_layer("stem_dense").use_bias
        assert model.get_layer("picture_conv").use_bias
        slopes = [x.negative_slope for x in model.layers if isinstance(x, layers.LeakyReLU)]
        assert slopes == pytest.approx([0.2] * len(slopes))


def test_initialisers_are_named_by_the_preset(real_initializers):
    def kernel(layer):
        return keras.ops.convert_to_numpy(layer.kernel)

    paper, official = (networks.discriminator((16, 16, 3), preset=preset) for preset in PRESETS)
    layer = paper.get_layer("down2_conv")
    limit = np.sqrt(6 / (9 * 64 + 9 * 128))
    assert 0.98 * limit < abs(kernel(layer)).max() <= limit
    for name, fan_in in (("down1_conv", 16 * 3), ("down2_conv", 16 * 128), ("logits", 256)):
        limit = 1 / np.sqrt(fan_in)
        assert 0.95 * limit < abs(kernel(official.get_layer(name))).max() <= limit
    bias = keras.ops.convert_to_numpy(official.get_layer("down1_conv").bias)
    assert 0 < abs(bias).max() <= 1 / np.sqrt(16 * 3)


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("shape", SHAPES)
def test_discriminator_judges_a_map_of_patches_or_the_whole_image(preset, shape):
    model = networks.discriminator(shape, preset=preset)
    shorter = min(model.output.shape[1:3])
    assert shorter in (4, 7, 8)
    assert model.output.shape[3] == 1
    assert model.output.shape[2] / model.output.shape[1] == shape[1] / shape[0]
    whole = networks.discriminator(shape, preset=preset, regularizer="image")
    assert whole.output.shape == (None, 1, 1, 1)


@pytest.mark.parametrize("preset", PRESETS)
def test_overlap_stride_thins_out_the_same_map(preset, outputs_of):
    dense = networks.discriminator((32, 32, 3), preset=preset, mean=0.5, std=0.2)
    x = np.random.default_rng(0).random((2, 32, 32, 3))
    logits = outputs_of(dense, x)
    assert logits.shape == (2, 8, 8, 1)
    for stride, side in ((2, 4), (3, 3), (4, 2)):
        thin = networks.discriminator(
            (32, 32, 3), preset=preset, overlap_stride=stride, mean=0.5, std=0.2
        )
        thin.set_weights(dense.get_weights())
        assert thin.output.shape == (None, side, side, 1)
        np.testing.assert_allclose(outputs_of(thin, x), logits[:, ::stride, ::stride], atol=1e-5)


@pytest.mark.parametrize(("preset", "field"), [("paper", 15), ("official", 10)])
def test_receptive_field(preset, field, outputs_of):
    """Lights one row or column at a time and looks which of them move a logit in the middle."""
    model = networks.discriminator((32, 32, 3), preset=preset)
    # In one batch with the dark image: rounding may differ between batch sizes.
    rows = np.zeros((33, 32, 32, 3))
    for index in range(32):
        rows[index, index] = 100
    for images in (rows, rows.swapaxes(1, 2)):
        logits = outputs_of(model, images)[:, 4, 4, 0]
        moves = abs(logits[:32] - logits[32])
        moved = np.flatnonzero(moves > 1e-5 * moves.max())
        assert len(moved) == moved[-1] - moved[0] + 1 == field


def test_a_whole_image_judge_sees_every_corner(outputs_of):
    model = networks.discriminator((32, 32, 1), regularizer="image")
    images = np.zeros((5, 32, 32, 1))
    for index, (row, column) in enumerate([(0, 0), (0, 31), (31, 0), (31, 31)]):
        images[index, row, column] = 100
    logits = outputs_of(model, images)[:, 0, 0, 0]
    moves = abs(logits[:4] - logits[4])
    assert (moves > 1e-5 * moves.max()).all()


def test_discriminator_channels_biases_and_batch_norms_are_those_of_the_table():
    def design(shape, preset):
        model = networks.discriminator(shape, preset=preset)
        names = {layer.name for layer in model.layers}
        return [
            (x.filters, x.kernel_size[0], x.use_bias, x.name.replace("conv", "bn") in names)
            for x in convolutions(model)
        ]

    paper = [(64, 3, False, True), (128, 3, False, True), (1, 3, True, True)]
    official = [(128, 4, True, False), (256, 4, False, True), (1, 1, False, True)]
    # The last entry of a head says only that its own name is in the model.
    assert design((32, 32, 3), "paper") == paper
    assert design((32, 32, 3), "official") == official
    assert design((64, 64, 3), "paper") == [*paper[:2], paper[1], paper[2]]
    assert design((64, 64, 3), "official") == [*official[:2], official[1], official[2]]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("regularizer", ["patch", "image"])
def test_no_bias_before_batch_norm(preset, regularizer):
    made = [
        networks.generator((32, 32, 3), preset=preset),
        networks.discriminator((32, 32, 3), preset=preset, regularizer=regularizer),
    ]
    for model in made:
        for layer in model.layers:
            if isinstance(layer, layers.BatchNormalization):
                assert (layer.momentum, layer.epsilon) == (0.9, 1e-5)
                producer = layer.input._keras_history.operation
                assert not getattr(producer, "use_bias", False), producer.name


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"preset": "fast"}, "--preset must be one of paper, official"),
        ({"regularizer": "none"}, "--regularizer must be one of patch, image"),
        ({"overlap_stride": 0}, "--overlap_stride"),
        ({"overlap_stride": 5}, "--overlap_stride"),
        ({"overlap_stride": 1.5}, "--overlap_stride"),
        ({"overlap_stride": 2, "regularizer": "image"}, "--overlap_stride"),
    ],
)
def test_discriminators_that_do_not_exist(options, words):
    with pytest.raises(InputError) as caught:
        networks.discriminator((32, 32, 3), **options)
    assert str(caught.value).startswith(words)
    assert "Received: " in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"), [({"preset": "fast"}, "--preset"), ({"latent_dim": 0}, "latent_dim")]
)
def test_generators_that_do_not_exist(options, words):
    with pytest.raises(InputError, match=words):
        networks.generator((32, 32, 3), **options)
