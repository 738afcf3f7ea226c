"""Full disks, damaged files and files from strangers, through the command line."""

import contextlib
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from keras_mosaickd import export
from keras_mosaickd.callbacks import checkpoint as checkpoints
from keras_mosaickd.cli import evaluate, runner, sample, teacher, train
from keras_mosaickd.cli import export as cli_export
from keras_mosaickd.run_directory import RunDirectory
from keras_mosaickd.runs import run as experiment
from keras_mosaickd.runs import teacher as teachers
from keras_mosaickd.teachers import load as given_models
from tests import fuzz_files, game

ROOT = Path(__file__).resolve().parent.parent
pytestmark = [
    pytest.mark.slow,
    # As in a command's own process: here a warning of a damaged cache is no error.
    pytest.mark.filterwarnings("default:.*is built again:UserWarning"),
]


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    """A run of kd that is as short as one can be: 4 steps, a checkpoint after each."""
    folder = tmp_path_factory.mktemp("given")
    game.classifier(1).save(folder / "teacher.keras")
    return f"""--method=kd --dataset=digits[0-2] --ood=digits[5-9] --ood_size=40 --image_size=8
        --teacher={folder}/teacher.keras --student=wrn10_1 --batch_size=8 --student_steps=1
        --student_updates=4 --evaluations=1 --checkpoint_every_steps=1 --export=keras""".split()


def run(flags, run_dir, save=None):
    """Runs bin/train in this process, without the SavedModel; its cache lies beside the run.

    Args:
        flags: of the run.
        run_dir: its directory.
        save: takes the place of one checkpoint: its number from 1, and a function that is given
            what saves it.
    """
    places = [f"--run_dir={run_dir}", f"--cache_dir={run_dir.parent / 'cache'}"]
    number, act = save or (0, None)
    real, saved = checkpoints.save_checkpoint, []

    def save_checkpoint(model, path):
        saved.append(path)
        if len(saved) == number:
            act(lambda: real(model, path))
        else:
            real(model, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "save_checkpoint", save_checkpoint)
        return runner.run(train.main, "train", [*flags, *places])


def weights(run_dir):
    return keras.saving.load_model(run_dir / "student.keras").get_weights()


@pytest.fixture(scope="module")
def whole(flags, tmp_path_factory):
    """The weights of a run to which nothing happened."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    assert run(flags, run_dir) == 0
    return weights(run_dir)


@contextlib.contextmanager
def no_file_above(size):
    """Lets the system refuse every write behind this many bytes, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def save_on_a_full_disk(save):
    with no_file_above(100_000):
        save()


def save_and_interrupt(save):
    save()
    raise KeyboardInterrupt


def flip_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def put_checkpoint(kind, folder):
    """Writes a checkpoint with its right checksum, as whoever gives it away can do."""
    fuzz_files.make(kind, folder / "last.keras")
    digest = hashlib.sha256((folder / "last.keras").read_bytes()).hexdigest()
    (folder / "sha256.json").write_text(json.dumps([digest]))


def test_a_full_disk_at_a_checkpoint_costs_that_checkpoint_alone(flags, whole, tmp_path, capsys):
    run_dir = tmp_path / "run"
    assert run(flags, run_dir, save=(3, save_on_a_full_disk)) == 1
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert "failed: OSError: " in err and f"'{run_dir}/checkpoints/last.keras'" in err
    assert not list((run_dir / "checkpoints").glob(".*"))
    assert run(flags, run_dir) == 0
    assert "after step 2 of 4" in capsys.readouterr().out
    for a, b in zip(whole, weights(run_dir), strict=True):
        np.testing.assert_array_equal(a, b)


