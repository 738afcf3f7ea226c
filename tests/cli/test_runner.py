"""Exit status and error lines: keras_mosaickd/cli/runner.py."""

from __future__ import annotations

import os
import sys
import warnings

import pytest

from keras_mosaickd import extras
from keras_mosaickd.cli import runner
from keras_mosaickd.errors import InputError


def run(main, *arguments, command="train"):
    return runner.run(main, command, list(arguments))


def fail_with(error):
    def main(parsed):
        raise error

    return main


def never(parsed):
    raise AssertionError("must not be called")


def test_done_is_zero(capfd):
    seen = []
    assert run(seen.append, "--seed=3") == 0
    assert seen[0].values["seed"] == 3
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("argument", ["--help", "-h", "--help=true"])
def test_help_is_zero_and_on_stdout(argument, capsys):
    assert run(never, argument) == 0
    out, err = capsys.readouterr()
    assert out.startswith("bin/train: ") and "--student_updates=" in out and err == ""


def test_wrong_flag_is_two_and_one_line(capsys):
    assert run(never, "--batch_size=0") == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("bin/train: ") and len(err.splitlines()) == 1


def test_input_error_is_two_and_one_line(capsys):
    assert run(fail_with(InputError("expected a folder.\n Received: 'x'"))) == 2
    assert capsys.readouterr().err == "bin/train: expected a folder. Received: 'x'\n"


def test_any_other_error_is_one_with_its_type_and_first_line(capsys):
    assert run(fail_with(RuntimeError("no space\nmore\nmore"))) == 1
    assert capsys.readouterr().err == (
        "bin/train: failed: RuntimeError: no space (rerun with --traceback for the whole story)\n"
    )


def test_an_error_without_a_message(capsys):
    assert run(fail_with(MemoryError())) == 1
    assert "failed: MemoryError: (rerun" in capsys.readouterr().err.replace("  ", " ")


def test_traceback_tells_the_whole_story(capsys):
    assert run(fail_with(RuntimeError("no space")), "--traceback") == 1
    err = capsys.readouterr().err
    assert "Traceback" in err and "raise error" in err
    assert err.splitlines()[-1] == "bin/train: failed: RuntimeError: no space"


def test_interrupt_is_130(capsys):
    assert run(fail_with(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "bin/train: interrupted\n"


def test_unknown_backend_is_two(monkeypatch, capsys):
    monkeypatch.setenv("KERAS_BACKEND", "theano")
    assert run(never) == 2
    assert "KERAS_BACKEND" in capsys.readouterr().err


@pytest.mark.backend("tensorflow")
def test_a_backend_that_is_not_installed_is_two(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    assert run(lambda parsed: runner.load_backend(parsed)) == 2
    assert (
        "KERAS_BACKEND=tensorflow: expected tensorflow, which the extra" in capsys.readouterr().err
    )


def test_several_processes_are_refused(monkeypatch, capsys):
    monkeypatch.setenv("KERAS_DISTRIBUTION_JOB_ADDRESSES", "10.0.0.1:9000")
    assert run(never) == 2
    assert "docs/several_devices.md" in capsys.readouterr().err


def test_warnings_are_one_line_on_stdout(capfd):
    def warn(parsed):
        warnings.warn("the cache\nis damaged", stacklevel=1)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert run(warn) == 0
    assert capfd.readouterr() == ("Warning: the cache is damaged\n", "")


def test_arguments_default_to_the_processs(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train", "--seed=5"])
    seen = []
    assert runner.run(seen.append, "train") == 0
    assert seen[0].values["seed"] == 5


def test_noise_is_held_back_and_news_passed_on(capfd):
    with extras.without_noise():
        import os

        os.write(2, b"I0000 00:00:1.5 4170 port.cc:153] oneDNN custom operations are on.\n")
        os.write(2, b"E0000 00:00:1.5 1 cuda_platform.cc:52] failed call to cuInit: ERROR (303)\n")
        os.write(2, b"E0000 00:00:1.5 4170 something.cc:1] your disk is on fire\n")
    err = capfd.readouterr().err
    assert err.splitlines() == ["E0000 00:00:1.5 4170 something.cc:1] your disk is on fire"]


def test_required_takes_exactly_one():
    parsed = runner.flags.parse("export", ["--run_dir=a", "--student=b"])
    with pytest.raises(InputError, match="--run_dir=a, --student=b"):
        runner.required(parsed, "run_dir", "student")
    assert runner.required(parsed, "run_dir") == "a"
    with pytest.raises(InputError, match="--run_dir. Received: none"):
        runner.required(runner.flags.parse("evaluate", []), "run_dir")


def test_what_is_no_single_value_has_no_line(capsys):
    values = {"dataset": None, "per_class": {"cat": 0.6666666666666666}, "exports": [{"format": 1}]}
    many = [f"class_{index}" for index in range(1000)]
    runner.print_values({**values, "class_names": ["cat", "dog"], "others": many, "seed": 0})
    names, others, seed = capsys.readouterr().out.splitlines()
    assert names == "class_names  cat, dog" and seed == "seed         0"
    assert others.endswith("class_7, ...") and len(others) < 100


def test_values_are_printed_one_per_line(capsys):
    runner.print_values({"method": "kd", "student_accuracy": 0.98765432, "parameters": 12345678})
    assert capsys.readouterr().out.splitlines() == [
        "method            kd",
        "student_accuracy  0.987654",
        "parameters        12345678",
    ]


@pytest.mark.parametrize(
    ("missing", "chosen"),
    [([], "tensorflow"), (["tensorflow"], "jax"), (["tensorflow", "jax"], "torch")],
)
def test_a_backend_that_is_installed_is_taken(missing, chosen, monkeypatch, capsys):
    pytest.importorskip(chosen)
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    assert run(lambda parsed: print(os.environ["KERAS_BACKEND"])) == 0
    assert capsys.readouterr().out == f"{chosen}\n"
