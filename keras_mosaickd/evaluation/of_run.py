"""Finished runs looked at again: loaded, evaluated, sampled from."""

import os
import tempfile

import numpy as np

from keras_mosaickd.config import GAMES
from keras_mosaickd.data import image_grid, load, parse, without_unreadable
from keras_mosaickd.data.class_matching import (
    LABELLED,
    class_names_of,
    labelled_as,
    read_labelled,
    renames,
)
from keras_mosaickd.errors import InputError
from keras_mosaickd.evaluation.drawing import draw_samples
from keras_mosaickd.evaluation.image_quality import latency_milliseconds
from keras_mosaickd.evaluation.scores import compared
from keras_mosaickd.evaluation.verdict import verdict
from keras_mosaickd.methods.mosaic_kd import MosaicKD
from keras_mosaickd.networks import count_parameters
from keras_mosaickd.networks.heads import head_of
from keras_mosaickd.networks.loading import load_model
from keras_mosaickd.run_directory import CHECKPOINT, METRICS, STUDENT, RunDirectory, newest_intact
from keras_mosaickd.teachers import load as teachers


def load_run(run_dir, teacher="", unsafe=False):
    """The trainer of a run, with all its networks, as it was at the last checkpoint.

    Args:
        run_dir: directory of the run.
        teacher: the run's `--teacher` again, where it is a SavedModel or `module:function`: what
            it runs is run only when it is named.
        unsafe: whether code (Lambda layers) in the run's networks is run.

    Raises:
        InputError: if there is none or it cannot be loaded.
    """
    run = RunDirectory(run_dir)
    if teacher:
        teachers.tell(teacher)
    if not run.path.is_dir():
        what = "a file" if run.path.exists() else "which does not exist"
        raise InputError(f"--run_dir must be the directory of a run. Received: {run_dir}, {what}")
    checkpoint = newest_intact(run / CHECKPOINT)
    if checkpoint is None:
        raise InputError(f"--run_dir must hold a run with a checkpoint. Received: {run_dir}")
    return load_model(checkpoint, "the checkpoint", unsafe=unsafe)


def load_game(run_dir, teacher="", unsafe=False):
    """`load_run` of a run with a generator; raises InputError for another one."""
    trainer = load_run(run_dir, teacher, unsafe)
    if not isinstance(trainer, MosaicKD):
        raise InputError(
            f"--run_dir must hold a run with a generator (--method={' or '.join(GAMES)}). "
            f"Received: {run_dir}"
        )
    return trainer


def evaluate(
    run_dir,
    dataset="",
    data_dir="",
    teacher="",
    labelled="",
    unsafe=False,
    class_names="",
    batch_size=0,
    skip_unreadable=False,
):
    """Evaluates a finished run's exported student beside its teacher.

    The run's `metrics.json` keeps what both cost to store and to run (`footprint`), and what was
    found on images that were named here, as `eval_...` beside `eval`, their name.

    Args:
        run_dir: directory of the run.
        dataset: data set whose test images are used; by default the run's, if it has one.
        data_dir: directory of data files.
        teacher: as of `load_run`.
        labelled: labelled images to use instead, named like `--eval` of `bin/train`.
        unsafe: as of `load_run`.
        class_names: file with the names of the teacher's classes; by default those of the run.
        batch_size: as of `predictions`.
        skip_unreadable: whether images that cannot be read are left out, which is said.

    Returns:
        Dict of what `compared` finds, where there are labelled images, and of the footprint of
        both.

    Raises:
        InputError: if the run cannot be loaded or the images do not fit.
    """
    if dataset and labelled:
        raise InputError(
            "expected --eval or --dataset, not both. "
            f"Received: --eval={labelled}, --dataset={dataset}"
        )
    trainer = load_run(run_dir, teacher, unsafe)
    run = RunDirectory(run_dir)
    metrics = run.read_json(METRICS)
    student = _exported(run, trainer)
    tested = _tested(
        metrics, trainer.teacher, dataset, labelled, data_dir, class_names, skip_unreadable
    )
    found, kept = {}, {}
    if tested is None:
        how = (
            "evaluate(images, labels) measures it from Python"
            if trainer.head.kind == "labels"
            else f"--eval={LABELLED[_task_of(trainer.teacher)]} measures it"
        )
        print(f"Accuracy is not measured: the run was made without a data set. {how}")
    else:
        found = compared(trainer.teacher, student, tested, batch_size)
        if dataset or labelled:
            name = tested.name if labelled else f"{tested.name}, test images"
            found = {"eval": name, **{f"eval_{key}": found[key] for key in found}}
            kept = found
        else:  # The run has written them down itself.
            found = {"dataset": tested.name, **found}
    cost = {
        **footprint("teacher", trainer.teacher),
        **footprint("student", student, run / STUDENT),
    }
    metrics = {**metrics, **kept, **cost}
    if "verdict" in metrics:
        metrics["verdict"] = verdict(metrics)
    try:
        run.write_json(METRICS, metrics)
    except OSError as error:  # What was measured is worth printing all the same.
        print(f"Warning: {METRICS} of {run_dir} stays as it was: {error}")
    return {**found, **cost}


