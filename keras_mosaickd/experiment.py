"""One experiment from plain settings: teacher, selection, distillation, evaluation, export."""

import dataclasses
import functools

import keras
import numpy as np

from keras_mosaickd import callbacks, cost, export, methods, model_card, shipping, teachers
from keras_mosaickd.checkpoints import Checkpoint, StopSignals, newest_intact
from keras_mosaickd.config import OUT_OF_DOMAIN, ExperimentConfig
from keras_mosaickd.data import evaluation_arrays, select
from keras_mosaickd.divergence import CollapseWarning, StopWhenInvalid
from keras_mosaickd.evaluation import EVALUATION_BATCH, scores
from keras_mosaickd.loading import load_model
from keras_mosaickd.preparation import Preparation
from keras_mosaickd.quality_callback import PictureQuality
from keras_mosaickd.run_directory import (
    BEST_STUDENT,
    CHECKPOINT,
    ENVIRONMENT,
    HISTORY,
    METRICS,
    SAMPLES,
    SELECTION,
    TENSORBOARD,
    RunDirectory,
    environment,
    flag_value,
    published_accuracy,
)


class Experiment(Preparation):
    """What `bin/train` and its sister commands do.

    Args:
        config: `ExperimentConfig`.
    """

    def teacher(self):
        """The `Teacher`: given, cached or trained."""
        if self.given_teacher is not None:
            return self.given_teacher
        return teachers.trained(self.config, self.domain, self.cache_dir, self.distribution.scope)

    def trainer(self, teacher, schedule):
        """The compiled method on fresh networks: `MosaicKD` or a baseline."""
        return methods.trainer(self, teacher, schedule)

    def stream(self, images, schedule, first_step, labels=None):
        """The training data: what `fit` takes, from global step `first_step` on."""
        return methods.stream(self, images, labels, schedule, first_step)

    # ---- the commands --------------------------------------------------------------------

    def select(self, teacher):
        """Selects the out-of-domain pictures: a `Selection`."""
        return select(
            teacher,
            self.pool,
            count=self.config.ood_size,
            batch_size=EVALUATION_BATCH[self.config.task],
            cache_dir=self.cache_dir,
        )

    def dry_run(self):
        """What `train` would do, as text: flags, shapes, parameters, operations, time.

        A teacher that is not there yet is stood in for by an untrained one.
        """
        self.check()
        schedule = self.config.schedule(self.pictures)
        with self.distribution.scope():
            if self.given_teacher is not None:
                teacher = self.given_teacher.model
            else:
                teacher = self.network(self.config.teacher, mean=0.5, std=0.5)
        flags = "\n".join(
            f"--{name}={flag_value(value)}" for name, value in sorted(vars(self.config).items())
        )
        pictures = (
            f"domain             {len(self.domain)} training and {len(self.domain_test)} test "
            f"pictures of {self.domain.name}, {self.classes} classes"
        )
        if self.config.method in OUT_OF_DOMAIN:
            pictures += (
                f"\nout-of-domain      {self.pictures} of {len(self.pool)} pictures of "
                f"{self.pool.name}"
            )
        trainer = self.trainer(teacher, schedule)
        return "\n\n".join([flags, pictures, cost.describe(trainer, self.config, schedule)])

    def train_teacher(self):
        """Trains the teacher or finds it in the cache.

        Returns:
            Dict with its accuracy on the test pictures, its number of parameters and its file.
        """
        self.check_domain()
        teacher = self.teacher()
        return {
            **self._about(teacher),
            "teacher_parameters": teacher.model.count_params(),
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
        run = RunDirectory(self.config.run_dir)
        run.path.mkdir(parents=True, exist_ok=True)
        with run.alone():
            return self._train(run, config_file)

    def _train(self, run, config_file):
        config = self.config
        run.write_json(ENVIRONMENT, environment(config.seed))
        teacher = self.teacher()
        about_teacher = self._about(teacher)
        print(f"Teacher accuracy: {about_teacher['teacher_accuracy']:.4f}")
        images, labels = self._training_pictures(run, teacher.model)
        schedule = config.schedule(len(self.domain) if images is None else len(images))
        trainer, steps = self._start_or_resume(run, teacher.model, schedule)
        with StopSignals() as stop:
            while steps < schedule.steps:
                steps = self._fit(run, trainer, images, labels, schedule, steps, stop)
        origin = {
            "config": config_file,
            "published_accuracy": published_accuracy(config_file),
            "teacher_seconds": teacher.seconds,
            "teacher_file": teacher.file,
            "teacher_sha256": model_card.sha256(teacher.file),
        }
        return self._finish(run, trainer, schedule, {**origin, **about_teacher})

    def _about(self, teacher):
        """The teacher's scores on the test pictures, by the names of `metrics.json`."""
        return {
            f"teacher_{name}": value
            for name, value in scores(teacher.model, self.domain_test).items()
        }

    def _fit(self, run, trainer, images, labels, schedule, steps, stop):
        """Trains from a global step to the end; returns the step that was reached.

        From the middle of a round it trains to the end of that round only: a call of Keras's `fit`
        has one length of epoch.
        """
        first_round, done = divmod(steps, schedule.steps_per_round)
        part = dataclasses.replace(schedule, steps_per_round=schedule.steps_per_round - done)
        last_round = first_round + 1 if done else schedule.rounds
        trainer.fit(
            self.stream(images, part, steps, labels),
            epochs=last_round,
            initial_epoch=first_round,
            steps_per_epoch=part.steps_per_round,
            validation_data=evaluation_arrays(self.domain_test),
            validation_batch_size=self._validation_batch_size(),
            verbose=teachers.progress(),
            shuffle=False,
            callbacks=self._callbacks(run, images, stop),
        )
        return last_round * schedule.steps_per_round

    def _training_pictures(self, run, teacher):
        selected = None
        if self.config.method in OUT_OF_DOMAIN:
            selection = self.select(teacher)
            print(selection.describe())
            run.write_json(SELECTION, selection.summary())
            selected = selection.images
        return methods.training_pictures(self, teacher, selected)

    def _validation_batch_size(self):
        """Pictures in a validation batch, such that every device gets some of every batch.

        Keras wants the first batch to split evenly, and BatchNorm fails on no pictures at all.
        """
        replicas, size = self.distribution.replicas, len(self.domain_test)
        batch = max(1, min(EVALUATION_BATCH[self.config.task], size) // replicas) * replicas
        while batch > replicas and 0 < size % batch < replicas:
            batch -= replicas
        return batch

    def _start_or_resume(self, run, teacher, schedule):
        """The trainer and the number of training steps that it has made."""
        checkpoint = newest_intact(run / CHECKPOINT)
        if checkpoint is None:
            return self.trainer(teacher, schedule), 0
        with self.distribution.scope():
            trainer = load_model(checkpoint, "the checkpoint", compile=True)
        steps = int(keras.ops.convert_to_numpy(trainer.optimizer.iterations))
        print(f"Continuing the run in {run.path} after step {steps} of {schedule.steps}")
        return trainer, steps

    def _callbacks(self, run, images, stop):
        latents = np.random.default_rng(self.config.seed).standard_normal(
            (64, self.config.latent_dim), dtype="float32"
        )
        chosen = [StopWhenInvalid(run / CHECKPOINT)]
        if self.config.is_game:
            # Before those that write the logs down, because it adds to them.
            chosen.append(PictureQuality(latents, images, log_dir=run / TENSORBOARD))
        chosen += [
            callbacks.HistoryCsv(run / HISTORY),
            callbacks.TensorBoardScalars(run / TENSORBOARD),
        ]
        if self.config.is_game:
            chosen.append(callbacks.SampleGrid(run / TENSORBOARD, latents, path=run / SAMPLES))
            chosen.append(CollapseWarning(self.classes))
        agreements = [row["val_agreement"] for row in callbacks.read_history(run / HISTORY)]
        # Last, so that a checkpoint stands for a round whose other traces are on the disk.
        return [
            *chosen,
            Checkpoint(
                run / CHECKPOINT,
                every_steps=self.config.checkpoint_every_steps,
                best=run / BEST_STUDENT,
                best_so_far=max(agreements, default=-1.0),
                stop=stop,
            ),
        ]

    def _finish(self, run, trainer, schedule, about_teacher):
        config = self.config
        history = callbacks.read_history(run / HISTORY)
        formats, names = export.parse(config.export), self.domain.class_names
        exports = shipping.export_run(run, trainer, formats, names, lambda: self.domain.images)
        print(shipping.table(exports))
        seconds = sum(row["seconds"] for row in history)
        synthetic = schedule.student_updates * config.batch_size if config.is_game else 0
        last = history[-1]
        metrics = {
            "method": config.method,
            "dataset": self.domain.name,
            "ood": self.pool.name if config.method in OUT_OF_DOMAIN else None,
            "backend": keras.backend.backend(),
            "seed": config.seed,
            "teacher": config.teacher,
            "student": config.student,
            "class_names": list(self.domain.class_names),
            **about_teacher,
            "student_accuracy": last["val_accuracy"],
            "student_accuracy_best": max(row["val_accuracy"] for row in history),
            "student_agreement": last["val_agreement"],
            **{
                f"student_{name}": last[f"val_{name}"]
                for name in ("mean_iou",)
                if f"val_{name}" in last
            },
            "teacher_parameters": trainer.teacher.count_params(),
            "student_parameters": trainer.student.count_params(),
            "student_updates": schedule.student_updates,
            "train_seconds": seconds,
            "synthetic_images_per_second": synthetic / seconds,
            "exports": exports,
        }
        run.write_json(METRICS, metrics)
        model_card.write(run)
        return metrics


# check() and then train() of the same settings share what was loaded and built.
_experiment = functools.lru_cache(maxsize=1)(Experiment)


def check(config):
    """See `Experiment.check`."""
    _experiment(config).check()


def dry_run(config):
    """See `Experiment.dry_run`."""
    return _experiment(config).dry_run()


def train(config, config_file=None):
    """See `Experiment.train`."""
    return _experiment(config).train(config_file)


def train_teacher(config):
    """See `Experiment.train_teacher`."""
    return _experiment(config).train_teacher()


def select_ood(config):
    """Checks, then selects the out-of-domain pictures; returns what was kept as text."""
    experiment = _experiment(config)
    experiment.check_domain()
    experiment.check_pool()
    return experiment.select(experiment.teacher().model).describe()


__all__ = [
    "Experiment",
    "ExperimentConfig",
    "check",
    "dry_run",
    "select_ood",
    "train",
    "train_teacher",
]
