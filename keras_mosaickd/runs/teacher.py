"""The experiment's teacher: given by the user, found in the cache, or trained."""

import json
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from keras_mosaickd.backend import processes
from keras_mosaickd.backend.training import plain, shared
from keras_mosaickd.config import is_given
from keras_mosaickd.data import supervised_stream
from keras_mosaickd.data.cache import cached
from keras_mosaickd.data.class_matching import has_empty_classes, shortened
from keras_mosaickd.data.mean_iou import MeanIoU
from keras_mosaickd.data.pixels import VOID
from keras_mosaickd.data.scores import teacher_hash
from keras_mosaickd.errors import DivergedError, InputError
from keras_mosaickd.files import sha256
from keras_mosaickd.networks.heads import head_of
from keras_mosaickd.networks.loading import load_model
from keras_mosaickd.optimizers import student_recipe
from keras_mosaickd.run_directory import TEACHER
from keras_mosaickd.runs.fitting import fit_resumably
from keras_mosaickd.teachers.load import content_hash, load_teacher
from keras_mosaickd.teachers.scaling import statistics

# Part of the cache's key: raised whenever the same settings would train another teacher.
_CACHE_FORMAT = 1
_RECORD = "teacher.json"
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

    @property
    def head(self):
        """What its logits say (`keras_mosaickd.networks.heads`)."""
        return head_of(self.model)

    @property
    def input_shape(self):
        """`(height, width, channels)`."""
        return tuple(self.model.input_shape[1:])


def given(config, scope):
    """The teacher that `--teacher` names by a file or a function.

    Args:
        config: `ExperimentConfig`.
        scope: function that gives the context in which to load it.

    Returns:
        `Teacher`; None where `--teacher` is the name of one of the package's networks.

    Raises:
        InputError: if it cannot be loaded or does not fit.
    """
    if not is_given(config.teacher):
        return None
    with scope():
        model = load_teacher(
            config.teacher,
            config.teacher_input,
            config.image_size or None,
            config.head,
            config.teacher_output,
            config.unsafe_load,
        )
    return Teacher(model, config.teacher, content_hash(config.teacher, model), None)


def is_cached(inputs):
    """Whether the teacher that would be trained is in the cache."""
    return (_folder(inputs) / _RECORD).is_file()


def untrained(inputs):
    """The network that is to be trained, built in the run's distribution scope."""
    scaling = statistics(inputs.domain.images)
    keras.utils.set_random_seed(inputs.config.seed)
    with inputs.distribution.scope():
        return inputs.network("teacher", *scaling)


def trained(inputs, network=None):
    """The teacher of the supplement's recipe, from the cache of an identical one if there is one.

    Args:
        inputs: `Inputs`.
        network: what `untrained` gave, to be trained where the cache has none; by default it is
            built then.

    Returns:
        `Teacher`.

    Raises:
        StoppedError: after a signal; called again, it resumes bit for bit.
    """
    config, domain = inputs.config, inputs.domain
    folder = _folder(inputs)
    unfinished = folder.with_name(f".{folder.name}.training")

    def build(directory):
        print(
            f"Teacher {config.teacher}: training on {len(domain)} images of {domain.name}; "
            f"classes: {shortened(domain.class_names)}"
        )
        keras.utils.set_random_seed(config.seed)
        teacher, seconds = _fit(inputs, shared(network or untrained(inputs)), unfinished)
        if processes.is_chief():
            plain(teacher).save(directory / "teacher.keras", include_optimizer=False)
        return {**_description(inputs), "dataset": domain.name, "seconds": seconds}

    record, fresh = cached(folder, _RECORD, build, is_joint=True)
    if processes.is_chief():
        shutil.rmtree(unfinished, ignore_errors=True)
    if not fresh:
        print(f"Teacher {config.teacher}: found in {folder}")
    # A fresh one is read back too, so that a run does not depend on who trained its teacher.
    return _read(inputs, folder, record["seconds"])


