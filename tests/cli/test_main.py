"""``keras-mosaickd`` and its completion: keras_mosaickd/cli/main.py, completion.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from keras_mosaickd import __version__
from keras_mosaickd.cli import runner
from keras_mosaickd.cli.commands import COMMANDS
from keras_mosaickd.cli.completion import SHELLS, script
from keras_mosaickd.cli.help import help_text
from keras_mosaickd.cli.main import main

ROOT = Path(__file__).resolve().parents[2]

# Nothing here depends on the backend; once is enough.
pytestmark = pytest.mark.backend("tensorflow")

PROGRAM = """
source <(cat)
words=("$@")
COMP_WORDS=("${words[@]}") COMP_CWORD=$(($# - 1))
_keras_mosaickd "$1"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def completed(*words):
    """What bash offers for the last word; it splits words at "="."""
    finished = subprocess.run(
        ["bash", "-c", PROGRAM, "bash", *words],
        input=script("bash"),
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.split()


def test_without_arguments_it_lists_the_commands(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert main(["--help"]) == 0 and capsys.readouterr().out == shown
    for name in (*COMMANDS, "completion"):
        assert f"  {name.replace('_', '-')}" in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_a_sub_command_is_the_program_of_that_name(name, capsys):
    for written in {name, name.replace("_", "-")}:
        assert main([written, "--help"]) == 0
        assert capsys.readouterr().out.startswith(f"bin/{name}: ")
        assert main([written, "--no_such_flag"]) == 2
        assert capsys.readouterr().err.startswith(f"bin/{name}: expected a known flag")


def test_version_is_said_by_every_command(capsys):
    assert main(["--version"]) == 0
    for name in COMMANDS:
        assert main([name, "--version"]) == 0
    assert set(capsys.readouterr().out.splitlines()) == {f"keras-mosaickd {__version__}"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "Received: trian; did you mean train?"),
        (["import-weigths"], "did you mean import-weights?"),
        (["xyzzy"], "Received: xyzzy"),
        (["completion"], "expected one of bash, zsh, fish. Received: nothing"),
        (["completion", "tcsh"], "Received: tcsh"),
    ],
)
def test_what_is_unknown_is_one_line_and_status_2(arguments, message, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("keras-mosaickd: ") and error.endswith(f"{message}\n")
    assert error.count("\n") == 1


def test_help_shows_what_people_need_and_helpfull_all(capsys):
    for name, command in COMMANDS.items():
        assert set(command.common) <= {*command.flags}
        shown = help_text(name).count("\n  --")
        assert shown == (len(command.common) or len(command.flags))
        assert shown <= 27
    assert 18 <= help_text("train").count("\n  --") <= 24
    assert runner.run(lambda parsed: None, "train", ["--helpfull"]) == 0
    assert capsys.readouterr().out.count("\n  --") == len(COMMANDS["train"].flags)
    assert f"--helpfull lists all {len(COMMANDS['train'].flags)} flags" in help_text("train")


@pytest.mark.parametrize(
    ("called", "name"),
    [
        ("/env/bin/keras-mosaickd", "keras-mosaickd import-weights"),
        ("/env/bin/keras-mosaickd-import-weights", "keras-mosaickd-import-weights"),
        ("/env/keras_mosaickd/cli/import_weights.py", "bin/import_weights"),
    ],
)
def test_errors_and_help_name_the_command_as_it_was_called(called, name, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [called])
    assert main(["import-weights", "--weigths=x"]) == 2
    assert main(["import-weights", "--xyzzy"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"{name}: ") and "did you mean --weights" in first
    assert second.endswith(f"; {name} --help")
    assert main(["import-weights", "--help"]) == 0
    assert f"usage: {name} " in capsys.readouterr().out


@pytest.mark.parametrize("program", [["keras-mosaickd", "train"], ["bin/train"]])
def test_bash_completes_flags_and_values(program):
    assert completed(*program, "--meth") == ["--method="]
    assert completed(*program, "--dry") == ["--dry_run"]
    assert completed(*program, "--method", "=") == list(COMMANDS["train"].flag("method").choices)
    assert completed(*program, "--dataset", "=", "cif") == ["cifar10", "cifar100"]
    assert completed(*program, "--teacher", "=", "pyproj") == ["pyproject.toml"]


def test_bash_completes_commands_and_shells():
    assert completed("keras-mosaickd", "imp") == ["import-weights"]
    assert completed("keras-mosaickd", "import-weights", "--we") == ["--weights="]
    assert completed("keras-mosaickd-import-weights", "--we") == ["--weights="]
    assert completed("bin/import_weights", "--we") == ["--weights="]
    assert completed("keras-mosaickd", "completion", "") == list(SHELLS)


def test_other_shells_have_every_flag():
    for shell, written in {"zsh": "--{}", "fish": " -l {} "}.items():
        text = script(shell)
        for command in COMMANDS.values():
            assert all(written.format(name) in text for name in command.flags)


def test_completion_imports_neither_keras_nor_numpy():
    code = (
        "import sys\nfrom keras_mosaickd.cli.main import main\nmain(['completion', 'bash'])\n"
        "print(sorted({'keras', 'numpy'} & set(sys.modules)))"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert finished.stdout.splitlines()[-1] == "[]", finished.stderr
