"""One experiment from plain settings: teacher, selection, distillation, evaluation, export."""

import functools

import numpy as np

from keras_mosaickd.backend.training import device_lines
from keras_mosaickd.callbacks.checkpoint import StopSignals
from keras_mosaickd.config import OUT_OF_DOMAIN, ExperimentConfig
from keras_mosaickd.data import select
from keras_mosaickd.data.sources.folder import FolderImages
from keras_mosaickd.errors import InputError
from keras_mosaickd.evaluation.label_free import LabelFreeJudge
from keras_mosaickd.evaluation.scores import evaluation_batch, scores
from keras_mosaickd.methods import registry as methods
from keras_mosaickd.networks import count_parameters
from keras_mosaickd.run_directory import (
    ENVIRONMENT,
    INPUTS,
    SELECTION,
    RunDirectory,
    environment,
    flag_line,
    published_accuracy,
)
from keras_mosaickd.runs import checks, cost, fitting, outcome
from keras_mosaickd.runs.inputs import Preparation
from keras_mosaickd.teachers import training as teachers
from keras_mosaickd.teachers.scaling import contradicting_answers, too_certain

# Out-of-domain images that a teacher's answers are looked at on.
_LOOK = 256


class Experiment(Preparation):
    """What `bin/train` and its sister commands do.

    Args:
        config: `ExperimentConfig`.
        is_dry: as of `Preparation`.
    """

    def teacher(self):
        """The `Teacher`: given, cached or trained."""
        if self.given_teacher is not None:
            return self.given_teacher
        return teachers.trained(
            self.config,
            self.domain,
            self.cache_dir,
            self.distribution.scope,
            fitting.fit_resumably,
        )

    def trainer(self, teacher, schedule):
        """The compiled method on fresh networks: `MosaicKD` or a baseline."""
        return methods.trainer(self, teacher, schedule)

    def stream(self, images, schedule, first_step, labels=None):
        """The training data: what `fit` takes, from global step `first_step` on."""
        return methods.stream(self, images, labels, schedule, first_step)

    @functools.cached_property
    def judge(self):
        """The `LabelFreeJudge`; None where the student is judged on the domain's labels alone."""
        if not self.config.judges_without_labels:
            return None
        return LabelFreeJudge(
            None if self.held_out is None else self.held_out.images,
            self.config.latent_dim if self.config.is_game else None,
            self.input_shape,
            self.config.seed,
        )

    # ---- the commands --------------------------------------------------------------------

    def check(self):
        """Raises InputError for everything that would make the run fail later."""
        checks.check(self)

    def select(self, teacher):
        """Selects the out-of-domain images: a `Selection`."""
        return select(
            teacher,
            self.pool,
            count=self.config.ood_size,
            batch_size=evaluation_batch(self.config.task, self.config.evaluation_batch_size),
            cache_dir=self.cache_dir,
            by="entropy" if self.config.ood_select == "all" else self.config.ood_select,
            seed=self.config.seed,
        )

    def dry_run(self):
        """What `train` would do, as text: flags, shapes, parameters, operations, time.

        A teacher that is not there yet is stood in for by an untrained one. Of an experiment that
        is dry itself, nothing is written.
        """
        self.check()
        schedule = self.config.schedule(self.images)
        with self.distribution.scope():
            if self.given_teacher is not None:
                teacher = self.given_teacher.model
            else:
                teacher = self.network(self.config.teacher, mean=0.5, std=0.5)
        flags = "\n".join(
            flag_line(name, value) for name, value in sorted(vars(self.config).items())
        )
        trainer = self.trainer(teacher, schedule)
        costs = cost.describe(trainer, self.config, schedule)
        return "\n\n".join([flags, "\n".join(self._describe_images()), costs])

    def _describe_images(self):
        if self.has_domain:
            yield (
                f"domain             {len(self.domain)} training and {len(self.domain_test)} test "
                f"images of {self.domain.name}, {self.classes} classes"
            )
        else:
            yield f"domain             no images and no labels; {self.classes} classes"
        if self.config.method in OUT_OF_DOMAIN:
            yield (
                f"out-of-domain      {self.images} of {len(self.pool)} images of {self.pool.name}"
            )
            if self.held_out is not None:
                yield f"                   {len(self.held_out)} more images held out"
        domain = (self.domain, self.domain_test) if self.has_domain else ()
        read = [s for s in (*domain, *self._out_of_domain, self.labelled) if s is not None]
        kept = None
        is_folder = self.pool is not None and isinstance(self.pool.images, FolderImages)
        # The whole of a folder is kept once, decoded.
        if self.config.method in OUT_OF_DOMAIN and (self.config.ood_size or not is_folder):
            kept = (self.images, *self.pool.images.shape[1:])
        size = cost.cache_bytes(read, kept)
        yield f"disk               {size / 1e6:,.1f} MB of images in {self.cache_dir}"

    def train_teacher(self):
        """Trains the teacher or finds it in the cache.

        Returns:
            Dict with its accuracy on the test images, its number of parameters and its file.
        """
        checks.check_domain(self)
        print("\n".join(device_lines()))
        teacher = self.teacher()
        return {
            **self._about(teacher),
            "teacher_parameters": count_parameters(teacher.model),
            "teacher_file": teacher.file,
        }

    def train(self, config_file=None):
        """The whole job: teacher, selection, distillation, evaluation, export.

        An interrupted run of the same settings in the same directory is continued.

        Args:
            config_file: the flagfile that the settings came from, to be named in `metrics.json`.

        Returns:
            The metrics that stand in `metrics.json`.
        """
        if not self.config.run_dir:
            raise InputError("--run_dir: expected a directory for the run. Received: none")
        self.check()
        run = RunDirectory(self.config.run_dir)
        with run.claimed(vars(self.config)):
            return self._train(run, config_file)

    def _train(self, run, config_file):
        config = self.config
        run.write_json(ENVIRONMENT, environment(config))
        print("\n".join(device_lines()))
        teacher = self.teacher()
        about_teacher = self._about(teacher)
        if about_teacher:
            print(f"Teacher accuracy: {about_teacher['teacher_accuracy']:.4f}")
        images, labels = self._training_images(run, teacher.model)
        run.write_unreadable(self.unreadable)
        run.write_json(INPUTS, self.inputs)
        schedule = config.schedule(len(self.domain) if images is None else len(images))
        trainer, steps = fitting.start_or_resume(self, run, teacher.model, schedule)
        with StopSignals() as stop:
            while steps < schedule.steps:
                steps = fitting.fit(self, run, trainer, images, labels, schedule, steps, stop)
        origin = {
            "config": config_file,
            "published_accuracy": published_accuracy(config_file),
            "teacher_file": teacher.file,
            "teacher_sha256": teacher.sha256,
            "teacher_seconds": teacher.seconds,
            **about_teacher,
        }
        return outcome.finish(self, run, trainer, schedule, self.judge, origin)

    def _about(self, teacher):
        """The teacher's scores on the test images, by the names of `metrics.json`."""
        if not self.has_domain:
            return {}
        return {
            f"teacher_{name}": value
            for name, value in scores(
                teacher.model, self.domain_test, self.config.evaluation_batch_size
            ).items()
        }

    def _training_images(self, run, teacher):
        selected = None
        if self.config.method in OUT_OF_DOMAIN:
            selection = self.select(teacher)
            print(selection.describe())
            self.warn_of_input(teacher, selection)
            run.write_json(SELECTION, selection.summary())
            selected = selection.images
        return methods.training_images(self, teacher, selected)

    def warn_of_input(self, teacher, selection):
        """Says where the teacher's answers speak against `--teacher_input`.

        None that sees images as it was made to is certain of nearly all out-of-domain ones, or
        answers the same to all.
        """
        declared = self.config.teacher_input
        if line := too_certain(selection.kept_mean, self.head.most_entropy, declared):
            print(line)
        if self.given_teacher is not None:
            looked_at = np.asarray(self.pool.images[:_LOOK])
            if line := contradicting_answers(teacher, declared, looked_at):
                print(line)


def dry_run(config):
    """Checks, and says what `train` would do as `Experiment.dry_run`; nothing is written."""
    return Experiment(config, is_dry=True).dry_run()


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
    return Experiment(config).train(config_file)


def train_teacher(config):
    """See `Experiment.train_teacher`."""
    return Experiment(config).train_teacher()


def select_ood(config):
    """Checks, then selects the out-of-domain images; returns what was kept as text."""
    experiment = Experiment(config)
    checks.check_domain(experiment)
    checks.check_pool(experiment)
    teacher = experiment.teacher().model
    selection = experiment.select(teacher)
    experiment.warn_of_input(teacher, selection)
    return selection.describe()


__all__ = [
    "Experiment",
    "ExperimentConfig",
    "dry_run",
    "select_ood",
    "train",
    "train_teacher",
]
