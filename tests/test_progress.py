"""What is printed of an epoch: keras_mosaickd/callbacks/progress.py."""

import keras
import numpy as np
import pytest

from keras_mosaickd.callbacks import progress

LABELLED = {"val_accuracy": 0.91234, "val_agreement": 0.95, "synthetic_agreement": 0.5}
# As `LabelFreeAgreement` adds them where there is no data set.
WITHOUT_LABELS = {
    "student_loss": 0.25,
    "generator_loss": 47.0,
    "held_out_agreement": 0.75,
    "synthetic_agreement": 0.5,
    "val_agreement": 0.75,
}


class Added(keras.callbacks.Callback):
    """Adds logs, as the callbacks before this one do."""

    def __init__(self, logs):
        super().__init__()
        self.logs = logs

    def on_epoch_end(self, epoch, logs=None):
        logs.update(self.logs)


def fit(added, verbose, epochs=2, initial_epoch=0, steps=8):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=False)
    model.fit(
        np.ones((8, 2)),
        np.ones((8, 1)),
        batch_size=2,
        epochs=epochs,
        initial_epoch=initial_epoch,
        verbose=verbose,
        callbacks=[Added(added), progress.Progress(steps)],
    )


@pytest.mark.parametrize(
    ("added", "scores"),
    [
        (LABELLED, "test accuracy 0.9123, test agreement 0.9500, synthetic agreement 0.5000"),
        (WITHOUT_LABELS, "held-out agreement 0.7500, synthetic agreement 0.5000"),
        ({"val_agreement": 0.5}, "test agreement 0.5000"),
        (
            {"lambda_local": 0.012345, "lambda_align": 7.0, "r_local": 0.5, "val_agreement": 0.5},
            "lambda_local 0.0123, lambda_align 7, test agreement 0.5000",
        ),
    ],
)
def test_an_epoch_is_one_line(added, scores, capsys):
    fit(added, verbose=0)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("Epoch 1/2: student loss ") and scores in first
    assert first.endswith(" s left)") and second.endswith(" s)")
    assert len(first) < 140
    if "student_loss" in added:
        assert first.startswith("Epoch 1/2: student loss 0.2500, held-out")


def test_the_time_left_goes_by_training_steps(capsys, monkeypatch):
    # Of an epoch of four steps the beginning, the end of its first step, and its own; 40 steps are
    # left at first. The first one, which was compiled, takes three seconds.
    clock = iter([0.0, 3.0, 6.0, 10.0, 11.5, 16.0])
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(clock))
    fit({}, verbose=0, epochs=10, initial_epoch=8, steps=40)
    lines = capsys.readouterr().out.splitlines()
    assert [line.rpartition("(")[2] for line in lines] == [
        "6 s, about 36 s left)",
        "6 s, about 48 s left)",
    ]


def test_the_bar_shows_the_students_loss_alone(capsys):
    fit(WITHOUT_LABELS, verbose=1)
    printed = capsys.readouterr().out
    assert "4/4" in printed and "student loss: " in printed
    assert "generator_loss" not in printed and printed.count("Epoch 1/2: ") == 1


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (94.6, "95 s"), (300, "5 min"), (12_000, "3 h 20 min")]
)
def test_durations(seconds, text):
    assert progress.duration(seconds) == text
