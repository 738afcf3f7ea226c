"""The recipe's optimizers against updates computed by hand."""

import keras
import numpy as np
import pytest

from keras_mosaickd import optimizers


def test_weight_decay_is_coupled():
    # PyTorch: g += l2 * w; buffer = momentum * buffer + g; w -= rate * buffer.
    variable = keras.Variable(np.array([1.0, -2.0], "float32"))
    optimizer = optimizers.SGD(learning_rate=0.1, momentum=0.9, l2=0.5)
    expected, buffer = np.array([1.0, -2.0]), np.zeros(2)
    for gradient in ([1.0, 0.0], [0.5, -1.0], [0.0, 2.0]):
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
        buffer = 0.9 * buffer + np.array(gradient) + 0.5 * expected
        expected = expected - 0.1 * buffer
    np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), expected, 1e-6)


def test_negative_decay_is_refused():
    with pytest.raises(ValueError, match="l2 must be at least 0. Received: -1"):
        optimizers.SGD(l2=-1)


def test_sgd_survives_serialisation():
    original = optimizers.student_recipe(100, weight_decay=0.01)
    restored = keras.optimizers.deserialize(keras.optimizers.serialize(original))
    assert type(restored) is optimizers.SGD
    assert restored.l2 == 0.01
    assert restored.name == "student_optimizer"


def test_recipe_is_the_supplements():
    recipe = optimizers.recipe(iterations=10, student_steps=5)
    student = recipe["student_optimizer"]
    assert (student.momentum, student.l2) == (0.9, 1e-4)
    for name in ("generator_optimizer", "discriminator_optimizer"):
        adam = recipe[name]
        assert (adam.beta_1, adam.beta_2, adam.epsilon, adam.name) == (0.5, 0.999, 1e-8, name)


def test_cosines_end_together():
    recipe = optimizers.recipe(iterations=10, student_steps=5)
    rate = {key: optimizer._learning_rate for key, optimizer in recipe.items()}
    for share in (0.0, 0.5, 1.0):
        cosine = (1 + np.cos(np.pi * share)) / 2
        assert float(rate["student_optimizer"](50 * share)) == pytest.approx(0.1 * cosine, abs=1e-6)
        assert float(rate["generator_optimizer"](10 * share)) == pytest.approx(
            1e-3 * cosine, abs=1e-7
        )


def test_phase_optimizers_have_no_single_rate():
    recipe = optimizers.recipe(10)
    phases = optimizers.PhaseOptimizers(recipe, dict.fromkeys(recipe, []))
    with pytest.raises(AttributeError, match="its own learning rate"):
        _ = phases.learning_rate
    assert [optimizer.name for optimizer in phases.optimizers] == [
        "student_optimizer",
        "generator_optimizer",
        "discriminator_optimizer",
    ]
