"""What leaves a finished run: further exports, size and latency, the model card."""

import hashlib

import numpy as np
import pytest

from keras_mosaickd import report
from keras_mosaickd.cli import evaluate as evaluate_command
from keras_mosaickd.cli import export as export_command
from keras_mosaickd.cli import runner
from keras_mosaickd.errors import InputError
from keras_mosaickd.evaluation import of_run as evaluation
from keras_mosaickd.export import formats as export_formats
from keras_mosaickd.export import of_run as shipping
from keras_mosaickd.report import model_card
from keras_mosaickd.run_directory import RunDirectory
from tests import game

METRICS = {
    "method": "kd",
    "dataset": "digits[0-2]",
    "ood": "digits[5-9]",
    "backend": "tensorflow",
    "teacher": "wrn16_1",
    "student": "wrn10_1",
    "class_names": ["zero", "one", "two"],
    "teacher_file": "cache/teacher.keras",
    "teacher_sha256": "c0ffee",
    "teacher_accuracy": 0.875,
    "student_accuracy": 0.75,
    "student_agreement": 0.8125,
    "teacher_parameters": 12345,
    "student_parameters": 678,
    "student_updates": 2000,
}
EXPORT = {
    "format": "onnx",
    "file": "student.onnx",
    "bytes": 1234567,
    "latency_ms": 1.5,
    "max_difference": 2e-7,
    "agreement": 1.0,
}


@pytest.fixture
def run(tmp_path):
    """A finished run, put down by hand: a student and what a card is made of."""
    run = RunDirectory(tmp_path)
    game.classifier().save(run / "student.keras")
    images = np.random.default_rng(0).integers(0, 256, (21, *game.SHAPE), "uint8")
    np.save(run / "images.npy", images)
    run.write_json("metrics.json", METRICS)
    selection = {"kept": [1, 20], "pool": [10, 1200], "images": str(run / "images.npy")}
    run.write_json("selection.json", selection)
    versions = {"keras": "3.15.1", "torch": None}
    machine = {"platform": "Linux-6.1-x86_64", "cores": 2}
    run.write_json("environment.json", {"versions": versions, "commit": "abc123", **machine})
    (run / "flags.txt").write_text("--method=kd\n--seed=7\n")
    return run


@pytest.mark.backend("tensorflow")
def test_a_run_gets_further_exports_and_its_files_tell_of_them(run, capsys):
    earlier = [{**EXPORT, "bytes": 1}, {**EXPORT, "format": "keras", "file": "student.keras"}]
    run.write_json("metrics.json", {**METRICS, "exports": earlier})
    arguments = [f"--run_dir={run.path}", "--export=onnx,litert_int8"]
    assert runner.run(export_command.main, "export", arguments) == 0
    printed = capsys.readouterr().out
    metrics = run.read_json("metrics.json")
    assert [export["format"] for export in metrics["exports"]] == ["keras", "onnx", "litert_int8"]
    assert metrics["exports"][0] == earlier[1]
    assert metrics["exports"][1]["bytes"] == (run / "student.onnx").stat().st_size
    assert {name: metrics[name] for name in METRICS} == METRICS
    for export in metrics["exports"][1:]:
        row = f"| {export['format']} | `{export['file']}` | {export['bytes']:,} |"
        assert row in (run / "model_card.md").read_text()
        assert export["file"] in printed


@pytest.mark.backend("tensorflow")
def test_what_is_compared_took_no_part_in_the_calibration(run, monkeypatch, capsys):
    seen = {}
    monkeypatch.setattr(
        shipping, "export_student", lambda student, targets, **given: seen.update(given) or []
    )
    shipping.export_again(run.path, ["litert_int8"])
    images = np.load(run / "images.npy") / np.float32(255)
    # 20 of 21, evenly spaced, taken in turn.
    chosen = np.linspace(0, 20, 20).round().astype(int)
    np.testing.assert_allclose(seen["calibration"], images[chosen[0::2]], rtol=1e-6)
    np.testing.assert_allclose(seen["images"], images[chosen[1::2]], rtol=1e-6)
    assert seen["class_names"] == METRICS["class_names"]
    (run / "images.npy").unlink()
    seen.clear()
    shipping.export_again(run.path, ["litert_int8"])  # `export_student` refuses it without any
    assert "calibration" not in seen and "images.npy, of" in capsys.readouterr().out
    # A run without either kind of images has those of its domain.
    (run / "selection.json").unlink()
    shipping.export_again(run.path, ["litert_int8"])
    assert seen["calibration"].shape[1:] == game.SHAPE
    assert 0 < len(seen["calibration"]) == len(seen["images"]) <= 256


