"""The experiment's teacher: loaded from a file, found in the cache, or trained."""

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from keras_mosaickd import networks
from keras_mosaickd.data import supervised_stream
from keras_mosaickd.data.labels import VOID
from keras_mosaickd.data.store import cached
from keras_mosaickd.errors import InputError
from keras_mosaickd.loading import load_model
from keras_mosaickd.metrics import MeanIoU
from keras_mosaickd.optimizers import student_recipe
from keras_mosaickd.teacher_outputs import as_logits

# Part of the cache's key: raised whenever the same settings would train another teacher.
_CACHE_FORMAT = 1
_RECIPE = (
    "teacher",
    "teacher_epochs",
    "teacher_batch_size",
    "teacher_learning_rate",
    "weight_decay",
    "precision",
    "strategy",
    "seed",
)


class Teacher(NamedTuple):
    """A teacher that is ready.

    Attributes:
        model: Keras model from pictures to logits.
        file: its `.keras` file.
        seconds: how long its training took; None where somebody else trained it.
    """

    model: keras.Model
    file: str
    seconds: float | None


def is_file(teacher):
    """Whether `--teacher` names a file rather than a network."""
    return teacher.endswith(".keras") or os.sep in teacher


def load(path, input_shape, classes):
    """Loads a teacher from a `.keras` file and checks that it fits the data.

    Args:
        path: the file; loaded in Keras's safe mode, so no code in it is run.
        input_shape: `(height, width, channels)` of the data.
        classes: number of classes of the data.

    Returns:
        `Teacher`.

    Raises:
        InputError: if it cannot be loaded or does not fit.
    """
    if not os.path.isfile(path):
        raise InputError(f"--teacher must be a network's name or a .keras file. Received: {path}")
    teacher = load_model(path, "--teacher")
    received = tuple(teacher.input_shape[1:])
    fits = len(received) == 3 and all(
        size in (None, wanted) for size, wanted in zip(received, input_shape, strict=True)
    )
    if not fits:
        raise InputError(
            f"--teacher must take pictures of {input_shape} as --dataset has them. "
            f"Received: {path} with input {received}"
        )
    if teacher.output_shape[-1] != classes:
        raise InputError(
            f"--teacher must have {classes} outputs, the number of classes of --dataset. "
            f"Received: {path} with {teacher.output_shape[-1]}"
        )
    return Teacher(as_logits(teacher), str(path), None)


def normalization(teacher):
    """Mean and standard deviation by which a teacher normalises pictures, if a layer of it does.

    Returns:
        `(mean, std)`, lists with one number or one per channel, or `(None, None)`.
    """
    for layer in teacher.layers:
        if isinstance(layer, keras.layers.Normalization) and layer.input_mean is not None:
            mean, variance = np.ravel(layer.input_mean), np.ravel(layer.input_variance)
            return mean.tolist(), np.sqrt(variance).tolist()
        if isinstance(layer, keras.layers.Rescaling):
            scale = np.ravel(np.asarray(layer.scale, "float64"))
            return np.ravel(-np.asarray(layer.offset) / scale).tolist(), (1 / scale).tolist()
    return None, None


def statistics(images):
    """Mean and standard deviation of each channel over all pictures and pixels, in [0, 1].

    Args:
        images: uint8 array-like `[n, h, w, c]`.

    Returns:
        `(mean, std)`, two lists of c numbers.
    """
    total = squares = np.zeros(images.shape[-1])
    pixels = 0
    for start in range(0, len(images), 4096):
        chunk = np.asarray(images[start : start + 4096], "float64") / 255.0
        total = total + chunk.sum(axis=(0, 1, 2))
        squares = squares + (chunk**2).sum(axis=(0, 1, 2))
        pixels += chunk[..., 0].size
    mean = total / pixels
    # A channel that never changes is left as it is.
    deviation = np.sqrt(np.maximum(squares / pixels - mean**2, 0.0))
    return mean.tolist(), np.where(deviation < 1e-6, 1.0, deviation).tolist()


def trained(config, domain, cache_dir, scope):
    """The teacher of the supplement's recipe, from the cache of an identical one if there is one.

    Args:
        config: `ExperimentConfig`.
        domain: `Pictures` to train on, with labels.
        cache_dir: directory of the cache.
        scope: function that gives the context in which to build and compile.

    Returns:
        `Teacher`.
    """
    description = _description(config, domain)
    key = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:24]
    folder = Path(cache_dir) / "teachers" / key

    def build(directory):
        print(f"Teacher {config.teacher}: training on {len(domain)} pictures of {domain.name}")
        keras.utils.set_random_seed(config.seed)
        start = time.perf_counter()
        with scope():
            _train(config, domain).save(directory / "teacher.keras")
        return {**description, "seconds": time.perf_counter() - start}

    record, fresh = cached(folder, "teacher.json", build)
    if not fresh:
        print(f"Teacher {config.teacher}: found in {folder}")
    # A fresh one is read back too, so that a run does not depend on who trained its teacher.
    file = folder / "teacher.keras"
    with scope():
        model = keras.saving.load_model(file, compile=False, safe_mode=True)
    return Teacher(model, str(file), record["seconds"])


def _train(config, domain):
    steps = len(domain) // config.teacher_batch_size
    mean, std = statistics(domain.images)
    teacher = networks.build(
        config.teacher,
        domain.images.shape[1:],
        len(domain.class_names),
        mean=mean,
        std=std,
        task=config.task,
    )
    is_segmentation = config.task == "segmentation"
    metric = MeanIoU(len(domain.class_names), from_logits=True) if is_segmentation else "accuracy"
    teacher.compile(
        optimizer=student_recipe(
            steps * config.teacher_epochs, config.teacher_learning_rate, config.weight_decay
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, ignore_class=VOID if is_segmentation else None
        ),
        metrics=[metric],
    )
    stream = supervised_stream(
        domain.images,
        domain.labels,
        config.teacher_batch_size,
        seed=config.seed,
        flip=domain.flip,
    )
    teacher.fit(
        stream,
        epochs=config.teacher_epochs,
        verbose=progress(),
        shuffle=False,
        callbacks=[keras.callbacks.TerminateOnNaN()],
    )
    if not all(np.isfinite(weight).all() for weight in teacher.get_weights()):
        raise RuntimeError(
            "the teacher's training diverged (a weight is NaN or infinite): lower "
            f"--teacher_learning_rate. Received: {config.teacher_learning_rate}"
        )
    return teacher


def progress():
    """Keras's bar on a terminal, one line per epoch in a file."""
    return 1 if sys.stdout.isatty() else 2


def _description(config, domain):
    """Everything that the trained teacher depends on."""
    return {
        "format": _CACHE_FORMAT,
        "dataset": domain.name,
        "pictures": domain.fingerprint(),
        "labels": hashlib.sha256(np.asarray(domain.labels).tobytes()).hexdigest(),
        "shape": list(domain.images.shape),
        "backend": keras.backend.backend(),
        **{name: getattr(config, name) for name in _RECIPE},
    }
