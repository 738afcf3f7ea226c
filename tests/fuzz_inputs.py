"""Random data handed to `fit`, `evaluate` and `predict` of user code, against plain Keras.

`cases()` is a hypothesis strategy. A case is a pair of networks with some head and the images as
Keras users hold them: an array, a tf.data.Dataset, a PyDataset, a torch DataLoader, a generator; of
some type, range and layout; with labels or without. What is accepted must end in the numbers that
the two networks give when Keras alone is asked; what cannot be right must be refused in one line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
from typing import Any

import keras
import numpy as np
from hypothesis import strategies as st
from keras import layers

from keras_mosaickd import InputError, KnowledgeDistillation, MosaicKD, recipe
from keras_mosaickd.optimizers import student_recipe
from tests import game

HEADS = {"logits": (3, None), "softmax": (3, "softmax"), "binary": (1, "sigmoid")}
KINDS = ("array", "tensor", "tf.data", "PyDataset", "DataLoader", "generator")
# What becomes of float32 images in [0, 1]; those of the first line are right as they are.
VALUES = ("uint8", "float32", "float64", "float16")
WRONG_VALUES = ("0-255", "-1-1", "int64", "nan", "0-255 later")
LAYOUTS = ("right",)
WRONG_LAYOUTS = ("channels first", "another size", "another depth", "no channels")
CALLS = ("evaluate", "predict", "fit kd", "fit game")
BATCH = 4


@dataclasses.dataclass(frozen=True)
class Case:
    """Networks, a call, and the images that it is handed."""

    head: str
    call: str
    kind: str
    values: str
    layout: str
    labels: str
    count: int
    seed: int


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """All kinds of cases; most are such that something right can come out."""

    def usually(fitting, others):
        return draw(st.sampled_from(fitting if draw(st.integers(0, 4)) else others))

    return Case(
        head=draw(st.sampled_from(list(HEADS))),
        call=draw(st.sampled_from(CALLS)),
        kind=draw(st.sampled_from(KINDS)),
        values=usually(VALUES, WRONG_VALUES),
        layout=usually(LAYOUTS, WRONG_LAYOUTS),
        labels=draw(st.sampled_from(("none", "numbers"))),
        count=draw(st.sampled_from((BATCH, BATCH + 1, 3 * BATCH))),
        seed=draw(st.integers(0, 9)),
    )


def must_be_refused(case: Case) -> str:
    """Why nothing right can come out of a case; empty where something can."""
    if case.layout != "right":
        return "a layout that the networks do not take"
    if case.values == "0-255 later" and case.count <= BATCH:
        return ""  # There is no later image.
    if case.values == "0-255 later" and case.kind not in ("array", "tensor"):
        return "" if case.call == "predict" else "later values out of range"
    if case.values in WRONG_VALUES:
        return "values that are no images"
    return ""


def network(head: str, seed: int) -> keras.Model:
    """A classifier whose answers differ from image to image."""
    keras.utils.set_random_seed(seed)
    units, activation = HEADS[head]
    random = keras.initializers.RandomNormal(0, 1.0)
    inputs = keras.Input(game.SHAPE)
    x = layers.LeakyReLU()(layers.Conv2D(4, 3, kernel_initializer=random)(inputs))
    x = layers.Flatten()(x)
    x = layers.Dense(units, kernel_initializer=random)(x)
    # A layer of its own, which a student may have too.
    return keras.Model(inputs, layers.Activation(activation)(x) if activation else x)


@functools.lru_cache
def trainers(head: str) -> dict[str, Any]:
    """The game and distillation with a teacher of this head, compiled."""
    with contextlib.redirect_stdout(io.StringIO()):
        return _trainers(head)


def _trainers(head):
    made = MosaicKD(
        network(head, 1),
        network(head, 2),
        game.generator(),
        game.discriminator(),
        latent_dim=game.LATENT,
        student_steps=game.STEPS,
        seed=3,
    )
    made.compile(**recipe(1000, game.STEPS))
    kd = KnowledgeDistillation(network(head, 1), network(head, 2))
    kd.compile(student_recipe(1000))
    return {"game": made, "kd": kd}


@functools.lru_cache
def _at_first(head):
    """The variables of `trainers` with their first values."""
    models = trainers(head).values()
    variables = [v for model in models for v in (*model.variables, *model.optimizer.variables)]
    return [(variable, keras.ops.convert_to_numpy(variable).copy()) for variable in variables]


def fresh_trainers(head: str) -> dict[str, Any]:
    """`trainers` as they were made: images that are refused late have spoiled their networks."""
    for variable, value in _at_first(head):
        variable.assign(value)
    return trainers(head)


def images(case: Case) -> np.ndarray:
    """The case's images, right but for their range, type and layout."""
    random = np.random.default_rng(case.seed)
    found = random.random((case.count, *game.SHAPE), dtype="float32")
    found[0, 0, 0] = 1.0  # So that what is scaled leaves [0, 1].
    if case.values == "uint8":
        found = (found * 255).round().astype("uint8")
    elif case.values in ("float16", "float64"):
        found = found.astype(case.values)
    elif case.values == "0-255":
        found = found * 255
    elif case.values == "-1-1":
        found = found * 2 - 1
        found[0, 0, 1] = -1.0
    elif case.values == "int64":
        found = (found * 255).astype("int64")
    elif case.values == "nan":
        found[-1 if case.kind in ("array", "tensor") else 0, 0, 0] = np.nan
    elif case.values == "0-255 later":
        found[BATCH:] *= 255
        found[BATCH:, 0, 0] = 255
    return {
        "right": lambda: found,
        "channels first": lambda: np.moveaxis(found, -1, 1),
        "another size": lambda: found[:, :-1],
        "another depth": lambda: np.repeat(found, 3, axis=-1),
        "no channels": lambda: found[..., 0],
    }[case.layout]()