def _exported(run, trainer):
    """The student that a run exported, which may be of an earlier epoch than its last one."""
    last = trainer.student
    if not (run / STUDENT).is_file():
        return last
    student = load_model(run / STUDENT, "the student")
    shapes = [getattr(student, side, None) for side in ("input_shape", "output_shape")]
    if shapes != [last.input_shape, last.output_shape]:
        raise InputError(
            f"--run_dir must hold a {STUDENT} of its checkpoint, from {last.input_shape} to "
            f"{last.output_shape}. Received: {run / STUDENT}, from {shapes[0]} to {shapes[1]}"
        )
    return student


def _tested(metrics, teacher, dataset, labelled, data_dir, names_file, skip_unreadable):
    """The `ImageSet` to test on, labelled as the run's; None where nothing names any.

    Classes are matched by their names.
    """
    own = metrics.get("dataset")
    if not isinstance(own, str | None):
        raise InputError(
            f"--run_dir must hold a run whose {METRICS} names its dataset. Received: {own!r}"
        )
    flag, name = ("--eval", labelled) if labelled else ("--dataset", dataset or own)
    if name is None:
        return None
    tested = read_labelled(name, teacher.input_shape[1:], data_dir, flag, skip_unreadable)
    if skip_unreadable:
        tested = without_unreadable(tested)
    head = head_of(teacher)
    classes = head.classes
    if head.kind == "labels":
        raise InputError(
            f"{flag} has one class for each image, and the run's teacher {classes} independent "
            f"labels: measure them from Python with evaluate(images, labels). Received: {name}"
        )
    if flag == "--dataset" and tested.name != own and parse(name).name == "folder":
        count = len(load(name, "all"))
        print(
            f"--dataset: {len(tested)} of the {count} images are tested, the test split of "
            f"{name}; --eval={name} tests all"
        )
    numbers = tuple(map(str, range(classes)))
    names = class_names_in(metrics, classes) or numbers
    if names_file:
        names = class_names_of(names_file, classes)
    task = _task_of(teacher)
    is_named = names != numbers or bool(names_file or own)
    if tested.name == own and not names_file:
        is_named = not renames(names, tested)
    return labelled_as(tested, names, task, is_named, flag)


def _task_of(teacher):
    return "classification" if len(teacher.output_shape) == 2 else "segmentation"


def class_names_in(metrics, classes):
    """The names that a run gives its teacher's classes; None where it has no fitting ones.

    Args:
        metrics: dict of the run's `metrics.json`; empty where there is none yet.
        classes: how many there must be.
    """
    names = metrics.get("class_names")
    is_whole = isinstance(names, list) and len(names) == classes
    return tuple(map(str, names)) if is_whole else None


def footprint(part, network, file=None):
    """What a network costs to store and to run.

    Args:
        part: "teacher" or "student": the names start with it.
        network: built Keras model.
        file: its `.keras` file; where there is none, one is written and removed again.

    Returns:
        Dict of `..._bytes`, the size of its `.keras` file without an optimizer, and
        `..._latency_ms`, the median time of one prediction of one image on this machine.
    """
    with tempfile.TemporaryDirectory() as folder:
        if file is None or not os.path.isfile(file):
            file = os.path.join(folder, "network.keras")
            network.save(file, include_optimizer=False)
        # What is no Keras model has its weights elsewhere; as a rule they are float32.
        elsewhere = count_parameters(network) - network.count_params()
        size = os.path.getsize(file) + 4 * elsewhere
    return {f"{part}_bytes": size, f"{part}_latency_ms": latency_milliseconds(network)}


def sample(run_dir, count, out, seed=0, teacher="", unsafe=False):
    """Draws a grid of a run's synthetic images, sorted by the teacher's class.

    Args:
        run_dir: directory of a mosaickd run.
        count: number of images.
        out: PNG file to write.
        seed: seed of z.
        teacher: as of `load_run`.
        unsafe: as of `load_run`.

    Returns:
        The file's path.
    """
    trainer = load_game(run_dir, teacher, unsafe)
    latents = np.random.default_rng(seed).standard_normal((count, trainer.latent_dim), "float32")
    run = RunDirectory(run_dir)
    # A run that is not finished has a checkpoint and no metrics yet.
    metrics = run.read_json(METRICS) if run.is_finished else {}
    names = class_names_in(metrics, trainer.head.classes)
    grid = draw_samples(trainer.generator, trainer.teacher, latents, class_names=names)
    return image_grid.write_png(out, grid)
