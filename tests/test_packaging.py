"""What `pip install` gets: the library, its commands, its requirements, and nothing else."""

from __future__ import annotations

import configparser
import email
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from keras_mosaickd import __version__
from keras_mosaickd.cli.commands import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

pytestmark = [pytest.mark.slow, pytest.mark.backend("tensorflow")]


def requirements(file):
    """The lines of a requirements file that name a package."""
    lines = (ROOT / file).read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of a copy of this checkout, tests and all: {name: content}."""
    source = tmp_path_factory.mktemp("source") / "checkout"
    hidden = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__")

    def ignored(folder, names):
        outputs = {"build", "dist", "runs"} if Path(folder) == ROOT else set()
        return hidden(folder, names) | (outputs & set(names))

    shutil.copytree(ROOT, source, ignore=ignored)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    finished = subprocess.run(
        [*build, "--disable-pip-version-check", "--wheel-dir", source.parent, source],
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    assert "cannot be found" not in finished.stdout + finished.stderr
    (file,) = source.parent.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def metadata(wheel, name):
    return wheel[f"keras_mosaickd-{__version__}.dist-info/{name}"].decode()


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    package = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("keras_mosaickd/**/*.py")}
    others = {name for name in wheel if ".dist-info/" not in name}
    assert others == package
    assert "LICENSE" in {Path(name).name for name in wheel}


def test_console_scripts_have_the_names_of_bin(wheel):
    scripts = configparser.ConfigParser()
    scripts.read_string(metadata(wheel, "entry_points.txt"))
    expected = {
        f"keras-mosaickd-{name.replace('_', '-')}": f"keras_mosaickd.cli.{name}:console"
        for name in COMMANDS
    }
    assert dict(scripts["console_scripts"]) == expected


def test_requirements_files_are_the_one_list(wheel):
    required = email.message_from_string(metadata(wheel, "METADATA"))
    lines = [line.replace(" ", "") for line in required.get_all("Requires-Dist")]
    plain = {line for line in lines if ";" not in line}
    assert plain == set(requirements("requirements.txt"))
    extras = PROJECT["tool"]["setuptools"]["dynamic"]["optional-dependencies"]
    assert set(required.get_all("Provides-Extra")) == set(extras)
    for extra, content in extras.items():
        (file,) = content["file"]
        found = {
            line.split(";")[0] for line in lines if re.search(rf"extra==['\"]{extra}['\"]", line)
        }
        assert found == set(requirements(file)) and found, extra
