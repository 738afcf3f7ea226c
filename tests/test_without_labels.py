"""Whole runs by command line: a teacher of the user's own, a folder of images, no label."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shutil
import sys
import types

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

from keras_mosaickd.cli import evaluate, runner, sample, train
from keras_mosaickd.config import ExperimentConfig
from keras_mosaickd.data.sources.decoding import decode
from keras_mosaickd.evaluation.of_run import load_run
from keras_mosaickd.run_directory import RunDirectory
from keras_mosaickd.runs import outcome
from keras_mosaickd.runs.inputs import load

SHORT = ["--batch_size=8", "--student_updates=8", "--student_steps=2", "--evaluations=2"]
NAMES = ("cat", "dog", "emu")
STUDENTS = """
import keras
from keras import layers

def student(input_shape, classes):
    inputs = keras.Input(input_shape)
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 3, strides=2)(inputs)))
    return keras.Model(inputs, layers.Dense(classes)(layers.GlobalAveragePooling2D()(x)))
"""


def teacher(shape=(16, 16, 3)):
    """Its own preprocessing of pixels up to 255, a nested backbone, softmax."""
    inputs = keras.Input(shape)
    backbone = keras.Sequential(
        [
            keras.Input(shape),
            layers.Conv2D(6, 3, strides=2, activation="relu"),
            layers.GlobalMaxPooling2D(),
            layers.Dense(3, activation="softmax", kernel_initializer="orthogonal"),
        ]
    )
    return keras.Model(inputs, backbone(inputs / 127.5 - 1.0))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with a teacher, a folder of images, a labelled folder, and students.py."""
    place = tmp_path_factory.mktemp("place")
    keras.utils.set_random_seed(0)
    teacher().save(place / "teacher.keras")
    (place / "names.txt").write_text("\n".join(NAMES) + "\n")
    (place / "students_of_mine.py").write_text(STUDENTS)
    random = np.random.default_rng(0)
    for index in range(60):
        folder = place / ("pictures" if index < 50 else f"labelled/{NAMES[index % 2]}")
        folder.mkdir(parents=True, exist_ok=True)
        height, width = (int(side) for side in random.integers(9, 40, 2))
        image = Image.fromarray(random.integers(0, 255, (4, 4, 3), "uint8"))
        image = image.resize((width, height)).convert("L" if index % 3 == 0 else "RGB")
        image.save(folder / f"{index}.{'jpg' if index % 2 else 'png'}")
    return place


def run(place, name, *arguments):
    """Runs bin/train in the directory and in this process; returns its exit status."""
    given = ["--teacher=teacher.keras", "--teacher_input=0-255", "--ood=folder:pictures"]
    return runner.run(train.main, "train", [*given, *SHORT, f"--run_dir={name}", *arguments])


