"""The distillation itself: begun or continued, fitted, validated, and what leaves a trace of it."""

import dataclasses
import sys

import keras
import numpy as np

from keras_mosaickd import callbacks
from keras_mosaickd.callbacks.checkpoint import Checkpoint, newest_intact
from keras_mosaickd.callbacks.divergence import CollapseWarning, StopWhenInvalid
from keras_mosaickd.callbacks.image_quality import ImageQuality
from keras_mosaickd.callbacks.progress import Progress
from keras_mosaickd.data.streams.training import validation_stream
from keras_mosaickd.evaluation.label_free import SCORE, LabelFreeAgreement
from keras_mosaickd.evaluation.scores import EVALUATION_BATCH
from keras_mosaickd.networks.loading import load_model
from keras_mosaickd.run_directory import BEST_STUDENT, CHECKPOINT, HISTORY, SAMPLES, TENSORBOARD


def start_or_resume(experiment, run, teacher, schedule):
    """The trainer and the number of training steps that it has made."""
    checkpoint = newest_intact(run / CHECKPOINT)
    if checkpoint is None:
        return experiment.trainer(teacher, schedule), 0
    with experiment.distribution.scope():
        unsafe = experiment.config.unsafe_load
        trainer = load_model(checkpoint, "the checkpoint", compile=True, unsafe=unsafe)
    steps = int(keras.ops.convert_to_numpy(trainer.optimizer.iterations))
    print(f"Continuing the run in {run.path} after step {steps} of {schedule.steps}")
    return trainer, steps


def fit(experiment, run, trainer, images, labels, schedule, steps, stop):
    """Trains from a global step to the end; returns the step that was reached.

    From the middle of a round it trains to the end of that round only: a call of Keras's `fit`
    has one length of epoch. It is told of all rounds nevertheless, and stopped, so that it
    prints the same "Epoch 3/10" as without an interruption.
    """
    first_round, done = divmod(steps, schedule.steps_per_round)
    part = dataclasses.replace(schedule, steps_per_round=schedule.steps_per_round - done)
    chosen = _callbacks(experiment, run, images, stop)
    if done:
        chosen.append(_StopAfterRound())
    chosen.append(Progress(schedule.steps - steps))
    trainer.fit(
        experiment.stream(images, part, steps, labels),
        epochs=schedule.rounds,
        initial_epoch=first_round,
        steps_per_epoch=part.steps_per_round,
        **_validation(experiment),
        # In a file the line that `Progress` prints is enough.
        verbose=1 if sys.stdout.isatty() else 0,
        shuffle=False,
        callbacks=chosen,
    )
    return (first_round + 1 if done else schedule.rounds) * schedule.steps_per_round


class _StopAfterRound(keras.callbacks.Callback):
    """Ends `fit` after one epoch."""

    def on_epoch_end(self, epoch, logs=None):
        """Tells Keras to stop."""
        self.model.stop_training = True


def _validation(experiment):
    """What `fit` validates on: the test images, where there are any.

    Every device must get some images of every batch: Keras wants the first batch to split
    evenly, and BatchNorm fails on no images at all.
    """
    if not experiment.has_domain:
        return {}
    replicas, size = experiment.distribution.replicas, len(experiment.domain_test)
    batch = max(1, min(EVALUATION_BATCH[experiment.config.task], size) // replicas) * replicas
    while batch > replicas and 0 < size % batch < replicas:
        batch -= replicas
    return validation_stream(experiment.domain_test, batch)


def _callbacks(experiment, run, images, stop):
    latents = np.random.default_rng(experiment.config.seed).standard_normal(
        (64, experiment.config.latent_dim), dtype="float32"
    )
    chosen = [StopWhenInvalid(run / CHECKPOINT)]
    if experiment.config.is_game:
        # Before those that write the logs down, because it adds to them.
        chosen.append(ImageQuality(latents, images, log_dir=run / TENSORBOARD))
    monitor = "val_agreement"
    if experiment.judge is not None:
        monitor = SCORE
        chosen.append(LabelFreeAgreement(experiment.judge, is_validation=not experiment.has_domain))
    chosen += [
        callbacks.HistoryCsv(run / HISTORY),
        callbacks.TensorBoardScalars(run / TENSORBOARD),
    ]
    if experiment.config.is_game:
        chosen.append(
            callbacks.SampleGrid(
                run / TENSORBOARD,
                latents,
                path=run / SAMPLES,
                class_names=experiment.class_names,
            )
        )
        chosen.append(CollapseWarning(np.exp(experiment.head.most_entropy)))
    values = [row[monitor] for row in callbacks.read_history(run / HISTORY)]
    # Last, so that a checkpoint stands for a round whose other traces are on the disk.
    return [
        *chosen,
        Checkpoint(
            run / CHECKPOINT,
            every_steps=experiment.config.checkpoint_every_steps,
            best=run / BEST_STUDENT,
            best_so_far=max(values, default=-1.0),
            stop=stop,
            monitor=monitor,
        ),
    ]