def test_damage_to_checkpoint_and_selection_is_told_and_mended(flags, whole, tmp_path, capsys):
    run_dir = tmp_path / "run"
    assert run(flags, run_dir, save=(3, save_and_interrupt)) == 128 + signal.SIGINT
    capsys.readouterr()
    flip_byte(run_dir / "checkpoints" / "last.keras")
    flip_byte(next(tmp_path.glob("cache/ood/*/images.npy")))
    assert run(flags, run_dir) == 0
    out, err = capsys.readouterr()
    assert f"The checkpoint {run_dir}/checkpoints/last.keras is damaged" in out
    assert "images.npy was changed) and is built again" in out
    assert "after step 2 of 4" in out and err == ""
    for a, b in zip(whole, weights(run_dir), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", ["zip of lambda", "zip of a custom layer", "zip of os.system"])
def test_a_strangers_file_is_refused_as_teacher_and_as_checkpoint(kind, flags, tmp_path, capsys):
    file = tmp_path / "theirs.keras"
    fuzz_files.make(kind, file)
    assert run([*flags, f"--teacher={file}"], tmp_path / "run") == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert "--teacher must be a .keras or .h5 file that Keras loads in its safe mode" in err
    assert str(file) in err and not (tmp_path / "run").exists()
    put_checkpoint(kind, tmp_path / "checkpoints")
    assert runner.run(evaluate.main, "evaluate", [f"--run_dir={tmp_path}"]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert "the checkpoint must be a .keras or .h5 file that Keras loads" in err


def test_a_run_is_not_continued_from_a_strangers_checkpoint(flags, tmp_path, capsys):
    run_dir = tmp_path / "run"
    assert run(flags, run_dir, save=(1, save_and_interrupt)) == 128 + signal.SIGINT
    capsys.readouterr()
    put_checkpoint("zip of lambda", run_dir / "checkpoints")
    assert run(flags, run_dir) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and "bin/train: the checkpoint must be" in err


def test_a_layer_that_the_user_registered_by_name_is_allowed(tmp_path):
    @keras.saving.register_keras_serializable(package="mine")
    class Mine(keras.layers.Layer):
        def call(self, inputs):
            return 2 * inputs

    inputs = keras.Input(game.SHAPE)
    outputs = keras.layers.Dense(game.CLASSES)(keras.layers.Flatten()(Mine()(inputs)))
    keras.Model(inputs, outputs).save(tmp_path / "mine.keras")
    loaded = given_models.load(str(tmp_path / "mine.keras"), "--teacher")
    assert any(isinstance(layer, Mine) for layer in loaded.layers)


def test_a_damaged_teacher_is_trained_again(tmp_path, monkeypatch, capsys):
    trained = []

    def train_quickly(inputs, *_):
        trained.append(inputs)
        return game.classifier(1), 0.0

    monkeypatch.setattr(teachers, "_fit", train_quickly)
    arguments = ["--dataset=digits[0-2]", "--image_size=8", f"--cache_dir={tmp_path}"]
    assert runner.run(teacher.main, "teacher", arguments) == 0
    flip_byte(next(tmp_path.glob("teachers/*/teacher.keras")))
    assert runner.run(teacher.main, "teacher", arguments) == 0
    assert "teacher.keras was changed) and is built again" in capsys.readouterr().out
    assert len(trained) == 2


@pytest.mark.backend("tensorflow")
def test_a_full_disk_at_an_export_leaves_nothing(tmp_path):
    student = game.classifier(1)
    with no_file_above(1_000), pytest.raises(export.ExportError, match="out cannot be written"):
        export.export_saved_model(student, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_run_writes_where_its_flags_say_and_nowhere_else(flags, tmp_path, monkeypatch):
    working = tmp_path / "working"
    working.mkdir()
    monkeypatch.chdir(working)
    (tmp_path / "a.flags").write_text("\n".join(flags))
    assert run([f"--flagfile={tmp_path}/a.flags"], tmp_path / "run") == 0
    assert not list(working.iterdir())
    assert {path.name for path in tmp_path.iterdir()} == {"a.flags", "cache", "run", "working"}


def test_a_directory_is_one_runs_at_a_time(flags, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    with experiment.RunDirectory(tmp_path / "run").alone():
        assert run(flags, tmp_path / "run") == 2
    assert "--run_dir must not be in use by another process" in capsys.readouterr().err


@pytest.mark.backend("torch")
@pytest.mark.long
def test_two_runs_at_once_share_one_cache(tmp_path):
    flags = f"""--method=kd --dataset=digits[0-2] --ood=digits[5-9] --ood_size=40 --image_size=8
        --teacher=wrn10_1 --teacher_epochs=1 --teacher_batch_size=128 --student=wrn10_1
        --batch_size=8 --student_steps=1 --student_updates=2 --evaluations=1
        --cache_dir={tmp_path}/cache""".split()
    code = (
        "from keras_mosaickd.cli import train\n"
        "from keras_mosaickd.runs import run as experiment\n"
        "experiment.export_saved_model = lambda *_, **__: None\n"
        "train.console()"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, *flags, f"--run_dir={tmp_path}/{name}"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in "ab"
    ]
    outputs = [process.communicate(timeout=600)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    # One trained the teacher while the other waited for it, and so with the selection.
    for told in ("training on", "found in", "as selected before"):
        assert sum(told in output for output in outputs) == 1, (told, outputs)
    assert "damaged" not in "".join(outputs)
    for a, b in zip(weights(tmp_path / "a"), weights(tmp_path / "b"), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_was_measured_is_printed_though_it_cannot_be_kept(
    flags, tmp_path, monkeypatch, capsys
):
    assert run(flags, tmp_path / "run") == 0
    capsys.readouterr()

    def read_only(self, name, content):
        raise PermissionError(13, "Permission denied", name)

    monkeypatch.setattr(RunDirectory, "write_json", read_only)
    assert runner.run(evaluate.main, "evaluate", [f"--run_dir={tmp_path / 'run'}"]) == 0
    printed = capsys.readouterr().out
    assert "student_accuracy" in printed and "metrics.json" in printed.partition("Warning: ")[2]


def test_a_run_is_exported_though_its_cache_is_gone(flags, tmp_path, capsys):
    assert run(flags, tmp_path / "run") == 0
    shutil.rmtree(tmp_path / "cache")
    arguments = [f"--run_dir={tmp_path / 'run'}", "--export=keras", f"--out={tmp_path / 'again'}"]
    assert runner.run(cli_export.main, "export", arguments) == 0
    assert "Compared on random images: " in capsys.readouterr().out
    assert (tmp_path / "again.keras").is_file()


def test_places_that_cannot_work_are_refused_before_any_work(flags, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = [flag for flag in flags if not flag.startswith("--export")]
    assert run(flags, tmp_path / "seed[0]") == 2
    assert "without square brackets" in capsys.readouterr().err
    assert not (tmp_path / "seed[0]").exists()
    (tmp_path / "student.keras").write_bytes(b"")
    for out in (".", "..", "/"):
        arguments = ["--student=student.keras", f"--out={out}"]
        assert runner.run(cli_export.main, "export", arguments) == 2
        assert "--out: expected a path that ends in a name" in capsys.readouterr().err
    assert runner.run(sample.main, "sample", ["--run_dir=run", "--out=grid.jpg"]) == 2
    assert "--out: expected a .png file, or a directory" in capsys.readouterr().err


def test_modules_in_the_working_directory_are_not_run(tmp_path):
    (tmp_path / "random.py").write_text("raise SystemExit('run')")
    (tmp_path / "absl.py").write_text("raise SystemExit('run')")
    command = [ROOT / "bin" / "train", "--version"]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert finished.returncode == 0 and finished.stdout.startswith("keras-mosaickd "), finished


@pytest.mark.skipif(sys.platform == "darwin", reason="its file system refuses such names")
def test_names_that_are_no_utf_8_are_refused_before_any_work(flags, tmp_path, capsys):
    image = np.zeros((8, 8), "uint8")
    for kind in (b"b\xfcr", b"cat"):
        folder = os.path.join(os.fsencode(tmp_path), b"eval", kind)
        os.makedirs(folder)
        Image.fromarray(image).save(os.path.join(os.fsdecode(folder), "0.png"))
    assert run([*flags, f"--eval=folder:{tmp_path / 'eval'}"], tmp_path / "run") == 2
    assert r"names of sub-folders in UTF-8. Received: b'b\xfcr'" in capsys.readouterr().err
    assert run([*flags, "--ood=folder:\udcfc"], tmp_path / "run") == 2
    assert "expected text in UTF-8" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