@pytest.fixture(scope="module")
def finished(place):
    """A finished run of mosaickd; what it printed is in the file `printed` beside it."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.chdir(place)
        status = run(
            place,
            "run",
            "--student=students_of_mine:student",
            "--class_names=names.txt",
            "--select=agreement",
            "--eval=folder:labelled",
            "--export=keras",
        )
    sys.modules.pop("students_of_mine", None)
    assert status == 0
    (place / "printed").write_text(printed.getvalue())
    return place / "run"


def metrics_of(run_dir):
    return json.loads((run_dir / "metrics.json").read_text())


def test_the_run_has_no_data_set_and_knows_the_teacher(finished):
    metrics = metrics_of(finished)
    assert metrics["dataset"] is None and metrics["class_names"] == list(NAMES)
    assert len(metrics["teacher_sha256"]) == 64
    assert "student_accuracy" not in metrics and "teacher_accuracy" not in metrics
    assert "--dataset=\n" in (finished / "flags.txt").read_text()
    assert metrics["compression"] == metrics["teacher_parameters"] / metrics["student_parameters"]
    assert metrics["verdict"].startswith("The student has ")
    assert metrics["verdict"] in (finished / "model_card.md").read_text()


def test_the_history_has_the_agreement_of_every_epoch(finished):
    with (finished / "history.csv").open() as file:
        rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    assert len(rows) == 2
    for row in rows:
        assert row["val_agreement"] == row["held_out_agreement"]
        expected = (row["held_out_agreement"] + row["synthetic_agreement"]) / 2
        assert row["label_free_agreement"] == pytest.approx(expected)
        assert row["held_out_kl"] >= 0 and abs(row["synthetic_calibration_gap"]) <= 1
        assert "val_accuracy" not in row
    metrics = metrics_of(finished)
    best = max(range(2), key=lambda index: rows[index]["label_free_agreement"])
    # The last one, where it agrees more on what the generator makes at the end.
    exported = metrics["exported_epoch"]
    assert exported in (best, 1)
    assert metrics["held_out_agreement"] == pytest.approx(rows[exported]["held_out_agreement"])
    assert metrics["held_out_pictures"] == 5
    assert set(metrics["synthetic_agreement_per_class"]) == set(NAMES)


@pytest.mark.parametrize(("of_best", "of_last", "exported"), [(0.9, 0.8, 0), (0.8, 0.9, 1)])
def test_the_exported_student_is_the_one_that_agrees_most(
    of_best, of_last, exported, finished, monkeypatch
):
    run = RunDirectory(finished)
    trainer = load_run(finished, str(finished.parent / "teacher.keras"))
    history = [{"epoch": 0, "label_free_agreement": 0.7}, {"epoch": 1, "label_free_agreement": 0.6}]

    class Judge:
        def judge(self, _, student):
            agreement = of_last if student is trainer.student else of_best
            return {"held_out": types.SimpleNamespace(agreement=agreement)}

    config = types.SimpleNamespace(select="agreement")
    row, student = outcome._chosen(config, run, trainer, history, Judge())
    assert row is history[exported] and (student is trainer.student) == bool(exported)


def test_feature_maps_that_do_not_fit_leave_no_directory(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    assert run(place, "misfit", "--method=fitnet", "--student=wrn10_1") == 2
    assert "a student that halves its maps as the teacher does" in capsys.readouterr().err
    assert not (place / "misfit").exists()


def test_what_is_printed_at_the_end_is_for_people(finished, place):
    metrics = metrics_of(finished)
    printed = (place / "printed").read_text()
    exported = f"Exported: the student of epoch {metrics['exported_epoch'] + 1} of 2\n"
    end = printed[printed.index(exported) :]
    assert "None" not in end and "{" not in end and "exported_epoch" not in end
    assert "class_names                  cat, dog, emu\n" in end
    assert f"\n\n{metrics['verdict']}\n\nThe run is in run\n" in end


def test_labelled_images_are_kept_apart(finished, place):
    metrics = metrics_of(finished)
    assert metrics["eval"] == "folder:labelled" and metrics["eval_pictures"] == 10
    model = keras.saving.load_model(place / "teacher.keras")
    right = []
    for label, name in enumerate(NAMES[:2]):
        for file in (place / "labelled" / name).iterdir():
            image = decode(file, 16, 3)[None].astype("float32")
            right.append(int(np.argmax(model.predict(image, verbose=0))) == label)
    assert metrics["eval_teacher_accuracy"] == pytest.approx(np.mean(right))
    for name in ("eval_student_accuracy", "eval_student_agreement"):
        assert 0 <= metrics[name] <= 1


def test_a_finished_run_is_looked_at_again(finished, tmp_path, capsys, monkeypatch):
    arguments = [f"--run_dir={finished}", f"--out={tmp_path / 'grid.png'}"]
    assert runner.run(sample.main, "sample", arguments) == 0
    assert (tmp_path / "grid.png").is_file()


def evaluated(run_dir, capsys, *arguments):
    """Runs bin/evaluate in this process; returns its exit status, what it printed, its error."""
    status = runner.run(evaluate.main, "evaluate", [f"--run_dir={run_dir}", *arguments])
    return status, *capsys.readouterr()


@pytest.fixture
def copied(finished, place, tmp_path, monkeypatch):
    """A copy of the finished run, without what bin/train found by --eval."""
    monkeypatch.chdir(place)
    shutil.copytree(finished, tmp_path / "copied")
    metrics = {k: v for k, v in metrics_of(finished).items() if not k.startswith("eval")}
    (tmp_path / "copied" / "metrics.json").write_text(json.dumps(metrics))
    return tmp_path / "copied"


def test_without_labels_size_and_latency_are_measured_all_the_same(copied, capsys):
    before = metrics_of(copied)
    status, out, _ = evaluated(copied, capsys)
    assert status == 0 and "--eval=folder:PATH" in out and "accuracy  " not in out
    metrics = metrics_of(copied)
    assert set(metrics) - set(before) == {
        f"{part}_{what}" for part in ("teacher", "student") for what in ("bytes", "latency_ms")
    }


def test_evaluate_finds_and_keeps_what_the_run_found_by_eval(finished, copied, capsys):
    status, out, _ = evaluated(copied, capsys, "--eval=folder:labelled")
    assert status == 0 and "in this order" not in out
    expected, found = (
        {k: v for k, v in metrics_of(run_dir).items() if k.startswith("eval")}
        for run_dir in (finished, copied)
    )
    by_class = found.pop("eval_per_class")
    assert by_class == expected.pop("eval_per_class")
    right = sum(of["pictures"] * of["student"] for of in by_class.values())
    assert right / 10 == pytest.approx(found["eval_student_accuracy"])
    assert found == pytest.approx(expected) and found["eval"] == "folder:labelled"
    values, _, table = out.strip().partition("\n\n")
    assert [line.split()[0] for line in table.splitlines()] == ["accuracy", *by_class]
    printed = dict(line.split() for line in values.splitlines())
    assert printed["eval_pictures"] == "10"
    assert float(printed["eval_student_accuracy"]) == pytest.approx(
        found["eval_student_accuracy"], abs=1e-5
    )


ANIMALS = ["cow", "ape", "bat"]  # Each is one place further in the alphabet's order.


@pytest.fixture(scope="module")
def animals(place):
    """Labelled images: what the teacher sees for 30, one class further for 15, two for 5."""
    model = keras.saving.load_model(place / "teacher.keras")
    for index, file in enumerate(sorted((place / "pictures").iterdir())):
        seen = int(np.argmax(model.predict(decode(file, 16, 3)[None].astype("float32"), verbose=0)))
        further = 0 if index < 30 else 1 if index < 45 else 2
        folder = place / "animals" / ANIMALS[(seen + further) % 3]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder / file.name)
    return "folder:animals"


def rename(run_dir, class_names):
    """Makes the run one of other class names."""
    metrics = {**metrics_of(run_dir), "class_names": class_names}
    (run_dir / "metrics.json").write_text(json.dumps(metrics))
    return metrics


def test_classes_are_matched_by_name(copied, animals, capsys):
    rename(copied, ANIMALS)
    assert evaluated(copied, capsys, f"--eval={animals}")[0] == 0
    metrics = metrics_of(copied)
    assert metrics["eval"] == animals and metrics["eval_pictures"] == 50
    assert metrics["eval_teacher_accuracy"] == pytest.approx(0.6)


def test_a_data_set_is_matched_by_name_and_its_test_split_said(copied, animals, capsys):
    rename(copied, ANIMALS)
    status, out, _ = evaluated(copied, capsys, f"--dataset={animals}")
    assert status == 0
    assert "--dataset: 10 of the 50 images are tested, the test split of folder:animals" in out
    assert "--eval=folder:animals tests all" in out
    metrics = metrics_of(copied)
    assert metrics["eval"] == f"{animals}, test images" and metrics["eval_pictures"] == 10


@pytest.mark.parametrize("flag", ["--eval", "--dataset"])
def test_other_names_are_refused_and_taken_in_order_where_the_run_has_none(
    flag, copied, animals, capsys
):
    before = rename(copied, list(NAMES))
    status, _, err = evaluated(copied, capsys, f"{flag}={animals}")
    assert status == 2 and f"{flag} must have classes of the teacher" in err
    assert "(cat, dog, emu). Received: folder:animals with ape" in err
    assert len(err.splitlines()) == 1 and metrics_of(copied) == before
    rename(copied, ["0", "1", "2"])
    # Two classes for three could be any of them.
    assert evaluated(copied, capsys, f"{flag}=folder:labelled")[0] == 2
    status, out, _ = evaluated(copied, capsys, f"{flag}={animals}")
    assert status == 0
    assert f"{flag}: ape, bat, cow are taken for the teacher's classes in this order" in out
    if flag == "--eval":
        assert metrics_of(copied)["eval_teacher_accuracy"] == pytest.approx(0.3)


def test_what_evaluate_is_given_wrongly(copied, capsys):
    both = ["--eval=folder:labelled", "--dataset=folder:labelled"]
    assert "expected --eval or --dataset, not both" in evaluated(copied, capsys, *both)[2]
    err = evaluated("runs/nope", capsys)[2]
    assert "Received: runs/nope, which does not exist" in err
    layer = keras.layers.Dense(3)
    inputs = keras.Input((8, 8, 3))
    keras.Model(inputs, layer(keras.layers.Flatten()(inputs))).save(copied / "student.keras")
    status, _, err = evaluated(copied, capsys)
    assert status == 2 and "--run_dir must hold a student.keras of its checkpoint" in err


@pytest.mark.slow
@pytest.mark.backend("tensorflow")
def test_a_saved_model_teaches_a_keras_file(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    keras.saving.load_model("teacher.keras").export("saved", verbose=False)
    inputs = keras.Input((16, 16, 3))
    keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.Flatten()(inputs))).save(
        "student.keras"
    )
    own = ["--teacher=saved", "--student=student.keras", "--method=mosaickd"]
    assert run(place, "saved_run", *own) == 0
    printed = capsys.readouterr().out
    assert "Teacher saved: images 16x16x3" in printed and "Expected use" in printed
    assert keras.saving.load_model("saved_run/student.keras").output_shape == (None, 3)
    # The checkpoint names the SavedModel; only who names it too runs it.
    monkeypatch.setattr("keras_mosaickd.teachers.foreign._told", {})
    looking = ["--run_dir=saved_run", "--out=grid.png"]
    assert runner.run(sample.main, "sample", looking) == 2
    assert "it must be named" in capsys.readouterr().err
    assert runner.run(sample.main, "sample", [*looking, "--teacher=saved"]) == 0


def test_a_data_set_has_the_labels_of_the_teachers_outputs(place, tmp_path, monkeypatch, capsys):
    """By the names of --class_names; without them in Keras's order of folders, which is said."""
    for folder in NAMES:
        shutil.copytree(place / "labelled" / "cat", tmp_path / "in" / folder)
    (tmp_path / "in" / "cat" / "broken.png").write_bytes(b"")
    (tmp_path / "reversed.txt").write_text("emu\ndog\ncat\n", encoding="utf-8-sig")
    monkeypatch.chdir(tmp_path)

    def domain(**settings):
        given = {"teacher": str(place / "teacher.keras"), "dataset": "folder:in", "ood": ""}
        config = ExperimentConfig(**given, method="supervised", skip_unreadable=True, **settings)
        inputs = load(config, with_pool=False)
        return inputs, inputs.domain

    inputs, images = domain()
    assert images.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert inputs.class_names == images.class_names == NAMES
    assert inputs.unreadable == ("in/cat/broken.png",)
    assert (
        "cat, dog, emu are taken for the teacher's classes in this order" in capsys.readouterr()[0]
    )
    inputs, images = domain(class_names="reversed.txt")
    assert images.labels.tolist() == [2] * 4 + [1] * 4 + [0] * 4
    assert inputs.class_names == images.class_names == NAMES[::-1]
    # All of them others: other words for the classes.
    (tmp_path / "french.txt").write_text("chat\nchien\némeu\n")
    inputs, images = domain(class_names="french.txt")
    assert images.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert inputs.class_names == ("chat", "chien", "émeu")


