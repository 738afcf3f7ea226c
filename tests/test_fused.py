"""The fast path equals the plain one."""

import contextlib

import keras
import numpy as np
import pytest
from keras import layers

from keras_mosaickd import MosaicKD, mosaic_stream, networks
from keras_mosaickd.backend.fused import Fused
from keras_mosaickd.backend.operations import moments, uses
from tests.game import values
from tests.gradients import gradient

SHAPE = (16, 16, 3)
STEPS = 1
ITERATIONS = 5
RATES = {
    "student_optimizer": 1e-2,
    "generator_optimizer": 1e-3,
    "discriminator_optimizer": 3e-3,
}

NETWORKS = {
    "wrn10_1": lambda: networks.build("wrn10_1", SHAPE, 4, mean=0.5, std=0.25),
    "resnet20": lambda: networks.build("resnet20", SHAPE, 4),
    "vgg11": lambda: networks.build("vgg11", SHAPE, 4),
    "mobilenetv2": lambda: networks.build("mobilenetv2", SHAPE, 4),
    "discriminator": lambda: networks.discriminator(SHAPE, preset="official"),
    "generator": lambda: networks.generator(SHAPE, 6, preset="official"),
}
# On JAX every operation of theirs is compiled by itself.
DEEP = ("resnet20", "vgg11", "mobilenetv2", "discriminator")


def disturbed(network):
    """The network with moving statistics, factors and shifts other than 0 and 1."""
    drawn = np.random.default_rng(0)
    for variable in network.variables:
        if variable.path.endswith(("moving_mean", "beta", "bias")):
            variable.assign(drawn.normal(size=variable.shape) / 4)
        elif variable.path.endswith(("moving_variance", "gamma")):
            variable.assign(drawn.uniform(0.5, 1.5, size=variable.shape))
    return network


def inputs_of(network):
    return np.random.default_rng(1).random((4, *network.input_shape[1:]), dtype="float32")


def assert_close(actual, expected):
    actual, expected = (keras.ops.convert_to_numpy(x) for x in (actual, expected))
    # Deep networks that normalise by the four images at hand amplify the last bit of a sum.
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * abs(expected).max())


@pytest.mark.parametrize(
    "training", [pytest.param(False, marks=pytest.mark.long_on("tensorflow")), True]
)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=[pytest.mark.slow, pytest.mark.long_on("jax")] if name in DEEP else ()
        )
        for name in NETWORKS
    ],
)
def test_outputs_and_moving_statistics_are_the_networks_own(name, training):
    plain, fast = disturbed(NETWORKS[name]()), disturbed(NETWORKS[name]())
    fast.set_weights(plain.get_weights())
    inputs = inputs_of(plain)
    assert_close(Fused(fast)(inputs, training=training), plain(inputs, training=training))
    for mine, its in zip(fast.variables, plain.variables, strict=True):
        if "seed" not in mine.path:
            assert_close(mine, its)


@pytest.mark.long_on("jax")
def test_what_may_not_be_folded_is_left_alone():
    inputs = keras.Input(SHAPE)
    shared = layers.Conv2D(3, 3, padding="same")
    first = shared(inputs)
    seen_twice = layers.Conv2D(3, 3, padding="same", activation="relu")(shared(first))
    x = layers.BatchNormalization()(seen_twice)
    branching = layers.Conv2D(3, 3, padding="same", use_bias=True)(x)
    x = layers.Add()([layers.BatchNormalization()(branching), branching])
    biased = layers.BatchNormalization()(layers.Conv2D(3, 3, strides=2, padding="same")(x))
    up = layers.Conv2D(2, 3, padding="same")(layers.UpSampling2D(2)(biased))
    network = disturbed(keras.Model(inputs, layers.BatchNormalization(scale=False)(up)))
    images = inputs_of(network)
    assert_close(Fused(network)(images), network(images, training=False))


def test_models_inside_a_model_and_sequential_ones_are_fused_too():
    inputs = keras.Input(SHAPE)
    inner = NETWORKS["resnet20"]()
    x = layers.Conv2D(3, 3, padding="same")(inputs)
    stem = keras.Model(inputs, layers.BatchNormalization()(x) / 2)
    network = disturbed(keras.Sequential([inputs, stem, inner]))
    fused, images = Fused(network), inputs_of(network)
    calls = []
    for layer in inner.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.call = calls.append  # not called by the fused pass
    outputs = fused(images)
    for layer in inner.layers:
        if isinstance(layer, layers.BatchNormalization):
            del layer.call
    assert not calls
    assert_close(outputs, network(images, training=False))
    assert_close(fused(images, training=True), network(images, training=True))


