"""What is used of Keras without being documented: which of it a new Keras broke, and the fallbacks.

A failure in the first half names what to mend in `backend/keras_graph.py`; nothing else of the
package depends on it.
"""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mosaickd import networks
from keras_mosaickd.backend import keras_graph
from keras_mosaickd.backend.fused import Fused
from keras_mosaickd.networks.logits import as_logits
from tests.game import classifier, images

BROKE = f"Keras {keras.__version__} broke this use"


def branching():
    """A shared layer, a branch, an operation that is no layer, and a model inside."""
    inputs = keras.Input((8, 8, 1))
    shared = layers.Conv2D(1, 3, padding="same", name="shared")
    x = shared(shared(inputs))
    x = ops.add(x, inputs)
    return keras.Model(inputs, classifier()(x))


def test_the_graph_is_seen_in_its_order():
    model = branching()
    seen = keras_graph.graph(model)
    assert seen is not None, BROKE
    names = [getattr(call.layer, "name", "") for call in seen.calls]
    assert [names.count("shared"), len(names)] == [2, 4], BROKE
    made = {id(tensor) for tensor in model.inputs}
    for call in seen.calls:
        assert {id(tensor) for tensor in call.inputs} <= made, BROKE
        made |= {id(tensor) for tensor in call.outputs}
    values = seen.run([images(3)], lambda call, *args, **kwargs: call.layer(*args, **kwargs))
    np.testing.assert_allclose(*map(ops.convert_to_numpy, (values[0], model(images(3)))), atol=1e-6)


def test_a_sequential_model_has_a_graph_once_it_is_built():
    model = keras.Sequential([layers.Flatten(), layers.Dense(2)])
    assert keras_graph.graph(model) is None
    model(images(1))
    assert [call.layer for call in keras_graph.graph(model).calls] == model.layers, BROKE


def test_the_producer_of_a_tensor_is_the_call_that_made_it():
    model = branching()
    first, second = (call for call in keras_graph.graph(model).calls if call.layer.name == "shared")
    assert keras_graph.producer(second.outputs[0]).inputs == first.outputs, BROKE
    assert keras_graph.producer(None) is None


@pytest.mark.parametrize(
    ("last", "name"),
    [
        (lambda x: layers.Softmax()(x), "softmax"),
        (lambda x: layers.Softmax(axis=1)(layers.Reshape((3, 1))(x)), None),
        (lambda x: layers.Activation("sigmoid")(x), "sigmoid"),
        (lambda x: layers.Dense(2, activation="softmax")(x), "softmax"),
        (lambda x: layers.Dense(2)(x), "linear"),
        (lambda x: layers.Dense(2, activation="tanh")(x), None),
        (lambda x: layers.ReLU()(x), None),
        (ops.softmax, "softmax"),
        (ops.sigmoid, "sigmoid"),
        (keras.activations.softmax, "softmax"),
        (ops.tanh, None),
    ],
)
def test_the_function_at_the_end_is_known_by_its_name(last, name):
    outputs = last(keras.Input((3,)))
    found = keras_graph.activation_of(keras_graph.producer(outputs).layer)
    assert found == name, BROKE


def test_every_seed_is_found():
    inputs = keras.Input((8, 8, 1))
    x = layers.Dropout(0.5)(layers.RandomFlip()(layers.GaussianNoise(0.1)(inputs)))
    inner = keras.Model(inputs, x)
    model = keras.Model(inputs, layers.Dropout(0.1)(inner(inputs)))
    assert len(keras_graph.seed_states(model)) == 4, BROKE


def test_a_seed_that_is_not_found_is_an_error(monkeypatch):
    model = keras.Sequential([keras.Input((3,)), layers.Dropout(0.5)])
    monkeypatch.setattr(type(model), "non_trainable_variables", [])
    with pytest.raises(RuntimeError, match=r"does not show 1 random seeds"):
        keras_graph.seed_states(model)


def test_an_optimizer_is_written_down_for_every_backend():
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.5))
    settings = keras_graph.portable(keras.saving.serialize_keras_object(scaled))
    assert settings["config"]["inner_optimizer"]["module"] == "keras.optimizers", BROKE
    again = keras.saving.deserialize_keras_object(settings).inner_optimizer
    assert isinstance(again, keras.optimizers.Adam) and float(again.learning_rate) == 0.5


@pytest.mark.backend("tensorflow")
def test_the_signature_of_a_saved_model_is_seen(tmp_path):
    classifier().export(tmp_path / "saved", verbose=False)
    layer = keras.layers.TFSMLayer(tmp_path / "saved", call_endpoint="serving_default")
    assert keras_graph.signature_of(layer).structured_outputs, BROKE
    with pytest.raises(RuntimeError, match="hides"):
        keras_graph.signature_of(None)


@pytest.fixture
def hidden(monkeypatch):
    """A Keras that keeps its graph elsewhere."""

    def missing(node):
        raise AttributeError("_inbound_nodes")

    monkeypatch.setattr(keras_graph, "_call", missing)


def test_without_a_graph_the_fused_pass_is_the_plain_call(hidden):
    model = branching()
    with pytest.warns(RuntimeWarning, match="training is slower"):
        fused = Fused(model)
    for training in (False, True):
        actual, expected = fused(images(2), training), model(images(2), training=training)
        np.testing.assert_allclose(*map(ops.convert_to_numpy, (actual, expected)), atol=1e-6)


def test_without_a_graph_the_cost_is_unknown_and_a_teacher_is_tried(hidden):
    inputs = keras.Input((8, 8, 1))
    model = keras.Model(inputs, layers.Softmax()(classifier()(inputs)))
    with (
        pytest.warns(RuntimeWarning, match="does not show"),
        pytest.raises(ValueError, match="cannot be seen"),
    ):
        networks.flops(model)
    with pytest.warns(RuntimeWarning, match="does not show"):
        logits = as_logits(model)
    actual, expected = ops.softmax(logits(images(2))), model(images(2))
    np.testing.assert_allclose(*map(ops.convert_to_numpy, (actual, expected)), atol=1e-6)