def test_what_has_moved_is_the_same_and_what_has_changed_is_not(
    place, tmp_path, monkeypatch, capsys
):
    shutil.copytree(place / "pictures", tmp_path / "first")
    shutil.copy(place / "teacher.keras", tmp_path)
    monkeypatch.chdir(tmp_path)
    settings = ("--method=kd", "--student_steps=1", "--student_updates=1", "--export=keras")
    assert run(tmp_path, "run", *settings, "--ood=folder:first") == 0
    (tmp_path / "run" / "metrics.json").unlink()
    (tmp_path / "first").rename(tmp_path / "moved")
    (tmp_path / "teacher.keras").rename(tmp_path / "mine.keras")
    moved = ("--ood=folder:moved", "--teacher=mine.keras")
    capsys.readouterr()
    assert run(tmp_path, "run", *settings, *moved) == 0
    printed = capsys.readouterr().out
    assert "Continuing the run" in printed
    (tmp_path / "run" / "metrics.json").unlink()
    other = (tmp_path / "moved" / "1.jpg").read_bytes()
    for path, content in ((tmp_path / "moved" / "3.jpg", other), (tmp_path / "mine.keras", None)):
        before = path.read_bytes()
        if content:
            path.write_bytes(content)
        else:
            teacher().save(path)
        assert run(tmp_path, "run", *settings, *moved) == 2
        named = "--ood" if content else "--teacher"
        assert f"holds another run. Expected: what {named} named" in capsys.readouterr().err
        path.write_bytes(before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--teacher=none.keras"], "--teacher must be a network's name, a .keras or .h5 file"),
        (["--teacher=none.keras"], "Received: none.keras: no such file"),
        (["--teacher=some/where"], "Received: some/where: no such file"),
        (["--teacher=./labelled"], "Received: ./labelled, a directory without saved_model.pb\n"),
        (["--ood=pictures"], "Received: 'pictures'; did you mean folder:pictures?"),
        (["--teacher=wrn16_1", "--dataset="], "--dataset must be given, unless --teacher"),
        (["--teacher=wrn16_1", "--dataset=digits[0-2]"], "--teacher_input describes"),
        (["--teacher_input=0-1000"], "--teacher_input must be 0-1"),
        (["--image_size=20"], "--teacher must take images of (20, 20, 3)"),
        (["--task=segmentation"], "--teacher must give one prediction per pixel"),
        (["--class_names=students_of_mine.py"], "--class_names must have 3 different names"),
        (["--student=teacher.keras", "--teacher=grey.keras"], "--student must take images"),
        (["--student=students_of_mine:none"], "--student must be module:function"),
        (["--student=saved"], "a SavedModel cannot be trained"),
        (["--ood=folder:labelled"], "--ood must have at least 20 images"),
        (["--ood_size=46"], "--ood_size must be at most the number of images of --ood, 45"),
        (["--eval=folder:pictures"], "--eval must have labels"),
        (["--eval=folder:labelled", "--class_names=other.txt"], "--eval must have classes of"),
        (["--method=supervised"], "--method=supervised needs --dataset"),
    ],
)
def test_what_does_not_fit_is_said_on_one_line_before_training(
    arguments, message, place, monkeypatch, capsys
):
    monkeypatch.chdir(place)
    teacher((16, 16, 1)).save("grey.keras")
    (place / "saved").mkdir(exist_ok=True)
    (place / "saved" / "saved_model.pb").touch()
    (place / "other.txt").write_text("1\n2\n3\n")
    assert run(place, "refused", "--student=wrn10_1", *arguments) == 2
    captured = capsys.readouterr()
    assert len(captured.err.strip().splitlines()) == 1 and message in captured.err, captured.err
    assert "Epoch" not in captured.out and not (place / "refused").exists()


def test_grey_teachers_get_grey_images(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    teacher((16, 16, 1)).save("grey.keras")
    settings = ("--teacher=grey.keras", "--student=wrn10_1", "--jit_compile=off", "--dry_run")
    assert run(place, "dry", *settings) == 0
    printed = capsys.readouterr().out
    assert "no images and no labels; 3 classes" in printed
    assert (
        "\n                   5 more images held out\n" in printed
        and "(16, 16, 1) -> (3,)" in printed
    )
    assert "\nstudent, 2 updates" in printed


def test_a_dry_run_leaves_nothing_behind(place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = [
        f"--teacher={place}/teacher.keras",
        f"--ood=folder:{place}/pictures",
        f"--eval=folder:{place}/labelled",
        f"--class_names={place}/names.txt",
        "--student=wrn10_1",
        *SHORT,
        "--dry_run",
    ]
    assert runner.run(train.main, "train", arguments) == 0
    assert "45 of 45 images" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    # What does not fit is found all the same.
    assert runner.run(train.main, "train", [*arguments, "--ood_size=46"]) == 2
    assert list(tmp_path.iterdir()) == []
