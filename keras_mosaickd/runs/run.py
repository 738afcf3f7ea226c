"""One run, from settings to a finished directory; and the parts of it that have their own command.

`train` reads from top to bottom as docs/algorithm.md tells the run.
"""

import numpy as np

from keras_mosaickd import export
from keras_mosaickd.backend import processes
from keras_mosaickd.backend.training import device_lines
from keras_mosaickd.config import ExperimentConfig
from keras_mosaickd.data import select
from keras_mosaickd.errors import InputError
from keras_mosaickd.evaluation.label_free import LabelFreeJudge
from keras_mosaickd.evaluation.scores import evaluation_batch, scores
from keras_mosaickd.methods import registry as methods
from keras_mosaickd.networks import count_parameters
from keras_mosaickd.run_directory import (
    ENVIRONMENT,
    INPUTS,
    SELECTION,
    STUDENT,
    RunDirectory,
    environment,
    published_accuracy,
)
from keras_mosaickd.runs import building, checks, cost, fitting, outcome
from keras_mosaickd.runs.inputs import load
from keras_mosaickd.runs.teacher import of_run, trained
from keras_mosaickd.teachers.scaling import contradicting_answers, too_certain

# Out-of-domain images that a teacher's answers are looked at on.
_LOOK = 256


def train(config, config_file=None):
    """Runs a whole experiment: teacher, selection, distillation, evaluation, export.

    It is what `bin/train` does. Everything that would make it fail later is checked before
    anything is written. The directory `config.run_dir` must be new, empty, or hold an interrupted
    run of the same settings, which is resumed.

    Args:
        config: `ExperimentConfig`.
        config_file: the flagfile that the settings came from, to be named in `metrics.json`.

    Returns:
        Dict of the metrics that stand in `metrics.json`.

    Raises:
        InputError: if the settings do not fit together, or the directory holds another run.
    """
    if not config.run_dir:
        raise InputError("--run_dir: expected a directory for the run. Received: none")
    run = RunDirectory(config.run_dir)
    checks.check_settings(config)
    run.check(vars(config))
    inputs = load(config)
    networks = building.build(inputs)
    hashes = inputs.hashes()
    run.check_inputs(hashes)
    with run.claimed(vars(config)):
        run.write_json(ENVIRONMENT, environment(config))
        run.write_json(INPUTS, hashes)
        run.write_unreadable(inputs.unreadable)
        print("\n".join([*device_lines(), *_left_out(config)]))
        teacher = inputs.teacher or of_run(run, inputs, networks.teacher)
        teacher_scores = _teacher_scores(inputs, teacher)
        if teacher_scores:
            print(f"Teacher accuracy: {teacher_scores['teacher_accuracy']:.4f}")
        data = _training_images(run, inputs, teacher.model)
        schedule = config.schedule(inputs.epoch_size if data.images is None else len(data.images))
        resumed = fitting.resumed(run, inputs, schedule)
        if resumed is None:
            with inputs.distribution.scope():
                resumed = methods.trainer(config, teacher.model, networks, schedule), 0
        trainer, steps = resumed
        judge = _judge(inputs)
        fitting.fit(run, inputs, trainer, data, schedule, steps, judge)
        origin = {
            "config": config_file,
            "published_accuracy": published_accuracy(config_file),
            "teacher_file": teacher.file,
            "teacher_sha256": teacher.sha256,
            "teacher_seconds": teacher.seconds,
            **teacher_scores,
        }
        return processes.from_chief(
            lambda: outcome.finish(run, inputs, trainer, schedule, judge, origin)
        )


