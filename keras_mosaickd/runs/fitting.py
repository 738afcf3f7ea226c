"""The distillation itself: begun or continued, fitted, validated, and what leaves a trace of it."""

import dataclasses
import json
import sys
import time

import keras
import numpy as np

from keras_mosaickd import callbacks
from keras_mosaickd.backend import processes
from keras_mosaickd.backend.training.callback_lists import QuietCallbacks
from keras_mosaickd.callbacks.checkpoint import (
    Checkpoint,
    StopSignals,
    WholeEpoch,
    epoch_so_far,
)
from keras_mosaickd.callbacks.divergence import CollapseWarning, StopWhenInvalid
from keras_mosaickd.callbacks.image_quality import ImageQuality
from keras_mosaickd.callbacks.progress import Bar, Progress
from keras_mosaickd.data.streams.training import validation_stream
from keras_mosaickd.evaluation.label_free import SCORE, LabelFreeAgreement
from keras_mosaickd.evaluation.scores import evaluation_batch
from keras_mosaickd.files import write_file
from keras_mosaickd.methods import registry as methods
from keras_mosaickd.networks.loading import load_model
from keras_mosaickd.run_directory import (
    BEST_STUDENT,
    CHECKPOINT,
    HISTORY,
    SAMPLES,
    TENSORBOARD,
    newest_intact,
)


def resumed(run, inputs, schedule):
    """The trainer of the newest checkpoint and the training steps it has made; None without one."""
    checkpoint = newest_intact(run / CHECKPOINT)
    if checkpoint is None:
        return None
    with inputs.distribution.scope():
        unsafe = inputs.config.unsafe_load
        trainer = load_model(checkpoint, "the checkpoint", compile=True, unsafe=unsafe)
    steps = int(keras.ops.convert_to_numpy(trainer.optimizer.iterations))
    print(f"Continuing the run in {run.path} after step {steps} of {schedule.steps}")
    return trainer, steps


def fit(run, inputs, trainer, data, schedule, steps, judge):
    """Distils: trains from a global step to the end, leaving the run's traces.

    Args:
        run: `RunDirectory`.
        inputs: `Inputs`.
        trainer: the compiled method.
        data: `TrainingImages`.
        schedule: `Schedule`.
        steps: training steps made before.
        judge: `LabelFreeJudge`, or None where the student is judged on labels alone.

    Raises:
        DivergedError: if a weight is no number.
        StoppedError: after a signal, with the trainer saved.
    """

    def stream(first_step, steps_per_round):
        part = dataclasses.replace(schedule, steps_per_round=steps_per_round)
        return methods.stream(inputs.config, data, part, first_step)

    validation = _validation(inputs)
    with StopSignals() as stop:
        while steps < schedule.steps:
            traces = _callbacks(run, inputs, data.images, judge, stop, schedule, steps)
            steps = _fit_rounds(
                trainer,
                stream,
                schedule.rounds,
                schedule.steps_per_round,
                steps,
                [*traces, *processes.of_chief([Progress(schedule.steps - steps)])],
                # In a file the line that `Progress` prints is enough.
                verbose=1 if sys.stdout.isatty() else 0,
                **validation,
            )


def fit_resumably(model, stream, epochs, steps_per_epoch, folder, scope, verbose):
    """Fits a model, saving it after every epoch; repeated, it resumes bit for bit.

    Args:
        model: the compiled model, untrained.
        stream: gives the training data from a global step on: `stream(first_step,
            steps_per_epoch)`.
        epochs: how many there are in all.
        steps_per_epoch: training steps in each of them.
        folder: `Path` of what is kept between.
        scope: function that gives the context in which to load.
        verbose: as of `keras.Model.fit`.

    Returns:
        The model, and the seconds that all of its training took.

    Raises:
        DivergedError: if a weight is no number.
        StoppedError: after a signal, with the model saved.
    """
    clock = folder / "seconds.json"
    path = folder / CHECKPOINT.name
    found = newest_intact(path)
    before = json.loads(clock.read_text()) if clock.is_file() else 0.0
    start = time.perf_counter()
    if found:
        with scope():
            model = load_model(found, "the checkpoint", compile=True)
    steps = int(keras.ops.convert_to_numpy(model.optimizer.iterations))
    if found and steps < epochs * steps_per_epoch:
        print(f"Continuing after step {steps} of {epochs * steps_per_epoch}")
        # Builds its metrics: `fit` would do so by a look at the data, and where one step is left of
        # an epoch, the stream takes the look for that step.
        once = stream(steps, 2)
        is_indexed = isinstance(once, keras.utils.PyDataset)
        model.test_on_batch(*(once[0] if is_indexed else next(iter(once))))
    with StopSignals() as stop:
        while steps < epochs * steps_per_epoch:
            try:
                steps = _fit_rounds(
                    model,
                    stream,
                    epochs,
                    steps_per_epoch,
                    steps,
                    [StopWhenInvalid(path), Checkpoint(path, stop=stop, seconds_between=30)],
                    verbose=verbose,
                )
            finally:
                if processes.is_chief():
                    folder.mkdir(parents=True, exist_ok=True)
                    write_file(clock, json.dumps(before + time.perf_counter() - start))
    return model, before + time.perf_counter() - start


