"""Reports from the files of runs and studies: keras_mosaickd/report, bin/report."""

from __future__ import annotations

import csv
import html.parser
import io
import json
import re
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from keras_mosaickd import report
from keras_mosaickd.callbacks import checkpoint as checkpoints
from keras_mosaickd.cli import flags, runner
from keras_mosaickd.cli import report as command
from keras_mosaickd.errors import InputError
from keras_mosaickd.report import drawings, figures, model_card, runs, summary
from keras_mosaickd.report.groups import groups
from tests import game

pytest.importorskip("matplotlib")
# Files in, files out: once is enough.
pytestmark = pytest.mark.backend("tensorflow")

METRICS = {
    "method": "kd",
    "dataset": "digits[0-4]",
    "ood": "digits[5-9]",
    "backend": "tensorflow",
    "seed": 0,
    "teacher": "wrn16_1",
    "student": "wrn10_1",
    "teacher_accuracy": 0.9,
    "student_accuracy": 0.5,
    "student_accuracy_best": 0.6,
    "student_agreement": 0.55,
    "teacher_parameters": 1000,
    "student_parameters": 100,
    "student_updates": 20,
}
FLAGS = {"method": "kd", "temperature": "1.0", "seed": "0", "run_dir": "somewhere"}


WITHOUT_LABELS = {
    **{name: None for name in ("dataset", "student_accuracy", "student_accuracy_best")},
    "teacher_accuracy": None,
    "student_agreement": 0.9333,
    "held_out_agreement": 0.9333,
    "synthetic_agreement": 0.9011,
    "label_free_agreement": 0.9172,
    "teacher_parameters": 730660,
    "student_parameters": 73066,
    "student_updates": 20000,
    "verdict": "The student has 73,066 parameters. Expected use: a first filter.",
}


def write_run(path, metrics=(), settings=(), epochs=2, **files):
    path.mkdir(parents=True)
    metrics = {**METRICS, **dict(metrics)}
    (path / "metrics.json").write_text(json.dumps(metrics))
    settings = {**FLAGS, **dict(settings), "seed": metrics["seed"]}
    (path / "flags.txt").write_text("".join(f"--{k}={v}\n" for k, v in settings.items()))
    lines = ["epoch,seconds,val_accuracy,val_agreement,synthetic_frechet_distance"]
    lines += [f"{epoch},1.0,0.{epoch + 3}123,0.{epoch + 3}5,2.5" for epoch in range(epochs)]
    (path / "history.csv").write_text("\n".join(lines) + "\n")
    for name, content in files.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return path


def stride_study(path):
    trials = [
        {
            "trial": str(stride),
            "status": "COMPLETED",
            "hyperparameters": {
                "student": "wrn16_1",
                "local_reduction": "mean",
                "overlap_stride": stride,
            },
            "executions": [
                {**METRICS, "student": "wrn16_1", "student_accuracy": accuracy}
                for accuracy in accuracies
            ],
        }
        for stride, accuracies in ((2, [0.4, 0.44]), (1, [0.6, 0.62]), (4, []))
    ]
    path.mkdir(parents=True)
    content = {"study": "stride", "finished": True, "trials": trials}
    (path / "study.json").write_text(json.dumps(content))
    return path