@pytest.mark.long_on("jax")
def test_frozen_batch_norm_stays_still():
    network = disturbed(NETWORKS["wrn10_1"]())
    network.trainable = False
    before, images = values(network.variables), inputs_of(network)
    assert_close(Fused(network)(images, training=True), network(images, training=False))
    for old, new in zip(before, values(network.variables), strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_gradients_of_all_uses_add_up():
    def function(x):
        a, b, c = uses(x, 3)
        return keras.ops.sum(a * a + 3.0 * b + a * c)

    found = gradient(function, np.array([2.0, 3.0], "float32"))
    np.testing.assert_allclose(found, [11.0, 15.0])  # 4 x + 3


def test_moments_and_their_gradient():
    def function(x):
        mean, square = moments(x, [0])
        return keras.ops.sum(3.0 * mean + 5.0 * square)

    x = np.array([[1.0, 2.0], [3.0, -4.0]], "float32")
    found = [keras.ops.convert_to_numpy(moment) for moment in moments(x, [0])]
    np.testing.assert_allclose(found, [[2.0, -1.0], [5.0, 10.0]])
    np.testing.assert_allclose(gradient(function, x), 1.5 + 5.0 * x)  # (3 + 10 x) / 2


@pytest.mark.slow
@pytest.mark.long_on("jax")
def test_five_iterations_equal_the_plain_step():
    """The plain step: every network called as it is.

    Where a sum lies within a rounding error of a ReLU's kink, which is a matter of luck and of the
    processor, its gradient is another one, and from there on the two go apart. So one of six
    starts has to keep them together; a fault would part them from each.
    """

    def trained(plain, seed):
        keras.utils.set_random_seed(seed)
        model = MosaicKD(
            networks.build("wrn10_1", SHAPE, 4, mean=0.5, std=0.25),
            networks.build("wrn10_1", SHAPE, 4, mean=0.5, std=0.25),
            networks.generator(SHAPE, 6, preset="official"),
            networks.discriminator(SHAPE, preset="official"),
            latent_dim=6,
            student_steps=STEPS,
            seed=1,
        )
        if plain:
            for name in model.networks:
                setattr(model, f"run_{name}", getattr(model, name).__call__)
        # Not Adam, which makes a full step of a rounding error where a gradient is nearly zero;
        # and a small step for G, whose loss is in the eighties.
        sgd = {name: keras.optimizers.SGD(rate, name=name) for name, rate in RATES.items()}
        model.compile(**sgd)
        start = values(model.trainable_variables)
        images = np.random.default_rng(seed).random((4 * ITERATIONS, *SHAPE), dtype="float32")
        stream = mosaic_stream(images, 4, student_steps=STEPS)
        history = model.fit(stream, verbose=0).history
        assert int(keras.ops.convert_to_numpy(model.optimizer.iterations)) == ITERATIONS
        movement = zip(start, values(model.trainable_variables), strict=True)
        assert max(abs(after - before).max() for before, after in movement) > 0.03
        return model, history

    def check(seed):
        (fast, fast_history), (plain, plain_history) = trained(False, seed), trained(True, seed)
        assert plain.run_student != fast.run_student
        for name, value in plain_history.items():
            close = {"rtol": 1e-4, "atol": 1e-4, "err_msg": name}
            np.testing.assert_allclose(fast_history[name], value, **close)
        for mine, its in zip(fast.variables, plain.variables, strict=True):
            np.testing.assert_allclose(*values([mine, its]), rtol=0, atol=1e-4, err_msg=mine.path)

    for seed in range(5):
        with contextlib.suppress(AssertionError):
            check(seed)
            return
    check(5)


@pytest.mark.parametrize(
    "dtype",
    [
        # JAX has it not, and warns.
        pytest.param("float64", marks=pytest.mark.backend("tensorflow", "torch")),
        "bfloat16",
        "float16",
    ],
)
def test_batch_norms_of_one_precision_throughout_train(dtype):
    keras.config.set_dtype_policy(dtype)
    try:
        network = keras.Sequential(
            [keras.Input((8, 8, 1)), layers.Conv2D(4, 3), layers.BatchNormalization()]
        )
    finally:
        keras.config.set_dtype_policy("float32")
    images = np.random.default_rng(0).random((4, 8, 8, 1))
    moving = values(network.layers[1].non_trainable_variables)
    found = Fused(network)(images, training=True)
    assert keras.backend.standardize_dtype(found.dtype) == dtype
    moved = values(network.layers[1].non_trainable_variables)
    assert not np.allclose(moved[0], moving[0])
