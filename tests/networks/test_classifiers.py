"""Classifiers: the published parameter counts, shapes, and what every network must have."""

from __future__ import annotations

from functools import cache

import keras
import numpy as np
import pytest
from keras import layers

from keras_mosaickd import networks
from keras_mosaickd.errors import InputError
from keras_mosaickd.networks.layers import convolution

MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)

# Trainable parameters at 32×32×3 and 100 classes, as the PyTorch reference models count them (with
# vgg11's 2,752 convolution biases left out, which BatchNorm makes useless).
COUNTS = {
    "wrn10_1": 83_700,
    "wrn16_1": 180_916,
    "wrn16_2": 703_284,
    "wrn40_1": 569_780,
    "wrn40_2": 2_255_156,
    "resnet18": 11_220_132,
    "resnet20": 278_324,
    "resnet32": 472_756,
    "resnet34": 21_328_292,
    "resnet56": 861_620,
    "vgg11": 9_274_532,
    "mobilenetv2": 2_351_972,
}
# The deeper ones are the others' loops run more often.
NAMES = [
    pytest.param(
        name,
        marks=pytest.mark.long
        if name in ("wrn40_1", "wrn40_2", "resnet32", "resnet34", "resnet56")
        else (),
    )
    for name in COUNTS
]


@cache
def build(name: str, size: int = 32, task: str = "classification") -> keras.Model:
    """The large networks are built once for all tests."""
    return networks.build(name, (size, size, 3), 100, MEAN, STD, task=task)


def trainable(model: keras.Model) -> int:
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_parameter_count_is_the_published_one(name):
    model = build(name)
    assert trainable(model) == COUNTS[name]
    assert model.name == name
    assert model.output.shape == (None, 100)


def test_the_table_of_counts_holds_every_classifier():
    assert sorted(COUNTS) == list(networks.names())


@pytest.mark.parametrize("name", NAMES)
def test_first_layer_normalises_and_last_layer_is_float32(name):
    model = build(name)
    assert [layer.name for layer in model.layers[:2]] == ["picture", "normalization"]
    assert model.layers[-1].name == "logits"
    assert model.layers[-1].compute_dtype == "float32"


@pytest.mark.parametrize("name", NAMES)
def test_all_layers_are_stock_layers(name):
    check_layers(build(name))


def check_layers(model: keras.Model) -> None:
    """A saved network loads without this package only if none of its layers is this package's."""
    assert {type(layer).__module__.split(".")[0] for layer in model.layers} == {"keras"}


@pytest.mark.parametrize("name", NAMES)
def test_batch_norm_constants_and_no_bias_before_batch_norm(name):
    check_batch_norms(build(name))


def check_batch_norms(model: keras.Model) -> None:
    """Walks the graph: the constants, and that what feeds a BatchNorm has no bias."""
    for layer in model.layers:
        if not isinstance(layer, layers.BatchNormalization):
            continue
        assert (layer.momentum, layer.epsilon) == (0.9, 1e-5), layer.name
        producer = layer.input._keras_history.operation
        if isinstance(producer, layers.Conv2D | layers.DepthwiseConv2D | layers.Dense):
            assert not producer.use_bias, producer.name


@pytest.mark.parametrize(
    "shape", [(16, 16, 1), (28, 28, 1), (32, 32, 3), (64, 64, 3), (128, 128, 3), (32, 64, 3)]
)
def test_wide_resnet_takes_images_of_any_shape(shape):
    assert networks.build("wrn10_1", shape, 7).output.shape == (None, 7)


@pytest.mark.parametrize("name", ["wrn10_1", "resnet20", "vgg11", "mobilenetv2"])
def test_small_and_grey_images_give_finite_float32_logits(name, outputs_of):
    model = networks.build(name, (16, 20, 1), 5, mean=0.3, std=0.2)
    logits = outputs_of(model, np.random.default_rng(0).random((2, 16, 20, 1)))
    assert logits.shape == (2, 5)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()
    assert not np.allclose(logits[0], logits[1])


def test_wide_resnet_halves_the_map_twice():
    model = build("wrn16_1")
    maps = [model.get_layer(f"group{group}_block2_add").output.shape[1:] for group in (1, 2, 3)]
    assert maps == [(32, 32, 16), (16, 16, 32), (8, 8, 64)]