def _fit_rounds(model, stream, rounds, steps_per_round, steps, callbacks, verbose, **options):
    """Trains from a global step to the end, or of its round; returns the step that was reached.

    From the middle of a round it trains to the end of that round only: a call of Keras's `fit`
    has one length of epoch. It is told of all rounds nevertheless, and stopped, so that it
    prints the same "Epoch 3/10" as without an interruption.
    """
    first_round, done = divmod(steps, steps_per_round)
    if done:
        callbacks = [*callbacks, _StopAfterRound()]
    if verbose == 1 and not any(isinstance(callback, Bar) for callback in callbacks):
        callbacks = [*callbacks, Bar()]
    told = QuietCallbacks(
        callbacks,
        add_history=True,
        add_progbar=verbose != 0,
        verbose=verbose,
        epochs=rounds,
        steps=steps_per_round - done,
        model=model,
    )
    model.fit(
        stream(steps, steps_per_round - done),
        epochs=rounds,
        initial_epoch=first_round,
        steps_per_epoch=steps_per_round - done,
        shuffle=False,
        callbacks=told,
        **options,
    )
    return (first_round + 1 if done else rounds) * steps_per_round


class _StopAfterRound(keras.callbacks.Callback):
    """Ends `fit` after one epoch."""

    def on_epoch_end(self, epoch, logs=None):
        """Tells Keras to stop."""
        self.model.stop_training = True


def _validation(inputs):
    """What `fit` validates on: the test images, where there are any.

    Every device must get some images of every batch: Keras wants the first batch to split
    evenly, and BatchNorm fails on no images at all.
    """
    if inputs.domain is None:
        return {}
    replicas, size = inputs.distribution.replicas, len(inputs.domain_test)
    config = inputs.config
    batch = min(evaluation_batch(config.task, config.evaluation_batch_size), size)
    batch = max(1, batch // replicas) * replicas
    while batch > replicas and 0 < size % batch < replicas:
        batch -= replicas
    return validation_stream(inputs.domain_test, batch)


def _callbacks(run, inputs, images, judge, stop, schedule, steps):
    config = inputs.config
    first_round, done = divmod(steps, schedule.steps_per_round)
    so_far = epoch_so_far(run / CHECKPOINT, steps, done)
    latents = np.random.default_rng(config.seed).standard_normal(
        (64, config.latent_dim), dtype="float32"
    )
    chosen = [WholeEpoch(so_far)]
    if config.is_game:
        # Before those that write the logs down, because it adds to them.
        chosen.append(ImageQuality(latents, images, log_dir=run / TENSORBOARD))
    monitor = "val_agreement"
    if judge is not None:
        monitor = SCORE
        chosen.append(LabelFreeAgreement(judge, is_validation=inputs.domain is None))
    chosen += [
        callbacks.HistoryCsv(run / HISTORY, so_far.seconds),
        callbacks.TensorBoardScalars(run / TENSORBOARD),
    ]
    if config.is_game:
        chosen.append(
            callbacks.SampleGrid(
                run / TENSORBOARD,
                latents,
                path=run / SAMPLES,
                class_names=inputs.class_names,
            )
        )
        chosen.append(CollapseWarning(inputs.head.most_entropy))
    # Of the rounds before: one whose row a crash left behind is made, and judged, again.
    rows = callbacks.read_history(run / HISTORY)
    values = [row[monitor] for row in rows if row["epoch"] < first_round]
    # Last, so that a checkpoint stands for a round whose other traces are on the disk.
    return [
        StopWhenInvalid(run / CHECKPOINT),
        *processes.of_chief(chosen),
        Checkpoint(
            run / CHECKPOINT,
            every_steps=config.checkpoint_every_steps,
            best=run / BEST_STUDENT,
            best_so_far=max(values, default=-1.0),
            stop=stop,
            monitor=monitor,
            so_far=so_far,
        ),
    ]