def dry_run(config):
    """What `train` would do, as text: flags, shapes, parameters, operations, time.

    A teacher that is not there yet is stood in for by an untrained one. Nothing is written.

    Raises:
        InputError: as of `train`.
    """
    checks.check_settings(config)
    run = RunDirectory(config.run_dir or "runs")
    run.check(vars(config))
    inputs = load(config, is_dry=True)
    networks = building.build_untrained(inputs)
    teacher = networks.teacher if inputs.teacher is None else inputs.teacher.model
    schedule = config.schedule(inputs.epoch_size)
    with inputs.distribution.scope():
        trainer = methods.trainer(config, teacher, networks, schedule)
    return "\n\n".join(
        [
            cost.describe_flags(config),
            cost.describe_images(inputs),
            cost.describe(trainer, config, schedule),
            *_left_out(config),
        ]
    )


def _left_out(config):
    """Lines about formats that cannot be written here."""
    formats = export.parse(config.export)
    if formats == export.of_a_run(formats):
        return []
    return [f"No SavedModel: it needs TensorFlow. The student will be in {STUDENT}"]


def train_teacher(config):
    """Trains the teacher, or finds it in the cache.

    Returns:
        Dict with its accuracy on the test images, its number of parameters and its file.

    Raises:
        InputError: if the settings do not fit together.
    """
    inputs = load(config, with_pool=False)
    print("\n".join(device_lines()))
    teacher = ready_teacher(inputs)
    return {
        **_teacher_scores(inputs, teacher),
        "teacher_parameters": count_parameters(teacher.model),
        "teacher_file": teacher.file,
    }


def select_ood(config):
    """Selects the out-of-domain images; returns what was kept as text.

    Raises:
        InputError: if the settings do not fit together.
    """
    inputs = load(config, trains=False)
    teacher = ready_teacher(inputs)
    found = selection(inputs, teacher.model)
    _warn_of_input(inputs, teacher.model, found)
    return found.describe()


def ready_teacher(inputs):
    """The `Teacher`: given, from the cache, or trained now."""
    return inputs.teacher or trained(inputs)


def _teacher_scores(inputs, teacher):
    """The teacher's scores on the test images, by the names of `metrics.json`."""
    if inputs.domain is None:
        return {}
    batch = inputs.config.evaluation_batch_size
    found = processes.from_chief(lambda: scores(teacher.model, inputs.domain_test, batch))
    return {f"teacher_{name}": value for name, value in found.items()}


def _training_images(run, inputs, teacher):
    """The selection, where the method learns from out-of-domain images, and what it makes of it."""
    selected, flip = None, False
    if inputs.pool is not None:
        found = selection(inputs, teacher)
        print(found.describe())
        _warn_of_input(inputs, teacher, found)
        run.write_json(SELECTION, found.summary())
        selected, flip = found.images, inputs.pool.flip
    return methods.training_images(
        inputs.config, teacher, inputs.domain, selected, flip, inputs.class_names
    )


def selection(inputs, teacher):
    """The `Selection` of the out-of-domain images."""
    config = inputs.config
    return select(
        teacher,
        inputs.pool,
        count=config.ood_size,
        batch_size=evaluation_batch(config.task, config.evaluation_batch_size),
        cache_dir=inputs.cache_dir,
        by="entropy" if config.ood_select == "all" else config.ood_select,
        seed=config.seed,
    )


def _warn_of_input(inputs, teacher, found):
    """Says where the teacher's answers speak against `--teacher_input`.

    None that sees images as it was made to is certain of nearly all out-of-domain ones, or answers
    the same to all.
    """
    declared = inputs.config.teacher_input
    if line := too_certain(found.kept_mean, inputs.head.most_entropy, declared):
        print(line)
    if inputs.teacher is not None:
        looked_at = np.asarray(inputs.pool.images[:_LOOK])
        if line := contradicting_answers(teacher, declared, looked_at):
            print(line)


def _judge(inputs):
    """The `LabelFreeJudge`; None where the student is judged on the domain's labels alone."""
    config = inputs.config
    if not config.judges_without_labels:
        return None
    return LabelFreeJudge(
        None if inputs.held_out is None else inputs.held_out.images,
        config.latent_dim if config.is_game else None,
        inputs.input_shape,
        config.seed,
    )


__all__ = ["ExperimentConfig", "dry_run", "select_ood", "train", "train_teacher"]
