"""The wrappers in bin/ as processes of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from keras_mosaickd.cli import flags

ROOT = Path(__file__).resolve().parents[2]

# They do not depend on the backend; once is enough.
pytestmark = pytest.mark.backend("tensorflow")


def run(*command, **keywords):
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=120, **keywords
    )


@pytest.mark.parametrize("name", flags.COMMANDS)
def test_help_from_any_directory(name, tmp_path):
    finished = run(ROOT / "bin" / name, "--help", cwd=tmp_path)
    assert finished.returncode == 0 and finished.stderr == ""
    assert f"bin/{name}" in finished.stdout


@pytest.mark.parametrize(
    ("name", "arguments", "status"),
    [
        ("train", ["--help"], 0),
        ("train", [], 2),
        ("train", ["--batch_size=0"], 2),
        ("teacher", [], 2),
        ("ood", [], 2),
        ("tune", [], 2),
        ("evaluate", [], 2),
        ("sample", ["--run_dir=r", "--count=9999"], 2),
        ("export", ["--run_dir=no/run"], 2),
        ("report", ["--out=o"], 2),
        ("import_weights", ["--weights=w"], 2),
    ],
)
def test_help_and_errors_of_flags_import_neither_keras_nor_numpy(name, arguments, status):
    code = (
        "import sys\n"
        f"from keras_mosaickd.cli import {name}, runner\n"
        f"assert runner.run({name}.main, '{name}', {arguments}) == {status}\n"
        "print(sorted({'keras', 'numpy', 'tensorflow', 'jax', 'torch'} & set(sys.modules)))\n"
    )
    finished = run(sys.executable, "-c", code, cwd=ROOT)
    assert finished.stdout.splitlines()[-1] == "[]", finished.stderr


def test_wrapper_works_through_a_link_and_passes_status_and_spaces_on(tmp_path):
    link = tmp_path / "train"
    link.symlink_to(ROOT / "bin" / "train")
    finished = run(link, "--flagfile=no such file", cwd=tmp_path)
    assert finished.returncode == 2
    assert finished.stderr.startswith("bin/train: ") and "no such file" in finished.stderr
    assert len(finished.stderr.splitlines()) == 1 and finished.stdout == ""


def test_a_reader_that_goes_away_is_no_traceback():
    finished = run("sh", "-c", f"{ROOT}/bin/train --help | head -1")
    assert finished.stdout.startswith("bin/train: ") and finished.stderr == ""
    # Gone before the first line.
    entry = f"PYTHONPATH={ROOT} {sys.executable} -m keras_mosaickd.cli.main"
    for command in (f"{ROOT}/bin/train", entry):
        assert run("sh", "-c", f"{command} --help | true").stderr == ""


@pytest.fixture
def checkout(tmp_path):
    """A copy of what bin/environment and bin/quickstart need, without a virtual environment."""
    shutil.copytree(ROOT / "bin", tmp_path / "bin")
    (tmp_path / "requirements.txt").write_text("")
    return tmp_path


@pytest.mark.parametrize("name", flags.COMMANDS)
def test_a_command_says_what_to_install(name, checkout):
    python = checkout / "python3"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')  # without any package
    python.chmod(0o755)
    environment = dict(os.environ, PATH=f"{checkout}:{os.environ['PATH']}")
    finished = run(checkout / "bin" / name, "--help", env=environment)
    assert finished.returncode == 1 and finished.stdout == ""
    assert len(finished.stderr.splitlines()) == 1
    assert finished.stderr.startswith(f"bin/{name}: expected Keras")
    assert "bin/environment requirements.txt" in finished.stderr and "Received:" in finished.stderr


@pytest.mark.parametrize("version", ["3.9", "3.10", "3.14"])
def test_environment_names_the_pythons_that_will_do(checkout, version):
    python = checkout / "python"
    python.write_text(f"#!/bin/sh\necho {version}\n")
    python.chmod(0o755)
    finished = run(
        checkout / "bin" / "environment",
        "requirements.txt",
        env=dict(os.environ, PYTHON=str(python)),
    )
    assert finished.returncode == 1
    assert len(finished.stderr.splitlines()) == 1
    assert "3.11, 3.12 or 3.13" in finished.stderr and f"Received: {version}" in finished.stderr
    assert not (checkout / ".venv").exists()


def test_environment_says_so_when_there_is_no_python(checkout):
    finished = run(
        checkout / "bin" / "environment",
        "requirements.txt",
        env=dict(os.environ, PYTHON="no-such-python"),
    )
    assert finished.returncode == 1 and "Received: none" in finished.stderr


@pytest.mark.slow
def test_environment_knows_the_package_from_any_directory(checkout, tmp_path_factory):
    (checkout / "keras_mosaickd").mkdir()
    (checkout / "keras_mosaickd" / "__init__.py").write_text("print('found')")
    environment = dict(os.environ, PYTHON=sys.executable)
    assert run(checkout / "bin" / "environment", env=environment).returncode == 0
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    environment.pop("PYTHONPATH", None)  # It would be found by that.
    python = checkout / ".venv/bin/python"
    finished = run(python, "-c", "import keras_mosaickd", cwd=elsewhere, env=environment)
    assert finished.stdout == "found\n", finished.stderr


def test_environment_installs_only_what_has_changed(checkout):
    log = checkout / "pip.log"
    (checkout / ".venv" / "bin").mkdir(parents=True)
    python = checkout / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\n[ "$1" = -c ] || echo "$@" >>{log}\n')
    python.chmod(0o755)
    (checkout / "requirements-jax.txt").write_text("jax\n")
    environment = checkout / "bin" / "environment"
    assert run(environment, "requirements.txt").returncode == 0
    assert run(environment, "requirements.txt").stdout == ""
    assert len(log.read_text().splitlines()) == 1
    assert run(environment, "requirements.txt", "requirements-jax.txt").returncode == 0
    assert log.read_text().splitlines()[-1].endswith("-r requirements-jax.txt")
    (checkout / "requirements.txt").write_text("# changed\n")
    assert run(environment, "requirements.txt", "requirements-jax.txt").returncode == 0
    assert log.read_text().splitlines()[-1].endswith("-r requirements.txt")
    assert len(log.read_text().splitlines()) == 3


@pytest.mark.parametrize(("arguments", "backend"), [(["--fast"], "tensorflow"), ([], "theano")])
def test_quickstart_refuses_before_it_installs(checkout, arguments, backend):
    finished = run(
        checkout / "bin" / "quickstart",
        *arguments,
        env=dict(os.environ, KERAS_BACKEND=backend, PYTHON="no-such-python"),
    )
    assert finished.returncode == 2 and "Received:" in finished.stderr


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_quickstart_has_a_usage(checkout, flag):
    finished = run(checkout / "bin" / "quickstart", flag)
    assert finished.returncode == 0 and finished.stderr == ""
    assert len(finished.stdout.splitlines()) == 2 and "usage: bin/quickstart" in finished.stdout
    assert not (checkout / ".venv").exists()


def test_the_test_command_refuses_an_unknown_backend():
    finished = run(ROOT / "bin" / "test", "--backend=theano")
    assert finished.returncode == 2 and "theano" in finished.stderr
