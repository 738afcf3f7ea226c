"""The experiment's teacher: given by the user, found in the cache, or trained."""

import json
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from keras_mosaickd import networks
from keras_mosaickd.data import supervised_stream
from keras_mosaickd.data.cache import cached
from keras_mosaickd.data.mean_iou import MeanIoU
from keras_mosaickd.data.pixels import VOID
from keras_mosaickd.errors import DivergedError
from keras_mosaickd.files import sha256
from keras_mosaickd.optimizers import student_recipe
from keras_mosaickd.teachers.load import content_hash, load_teacher
from keras_mosaickd.teachers.scaling import statistics

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
        model: Keras model from images to logits.
        file: its `.keras` file, or what else `--teacher` named.
        sha256: hash of that file or directory; None where a function made it.
        seconds: how long its training took; None where somebody else trained it.
    """

    model: keras.Model
    file: str
    sha256: str | None
    seconds: float | None


def given(config, image_size):
    """The teacher that `--teacher` names by a file or a function.

    Args:
        config: `ExperimentConfig`.
        image_size: height and width in pixels that it must take; None leaves them to it.

    Returns:
        `Teacher`.

    Raises:
        InputError: if it cannot be loaded or does not fit.
    """
    text = config.teacher
    model = load_teacher(
        text,
        config.teacher_input,
        image_size,
        config.head,
        config.teacher_output,
        config.unsafe_load,
    )
    return Teacher(model, text, content_hash(text, model), None)


def trained(config, domain, cache_dir, scope, fit):
    """The teacher of the supplement's recipe, from the cache of an identical one if there is one.

    Args:
        config: `ExperimentConfig`.
        domain: `ImageSet` to train on, with labels.
        cache_dir: directory of the cache.
        scope: function that gives the context in which to build and compile.
        fit: `runs.fitting.fit_resumably`, which goes on from what it keeps in a folder.

    Returns:
        `Teacher`.

    Raises:
        StoppedError: after a signal; called again, it goes on bit for bit.
    """
    description = _description(config, domain)
    key = sha256(json.dumps(description, sort_keys=True))[:24]
    folder = Path(cache_dir) / "teachers" / key

    def build(directory):
        print(f"Teacher {config.teacher}: training on {len(domain)} images of {domain.name}")
        keras.utils.set_random_seed(config.seed)
        teacher, seconds = _train(config, domain, scope, fit, unfinished)
        teacher.save(directory / "teacher.keras", include_optimizer=False)
        return {**description, "dataset": domain.name, "seconds": seconds}

    unfinished = folder.with_name(f".{folder.name}.training")
    record, fresh = cached(folder, "teacher.json", build)
    shutil.rmtree(unfinished, ignore_errors=True)
    if not fresh:
        print(f"Teacher {config.teacher}: found in {folder}")
    # A fresh one is read back too, so that a run does not depend on who trained its teacher.
    file = folder / "teacher.keras"
    with scope():
        model = keras.saving.load_model(file, compile=False, safe_mode=True)
    return Teacher(model, str(file), content_hash(str(file), model), record["seconds"])


def _train(config, domain, scope, fit, folder):
    """The teacher, and how many seconds its training took."""
    steps = len(domain) // config.teacher_batch_size

    def build():
        with scope():
            return _compiled(config, domain, steps)

    def stream(first_step, steps_per_epoch):
        return supervised_stream(
            domain.images,
            domain.labels,
            config.teacher_batch_size,
            seed=config.seed,
            first_step=first_step,
            steps_per_epoch=steps_per_epoch,
            flip=domain.flip,
        )

    try:
        return fit(build, stream, config.teacher_epochs, steps, folder, scope, progress())
    except DivergedError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise RuntimeError(
            "the teacher's training diverged (a weight is NaN or infinite): lower "
            f"--teacher_learning_rate. Received: {config.teacher_learning_rate}"
        ) from error


def _compiled(config, domain, steps):
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
    return teacher


def progress():
    """Keras's bar on a terminal, one line per epoch in a file."""
    return 1 if sys.stdout.isatty() else 2


def _description(config, domain):
    """Everything that the trained teacher depends on."""
    return {
        "format": _CACHE_FORMAT,
        **({"dataset": domain.name} if domain.origin else {}),
        "pictures": domain.fingerprint(),
        "labels": sha256(np.asarray(domain.labels).tobytes()),
        "shape": list(domain.images.shape),
        "backend": keras.backend.backend(),
        **{name: getattr(config, name) for name in _RECIPE},
    }