def test_wide_resnet_shortcut_sees_the_activated_input_only_where_the_channels_change():
    model = build("wrn16_1")
    names = [layer.name for layer in model.layers if layer.name.endswith("_shortcut")]
    assert names == ["group2_block1_shortcut", "group3_block1_shortcut"]
    source = model.get_layer("group2_block1_shortcut").input._keras_history.operation
    assert source.name == "group2_block1_relu1"
    assert len([n for n in (x.name for x in build("wrn16_2").layers) if n.endswith("cut")]) == 3


def test_vgg_pools_a_fourth_time_from_64_pixels_on():
    def final_map(size):
        return networks.build("vgg11", (size, size, 3), 10).get_layer("pool").input.shape[1:3]

    assert final_map(32) == (4, 4)
    assert final_map(64) == (4, 4)


def test_small_mobilenet_ends_in_a_4x4_map_and_the_large_one_is_that_of_keras():
    small, large = build("mobilenetv2"), build("mobilenetv2", 96)
    assert small.get_layer("pool").input.shape == (None, 4, 4, 1280)
    assert large.get_layer("pool").input.shape == (None, 3, 3, 1280)
    assert large.get_layer("block_13_depthwise").strides == (2, 2)
    assert trainable(large) == trainable(small)
    check_batch_norms(large)


def test_he_initialisation_independent_draws_and_the_seed(real_initializers):
    def kernels(seed):
        keras.utils.set_random_seed(seed)
        inputs = keras.Input((8, 8, 16))
        x = convolution(inputs, 16, 3, name="first")
        model = keras.Model(inputs, convolution(x, 16, 3, name="second"))
        return [keras.ops.convert_to_numpy(layer.kernel) for layer in model.layers[1:]]

    first, second = kernels(1)
    np.testing.assert_allclose(first.std(), np.sqrt(2 / (9 * 16)), rtol=0.05)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, kernels(1)[0])
    assert not np.array_equal(first, kernels(2)[0])


@pytest.mark.parametrize(
    ("name", "shape", "classes", "words"),
    [
        ("wrn16", (32, 32, 3), 10, "wrn<depth>_<width>"),
        ("wrn40-2", (32, 32, 3), 10, "did you mean wrn40_2"),
        ("wrn16_l", (32, 32, 3), 10, "did you mean wrn16_1"),
        ("resnet19", (32, 32, 3), 10, "resnet18, resnet20"),
        ("wrn15_1", (32, 32, 3), 10, "6n+4"),
        ("wrn4_1", (32, 32, 3), 10, "6n+4"),
        ("wrn16_0", (32, 32, 3), 10, "width"),
        ("wrn16_1", (32, 32), 10, "--image_size"),
        ("wrn16_1", (32, 0, 3), 10, "--image_size"),
        ("wrn16_1", (32, 32, 3), 0, "at least 1 class"),
        ("vgg11", (4, 4, 3), 10, "at least 8"),
        ("mobilenetv2", (4, 32, 3), 10, "at least 8"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(name, shape, classes, words):
    with pytest.raises(InputError) as caught:
        networks.build(name, shape, classes)
    assert words in str(caught.value)
    assert "Received: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_depths_that_no_residual_network_has():
    with pytest.raises(InputError, match="6n\\+2"):
        networks.resnet((32, 32, 3), 10, depth=21)


@pytest.mark.parametrize(("name", "task"), [("resnet20", "segmentation"), ("wrn16_1", "detection")])
def test_a_classifier_is_no_answer_to_another_task(name, task):
    with pytest.raises(InputError, match="Received: "):
        networks.build(name, (32, 32, 3), 10, task=task)


@pytest.mark.backend("jax", "torch")
def test_synchronized_batch_norm_is_for_tensorflow():
    with pytest.raises(InputError, match="KERAS_BACKEND"):
        networks.build("wrn10_1", (16, 16, 3), 10, synchronized_batch_norm=True)


@pytest.mark.backend("tensorflow")
def test_synchronized_batch_norm_reaches_every_layer():
    built = [
        networks.build("wrn10_1", (16, 16, 3), 10, synchronized_batch_norm=True),
        networks.build("mobilenetv2", (96, 96, 3), 10, synchronized_batch_norm=True),
        networks.generator((16, 16, 1), synchronized_batch_norm=True),
        networks.discriminator((16, 16, 1), synchronized_batch_norm=True),
    ]
    for model in built:
        norms = [x for x in model.layers if isinstance(x, layers.BatchNormalization)]
        assert norms
        assert all(norm.synchronized for norm in norms)
