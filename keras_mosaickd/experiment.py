"""One experiment from plain settings: teacher, selection, distillation, evaluation, export."""

import functools
import importlib.util

import keras
import numpy as np

from keras_mosaickd import callbacks, cost, networks, teachers
from keras_mosaickd.baselines import KnowledgeDistillation
from keras_mosaickd.checkpoints import Checkpoint
from keras_mosaickd.config import ExperimentConfig
from keras_mosaickd.data import evaluation_arrays, mosaic_stream, select, supervised_stream
from keras_mosaickd.evaluation import EVALUATION_BATCH, accuracy
from keras_mosaickd.export import export_saved_model
from keras_mosaickd.mosaic_kd import MosaicKD
from keras_mosaickd.optimizers import recipe, student_recipe
from keras_mosaickd.preparation import Preparation
from keras_mosaickd.run_directory import (
    CHECKPOINT,
    ENVIRONMENT,
    HISTORY,
    METRICS,
    SAMPLES,
    SAVED_MODEL,
    STUDENT,
    TENSORBOARD,
    RunDirectory,
    environment,
    flag_value,
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
        config = self.config
        mean, std = teachers.normalization(teacher)
        keras.utils.set_random_seed(config.seed)
        with self.distribution.scope():
            student = self.student(mean, std)
            if config.method == "kd":
                trainer = KnowledgeDistillation(
                    teacher, student, temperature=config.temperature, seed=config.seed
                )
                trainer.compile(
                    student_recipe(
                        schedule.student_updates, config.student_learning_rate, config.weight_decay
                    )
                )
                return trainer
            generator, discriminator = self.adversaries(mean, std)
            trainer = MosaicKD(
                teacher,
                student,
                generator,
                discriminator,
                latent_dim=config.latent_dim,
                student_steps=config.student_steps,
                regularization_weight=config.regularization_weight,
                local_weight=config.local_weight,
                align_weight=config.align_weight,
                adversarial_weight=config.adversarial_weight,
                balance_weight=config.balance_weight,
                temperature=config.temperature,
                local_reduction=config.local_reduction,
                synthetic_only=config.synthetic_only,
                batch_norm_policy=config.batch_norm_policy,
                seed=config.seed,
            )
            trainer.compile(
                **recipe(
                    schedule.steps,
                    config.student_steps,
                    config.student_learning_rate,
                    config.generator_learning_rate,
                    config.weight_decay,
                )
            )
        return trainer

    def stream(self, images, schedule, first_step):
        """The training data: what `fit` takes, from global step `first_step` on."""
        config = self.config
        common = {
            "seed": config.seed,
            "first_step": first_step,
            "steps_per_epoch": schedule.steps_per_round,
            "flip": self.pool.flip,
        }
        if config.method == "kd":
            return supervised_stream(images, None, config.student_batch_size, **common)
        return mosaic_stream(
            images, config.batch_size, student_steps=config.student_steps, **common
        )

    # ---- the commands --------------------------------------------------------------------

    def select(self, teacher):
        """Selects the out-of-domain pictures: a `Selection`."""
        return select(
            teacher,
            self.pool,
            count=self.config.ood_size,
            batch_size=EVALUATION_BATCH,
            cache_dir=self.cache_dir,
        )

    def dry_run(self):
        """What `train` would do, as text: flags, shapes, parameters, operations, time.

        A teacher that is not there yet is stood in for by an untrained one.
        """
        self.check()
        schedule = self.config.schedule(self.config.ood_size or len(self.pool))
        with self.distribution.scope():
            if self.given_teacher is not None:
                teacher = self.given_teacher.model
            else:
                teacher = networks.build(
                    self.config.teacher, self.input_shape, self.classes, mean=0.5, std=0.5
                )
        flags = "\n".join(
            f"--{name}={flag_value(value)}" for name, value in sorted(vars(self.config).items())
        )
        pictures = (
            f"domain             {len(self.domain)} training and {len(self.domain_test)} test "
            f"pictures of {self.domain.name}, {self.classes} classes\n"
            f"out-of-domain      {self.config.ood_size or len(self.pool)} of {len(self.pool)} "
            f"pictures of {self.pool.name}"
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
            "teacher_accuracy": accuracy(teacher.model, self.domain_test),
            "teacher_parameters": teacher.model.count_params(),
            "teacher_file": teacher.file,
        }

    def train(self):
        """The whole job: teacher, selection, distillation, evaluation, export.

        An interrupted run of the same settings in the same directory is continued.

        Returns:
            The metrics that stand in `metrics.json`.
        """
        config = self.config
        run = RunDirectory(config.run_dir)
        run.path.mkdir(parents=True, exist_ok=True)
        run.write_json(ENVIRONMENT, environment(config.seed))
        teacher = self.teacher()
        teacher_accuracy = accuracy(teacher.model, self.domain_test)
        print(f"Teacher accuracy: {teacher_accuracy:.4f}")
        selection = self.select(teacher.model)
        print(selection.describe())
        images = selection.images
        schedule = config.schedule(len(images))
        trainer, first_round = self._start_or_resume(run, teacher.model, schedule)
        test_pictures, test_labels = evaluation_arrays(self.domain_test)
        trainer.fit(
            self.stream(images, schedule, first_round * schedule.steps_per_round),
            epochs=schedule.rounds,
            initial_epoch=first_round,
            steps_per_epoch=schedule.steps_per_round,
            validation_data=(test_pictures, test_labels),
            validation_batch_size=self._validation_batch_size(),
            verbose=teachers.progress(),
            shuffle=False,
            callbacks=self._callbacks(run),
        )
        about_teacher = {"teacher_accuracy": teacher_accuracy, "teacher_seconds": teacher.seconds}
        return self._finish(run, trainer, schedule, about_teacher)

    def _validation_batch_size(self):
        """Pictures in a validation batch, such that every device gets some of every batch.

        Keras wants the first batch to split evenly, and BatchNorm fails on no pictures at all.
        """
        replicas, size = self.distribution.replicas, len(self.domain_test)
        batch = max(1, min(EVALUATION_BATCH, size) // replicas) * replicas
        while batch > replicas and 0 < size % batch < replicas:
            batch -= replicas
        return batch

    def _start_or_resume(self, run, teacher, schedule):
        if not run.has_checkpoint:
            return self.trainer(teacher, schedule), 0
        with self.distribution.scope():
            trainer = keras.saving.load_model(run / CHECKPOINT, safe_mode=True)
        steps = int(keras.ops.convert_to_numpy(trainer.optimizer.iterations))
        first_round = steps // schedule.steps_per_round
        print(f"Continuing the run in {run.path} after round {first_round} of {schedule.rounds}")
        return trainer, first_round

    def _callbacks(self, run):
        chosen = [
            keras.callbacks.TerminateOnNaN(),
            callbacks.HistoryCsv(run / HISTORY),
            callbacks.TensorBoardScalars(run / TENSORBOARD),
        ]
        if self.config.method == "mosaickd":
            latents = np.random.default_rng(self.config.seed).standard_normal(
                (64, self.config.latent_dim), dtype="float32"
            )
            chosen.append(callbacks.SampleGrid(run / TENSORBOARD, latents, path=run / SAMPLES))
        # Last, so that a checkpoint stands for a round whose other traces are on the disk.
        return [*chosen, Checkpoint(run / CHECKPOINT)]

    def _finish(self, run, trainer, schedule, about_teacher):
        config = self.config
        history = callbacks.read_history(run / HISTORY)
        if len(history) < schedule.rounds or not all(
            np.isfinite(weight).all() for weight in trainer.student.get_weights()
        ):
            raise RuntimeError(
                f"the run diverged in round {len(history)} of {schedule.rounds} (a loss or weight "
                "is NaN or infinite): lower --student_learning_rate or --generator_learning_rate"
            )
        trainer.student.save(run / STUDENT)
        if importlib.util.find_spec("tensorflow") is None:
            print(f"No SavedModel: it needs TensorFlow. The student is in {run / STUDENT}")
        else:
            export_saved_model(trainer.student, run / SAVED_MODEL, keras_path=run / STUDENT)
        seconds = sum(row["seconds"] for row in history)
        is_game = config.method == "mosaickd"
        synthetic = schedule.student_updates * config.batch_size if is_game else 0
        last = history[-1]
        metrics = {
            "method": config.method,
            "dataset": self.domain.name,
            "ood": self.pool.name,
            "backend": keras.backend.backend(),
            "seed": config.seed,
            "teacher": config.teacher,
            "student": config.student,
            **about_teacher,
            "student_accuracy": last["val_accuracy"],
            "student_accuracy_best": max(row["val_accuracy"] for row in history),
            "student_agreement": last["val_agreement"],
            "teacher_parameters": trainer.teacher.count_params(),
            "student_parameters": trainer.student.count_params(),
            "student_updates": schedule.student_updates,
            "train_seconds": seconds,
            "synthetic_images_per_second": synthetic / seconds,
        }
        run.write_json(METRICS, metrics)
        return metrics


# check() and then train() of the same settings share what was loaded and built.
_experiment = functools.lru_cache(maxsize=1)(Experiment)


def check(config):
    """See `Experiment.check`."""
    _experiment(config).check()


def dry_run(config):
    """See `Experiment.dry_run`."""
    return _experiment(config).dry_run()


def train(config):
    """See `Experiment.train`."""
    return _experiment(config).train()


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
