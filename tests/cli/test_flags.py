"""Flags and flagfiles: keras_mosaickd/cli/flags.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_mosaickd.cli import flags
from keras_mosaickd.cli.help import help_text
from keras_mosaickd.errors import InputError
from keras_mosaickd.run_directory import RunDirectory

# Once is enough: nothing here depends on the backend.
pytestmark = pytest.mark.backend("tensorflow")

FIXED_NAMES = (
    "dataset ood ood_size teacher student image_size batch_size epochs student_steps "
    "student_updates teacher_epochs method preset regularizer synthetic_only temperature strategy "
    "regularization_weight local_weight align_weight balance_weight overlap_stride precision "
    "data_dir run_dir seed dry_run"
).split()

_OF_THE_PROCESS = {"dry_run", "traceback", "help", "helpfull", "version"}


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_train_has_the_agreed_flags_and_defaults():
    values = flags.parse("train", []).values
    assert set(FIXED_NAMES) <= set(values)
    recipe = {
        "batch_size": 256,
        "epochs": 200,
        "student_steps": 5,
        "latent_dim": 100,
        "balance_weight": 10.0,
        "regularization_weight": 1.0,
        "temperature": 1.0,
        "student_learning_rate": 0.1,
        "generator_learning_rate": 1e-3,
        "weight_decay": 1e-4,
        "preset": "paper",
        "method": "mosaickd",
        "dataset": "digits[0-4]",
        "ood": "digits[5-9]",
    }
    assert {name: values[name] for name in recipe} == recipe


@pytest.mark.parametrize("command", flags.COMMANDS)
def test_defaults_are_within_their_own_bounds(command):
    specification = flags.COMMANDS[command]
    arguments = [f"--{name}={specification.flag(name).default}" for name in specification.flags]
    parsed = flags.parse(command, arguments)
    assert parsed.values == flags.parse(command, []).values


@pytest.mark.parametrize("command", flags.COMMANDS)
def test_help_lists_every_flag_with_its_range_within_the_width(command):
    text = help_text(command, width=80, full=True)
    assert max(map(len, text.splitlines())) <= 80
    for name in flags.COMMANDS[command].flags:
        assert f"--{name}=" in text
    assert "flagfile" in text


@pytest.mark.parametrize(
    "argument",
    [
        "--batch_size=0",
        "--batch_size=1.5",
        "--batch_size=many",
        "--epochs=-1",
        "--image_size=4096",
        "--overlap_stride=5",
        "--temperature=0",
        "--temperature=nan",
        "--temperature=inf",
        "--student_learning_rate=0",
        "--local_weight=-0.1",
        "--balance_weight=-1",
        "--regularization_weight=nan",
        "--regularization=free",
        "--epsilon_local=1.01",
        "--epsilon_align=-0.1",
        "--method=magic",
        "--preset=Paper",
        "--strategy=multi",
        "--precision=float16",
        "--synthetic_only=perhaps",
        "--seed=-1",
        "--seed=4294967296",
        "--seed",
        "--dataset= digits",
        "--run_dir=two\nlines",
        "--nosuchflag=1",
        "--nosynthetic_only=true",
        "--undefok=nosuchflag",
        "positional",
        "--out=elsewhere",
        "--flagfile",
        "--flagfile=no/such/file",
    ],
)
def test_what_cannot_be_used_is_one_line_that_names_it(argument):
    with pytest.raises(InputError) as caught:
        flags.parse("train", [argument])
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert argument.partition("=")[0].lstrip("-") in message
    if argument.startswith(("--dataset", "--run_dir")):
        assert "white space" in message


def test_the_home_directory_behind_an_equals_sign(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    assert flags.parse("train", ["--run_dir=~/run"]).values["run_dir"] == "/somewhere/run"


def test_errors_say_what_is_allowed():
    for argument, allowed in {
        "--batch_size=0": "a whole number of at least 1",
        "--overlap_stride=5": "a whole number from 1 to 4",
        "--temperature=0": "a number above 0",
        "--method=x": "one of mosaickd, kd",
        "--method=mosaicd": "did you mean mosaickd",
        "--dry_run=maybe": "--dry_run: expected true or false. Received: maybe",
        "--bath_size=3": "--batch_size",
    }.items():
        with pytest.raises(InputError, match=allowed):
            flags.parse("train", [argument])


@pytest.mark.parametrize("flag", ["--seed", "-seed", "--dataset"])
def test_a_last_flag_without_its_value_is_named(flag):
    with pytest.raises(InputError, match=f"^flag {flag}: expected a value.* Received: nothing"):
        flags.parse("train", ["--epochs=1", flag])


def test_a_flag_that_does_nothing_for_a_command_is_refused():
    with pytest.raises(InputError, match="flag of other commands"):
        flags.parse("evaluate", ["--epochs=3"])
    with pytest.raises(InputError, match="flag of other commands"):
        flags.parse("teacher", ["--nosynthetic_only"])


def test_the_later_one_wins_and_a_flagfile_stands_where_it_is_named(tmp_path):
    file = write(tmp_path / "a.flags", "--epochs=7\n--seed=7\n")
    parsed = flags.parse("train", ["--epochs=1", f"--flagfile={file}", "--seed=2"])
    assert (parsed.values["epochs"], parsed.values["seed"]) == (7, 2)
    assert parsed.flagfiles == (str(file),)
    assert parsed.given == {"epochs", "seed"}


def test_flagfile_in_two_words_and_comments_and_blank_lines(tmp_path):
    file = write(tmp_path / "a.flags", "# why\n\n  // also\n  --epochs=3  \n--synthetic_only\n")
    values = flags.parse("train", ["--flagfile", str(file)]).values
    assert values["epochs"] == 3 and values["synthetic_only"] is True


def test_nested_flagfiles_work_from_any_directory_and_later_lines_win(tmp_path, monkeypatch):
    write(tmp_path / "configs/recipes/base.flags", "--epochs=1\n--batch_size=8\n--seed=1\n")
    write(tmp_path / "configs/middle.flags", "--flagfile=recipes/base.flags\n--epochs=2\n")
    top = write(
        tmp_path / "configs/top.flags", "--seed=9\n--flagfile=middle.flags\n--batch_size=4\n"
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    values = flags.parse("train", [f"--flagfile={top}"]).values
    assert (values["epochs"], values["batch_size"], values["seed"]) == (2, 4, 1)


def test_nested_path_relative_to_the_working_directory_is_the_second_choice(tmp_path, monkeypatch):
    write(tmp_path / "configs/base.flags", "--epochs=1\n")
    top = write(tmp_path / "configs/top.flags", "--flagfile=configs/base.flags\n")
    monkeypatch.chdir(tmp_path)
    assert flags.parse("train", [f"--flagfile={top}"]).values["epochs"] == 1
    write(tmp_path / "configs/configs/base.flags", "--epochs=2\n")
    assert flags.parse("train", [f"--flagfile={top}"]).values["epochs"] == 2


def test_a_file_may_be_included_twice_but_not_in_a_circle(tmp_path):
    write(tmp_path / "leaf.flags", "--epochs=5\n")
    twice = write(tmp_path / "twice.flags", "--flagfile=leaf.flags\n--flagfile=leaf.flags\n")
    assert flags.parse("train", [f"--flagfile={twice}"]).values["epochs"] == 5
    circle = write(tmp_path / "circle.flags", "--flagfile=circle.flags\n")
    with pytest.raises(InputError, match="circle"):
        flags.parse("train", [f"--flagfile={circle}"])


@pytest.mark.parametrize("line", ["epochs=3", "--", "prose without a comment sign"])
def test_a_line_that_is_no_flag_is_named_with_its_number(tmp_path, line):
    file = write(tmp_path / "a.flags", f"# one\n{line}\n")
    with pytest.raises(InputError, match="line 2"):
        flags.parse("train", [f"--flagfile={file}"])


def test_a_missing_nested_file_names_the_file_that_wanted_it(tmp_path):
    top = write(tmp_path / "top.flags", "--flagfile=gone.flags\n")
    with pytest.raises(InputError, match=r"gone\.flags \(named in .*top\.flags\)"):
        flags.parse("train", [f"--flagfile={top}"])


def test_saved_flags_rerun_the_run_and_hold_only_this_projects(tmp_path):
    arguments = [
        "--dataset=folder:/data/my images/#1 [old]=new[cat, dog]",
        "--ood=fashion_mnist[Sandal,Ankle boot]",
        "--data_dir=~/a=b",
        "--teacher_learning_rate=0.30000000000000004",
        "--weight_decay=1e-05",
        "--synthetic_only",
        "--seed=4294967295",
        "--dry_run",
        "--traceback",
    ]
    parsed = flags.parse("train", arguments)
    saved = tmp_path / "flags.txt"
    RunDirectory(tmp_path).write_flags(parsed.settings())
    again = flags.parse("train", [f"--flagfile={saved}"])
    assert again.settings() == parsed.settings()
    assert not again.values["dry_run"] and not again.values["traceback"]
    names = [line[2:].partition("=")[0] for line in saved.read_text().splitlines()]
    assert names == sorted(set(flags.COMMANDS["train"].flags) - _OF_THE_PROCESS)
    assert os.listdir(tmp_path) == ["flags.txt"]


printable = st.text(st.characters(min_codepoint=32, exclude_categories=("Cc", "Cs", "Zl", "Zp")))


@given(
    dataset=printable.map(str.strip),
    weight=st.floats(min_value=0, allow_nan=False, allow_infinity=False),
    synthetic_only=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_value_survives_a_flagfile(tmp_path_factory, dataset, weight, synthetic_only, seed):
    settings = {
        "dataset": dataset,
        "local_weight": weight,
        "synthetic_only": synthetic_only,
        "seed": seed,
    }
    run = RunDirectory(tmp_path_factory.mktemp("flags"))
    run.write_flags(settings)
    saved = run / "flags.txt"
    values = flags.parse("train", [f"--flagfile={saved}"]).values
    assert {name: values[name] for name in settings} == settings
