"""What Keras users hand to fit, evaluate and predict: it works, or one error says how it would."""

import keras
import numpy as np
import pytest

from keras_mosaickd import InputError, KnowledgeDistillation, measure_agreement, networks
from keras_mosaickd.callbacks import draw_samples
from keras_mosaickd.optimizers import student_recipe
from tests.game import CLASSES, LATENT, classifier, game, generator, images


class Batches(keras.utils.PyDataset):
    """Batches `(images, labels)`."""

    def __init__(self, x, size=8):
        super().__init__()
        self.x, self.size = x, size

    def __len__(self):
        return len(self.x) // self.size

    def __getitem__(self, index):
        x = self.x[index * self.size : (index + 1) * self.size]
        return x, np.zeros(len(x), "int64")


def as_dataset(x):
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices((x, np.zeros(len(x)))).batch(8)


def as_loader(x):
    data = pytest.importorskip("torch.utils.data")
    return data.DataLoader(data.TensorDataset(torch_tensor(x), torch_tensor(np.zeros(len(x)))), 8)


def torch_tensor(x):
    return pytest.importorskip("torch").from_numpy(x)


STREAMS = {"PyDataset": Batches, "tf.data": as_dataset, "DataLoader": as_loader}


def on(kind):
    """TensorFlow's own streams are all that it takes otherwise than PyTorch."""
    return pytest.mark.long_on("tensorflow") if kind != "tf.data" else ()


def kd():
    model = KnowledgeDistillation(classifier(1), classifier(2))
    model.compile(student_recipe(10))
    return model


@pytest.mark.slow
@pytest.mark.parametrize("kind", [pytest.param(kind, marks=on(kind)) for kind in STREAMS])
@pytest.mark.parametrize("trainer", [game, kd])
def test_fit_takes_labelled_batches_and_leaves_the_labels_out(trainer, kind, capsys, monkeypatch):
    monkeypatch.setattr("keras_mosaickd.methods.base.say_once", print)
    data = (images() * 255).astype("uint8")
    # Of 8 images, which is the batch of the game, too.
    stream, model = STREAMS[kind](data), trainer()
    found = model.fit(stream, shuffle=False, verbose=0).history
    assert capsys.readouterr().out.count("labels are left out") == 1
    if kind == "PyDataset":  # The others go the same way; tf.data draws another order.
        expected = trainer().fit(data, batch_size=8, shuffle=False, verbose=0).history
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-4)
        assert not capsys.readouterr().out
    assert set(model.evaluate(stream, verbose=0, return_dict=True)) >= {"agreement", "accuracy"}
    assert model.predict(stream, verbose=0).shape == (16, CLASSES)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=on(kind)) for kind in ("array", *STREAMS)]
)
@pytest.mark.parametrize("trainer", [game, kd])
def test_what_networks_do_not_take_is_refused_with_the_line_to_add(trainer, kind):
    model = trainer()
    make, is_stream = STREAMS.get(kind, lambda x: x), kind != "array" and trainer is kd
    line = r"dataset.map\(lambda images, labels: \({}, labels\)\)" if kind == "tf.data" else "{}"
    for wrong, message in (
        (images() * 255, r"Received: floats in \[.*\]; give " + line.format("images / 255.0")),
        (images() * 2 - 1, "; give " + line.format(r"\(images \+ 1\) / 2")),
        (images() * 4 - 2, r"Received: floats in \[-.*\]$"),
        (np.zeros((16, 9, 9, 1), "uint8"), r"images \[n, 8, 8, 1\], as.*shape \(\d+, 9, 9, 1\)$"),
        (np.zeros((16, 8, 8, 3), "uint8"), r"images \[n, 8, 8, 1\], as.*shape \(\d+, 8, 8, 3\)$"),
        (np.zeros((16, 1, 8, 8), "uint8"), r"come last here: np.moveaxis\(images, 1, -1\)$"),
    ):
        validation = (wrong,) if kind == "array" else make(wrong)
        for call in (
            lambda x: model.fit(x, batch_size=None if is_stream else 8, verbose=0),
            lambda x: model.evaluate(x, verbose=0),
            lambda x: model.predict(x, verbose=0),
            lambda x, v=validation: model.fit(images(), batch_size=8, validation_data=v, verbose=0),
        ):
            with pytest.raises(InputError, match=message):
                call(make(wrong))
    assert int(keras.ops.convert_to_numpy(model.optimizer.iterations)) == 0


@pytest.mark.slow
@pytest.mark.graph
@pytest.mark.backend("tensorflow", "jax", "torch")
@pytest.mark.long_on("jax")
@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=pytest.mark.long if k != "PyDataset" else ()) for k in STREAMS],
)
def test_what_a_stream_gives_later_is_refused_at_the_next_evaluation(kind):
    late = images(32)
    late[20] *= 255
    made = STREAMS[kind]
    for call in (
        lambda model: model.fit(made(late), verbose=0),
        lambda model: model.fit(made(late), validation_data=(images(),), verbose=0),
        lambda model: model.fit(images(), batch_size=8, validation_data=made(late), verbose=0),
        lambda model: model.evaluate(made(late), verbose=0),
    ):
        model = kd()
        with pytest.raises(InputError, match=r"Received: floats in \[0, 2\d\d.*images / 255.0"):
            call(model)
    # The next one is not blamed for it.
    assert model.evaluate(images(), verbose=0)


@pytest.mark.long_on("tensorflow")
def test_a_generator_gives_the_element_that_was_looked_at_too():
    seen = [images(8, seed) for seed in range(3)]
    history = kd().fit(((x,) for x in seen), steps_per_epoch=3, verbose=0).history
    expected = kd().fit(np.concatenate(seen), batch_size=8, shuffle=False, verbose=0).history
    assert history["loss"] == pytest.approx(expected["loss"], rel=1e-4)


def test_channels_first_is_one_clear_error(monkeypatch):
    monkeypatch.setattr(keras.config, "image_data_format", lambda: "channels_first")
    for build in (
        lambda: networks.build("wrn10_1", (16, 16, 3), 3),
        lambda: networks.generator((16, 16, 3)),
        lambda: networks.discriminator((16, 16, 3)),
    ):
        with pytest.raises(InputError, match="set_image_data_format.*Received: channels_first$"):
            build()


@pytest.mark.backend("torch")
def test_evaluation_keeps_nothing_for_gradients():
    import torch

    seen = []

    class See(keras.layers.Layer):
        def call(self, x):
            seen.append(torch.is_grad_enabled())
            return x

    inputs = keras.Input((8, 8, 1))
    outputs = keras.layers.Dense(CLASSES)(keras.layers.Flatten()(See()(inputs)))
    student = keras.Model(inputs, outputs)
    seen.clear()
    measure_agreement(classifier(1), student, images())
    draw_samples(generator(), student, np.zeros((4, LATENT), "float32"))
    assert seen and not any(seen)