class Page(html.parser.HTMLParser):
    """Tags that are open, and the attributes of all."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_mean_and_standard_deviation_over_two_seeds_by_hand(tmp_path):
    first = write_run(tmp_path / "a", {"seed": 0, "student_accuracy": 0.50})
    second = write_run(tmp_path / "b", {"seed": 7, "student_accuracy": 0.56})
    report.write([first, second], tmp_path / "out")
    (row,) = table(tmp_path / "out" / "results.csv")
    # (50 + 56) / 2 = 53; sqrt(((50 - 53)^2 + (56 - 53)^2) / (2 - 1)) = sqrt(18) = 4.243.
    assert row["last accuracy"] == "53.00 ± 4.24"
    assert row["best accuracy"] == "60.00 ± 0.00"
    assert row["teacher's accuracy"] == "90.00"  # one teacher, said once
    assert row["seeds"] == "0, 7"
    assert "53.00 ± 4.24" in (tmp_path / "out" / "report.html").read_text()
    assert "| 53.00 ± 4.24 |" in (tmp_path / "out" / "report.md").read_text()
    (row,) = table(tmp_path / "out" / "quality.csv")
    assert row["Fréchet distance"] == "2.500 ± 0.000"


def test_results_on_other_images_are_not_averaged(tmp_path):
    tested = {"eval_student_accuracy": 0.5}
    for number, name in enumerate(("digits[1,2]", "digits[1,2]", "digits[0-4]", "")):
        for method in ("kd", "mosaickd")[: 2 if number < 2 else 1]:
            metrics = {"seed": number, "method": method, **(tested if name else {})}
            write_run(tmp_path / "runs" / f"{method}{number}", {**metrics, "eval": name or None})
    write_run(tmp_path / "runs" / "mosaickd3", {"seed": 3, "method": "mosaickd"})
    report.write([tmp_path / "runs"], tmp_path / "out")
    kd, mosaickd = table(tmp_path / "out" / "results.csv")
    assert kd["accuracy (--eval)"] == "-"
    assert kd["images of --eval"] == "digits[1,2] or digits[0-4]"
    assert mosaickd["accuracy (--eval)"] == "50.00 ± 0.00 (2 of 3)"
    assert mosaickd["images of --eval"] == "digits[1,2]"
    assert "In brackets, of how many" in (tmp_path / "out" / "report.md").read_text()


def test_numbers_that_are_none_and_seeds_that_are_none_stop_nothing(tmp_path):
    write_run(tmp_path / "runs" / "a", {"student_agreement": float("nan")})
    write_run(tmp_path / "runs" / "b", {"seed": 1})
    write_run(tmp_path / "runs" / "c", {"seed": "x", "method": "fitnet"})
    report.write([tmp_path / "runs"], tmp_path / "out")
    two, one = table(tmp_path / "out" / "results.csv")
    assert two["agreement"] == "nan ± nan" and one["seeds"] == "0"


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    write_run(tmp_path / "runs" / "a")
    (tmp_path / "runs" / "closed").mkdir()
    listed = runs.Path.iterdir

    def refusing(path):
        if path.name == "closed":
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(runs.Path, "iterdir", refusing)
    report.write([tmp_path / "runs"], tmp_path / "out")
    page = (tmp_path / "out" / "report.md").read_text()
    assert "closed: not looked into (Permission denied)" in page


def test_runs_are_found_however_deep_and_copies_left_out(tmp_path):
    runs_dir = tmp_path / "runs"
    write_run(runs_dir / "a")
    write_run(runs_dir / "deep" / "er" / "b", {"seed": 1})
    shutil.copytree(runs_dir / "a", runs_dir / "copy")
    measured = {**METRICS, "eval": "digits", "eval_student_accuracy": 0.5, "student_bytes": 9}
    (runs_dir / "copy" / "metrics.json").write_text(json.dumps(measured))
    stride_study(runs_dir / "one" / "lam")
    stride_study(runs_dir / "two" / "lam")
    (runs_dir / "deep" / "round").symlink_to(runs_dir)
    report.write([runs_dir], tmp_path / "out")
    (row,) = table(tmp_path / "out" / "results.csv")
    assert row["seeds"] == "0, 1"
    page = (tmp_path / "out" / "report.md").read_text()
    assert f"copy: left out, a copy of {runs_dir / 'a'}" in page
    assert {"(study_lam_1.csv)", "(study_lam_2.csv)"} <= set(re.findall(r"\(study.*?csv\)", page))


def test_what_an_older_report_has_more_is_removed(tmp_path):
    write_run(tmp_path / "a", selection=None)
    stride_study(tmp_path / "study")
    out = tmp_path / "out"
    report.write([tmp_path / "a", tmp_path / "study"], out)
    (out / "mine.csv").write_text("stays")
    assert (out / "study_study.csv").is_file()
    report.write([tmp_path / "a"], out)
    assert not (out / "study_study.csv").exists() and (out / "mine.csv").is_file()
    assert (out / "results.csv").is_file()
    # A page of one's own is none of them.
    (out / "report.md").write_text("![mine](mine.csv)\n")
    report.write([tmp_path / "a"], out)
    assert (out / "mine.csv").is_file()


def test_runs_of_other_settings_are_not_averaged(tmp_path):
    runs_dir = tmp_path / "runs"
    write_run(runs_dir / "a", {"seed": 0})
    write_run(runs_dir / "b", {"seed": 1}, {"temperature": "5.0"})
    write_run(runs_dir / "c", {"seed": 2, "student_updates": 60})
    report.write([runs_dir], tmp_path / "out")
    rows = table(tmp_path / "out" / "results.csv")
    assert [row["last accuracy"] for row in rows] == ["50.00"] * 3
    assert [row["settings"] for row in rows] == [
        "temperature=1.0",
        "temperature=5.0",
        "temperature=1.0",
    ]
    assert [row["updates"] for row in rows] == ["20", "20", "60"]


def test_runs_of_other_teachers_under_one_name_are_not_averaged(tmp_path):
    for number, teacher in enumerate("aab"):
        # Which images were held out depends on the seed.
        inputs = {"teacher": teacher * 64, "student": "c" * 64, "ood": str(number) * 64}
        write_run(tmp_path / "runs" / str(number), {"seed": number}, inputs=inputs)
    report.write([tmp_path / "runs"], tmp_path / "out")
    rows = table(tmp_path / "out" / "results.csv")
    assert [row["seeds"] for row in rows] == ["0, 1", "2"]
    assert [row["settings"] for row in rows] == [f"teacher file={c * 12}" for c in "ab"]
    assert {row["student"] for row in rows} == {METRICS["student"]}


def test_a_bar_in_a_name_adds_no_column():
    text = model_card._table(["class", "images"], [["bee | wasp", "4"]])
    assert text.splitlines()[-1] == r"| bee \| wasp | 4 |"


def test_settings_that_are_too_long_for_a_label_are_numbers_that_a_table_explains(tmp_path):
    for rate in ("0.01", "0.05", "0.1"):
        others = {"student_learning_rate": rate, "teacher": f"/some/where/{rate}/teacher.keras"}
        write_run(tmp_path / "runs" / rate, {"seed": 0}, {**others, "temperature": rate})
    report.write([tmp_path / "runs"], tmp_path / "out")
    rows = table(tmp_path / "out" / "results.csv")
    assert [row["settings"] for row in rows] == ["#1", "#2", "#3"]
    key = {row["settings"]: row for row in table(tmp_path / "out" / "settings.csv")}
    assert key["temperature"] == {
        "settings": "temperature",
        "#1": "0.01",
        "#2": "0.05",
        "#3": "0.1",
    }
    assert set(key) == {"temperature", "teacher", "student_learning_rate"}
    page = (tmp_path / "out" / "report.md").read_text()
    assert page.index("| #1 |") < page.index("| settings | #1 | #2 | #3 |")


def test_the_published_number_of_the_config(tmp_path):
    named = write_run(tmp_path / "a", {"published_accuracy": 0.6941, "student": "wrn16_2"})
    silent = write_run(tmp_path / "b", {"published_accuracy": None})
    report.write([named, silent], tmp_path / "out")
    found = [row["published"] for row in table(tmp_path / "out" / "results.csv")]
    assert found == ["69.41", "-"]


def test_networks_have_the_columns_that_were_measured(tmp_path):
    plain = write_run(tmp_path / "a")
    report.write([plain], tmp_path / "out")
    rows = table(tmp_path / "out" / "networks.csv")
    assert rows == [
        {"": "teacher", "network": "wrn16_1", "parameters": "1,000"},
        {"": "student", "network": "wrn10_1", "parameters": "100"},
    ]
    measured = {"student_bytes": 2_345_678, "student_latency_ms": 1.5}
    report.write([write_run(tmp_path / "b", measured)], tmp_path / "out")
    teacher, student = table(tmp_path / "out" / "networks.csv")
    assert (student["MB on disk"], student["latency (ms)"]) == ("2.35", "1.50")
    assert (teacher["MB on disk"], teacher["latency (ms)"]) == ("-", "-")


def test_broken_runs_are_named_and_stop_nothing(tmp_path):
    good = write_run(tmp_path / "good")
    missing, broken, other = (write_run(tmp_path / name) for name in ("gone", "broken", "other"))
    (missing / "metrics.json").unlink()
    (broken / "metrics.json").write_text('{"method": ')
    (other / "metrics.json").write_text('{"method": "kd", "student": "wrn10_1"}')
    strange = write_run(tmp_path / "strange", {"seed": 1})
    (strange / "history.csv").write_text("epoch,val_accuracy\n0,much\n")
    nowhere = tmp_path / "nowhere"
    half = tmp_path / "half"
    half.mkdir()
    (half / "study.json").write_text('{"study": "stride"}')
    paths = [good, missing, broken, other, strange, nowhere, half]
    report.write(paths, tmp_path / "out")
    for name in ("report.html", "report.md"):
        end = (tmp_path / "out" / name).read_text().partition("Not in this report")[2]
        for path in paths[1:]:
            assert str(path) in end, (name, path)
        assert str(good) not in end
        assert "student_agreement" in end
    (row,) = table(tmp_path / "out" / "results.csv")
    assert row["seeds"] == "0, 1"


def write_run_without_labels(path):
    write_run(path, WITHOUT_LABELS)
    rows = "epoch,seconds,val_agreement,synthetic_agreement\n0,1.0,0.8,0.7\n1,1.0,0.9333,0.9011\n"
    (path / "history.csv").write_text(rows)
    return path


def test_a_run_without_labels_says_what_is_known_of_it(tmp_path):
    run = write_run_without_labels(tmp_path / "mine")
    text = report.write([run], tmp_path / "out").with_name("report.md").read_text()
    (row,) = table(tmp_path / "out" / "results.csv")
    assert {title: row[title] for title in row if "agreement" in title} == {
        "held-out agreement": "93.33",
        "synthetic agreement": "90.11",
        "label-free agreement": "91.72",
    }
    assert "published" not in row and row["updates"] == "20,000"
    assert f"{tmp_path.name}/mine: {WITHOUT_LABELS['verdict']}" in text
    assert "| student | wrn10_1 | 73,066 |" in text
    assert "on out-of-domain images that were held out" in text and "test images" not in text
    # Nobody is shown an accuracy that there is not.
    assert list(table(tmp_path / "out" / "curves.csv")[1].values())[1:] == ["1", "0.9333", "0.9011"]


def test_beside_a_run_with_labels_each_has_its_own_columns(tmp_path):
    mine = write_run_without_labels(tmp_path / "mine")
    labelled = write_run(tmp_path / "labelled")
    text = report.write([mine, labelled], tmp_path / "out").with_name("report.md").read_text()
    first, second = table(tmp_path / "out" / "results.csv")
    columns = ("last accuracy", "agreement", "held-out agreement")
    assert [first[title] for title in columns] == ["-", "-", "93.33"]
    assert [second[title] for title in columns] == ["50.00", "55.00", "-"]
    assert "on out-of-domain images that were held out or the test images" in text


@pytest.mark.parametrize(("make", "panels"), [(write_run_without_labels, 2), (write_run, 2)])
def test_no_panel_of_the_curves_is_empty(make, panels, tmp_path, monkeypatch):
    drawn = []
    finished = figures._finished
    monkeypatch.setattr(
        figures, "_finished", lambda f, axes: drawn.extend(axes) or finished(f, axes)
    )
    report.write([make(tmp_path / "run")], tmp_path / "out")
    assert len(drawn) == panels
    assert all(len(line.get_xdata()) == 2 for axis in drawn for line in axis.get_lines())


def test_the_curves_are_the_histories(tmp_path):
    first, second = write_run(tmp_path / "a"), write_run(tmp_path / "b", {"seed": 1}, epochs=3)
    report.write([first, second], tmp_path / "out")
    rows = table(tmp_path / "out" / "curves.csv")
    expected = []
    for run in (first, second):
        expected += [
            (f"{tmp_path.name}/{run.name}", r["epoch"], r["val_accuracy"], r["val_agreement"])
            for r in table(run / "history.csv")
        ]
    assert [tuple(row.values()) for row in rows] == expected


def test_multipliers_have_a_table_and_curves_where_they_find_themselves(tmp_path):
    fixed = write_run(tmp_path / "fixed", {"method": "mosaickd"})
    adaptive = write_run(
        tmp_path / "adaptive",
        {"method": "mosaickd"},
        {"regularization": "adaptive", "epsilon_local": "0.4", "epsilon_align": "0.6"},
    )
    (adaptive / "history.csv").write_text(
        "epoch,seconds,val_accuracy,lambda_local,lambda_align,r_local,r_align\n"
        "0,1.0,0.5,1.5,2.0,0.7,0.9\n1,1.0,0.5,0.012,7.0,0.45,0.62\n"
    )
    out = report.write([fixed, adaptive], tmp_path / "out").parent
    (row,) = table(out / "multipliers.csv")
    columns = ("lambda_local", "r_local", "epsilon_local", "lambda_align", "epsilon_align")
    assert [row[name] for name in columns] == ["0.012", "0.450", "0.4", "7.000", "0.6"]
    first, second = table(out / "multiplier_curves.csv")
    assert (first["lambda_align"], second["r_align"]) == ("2.0", "0.62")
    with Image.open(out / "multipliers.png") as image:
        assert (np.asarray(image.convert("L")) < 128).mean() > 0.003
    assert "![multipliers](multipliers.png)" in (out / "report.md").read_text()
    alone = report.write([fixed], tmp_path / "alone").parent
    assert not (alone / "multipliers.csv").exists() and not (alone / "multipliers.png").exists()


def full_report(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (30, 8, 8, 1), dtype="uint8")
    np.save(tmp_path / "images.npy", images)
    selection = {"edges": [0.0, 0.5, 1.0], "pool": [30, 20], "kept": [0, 20]}
    write_run(tmp_path / "runs" / "kd", selection=selection)
    write_run(
        tmp_path / "runs" / "mosaickd", {"method": "mosaickd"}, selection=selection | {"edges": [1]}
    )
    stride_study(tmp_path / "study")
    return report.write([tmp_path / "runs", tmp_path / "study"], tmp_path / "out")


def test_the_page_needs_no_other_file(tmp_path):
    text = full_report(tmp_path).read_text()
    page = Page(text)
    assert page.open == []
    sources = [a[name] for _, a in page.tags for name in ("src", "href") if name in a]
    assert sources and all(source.startswith("data:image/png;base64,") for source in sources)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object"}
    assert "http" not in re.sub('base64,[^"]*', "", text) and "@import" not in text
    assert "prefers-color-scheme: dark" in text


def test_no_figure_is_empty_and_markdown_names_each(tmp_path):
    out = full_report(tmp_path).parent
    figures = sorted(path.name for path in out.glob("*.png"))
    assert figures == ["curves.png", "ood_entropy_1.png", "study_study.png"]
    for name in figures:
        with Image.open(out / name) as image:
            grey = np.asarray(image.convert("L"))
        # Something is drawn, and nothing of it is cut off by the edge.
        assert (grey < 128).mean() > 0.003, name
        border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
        assert border.min() > 200, name
    named = re.findall(r"!\[[^\]]*\]\(([^)]*)\)", (out / "report.md").read_text())
    assert sorted(named) == figures


def test_an_unusable_selection_is_named(tmp_path):
    text = (full_report(tmp_path).parent / "report.md").read_text()
    assert f"{tmp_path / 'runs' / 'mosaickd'}: selection.json cannot be used" in text
    # Nor has this run a checkpoint to draw from.
    assert f"{tmp_path / 'runs' / 'mosaickd'}: no synthetic images" in text


def test_a_stride_study_beside_table_4(tmp_path):
    out = full_report(tmp_path).parent
    rows = table(out / "study_study.csv")
    # sqrt(0.02^2 / 2) = 0.01414 and sqrt(0.04^2 / 2) = 0.02828.
    assert [(r["overlap_stride"], r["last accuracy"], r["table 4"]) for r in rows] == [
        ("2", "42.00 ± 2.83", "59.56"),
        ("1", "61.00 ± 1.41", "61.01"),
    ]
    assert table(out / "table_4.csv")[1]["stride 3"] == "57.36"


def test_the_curve_of_a_study_is_in_order(tmp_path):
    (study,) = runs.read([stride_study(tmp_path / "s")])[1]
    (series,) = summary.points(study, "student_accuracy").items()
    assert series == ("wrn16_1, local_reduction=mean", [(1.0, [0.6, 0.62]), (2.0, [0.4, 0.44])])


def test_three_regularizers_are_found_where_only_they_differ(tmp_path):
    for seed in (0, 1):
        for name in ("patch", "none", "image"):
            if (seed, name) != (1, "image"):
                write_run(
                    tmp_path / f"{name}{seed}",
                    {"method": "mosaickd", "seed": seed},
                    {"regularizer": name, "run_dir": name},
                )
    (triple,) = drawings.regularizer_runs(runs.read([tmp_path])[0])
    assert [run.path.name for run in triple] == ["none0", "image0", "patch0"]


def test_out_of_domain_images_come_from_the_named_file(tmp_path):
    images = np.arange(10, dtype="uint8").reshape(10, 1, 1, 1)
    path = write_run(tmp_path / "run", selection={"images": "images.npy"})
    (run,) = runs.read([path])[0]
    assert drawings.out_of_domain_images(run, 4) is None
    np.save(path / "images.npy", images)
    assert drawings.out_of_domain_images(run, 4).ravel().tolist() == [0, 3, 6, 9]


def test_the_command_prints_the_page(tmp_path, capsys):
    run = write_run(tmp_path / "a run")
    assert runner.run(command.main, "report", [str(run), f"--out={tmp_path / 'out'}"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out' / 'report.html'}\n"


@pytest.mark.parametrize("paths", [[], ["nothing here"]])
def test_no_runs_at_all_is_one_line_and_status_2(paths, tmp_path, capsys):
    assert runner.run(command.main, "report", [*paths, f"--out={tmp_path / 'out'}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("bin/report: expected directories of ") and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_matplotlib_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match="expected matplotlib, which the extra report"):
        report.write([write_run(tmp_path / "a")], tmp_path / "out")


def test_arguments_are_for_the_commands_that_take_them():
    parsed = flags.parse("report", ["one", "--out=D", "two"])
    assert parsed.arguments == ("one", "two") and parsed.values["out"] == "D"
    with pytest.raises(InputError, match="flags only"):
        flags.parse("train", ["one"])


def test_cells_with_bars_and_tags_stay_cells(tmp_path):
    path = write_run(tmp_path / "a", {"dataset": "folder:<a>|b"})
    report.write([path], tmp_path / "out")
    assert "folder:<a>\\|b" in (tmp_path / "out" / "report.md").read_text()
    assert "folder:&lt;a&gt;|b" in (tmp_path / "out" / "report.html").read_text()
    assert next(csv.reader(io.StringIO((tmp_path / "out" / "results.csv").read_text())))


@pytest.fixture(scope="module")
def games(tmp_path_factory):
    """Three runs of other regularizers with checkpoints, and their report."""
    root = tmp_path_factory.mktemp("games")
    images = np.random.default_rng(0).integers(0, 255, (30, *game.SHAPE), dtype="uint8")
    np.save(root / "images.npy", images)
    selection = {"edges": [0.0, 1.0], "pool": [30], "kept": [30], "images": "../../images.npy"}
    for name in drawings.REGULARIZERS:
        path = write_run(
            root / "runs" / name,
            {"method": "mosaickd", "class_names": ["a", "b", "c"]},
            {"regularizer": name},
            selection=selection,
        )
        model = game.game("patch", compiled=False)
        checkpoints.save_checkpoint(model, path / "checkpoints" / "last.keras")
    return report.write([root / "runs"], root / "out").parent


@pytest.mark.slow
def test_images_are_drawn_from_checkpoints(games):
    text = (games / "report.md").read_text()
    assert "Not in this report" not in text
    rows = table(games / "class_balance_3.csv")
    assert len(rows) == 3 and list(rows[0]) == ["runs", "a", "b", "c"]
    for row in rows:
        assert sum(int(row[name]) for name in "abc") == drawings.COUNT
    # The same weights and the same z: the same images.
    assert len({tuple(row[name] for name in "abc") for row in rows}) == 1
    for name in ("regularizers", "class_balance_3", "pictures_1", "pictures_2", "pictures_3"):
        with Image.open(games / f"{name}.png") as image:
            assert np.asarray(image.convert("L")).std() > 5, name


def test_drawn_images_are_sorted_by_class(games):
    (run, *_) = runs.read([games.parent / "runs" / "patch"])[0]
    drawn = drawings.draw(run)
    images, classes = drawn.sorted(16)
    assert (np.diff(classes) >= 0).all()
    assert sorted(classes) == sorted(drawn.classes[:16])
    assert {image.tobytes() for image in images} == {i.tobytes() for i in drawn.images[:16]}


def test_a_run_of_an_earlier_version_had_later_flags_as_they_are_by_default(tmp_path):
    write_run(tmp_path / "earlier", {"seed": 0})
    write_run(tmp_path / "later", {"seed": 1}, {"jit_compile": "auto", "mixup": "0.0"})
    (group,) = groups(runs.read([tmp_path])[0])
    assert [run.seed for run in group.runs] == [0, 1]