def of_run(run, inputs, network):
    """The teacher of `trained`, which a run keeps to its end.

    The same settings on other devices, or by other versions, train another one. A run that began
    with this one is not resumed with that.

    Args:
        run: `RunDirectory`.
        inputs: `Inputs`.
        network: as of `trained`.

    Returns:
        `Teacher`.

    Raises:
        InputError: if the run began with a teacher that is gone, and another was trained.
        StoppedError: as of `trained`.
    """
    begun = run.read_json(TEACHER) if (run / TEACHER).is_file() else {}
    folder = Path(begun.get("folder", ""))
    is_elsewhere = bool(begun) and folder != _folder(inputs).absolute()
    if is_elsewhere and (folder / _RECORD).is_file():
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        teacher = _read(inputs, folder, record["seconds"])
        print(f"Teacher {inputs.config.teacher}: found in {folder}")
    else:
        if begun and not is_cached(inputs):
            print(f"The teacher that the run began with is gone from {folder}")
        teacher = trained(inputs, network)
    found = teacher_hash(teacher.model)
    if begun.get("sha256", found) != found:
        raise InputError(
            f"--run_dir {run.path} holds another run. Expected: the teacher that it began with, in "
            f"{folder}, or another directory. Received: another teacher, {teacher.file}"
        )
    run.write_json(TEACHER, {"folder": str(Path(teacher.file).parent.absolute()), "sha256": found})
    return teacher


def _read(inputs, folder, seconds):
    file = folder / "teacher.keras"
    with inputs.distribution.scope():
        model = load_model(file, "the cached teacher")
    return Teacher(model, str(file), content_hash(str(file), model), seconds)


def _folder(inputs):
    key = sha256(json.dumps(_description(inputs), sort_keys=True))[:24]
    return inputs.cache_dir / "teachers" / key


def _fit(inputs, network, folder):
    """The teacher, and how many seconds its training took."""
    config, domain = inputs.config, inputs.domain
    steps = len(domain) // config.teacher_batch_size

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

    with inputs.distribution.scope():
        _compile(network, config, len(domain.class_names), steps)
    try:
        fitted = fit_resumably(
            network,
            stream,
            config.teacher_epochs,
            steps,
            folder,
            inputs.distribution.scope,
            progress(),
        )
        # Weights that are numbers may be too large for any answer.
        answers = fitted[0](domain.images[:1].astype("float32") / 255, training=False)
        if not np.isfinite(keras.ops.convert_to_numpy(answers)).all():
            raise DivergedError("the teacher's answers are no numbers")
    except DivergedError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise RuntimeError(
            "the teacher's training diverged (weights or answers are NaN or infinite): lower "
            f"--teacher_learning_rate. Received: {config.teacher_learning_rate}"
        ) from error
    return fitted


def _compile(network, config, classes, steps):
    is_segmentation = config.task == "segmentation"
    metric = MeanIoU(classes, from_logits=True) if is_segmentation else "accuracy"
    network.compile(
        optimizer=student_recipe(
            steps * config.teacher_epochs, config.teacher_learning_rate, config.weight_decay
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, ignore_class=VOID if is_segmentation else None
        ),
        metrics=[metric],
    )


def progress():
    """Keras's bar on a terminal, one line per epoch in a file."""
    return 1 if sys.stdout.isatty() else 2


def _description(inputs):
    """Everything that the trained teacher depends on."""
    config, domain = inputs.config, inputs.domain
    return {
        "format": _CACHE_FORMAT,
        **({"dataset": domain.name} if domain.origin else {}),
        "pictures": domain.fingerprint(),
        "labels": sha256(np.asarray(domain.labels).tobytes()),
        # Of what is labelled all teachers have an output; there may be more classes than that.
        **({"classes": len(domain.class_names)} if has_empty_classes(domain) else {}),
        "shape": list(domain.images.shape),
        "backend": keras.backend.backend(),
        **{name: getattr(config, name) for name in _RECIPE},
        # On one device all train the same.
        **({"strategy": "auto"} if inputs.distribution.replicas == 1 else {}),
    }
