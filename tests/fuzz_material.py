"""A small teacher and a small finished run, for the fuzzer to damage."""

from __future__ import annotations

import json
from pathlib import Path

from keras_mosaickd.callbacks.checkpoint import save_checkpoint
from keras_mosaickd.cli import flags
from keras_mosaickd.run_directory import RunDirectory
from tests import game


def write(folder: Path) -> None:
    """Writes `teacher.keras` and the directory `run`."""
    model = game.game()
    model.teacher.save(folder / "teacher.keras")
    run = folder / "run"
    save_checkpoint(model, run / "checkpoints" / "last.keras")
    model.student.save(run / "student.keras")
    settings = flags.parse("train", ["--dataset=digits[0-2]", "--image_size=8"]).settings()
    RunDirectory(run).write_flags(settings)
    metrics = {
        "method": "mosaickd", "dataset": "digits[0-2]", "ood": "digits[5-9]", "seed": 0,
        "backend": "tensorflow", "teacher": "t", "student": "s", "teacher_accuracy": 0.9,
        "student_accuracy": 0.8, "student_accuracy_best": 0.8, "student_agreement": 0.7,
        "teacher_parameters": 9, "student_parameters": 8, "student_updates": 7,
        "train_seconds": 6.0, "synthetic_images_per_second": 5.0,
    }  # fmt: skip
    (run / "metrics.json").write_text(json.dumps(metrics))
    (run / "history.csv").write_text("epoch,seconds,loss,val_accuracy\n0,1.0,0.5,0.8\n")
    histogram = {"edges": [0.0, 1.0], "pool": [3], "kept": [2], "images": "none.npy"}
    (run / "selection.json").write_text(json.dumps(histogram))
