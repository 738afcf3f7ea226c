"""Whole runs at toy size, through the commands, on this process's backend."""

import csv
import dataclasses
import json
import os
import re
import shutil
import signal
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import keras_mosaickd as km
from keras_mosaickd import InputError, __version__, run_directory
from keras_mosaickd.callbacks import checkpoint as checkpoints
from keras_mosaickd.callbacks.traces import read_history
from keras_mosaickd.cli import evaluate, flags, runner, sample, teacher, train
from keras_mosaickd.cli import export as exporting
from keras_mosaickd.config import ExperimentConfig
from keras_mosaickd.export import FORMATS

TINY = {
    "dataset": "digits[0-2]",
    "ood": "digits[5-9]",
    "ood_size": 40,
    "image_size": 8,
    "teacher": "wrn10_1",
    "student": "wrn10_1",
    "teacher_epochs": 1,
    "teacher_batch_size": 128,
    "batch_size": 16,
    "student_steps": 2,
    "student_updates": 8,
    "evaluations": 2,
}
RUN_FILES = (
    "flags.txt",
    "metrics.json",
    "history.csv",
    "student.keras",
    "saved_model/saved_model.pb",
    "samples.png",
    "environment.json",
    "teacher.json",
    "model_card.md",
    "checkpoints/last.keras",
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One cache for the module: its teacher is trained once."""
    return tmp_path_factory.mktemp("cache")


def command(module, name, **settings):
    """Runs a command in this process; returns its exit status."""
    arguments = [f"--{key}={flags_value(value)}" for key, value in settings.items()]
    return runner.run(module.main, name, arguments)


def flags_value(value):
    return str(value).lower() if isinstance(value, bool) else str(value)


def student_weights(run):
    return keras.models.load_model(run / "student.keras").get_weights()


@pytest.fixture(scope="module")
def finished(cache, tmp_path_factory):
    """A finished run of mosaickd."""
    run = tmp_path_factory.mktemp("runs") / "mosaickd"
    assert command(train, "train", **TINY, run_dir=run, cache_dir=cache) == 0
    return run


@pytest.mark.slow
@pytest.mark.backend("tensorflow", "jax", "torch")
def test_a_run_directory_holds_everything(finished):
    for name in RUN_FILES:
        assert (finished / name).stat().st_size > 0, name
    assert {path.name for path in (finished / "tensorboard").iterdir()} == {
        "train",
        "validation",
        "samples",
        "quality",
    }
    selection = json.loads((finished / "selection.json").read_text())
    assert sum(selection["kept"]) == len(np.load(selection["images"])) == TINY["ood_size"]
    assert selection["kept_mean"] > selection["dropped_mean"]
    with Image.open(finished / "samples.png") as image:
        assert min(image.size) >= 8 * 8


def test_from_python_a_directory_is_one_runs_too(finished, tmp_path, capsys):
    run = tmp_path / "copy"
    shutil.copytree(finished, run)
    written = run / "flags.txt"
    written.write_text(written.read_text().replace("--export=saved_model", "--export=keras"))
    settings = flags.parse("train", [f"--flagfile={written}"]).settings()
    settings["run_dir"] = str(run)
    with pytest.raises(InputError, match="holds another run.*Received: --temperature=2.0"):
        km.train(ExperimentConfig(**{**settings, "temperature": 2.0}))
    with pytest.raises(InputError, match="holds this run, finished already"):
        km.train(ExperimentConfig(**settings))
    with pytest.raises(InputError, match="--run_dir: expected a directory"):
        km.train(ExperimentConfig(**{**settings, "run_dir": ""}))
    (run / "metrics.json").unlink()
    # Other devices may carry the rest of it, though they would train another teacher.
    assert settings["strategy"] == "auto"
    resumed = km.train(ExperimentConfig(**{**settings, "strategy": "none"}))
    before = json.loads((finished / "metrics.json").read_text())
    assert resumed["student_accuracy"] == before["student_accuracy"]
    assert resumed["teacher_sha256"] == before["teacher_sha256"]
    assert f"Continuing the run in {run}" in capsys.readouterr().out
    (run / "metrics.json").unlink()
    begun = json.loads((run / "teacher.json").read_text())
    (run / "teacher.json").write_text(json.dumps({**begun, "sha256": "0" * 64}))
    with pytest.raises(InputError, match="Expected: the teacher that it began with"):
        km.train(ExperimentConfig(**settings))


@pytest.mark.parametrize(("given", "expected"), [("auto", "auto"), ("off", False), ("on", True)])
def test_jit_compile_reaches_keras(given, expected, cache, tmp_path, monkeypatch, capsys):
    seen = []
    compiled = km.MosaicKD.compile

    def compile(self, *optimizers, jit_compile, **options):
        seen.append(jit_compile)
        compiled(self, *optimizers, jit_compile="auto", **options)

    monkeypatch.setattr(km.MosaicKD, "compile", compile)
    places = {"run_dir": tmp_path / "run", "cache_dir": cache}
    assert command(train, "train", **TINY, **places, jit_compile=given, dry_run="true") == 0
    assert seen == [expected]
    assert re.search(r"^disk +\d+\.\d MB of images in ", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize(("given", "expected"), [(0, 256), (7, 7)])
def test_the_evaluation_batch_follows_its_flag(given, expected, finished, cache, tmp_path):
    sizes = []
    predict = keras.Model.predict

    def spy(self, x, batch_size=None, **options):
        sizes.append(batch_size)
        return predict(self, x, batch_size=batch_size, **options)

    run = tmp_path / "copy"
    shutil.copytree(finished, run)
    teachers = {name: TINY[name] for name in TINY if name.startswith("teacher")}
    domain = {name: TINY[name] for name in ("dataset", "image_size")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.Model, "predict", spy)
        options = {"evaluation_batch_size": given}
        assert command(evaluate, "evaluate", run_dir=run, **options) == 0
        assert command(teacher, "teacher", **teachers, **domain, cache_dir=cache, **options) == 0
    assert len(sizes) >= 3 and set(sizes) == {expected}


def test_metrics(finished, backend):
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["method"] == "mosaickd"
    assert metrics["dataset"] == "digits[0-2]"
    assert metrics["ood"] == "digits[5-9]"
    assert metrics["backend"] == backend
    assert metrics["seed"] == 0
    assert metrics["student_updates"] == 8
    for name in ("teacher_accuracy", "student_accuracy", "student_accuracy_best"):
        assert 0 <= metrics[name] <= 1
    assert 0 <= metrics["student_agreement"] <= 1
    assert metrics["student_accuracy"] <= metrics["student_accuracy_best"]
    assert metrics["teacher_parameters"] == metrics["student_parameters"] > 70_000
    assert metrics["synthetic_images_per_second"] * metrics["train_seconds"] == pytest.approx(
        8 * 16
    )


def test_exports_stand_in_the_metrics(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    assert [export["format"] for export in metrics["exports"]] == ["keras", "saved_model"]
    assert [export["file"] for export in metrics["exports"]] == ["student.keras", "saved_model"]
    for export in metrics["exports"]:
        assert export["max_difference"] < 1e-4
        assert export["agreement"] == 1
    assert len(metrics["teacher_sha256"]) == 64
    assert metrics["teacher_sha256"] in (finished / "model_card.md").read_text()


def test_history_and_last_accuracy(finished):
    with (finished / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1"]
    metrics = json.loads((finished / "metrics.json").read_text())
    assert float(rows[-1]["val_accuracy"]) == metrics["student_accuracy"]
    assert max(float(row["val_accuracy"]) for row in rows) == metrics["student_accuracy_best"]


def test_environment_says_where_it_came_from(finished, backend):
    environment = json.loads((finished / "environment.json").read_text())
    assert environment["backend"] == backend
    assert environment["seed"] == 0
    assert environment["devices"]
    assert environment["versions"]["keras-mosaickd"] == __version__
    assert environment["versions"]["keras"] == keras.__version__
    assert environment["versions"][backend]


def test_exported_student_is_the_last_one(finished):
    trainer = keras.models.load_model(finished / "checkpoints" / "last.keras")
    for a, b in zip(trainer.student.get_weights(), student_weights(finished), strict=True):
        np.testing.assert_array_equal(a, b)


def test_evaluate_agrees_with_the_run(finished, capsys):
    assert command(evaluate, "evaluate", run_dir=finished) == 0
    values, _, by_class = capsys.readouterr().out.strip().partition("\n\n")
    printed = dict(line.split() for line in values.splitlines())
    assert [line.split()[0] for line in by_class.splitlines()[1:]] == list("012")
    metrics = json.loads((finished / "metrics.json").read_text())
    for name in ("teacher_accuracy", "student_accuracy", "student_agreement"):
        assert float(printed[name]) == pytest.approx(metrics[name], abs=1e-5)


def test_sample_draws_a_grid(finished, tmp_path):
    out = tmp_path / "grid.png"
    assert command(sample, "sample", run_dir=finished, count=9, out=out) == 0
    with Image.open(out) as image:
        # Three of 48 pixels side by side with a line between them; below each its class.
        assert image.size[0] == 3 * 49 - 1 < image.size[1]


def test_flags_file_reruns_the_run(finished, cache, tmp_path):
    again, config = tmp_path / "again", tmp_path / "cell.flags"
    config.write_text(f"# Table 1.\n# Published: 61.01 %.\n--flagfile={finished / 'flags.txt'}\n")
    arguments = [f"--flagfile={config}", f"--run_dir={again}", "--export=keras"]
    assert runner.run(train.main, "train", arguments) == 0
    # The number that the config names goes with the run; the flags alone name none.
    for run, published in ((again, 0.6101), (finished, None)):
        metrics = json.loads((run / "metrics.json").read_text())
        assert metrics["published_accuracy"] == published
    for a, b in zip(student_weights(finished), student_weights(again), strict=True):
        np.testing.assert_array_equal(a, b)


def test_finished_run_is_not_touched(finished, cache, capsys):
    before = (finished / "metrics.json").stat().st_mtime_ns
    assert command(train, "train", **TINY, run_dir=finished, cache_dir=cache) == 2
    assert "finished already" in capsys.readouterr().err
    other = {**TINY, "temperature": 3.0}
    assert command(train, "train", **other, run_dir=finished, cache_dir=cache) == 2
    assert "holds another run" in capsys.readouterr().err
    assert (finished / "metrics.json").stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_run_is_not_resumed_on_another_backend(finished, cache, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "metrics.json").unlink()
    environment = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps({**environment, "backend": "numpy"}))
    assert command(train, "train", **TINY, run_dir=run, cache_dir=cache) == 2
    assert "Expected: KERAS_BACKEND=numpy, or another directory" in capsys.readouterr().err
    # Of a run that saved nothing yet nothing would be resumed.
    shutil.rmtree(run / "checkpoints")
    run_directory.RunDirectory(run)._check_backend()


@pytest.mark.slow
@pytest.mark.backend("tensorflow")
def test_a_format_that_fails_costs_nothing_else_of_the_run(cache, tmp_path, monkeypatch, capsys):
    fails = dataclasses.replace(FORMATS["onnx"], write=lambda *arguments: 1 / 0)
    monkeypatch.setitem(FORMATS, "onnx", fails)
    run, settings = tmp_path / "run", {**TINY, "export": "onnx,saved_model", "cache_dir": cache}
    assert command(train, "train", **settings, run_dir=run) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert "onnx cannot be made: ZeroDivisionError: division by zero. Everything else" in line
    assert f"bin/export --run_dir={run} --export=onnx" in line
    metrics = json.loads((run / "metrics.json").read_text())
    assert [written["format"] for written in metrics["exports"]] == ["keras", "saved_model"]
    assert (run / "model_card.md").is_file()
    monkeypatch.undo()
    assert command(exporting, "export", run_dir=run, export="onnx") == 0
    metrics = json.loads((run / "metrics.json").read_text())
    assert [written["format"] for written in metrics["exports"]][-1] == "onnx"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mosaickd", pytest.param("kd", marks=pytest.mark.long)])
def test_interrupted_run_continues_bit_for_bit(method, cache, tmp_path, monkeypatch, capsys):
    settings = {**TINY, "method": method, "cache_dir": cache, "export": "keras"}
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    assert command(train, "train", **settings, run_dir=whole) == 0

    save = checkpoints.Checkpoint.on_epoch_end

    def save_and_stop(self, epoch, logs=None):
        save(self, epoch, logs)
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints.Checkpoint, "on_epoch_end", save_and_stop)
    assert command(train, "train", **settings, run_dir=halved) == 130
    assert not (halved / "metrics.json").exists()
    monkeypatch.undo()
    assert command(train, "train", **settings, run_dir=halved) == 0
    assert "Continuing the run" in capsys.readouterr().out
    for a, b in zip(student_weights(whole), student_weights(halved), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_run_stopped_in_the_middle_of_an_epoch_continues_bit_for_bit(
    cache, tmp_path, monkeypatch, capsys
):
    settings = {**TINY, "cache_dir": cache, "export": "keras"}
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert command(train, "train", **settings, run_dir=whole) == 0
    look = checkpoints.Checkpoint.on_train_batch_end

    def stop_at_the_first_step(self, batch, logs=None):
        self.stop.received = signal.SIGTERM
        look(self, batch, logs)

    monkeypatch.setattr(checkpoints.Checkpoint, "on_train_batch_end", stop_at_the_first_step)
    assert command(train, "train", **settings, run_dir=stopped) == 128 + signal.SIGTERM
    assert "SIGTERM: saved" in capsys.readouterr().err
    monkeypatch.undo()
    clock = stopped / "checkpoints" / "epoch_seconds.json"
    steps, seconds, means = json.loads(clock.read_text())
    assert steps == 1 and seconds > 0
    clock.write_text(json.dumps([1, 1000.0, means]))
    assert command(train, "train", **settings, run_dir=stopped) == 0
    printed = capsys.readouterr().out
    assert "after step 1 of 4" in printed
    # The epoch that is completed first is one of the whole run, not the last of its own.
    assert re.findall(r"Epoch \d+/\d+", printed) == ["Epoch 1/2", "Epoch 2/2"]
    first, second = read_history(stopped / "history.csv")
    assert first["seconds"] > 1000 > second["seconds"]
    # Means over the whole epoch, and not over what was left of it.
    expected, _ = read_history(whole / "history.csv")
    losses = [name for name in expected if name.endswith("loss")]
    assert {"student_loss", "discriminator_loss"} <= {*losses, *means}
    assert [first[n] for n in losses] == pytest.approx([expected[n] for n in losses], rel=1e-5)
    for a, b in zip(student_weights(whole), student_weights(stopped), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_run_stopped_at_the_last_step_of_an_epoch_has_the_epochs_row(
    cache, tmp_path, monkeypatch, capsys
):
    settings = {**TINY, "cache_dir": cache, "export": "keras", "checkpoint_every_steps": 1}
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert command(train, "train", **settings, run_dir=whole) == 0
    look = checkpoints.Checkpoint.on_train_batch_end

    def stop_at_the_second_step(self, batch, logs=None):
        self.stop.received = signal.SIGTERM if batch == 1 else None
        look(self, batch, logs)

    monkeypatch.setattr(checkpoints.Checkpoint, "on_train_batch_end", stop_at_the_second_step)
    for steps in (2, 4):  # of the first epoch and of the last
        assert command(train, "train", **settings, run_dir=stopped) == 128 + signal.SIGTERM
        assert len((stopped / "history.csv").read_text().splitlines()) == 1 + steps // 2
    monkeypatch.undo()
    assert command(train, "train", **settings, run_dir=stopped) == 0
    assert "Exported: the student of epoch 2 of 2" in capsys.readouterr().out
    found, expected = (json.loads((run / "metrics.json").read_text()) for run in (stopped, whole))
    for name in ("student_accuracy", "student_agreement", "exported_epoch"):
        assert found[name] == expected[name]
    for a, b in zip(student_weights(whole), student_weights(stopped), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_the_best_student_is_kept_though_a_crash_left_its_row_alone(cache, tmp_path, monkeypatch):
    settings = {**TINY, "cache_dir": cache, "export": "keras", "select": "agreement"}
    run = tmp_path / "run"

    def crash(self, epoch, logs=None):
        raise RuntimeError("no room")

    monkeypatch.setattr(checkpoints.Checkpoint, "on_epoch_end", crash)
    assert command(train, "train", **settings, run_dir=run) == 1
    assert len((run / "history.csv").read_text().splitlines()) == 2
    monkeypatch.undo()
    assert command(train, "train", **settings, run_dir=run) == 0
    assert (run / "checkpoints" / "best_student.keras").is_file()


@pytest.mark.slow
def test_a_teacher_stopped_in_the_middle_of_an_epoch_continues_bit_for_bit(
    tmp_path, monkeypatch, capsys
):
    names = ("dataset", "image_size", "teacher", "teacher_batch_size")
    settings = {name: TINY[name] for name in names} | {"teacher_epochs": 2}
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert command(teacher, "teacher", **settings, cache_dir=whole) == 0
    look = checkpoints.Checkpoint.on_train_batch_end

    def stop_at_the_first_step(self, batch, logs=None):
        os.kill(os.getpid(), signal.SIGUSR1)  # As schedulers do before a time limit.
        look(self, batch, logs)

    monkeypatch.setattr(checkpoints.Checkpoint, "on_train_batch_end", stop_at_the_first_step)
    assert command(teacher, "teacher", **settings, cache_dir=stopped) == 128 + signal.SIGUSR1
    assert "SIGUSR1: saved; repeat the command to resume" in capsys.readouterr().err
    assert not list((stopped / "teachers").glob("[!.]*"))
    monkeypatch.undo()
    assert command(teacher, "teacher", **settings, cache_dir=stopped) == 0
    printed = capsys.readouterr().out
    assert "Continuing after step 1 of " in printed
    first, second = (next(cache.glob("teachers/*/teacher.keras")) for cache in (whole, stopped))
    models = [keras.models.load_model(file, compile=False) for file in (first, second)]
    for a, b in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(a, b)
    # Nothing is left of what it went on from.
    left = {path.name for path in (stopped / "teachers").iterdir()}
    assert left == {second.parent.name, f".{second.parent.name}.lock"}


def test_teacher_is_shared_and_can_be_given_as_a_file(finished, cache, tmp_path, capsys):
    recipe = {name: TINY[name] for name in TINY if name.startswith("teacher")}
    status = command(
        teacher, "teacher", **recipe, dataset=TINY["dataset"], image_size=8, cache_dir=cache
    )
    assert status == 0
    printed = capsys.readouterr().out
    assert "found in" in printed
    file = printed.split("teacher_file")[1].split()[0]
    settings = {**TINY, "teacher": file, "run_dir": tmp_path / "run", "cache_dir": cache}
    assert command(train, "train", **settings, dry_run=True) == 0
    assert "estimated time" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()
    wrong_classes = {**settings, "dataset": "digits[0-3]"}
    assert command(train, "train", **wrong_classes) == 2
    assert "--teacher must have 4 outputs" in capsys.readouterr().err
    wrong_size = {**settings, "image_size": 16}
    assert command(train, "train", **wrong_size) == 2
    assert "--teacher must take images of (16, 16, 1)" in capsys.readouterr().err


def broken_folder(path):
    path.mkdir()
    Image.new("L", (9, 9)).save(path / "good.png")
    (path / "broken.png").write_bytes(b"no image")
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "cifar"}, "did you mean cifar10"),
        ({"ood": "nothing"}, "--ood: expected one of"),
        ({"student": "resnet9000"}, "resnet9000"),
        ({"teacher": "wrn17_1"}, "6n+4"),
        ({"method": "magic"}, "expected one of mosaickd, kd"),
        ({"dataset": "digits[3-12]"}, "--dataset: expected classes"),
        ({"ood": "folder:{tmp}/missing"}, "missing"),
        ({"ood": "folder:{tmp}/empty"}, "empty"),
        ({"ood": "folder:{tmp}/broken", "ood_size": 0, "batch_size": 1}, "broken.png"),
        ({"export": "tflite"}, "--export: expected some of keras, saved_model"),
        ({"image_size": 13}, "--image_size: expected a height and width divisible by 4"),
        ({"ood_size": 100_000}, "--ood_size"),
        ({"balance_weight": -1}, "--balance_weight"),
        ({"regularization": "adaptive", "local_weight": 0.1}, "--local_weight must be 1 with"),
        (
            {"regularization": "adaptive", "regularization_weight": 0},
            "--regularization_weight must be from 0.001 to 100",
        ),
        ({"batch_size": 41}, "--batch_size"),
        ({"regularizer": "image", "overlap_stride": 2}, "overlap_stride"),
        ({"run_dir": "{tmp}/file"}, "--run_dir must be a directory"),
        ({"run_dir": "{tmp}/broken"}, "--run_dir must be new, empty"),
        (
            {"teacher": "{tmp}/none.keras"},
            "--teacher must be a network's name, a .keras or .h5 file",
        ),
        ({"teacher": "{tmp}/bad.keras"}, "that Keras loads in its safe mode"),
        ({"teacher_batch_size": 100_000}, "--teacher_batch_size"),
    ],
)
def test_bad_input_is_one_line_before_any_work(changes, message, cache, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "bad.keras").write_bytes(b"PK no model")
    broken_folder(tmp_path / "broken")
    settings = {**TINY, "run_dir": tmp_path / "run", "cache_dir": cache, **changes}
    settings = {k: v.format(tmp=tmp_path) if isinstance(v, str) else v for k, v in settings.items()}
    assert command(train, "train", **settings) == 2
    captured = capsys.readouterr()
    assert len(captured.err.strip().splitlines()) == 1, captured.err
    assert message in captured.err
    assert "Epoch" not in captured.out
    assert not (tmp_path / "run").exists()


def test_a_name_that_is_too_long_for_a_run_directory(tmp_path, cache, capsys):
    assert command(train, "train", **TINY, run_dir=tmp_path / ("n" * 300), cache_dir=cache) == 2
    assert "--run_dir must be a directory that can be made" in capsys.readouterr().err


def test_unwritable_run_directory(tmp_path, cache, capsys, monkeypatch):
    # Root may write everywhere, so the answer of the system is what is replaced.
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert command(train, "train", **TINY, run_dir=tmp_path / "run", cache_dir=cache) == 2
    assert "--run_dir must be writable" in capsys.readouterr().err


def test_every_method_makes_the_same_number_of_updates():
    for updates, steps, evaluations in ((2000, 5, 10), (500, 5, 10), (7, 2, 3), (1, 5, 10)):
        schedules = [
            ExperimentConfig(
                method=method,
                student_updates=updates,
                student_steps=steps,
                evaluations=evaluations,
            ).schedule(10_000)
            for method in ("mosaickd", "kd")
        ]
        assert schedules[0].student_updates == schedules[1].student_updates >= updates
        assert schedules[0].rounds == schedules[1].rounds
    by_epochs = ExperimentConfig(epochs=3, batch_size=100, student_steps=5).schedule(1050)
    assert (by_epochs.rounds, by_epochs.steps_per_round, by_epochs.student_updates) == (3, 10, 150)


def test_students_of_both_methods_see_as_many_images():
    assert ExperimentConfig(batch_size=8).student_batch_size == 16
    assert ExperimentConfig(batch_size=8, method="kd").student_batch_size == 16
    assert ExperimentConfig(batch_size=8, synthetic_only=True).student_batch_size == 8


def test_published_numbers_are_read_from_a_configs_comment(tmp_path):
    read = run_directory.published_accuracy
    paper = Path(__file__).resolve().parent.parent / "configs" / "paper"
    found = {
        path.relative_to(paper).as_posix(): read(path)
        for path in paper.rglob("*.flags")
        if not path.name.startswith("recipe")
    }
    assert found["table1_main/cifar10/mosaickd_wrn40_2_wrn16_1.flags"] == pytest.approx(0.6101)
    assert found["table4_stride/stride3_wrn40_2_wrn16_1.flags"] == pytest.approx(0.4235)
    for name, number in found.items():
        none_given = "# Published: none given" in (paper / name).read_text()
        assert (number is None) == none_given, name
    other = tmp_path / "other.flags"
    other.write_bytes(b"# Published: 61 points.\n#Published: 7 %\n\xff")
    assert read(other) is read(tmp_path / "missing") is read(None) is None


def test_flag_defaults_are_the_configs():
    parsed = flags.parse("train", [])
    config = ExperimentConfig(**parsed.settings())
    assert config == ExperimentConfig()


def test_configs_parse():
    configs = sorted((Path(__file__).resolve().parent.parent / "configs").glob("*.flags"))
    assert configs
    for path in configs:
        ExperimentConfig(**flags.parse("train", [f"--flagfile={path}"]).settings())
