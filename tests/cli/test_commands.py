"""What each command asks of the library, with a stand-in for its modules."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import sys
import types
from pathlib import Path

import pytest

from keras_mosaickd import evaluation, runs
from keras_mosaickd.cli import comparison, flags, runner
from keras_mosaickd.config import ExperimentConfig
from keras_mosaickd.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


class Config(types.SimpleNamespace):
    """Takes the fields of any flag, as ExperimentConfig does, and remembers them."""


@pytest.fixture
def experiment(monkeypatch, tmp_path):
    """A stand-in that records its calls; the working directory is a new one."""
    calls: list[tuple] = []
    module = types.ModuleType("keras_mosaickd.runs.run")

    def record(name, result):
        def function(*arguments, **keywords):
            calls.append((name, *arguments, keywords))
            return result

        return function

    module.ExperimentConfig = Config
    module.calls = calls
    module.dry_run = record("dry_run", "student 1,234 parameters")
    module.train = record("train", {"student_accuracy": 0.5})
    module.train_teacher = record("train_teacher", {"teacher_accuracy": 0.75})
    module.select_ood = record("select_ood", "kept 10 of 20")
    module.evaluate = record("evaluate", {"student_accuracy": 0.25})
    module.sample = record("sample", Path("samples.png"))
    for package, name in ((runs, "run"), (evaluation, "of_run")):
        monkeypatch.setitem(sys.modules, f"{package.__name__}.{name}", module)
        monkeypatch.setattr(package, name, module, raising=False)
    monkeypatch.chdir(tmp_path)
    return module


def command(name, *arguments):
    module = importlib.import_module(f"keras_mosaickd.cli.{name}")
    return runner.run(module.main, name, list(arguments))


@pytest.mark.parametrize("name", flags.COMMANDS)
def test_every_command_has_a_module_a_wrapper_and_a_console_script(name):
    assert callable(importlib.import_module(f"keras_mosaickd.cli.{name}").console)
    assert f"keras_mosaickd.cli.{name}" in (ROOT / "bin" / name).read_text()
    project = (ROOT / "pyproject.toml").read_text()
    assert (
        f'keras-mosaickd-{name.replace("_", "-")} = "keras_mosaickd.cli.{name}:console"' in project
    )


def test_flags_are_the_fields_of_the_configuration_with_its_defaults():
    assert flags.parse("train", []).settings() == dataclasses.asdict(ExperimentConfig())
    for name in ("teacher", "ood"):
        ExperimentConfig(**flags.parse(name, []).settings())


def test_train_passes_its_flags_on(experiment, capsys):
    assert command("train", "--seed=4", "--run_dir=r/one") == 0
    assert [call[0] for call in experiment.calls] == ["train"]
    config = experiment.calls[0][1]
    assert config.seed == 4 and config.run_dir == "r/one"
    assert not {"help", "traceback", "dry_run", "out", "count"} & set(vars(config))
    assert "student_accuracy  0.5" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("train", ("--flagfile=", "--teacher=", "bin/quickstart")),
        ("tune", ("--study", "such as --flagfile=configs/quickstart_mosaickd.flags")),
        ("teacher", ("--dataset", "such as --dataset=")),
        ("ood", ("--ood", "such as --ood=")),
    ],
)
def test_a_bare_call_begins_nothing_and_says_what_it_expected(experiment, name, named, capsys):
    assert command(name) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and experiment.calls == []
    for expected in (f"usage: bin/{name}", "--flagfile=FILE", "Received: no flags", *named):
        assert expected in error
    for example in re.findall("such as (--.*?);", error):
        arguments = example.replace("configs/", f"{ROOT}/configs/").split()
        assert flags.parse(name, arguments).given


def test_train_names_the_run_after_the_flagfile_or_the_method(experiment, tmp_path):
    (tmp_path / "table4.flags").write_text("--seed=1\n")
    assert command("train", "--flagfile=table4.flags") == 0
    assert command("train", "--method=kd") == 0
    assert [call[1].run_dir for call in experiment.calls] == ["runs/table4", "runs/kd"]


def test_a_teacher_of_your_own_needs_no_data_set(experiment, capsys):
    own = "--teacher=models:teacher"
    assert command("train", own, "--run_dir=r") == 2
    assert "--ood=folder:PATH" in capsys.readouterr().err
    assert command("train", own, "--ood=folder:p", "--run_dir=a") == 0
    assert command("train", own, "--ood=folder:p", "--dataset=digits", "--run_dir=b") == 0
    assert [call[1].dataset for call in experiment.calls] == ["", "digits"]
    # From Python too.
    with pytest.raises(InputError, match="--ood=folder:PATH"):
        ExperimentConfig(teacher="models:teacher")
    assert ExperimentConfig(teacher="models:teacher", ood="folder:p").dataset == ""
    assert ExperimentConfig(teacher="wrn16_1").dataset == "digits[0-4]"


@pytest.mark.parametrize("name", ["ood", "tune"])
def test_studies_and_selections_take_a_teacher_of_your_own_as_train_does(name, monkeypatch, capsys):
    seen = []

    def stop(parsed):
        seen.append(flags.without_domain(parsed))
        raise InputError("seen")

    monkeypatch.setattr(runner, "load_backend", lambda parsed: None)
    module = importlib.import_module(f"keras_mosaickd.cli.{name}")
    monkeypatch.setattr(module.hub, "settings_of", stop)
    given = ["--teacher=models:teacher", "--ood=folder:p"]
    assert command(name, *given, *(["--study=lambda"] if name == "tune" else [])) == 2
    assert capsys.readouterr().err.endswith("seen\n") and seen == [{"dataset": ""}]


def test_ood_needs_a_domain_or_a_teacher_of_your_own(experiment, capsys):
    assert command("ood", "--ood=folder:p") == 2
    assert "expected --dataset" in capsys.readouterr().err
    assert command("ood", "--ood=folder:p", "--teacher=models:teacher") == 0


def test_a_teacher_of_your_own_is_tested_on_what_you_name(experiment, capsys):
    assert command("teacher", "--teacher=mine.keras") == 2
    assert "expected --dataset, labelled images" in capsys.readouterr().err


def test_train_writes_nothing_when_the_check_fails_or_on_a_dry_run(experiment, tmp_path, capsys):
    assert command("train", "--dry_run", "--run_dir=r") == 0
    assert "1,234" in capsys.readouterr().out

    def refuse(config, config_file):
        raise InputError("no")

    experiment.train = refuse
    assert command("train", "--run_dir=r") == 2
    assert list(tmp_path.iterdir()) == []


def test_teacher_and_ood_pass_their_flags_on(experiment, capsys):
    assert command("teacher", "--teacher=wrn40_2", "--cache_dir=c") == 0
    assert command("ood", "--ood_size=10", "--ood=cifar10", "--dataset=digits") == 0
    assert [call[0] for call in experiment.calls] == ["train_teacher", "select_ood"]
    assert experiment.calls[0][1].teacher == "wrn40_2"
    assert experiment.calls[1][1].ood_size == 10
    out = capsys.readouterr().out
    assert "teacher_accuracy  0.75" in out and "kept 10 of 20" in out


def test_evaluate_and_sample_need_a_run(experiment, capsys):
    assert command("evaluate") == 2
    assert command("sample") == 2
    assert command("evaluate", "--run_dir=r", "--dataset=digits") == 0
    assert command("sample", "--run_dir=r", "--count=9") == 0
    assert experiment.calls == [
        (
            "evaluate",
            "r",
            {
                "dataset": "digits",
                "data_dir": "",
                "teacher": "",
                "labelled": "",
                "unsafe": False,
                "class_names": "",
                "batch_size": 0,
                "skip_unreadable": False,
            },
        ),
        ("sample", "r", 9, "r/samples.png", 0, "", False, {}),
    ]


def test_export_says_what_is_missing(tmp_path, capsys):
    assert command("export") == 2
    assert command("export", f"--student={tmp_path}/no.keras") == 2
    assert command("export", f"--student={tmp_path}/no.keras", "--out=x") == 2
    assert command("export", f"--run_dir={tmp_path}") == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 4
    assert "exactly one of --run_dir or --student" in errors[0]
    assert "--out with --student" in errors[1]
    assert "no.keras" in errors[2] and "student.keras" in errors[3]


def test_comparison_table(tmp_path):
    for method, accuracy, seconds in (("kd", 0.9, 120.4), ("mosaickd", 0.98764, None)):
        metrics = {
            "method": method,
            "teacher_accuracy": 0.99,
            "teacher_parameters": 175066,
            "teacher_seconds": seconds,
            "student_accuracy": accuracy,
            "student_agreement": accuracy + 0.01,
            "student_parameters": 77850,
            "train_seconds": 61.7,
        }
        (tmp_path / method).mkdir()
        (tmp_path / method / "metrics.json").write_text(json.dumps(metrics))
    assert comparison.table([tmp_path / "kd", tmp_path / "mosaickd"]).splitlines() == [
        "          accuracy  agreement  parameters  seconds",
        "teacher     0.9900     1.0000     175,066      120",
        "kd          0.9000     0.9100      77,850       62",
        "mosaickd    0.9876     0.9976      77,850       62",
        "",
        f"Synthetic images: {tmp_path / 'mosaickd' / 'samples.png'}",
    ]