def handed(case: Case, pixels: np.ndarray, labels: np.ndarray | None) -> tuple[Any, dict]:
    """What a user gives for `x`, and the keywords beside it."""
    if case.kind in ("array", "tensor"):
        x = pixels if case.kind == "array" else keras.ops.convert_to_tensor(pixels)
        return x, {"batch_size": BATCH}

    starts = range(0, len(pixels), BATCH)

    def element(start):
        part = slice(start, start + BATCH)
        return pixels[part] if labels is None else (pixels[part], labels[part])

    if case.kind == "tf.data":
        import tensorflow as tf

        arrays = pixels if labels is None else (pixels, labels)
        return tf.data.Dataset.from_tensor_slices(arrays).batch(BATCH), {}
    if case.kind == "DataLoader":
        import torch

        arrays = [torch.as_tensor(a) for a in ([pixels] if labels is None else [pixels, labels])]
        return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*arrays), BATCH), {}
    if case.kind == "PyDataset":
        return _Batches([element(start) for start in starts]), {}
    return (element(start) if labels is not None else (element(start),) for start in starts), {}


class _Batches(keras.utils.PyDataset):
    def __init__(self, elements):
        super().__init__()
        self._elements = elements

    def __len__(self):
        return len(self._elements)

    def __getitem__(self, index):
        found = self._elements[index]
        return found if isinstance(found, tuple) else (found,)


def complaint(case: Case) -> str | None:
    """Runs a case; returns what came out wrong, or None."""
    reason = must_be_refused(case)
    is_game = case.call == "fit game"
    if is_game and case.kind == "generator":
        return None  # A generator is elements of the game, whose shapes tests/test_given.py holds.
    trainer = fresh_trainers(case.head)["game" if is_game else "kd"]
    pixels = images(case)
    units = HEADS[case.head][0]
    labels = None
    if case.labels == "numbers":
        labels = np.random.default_rng(case.seed).integers(0, max(units, 2), len(pixels))
    x, options = handed(case, pixels, labels)
    if is_game:
        options["batch_size"] = BATCH  # The game makes batches of its own.
    if case.kind in ("array", "tensor") and labels is not None and case.call == "evaluate":
        options["y"] = labels
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            result = _called(case, trainer, x, options)
    except InputError as error:
        told = str(error)
        if "\n" in told or "Received" not in told:
            return f"no one clear line: {told}"
        trainer.out_of_range.reset_state()
        return None if reason else f"refused without need: {told}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if reason:
        return f"accepted with {reason}"
    return _difference(case, trainer, pixels, labels, result)


def _called(case, trainer, x, options):
    if case.call == "evaluate":
        return trainer.evaluate(x, verbose=0, return_dict=True, **options)
    if case.call == "predict":
        return trainer.predict(x, verbose=0, **options)
    return trainer.fit(x, epochs=1, verbose=0, **options).history


def _difference(case, trainer, pixels, labels, result):
    """What of the result is not what Keras says alone; None where all is."""
    scaled = pixels.astype("float32") / (255 if pixels.dtype == np.uint8 else 1)
    plain = {
        name: keras.ops.convert_to_numpy(getattr(trainer, name)(scaled, training=False))
        for name in ("teacher", "student")
    }
    if case.call == "predict":
        if case.values == "0-255 later":
            return None
        return _far("logits", result, plain["student"], 1e-4)
    if case.call.startswith("fit"):
        is_finite = all(np.isfinite(values).all() for values in result.values())
        if not is_finite:
            return f"a loss is not finite: {result}"
        # The networks as they are now: what was handed in was learned from, and not spoiled.
        result = trainer.evaluate(pixels, batch_size=BATCH, verbose=0, return_dict=True)
        labels = None
    chosen = {name: _chosen(logits) for name, logits in plain.items()}
    told = _far("agreement", result["agreement"], np.mean(chosen["teacher"] == chosen["student"]))
    if labels is not None:
        accuracy = np.mean(chosen["student"] == labels)
        told = told or _far("accuracy", result["accuracy"], accuracy)
    return told


def _chosen(logits):
    return logits.argmax(axis=-1) if logits.shape[-1] > 1 else (logits[:, 0] > 0).astype(int)


def _far(name, found, expected, tolerance=1e-5):
    far = not np.allclose(found, expected, atol=tolerance, rtol=tolerance)
    return f"{name} {found}, plain Keras {expected}" if far else None