@pytest.mark.backend("tensorflow")
def test_what_is_compared_is_of_both_kinds_that_the_student_learned_from(run):
    trainer = game.game()
    # From dark to bright: a part of the pool would be another kind of images.
    shades = np.arange(1000) // 4
    np.save(run / "images.npy", np.tile(shades.astype("uint8")[:, None, None, None], game.SHAPE))
    found = shipping._images(run, trainer, trainer.student, lambda: None)
    for half in (found[0::2], found[1::2]):  # for calibration and for comparison
        given = half[np.ptp(half, axis=(1, 2, 3)) == 0]
        assert len(half) == 2 * len(given) == 256
        assert given.min() < 5 / 255 and given.max() > 244 / 255
    # What a small pool lacks is synthetic.
    np.save(run / "images.npy", np.zeros((21, *game.SHAPE), "uint8"))
    found = shipping._images(run, trainer, trainer.student, lambda: None)
    assert len(found) == 512 and np.sum(found.max(axis=(1, 2, 3)) == 0) == 20


@pytest.mark.backend("tensorflow")
def test_a_file_gives_the_names_that_classify_answers_with(run, tmp_path, capsys):
    import tensorflow

    (tmp_path / "names.txt").write_text("hat\nshoe\nbag\n")
    student = [f"--student={run / 'student.keras'}", f"--out={tmp_path / 'out'}"]
    names = [f"--class_names={tmp_path / 'names.txt'}"]
    assert runner.run(export_command.main, "export", student + names) == 0
    raw = tensorflow.zeros((1, 20, 30, 1), "uint8")
    restored = tensorflow.saved_model.load(str(tmp_path / "out"))
    answer = restored.classify(raw)
    assert answer["class_names"].numpy().tolist() == [[b"hat", b"shoe", b"bag"]]
    (tmp_path / "names.txt").write_text("hat\nshoe\n")
    assert runner.run(export_command.main, "export", student + names) == 2
    assert runner.run(export_command.main, "export", [f"--run_dir={run.path}", *names]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert "--class_names must have 3" in errors[0] and "--class_names with --student" in errors[1]


@pytest.mark.parametrize("formats", [("keras",), ("saved_model",)])
def test_without_tensorflow_a_run_keeps_the_keras_file(formats, run, monkeypatch):
    monkeypatch.setattr(export_formats, "is_installed", lambda name: False)
    (run / "student.keras").unlink()
    trainer, names = game.game(), METRICS["class_names"]
    exports = shipping.export_run(run, trainer, trainer.student, formats, names, lambda: None)
    assert [(export["format"], export["file"]) for export in exports] == [
        ("keras", "student.keras")
    ]
    assert exports[0]["bytes"] == (run / "student.keras").stat().st_size


def test_evaluate_keeps_size_and_latency_for_the_report(run, monkeypatch, capsys):
    trainer = game.game()
    monkeypatch.setattr(evaluation, "load_run", lambda *_: trainer)
    (run / "model_card.md").write_text("an older one")
    assert runner.run(evaluate_command.main, "evaluate", [f"--run_dir={run.path}"]) == 0
    metrics = run.read_json("metrics.json")
    assert {name: metrics[name] for name in METRICS} == METRICS
    assert metrics["student_bytes"] == (run / "student.keras").stat().st_size
    # The same network without a file of its own: the archive holds no optimizer.
    assert metrics["teacher_bytes"] == pytest.approx(metrics["student_bytes"], rel=0.1)
    for name in ("teacher_latency_ms", "student_latency_ms"):
        assert 0 < metrics[name] < 60_000
    values, _, by_class = capsys.readouterr().out.strip().partition("\n\n")
    assert by_class.split("\n")[0].split() == "accuracy by class images teacher student".split()
    printed = dict(line.split(maxsplit=1) for line in values.splitlines())
    assert int(printed["student_bytes"]) == metrics["student_bytes"]
    card = (run / "model_card.md").read_text()
    assert f"| student | wrn10_1 | 678 | {metrics['student_bytes']:,} |" in card
    report.write([run.path], run / "report")
    page = (run / "report" / "report.md").read_text()
    assert f"{metrics['student_bytes'] / 1e6:.2f}" in page and "latency (ms)" in page


def test_card(run):
    run.write_json("metrics.json", {**METRICS, "exports": [EXPORT]})
    path = model_card.write(run)
    card = path.read_text()
    digest = hashlib.sha256((run / "student.keras").read_bytes()).hexdigest()
    for line in (
        "# wrn10_1, distilled from wrn16_1",
        "3 classes: zero, one, two.",
        "| accuracy of the student | 0.7500 |",
        "| agreement of the student with the teacher | 0.8125 |",
        "| accuracy of the teacher | 0.8750 |",
        "| student | wrn10_1 | 678 | - | - |",
        "| onnx | `student.onnx` | 1,234,567 | 1.50 | 2.0e-07 | 1.0000 |",
        "- It learned from the images of `digits[5-9]`, without a label.",
        f"| student.keras, SHA-256 | `{digest}` |",
        "| teacher | `cache/teacher.keras` |",
        "| teacher, SHA-256 | `c0ffee` |",
        "| out-of-domain images kept | `21 of 1,210` |",
        "| versions | `keras 3.15.1` |",
        "| commit | `abc123` |",
        "| machine | `Linux-6.1-x86_64, CPU cores: 2` |",
        "--seed=7",
    ):
        assert line in card.splitlines(), line
    assert not [name for name in run.path.iterdir() if name.name.startswith(".")]


def test_card_tells_its_two_latencies_apart(run):
    run.write_json("metrics.json", {**METRICS, "exports": [EXPORT]})
    card = model_card.text(run)
    assert "| bytes as .keras | ms per image in Keras |" in card
    assert "`bin/evaluate` measures what is missing here." in card
    assert "| bytes | ms per image in its runtime |" in card
    assert "one image at a time, median of 20, with the threads that the runtime takes" in card
    run.write_json("metrics.json", {**METRICS, "student_latency_ms": 3.25})
    card = model_card.text(run)
    assert "| student | wrn10_1 | 678 | - | 3.25 |" in card and "missing" not in card
    assert "Keras's `predict_on_batch` of one image, median of 20" in card
    assert "on the machine where `bin/evaluate` was last run" in card and "## Exports" not in card


def test_card_of_a_run_without_labels_or_selection(run):
    known = ("method", "teacher", "student", "student_agreement")
    run.write_json(
        "metrics.json", {name: METRICS[name] for name in known} | {"method": "data_free"}
    )
    for name in ("selection.json", "environment.json", "flags.txt"):
        (run / name).unlink()
    card = model_card.text(run)
    assert "None" not in card and "accuracy" not in card
    assert "It learned from synthetic images alone, without a label." in card
    (run / "metrics.json").write_text("{")
    with pytest.raises(InputError, match=r"metrics\.json"):
        model_card.text(run)


def test_card_says_how_good_a_student_is_without_labels(run):
    known = ("method", "teacher", "student", "student_agreement")
    run.write_json(
        "metrics.json",
        {name: METRICS[name] for name in known}
        | {
            "student_parameters": 20,
            "teacher_parameters": 10,
            "exported_epoch": 8,
            "verdict": "Expected use: a first filter.",
            "held_out_pictures": 60,
            "held_out_agreement": 0.9333,
            "synthetic_agreement": 0.792,
            "label_free_agreement": 0.8627,
            "eval": "folder:labelled",
            "eval_pictures": 1397,
            "eval_student_accuracy": 0.869,
            "eval_student_agreement": 0.866,
        },
    )
    card = model_card.text(run)
    for line in (
        "Expected use: a first filter.",
        "The student after epoch 9, one run, fractions of 1.",
        "Without labels, 60 images held out:",
        "| agreement on the held-out out-of-domain images | 0.9333 |",
        "| agreement on fresh synthetic images | 0.7920 |",
        "| mean of the two agreements | 0.8627 |",
        "On the 1,397 labelled images of `folder:labelled`, which chose nothing:",
        "| accuracy of the student | 0.8690 |",
        "- For the images that the teacher was made for, in its place.",
    ):
        assert line in card.splitlines(), line
    assert "test images" not in card


def test_table_is_aligned():
    small = {**EXPORT, "format": "litert_int8", "bytes": 9, "agreement": 0.5}
    lines = shipping.table([EXPORT, small]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1].split() == ["onnx", "student.onnx", "1,234,567", "1.50", "2.0e-07", "1.0000"]
    assert lines[2].split() == ["litert_int8", "student.onnx", "9", "1.50", "2.0e-07", "0.5000"]


@pytest.mark.parametrize(
    ("metrics", "answers", "counted"),
    [
        ({"task": "segmentation"}, "one of its classes for each pixel", "share of pixels with"),
        ({"student_mean_iou": 0.5}, "one of its classes for each pixel", "share of pixels with"),
        ({"head": "labels"}, "Of its labels any number", "share of labels that hold in both"),
        ({}, "one of its classes, also", "share of images with"),
    ],
)
def test_card_says_what_is_answered_and_counted(metrics, answers, counted, run):
    card = model_card.text(run, {**METRICS, **metrics, "exports": [EXPORT]})
    assert answers in card and counted in card
