"""Arithmetic, counted by hand."""

from __future__ import annotations

import keras
import pytest
from keras import layers

from keras_mosaickd import networks


def test_every_counted_layer_by_hand():
    inputs = keras.Input((9, 9, 3))
    x = layers.Conv2D(4, 3, strides=2)(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.DepthwiseConv2D(3, padding="same")(x)
    x = layers.Conv2D(8, 3, padding="same", groups=2)(x)
    x = layers.SeparableConv2D(6, 3, padding="same")(x)
    x = layers.Conv2DTranspose(2, 3, strides=2)(x)
    x = layers.Dense(5)(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(10)(x))
    multiply_adds = [
        16 * (9 * 3) * 4,
        16 * 9 * 4,
        16 * (9 * 2) * 8,
        16 * (9 * 8 + 8 * 6),
        16 * (9 * 6) * 2,
        81 * 2 * 5,
        5 * 10,
    ]
    assert networks.flops(model) == 2 * sum(multiply_adds)
    assert networks.flops(model, batch=7) == 7 * networks.flops(model)


def test_nested_models_are_followed_and_sequential_ones_counted():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(inner(inputs)))
    assert networks.flops(inner) == 2 * 4 * 3
    assert networks.flops(model) == 2 * (4 * 3 + 3 * 2)


def test_generator_by_hand():
    stem = 100 * 8 * 8 * 128
    body = 16 * 16 * 9 * 128 * 128 + 32 * 32 * 9 * 128 * 64
    image = 32 * 32 * 9 * 64 * 3
    assert networks.flops(networks.generator((32, 32, 3))) == 2 * (stem + body + image)


def test_models_without_shapes_are_refused():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(2)

        def call(self, x):
            return self.dense(x)

    with pytest.raises(ValueError, match="cannot be seen"):
        networks.flops(Subclassed())
    with pytest.raises(ValueError, match="cannot be seen"):
        networks.traffic(Subclassed())
    inputs = keras.Input((None, None, 3))
    with pytest.raises(ValueError, match="fixed image size"):
        networks.flops(keras.Model(inputs, layers.Conv2D(2, 3)(inputs)))
    with pytest.raises(ValueError, match="fixed image size"):
        networks.traffic(keras.Model(inputs, layers.Conv2D(2, 3)(inputs)))


def test_traffic_is_what_every_layer_reads_and_writes():
    inputs = keras.Input((4, 4, 2))
    x = layers.Conv2D(3, 3, padding="same")(inputs)  # reads 32 numbers, writes 48
    x = layers.Add()([x, layers.ReLU()(x)])  # ReLU: 48 and 48; Add: 96 and 48
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))  # 48 and 3
    numbers = (32 + 48) + (48 + 48) + (96 + 48) + (48 + 3)
    assert networks.traffic(model) == 4 * numbers
    assert networks.traffic(model, itemsize=2) == 2 * numbers


def test_a_layer_that_is_called_twice_counts_twice():
    inputs = keras.Input((5,))
    relu, dense = layers.ReLU(), layers.Dense(5)
    assert networks.traffic(keras.Model(inputs, relu(relu(inputs)))) == 4 * 2 * (5 + 5)
    assert networks.flops(keras.Model(inputs, dense(dense(inputs)))) == 2 * 2 * 5 * 5


def test_a_model_of_any_size_inside_one_of_a_fixed_size_is_counted():
    images = keras.Input((None, None, 3))
    inner = keras.Model(images, layers.Conv2D(2, 3)(images))
    inputs = keras.Input((6, 6, 3))
    model = keras.Model(inputs, inner(inputs))
    assert networks.flops(model) == 2 * 16 * 9 * 3 * 2
    assert networks.traffic(model) == 4 * (6 * 6 * 3 + 4 * 4 * 2)


def test_a_layer_of_unknown_arithmetic_makes_the_count_unknown():
    inputs = keras.Input((4, 8))
    attention = layers.MultiHeadAttention(2, 4)
    with pytest.raises(ValueError, match="can be counted"):
        networks.flops(keras.Model(inputs, attention(inputs, inputs)))
