"""DeepLabv3: shapes, counts, and that dilation stands exactly where the stride was."""

from __future__ import annotations

from functools import cache

import keras
import numpy as np
import pytest
from keras import layers

from keras_mosaickd import networks
from keras_mosaickd.errors import InputError
from keras_mosaickd.networks.layers import adapt_application, batch_normalization

CLASSES = 21
LAST_FEATURES = {
    "deeplabv3_mobilenetv2": "block_16_project_BN",
    "deeplabv3_resnet50": "conv5_block3_out",
}


@cache
def build(name: str) -> keras.Model:
    return networks.build(name, (64, 64, 3), CLASSES, 0.5, 0.25, task="segmentation")


def test_names():
    names = networks.names("segmentation")
    assert [name for name in names if not name.startswith("wrn")] == list(LAST_FEATURES)


def test_a_wide_resnet_predicts_every_pixel_with_the_weights_of_the_classifier():
    model = networks.build("wrn10_1", (16, 24, 1), CLASSES, task="segmentation")
    assert model.output.shape == (None, 16, 24, CLASSES)
    assert model.get_layer("pixel_logits").output.shape == (None, 4, 6, CLASSES)
    classifier = networks.build("wrn10_1", (16, 24, 1), CLASSES)
    assert model.count_params() == classifier.count_params()


@pytest.mark.slow
@pytest.mark.parametrize("name", LAST_FEATURES)
def test_logits_per_pixel_at_output_stride_16(name):
    model = build(name)
    assert model.name == name
    assert model.output.shape == (None, 64, 64, CLASSES)
    assert model.get_layer("pixel_logits").output.shape == (None, 4, 4, CLASSES)
    assert [layer.name for layer in model.layers[:2]] == ["picture", "normalization"]
    assert model.layers[-1].compute_dtype == "float32"
    assert {type(layer).__module__.split(".")[0] for layer in model.layers} == {"keras"}


@pytest.mark.parametrize(
    ("name", "count"),
    # ResNet-50's is torchvision's deeplabv3_resnet50 without its auxiliary head.
    [("deeplabv3_resnet50", 39_638_869), ("deeplabv3_mobilenetv2", 5_113_877)],
)
def test_parameter_count(name, count):
    assert sum(np.prod(weight.shape) for weight in build(name).trainable_weights) == count


@pytest.mark.parametrize("name", LAST_FEATURES)
def test_batch_norm_constants_and_no_bias_before_batch_norm(name):
    norms = [x for x in build(name).layers if isinstance(x, layers.BatchNormalization)]
    assert len(norms) > 50
    for norm in norms:
        assert (norm.momentum, norm.epsilon) == (0.9, 1e-5), norm.name
        producer = norm.input._keras_history.operation
        assert not getattr(producer, "use_bias", False), producer.name


# Keras's MobileNetV2 pads strided convolutions below and right only: it samples the odd positions.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "application", "first"),
    [
        ("deeplabv3_mobilenetv2", keras.applications.MobileNetV2, 1),
        ("deeplabv3_resnet50", keras.applications.ResNet50, 0),
    ],
    ids=["mobilenetv2", "resnet50"],
)
@pytest.mark.backend("tensorflow", "torch")
@pytest.mark.long_on("torch")
def test_dilated_features_are_the_strided_ones_and_more(name, application, first, outputs_of):
    dilated = build(name)
    backbone = application(input_shape=(64, 64, 3), include_top=False, weights=None)
    features = backbone.get_layer(LAST_FEATURES[name]).output
    strided = adapt_application(backbone, features, batch_normalization)
    for layer in strided.layers:
        if layer.weights:
            layer.set_weights(dilated.get_layer(layer.name).get_weights())
    after = dilated.get_layer("normalization").output
    dense = keras.Model(after, dilated.get_layer(LAST_FEATURES[name]).output)
    x = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype("float32")
    expected = outputs_of(strided, x)
    found = outputs_of(dense, x)[:, first::2, first::2]
    assert expected.shape == found.shape == (1, 2, 2, expected.shape[-1])
    scale = abs(expected).max()
    assert scale > 1e-3
    np.testing.assert_allclose(found / scale, expected / scale, atol=1e-5)


def test_logits_are_finite_float32_and_smooth_for_shapes_that_16_does_not_divide(outputs_of):
    model = networks.build("deeplabv3_mobilenetv2", (40, 56, 1), 3, 0.5, 0.25, task="segmentation")
    x = np.random.default_rng(0).random((2, 40, 56, 1)).astype("float32")
    logits = outputs_of(model, x)
    assert logits.shape == (2, 40, 56, 3)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()
    assert logits.std() > 1e-3


def test_what_cannot_be_built():
    with pytest.raises(InputError, match="at least 32"):
        networks.build("deeplabv3_resnet50", (16, 64, 3), 3, task="segmentation")
    with pytest.raises(InputError, match="resnet50, mobilenetv2"):
        networks.deeplabv3((64, 64, 3), 3, backbone="vgg16")
    with pytest.raises(InputError, match="one of deeplabv3_mobilenetv2, deeplabv3_resnet50, wrn"):
        networks.build("deeplabv3", (64, 64, 3), 3, task="segmentation")
