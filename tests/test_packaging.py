"""What `pip install` gets: the library, its commands, its requirements, and nothing else."""

from __future__ import annotations

import configparser
import email
import itertools
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from keras_mosaickd import __version__, extras
from keras_mosaickd.cli.commands import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]

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
    assert others == package | {"keras_mosaickd/py.typed"}
    assert "LICENSE" in {Path(name).name for name in wheel}


def test_console_scripts_have_the_names_of_bin(wheel):
    scripts = configparser.ConfigParser()
    scripts.read_string(metadata(wheel, "entry_points.txt"))
    expected = {
        f"keras-mosaickd-{name.replace('_', '-')}": f"keras_mosaickd.cli.{name}:console"
        for name in COMMANDS
    } | {"keras-mosaickd": "keras_mosaickd.cli.main:console"}
    assert dict(scripts["console_scripts"]) == expected


def test_the_core_is_small_and_extras_bring_the_rest(wheel):
    required = email.message_from_string(metadata(wheel, "METADATA"))
    lines = [Requirement(line) for line in required.get_all("Requires-Dist")]
    core = {line.name for line in lines if line.marker is None}
    assert core == {"keras", "numpy", "absl-py", "pillow"}
    assert set(required.get_all("Provides-Extra")) == set(EXTRAS)
    # What the code asks for by an extra is installed by that extra.
    for package, extra in extras._EXTRAS.values():
        assert package in {Requirement(line).name for line in EXTRAS[extra]}, package
    everything = Requirement(EXTRAS["all"][0]).extras
    assert everything == {extra for _, extra in extras._EXTRAS.values()}
    urls = dict(line.split(", ") for line in required.get_all("Project-URL"))
    assert set(urls) == {"Paper", "License"}


def test_requirements_files_install_what_the_extras_allow():
    """requirements.txt is what bin/quickstart installs, the others what bin/test adds."""
    known = {}
    for line in [*PROJECT["project"]["dependencies"], *itertools.chain(*EXTRAS.values())]:
        known[Requirement(line).name] = Requirement(line).specifier
    for file in sorted(ROOT.glob("requirements*.txt")):
        for line in map(Requirement, requirements(file.name)):
            pinned = [each.version for each in line.specifier if each.operator == "=="]
            fits = all(known[line.name].contains(version) for version in pinned)
            least = {each.version for each in line.specifier if each.operator == ">="}
            wanted = {each.version for each in known[line.name] if each.operator == ">="}
            assert fits and (pinned or least == wanted), (file.name, line.name)
    installed = {Requirement(line).name for line in requirements("requirements.txt")}
    for extra in ("tensorflow", "tune", "datasets", "report"):
        assert {Requirement(line).name for line in EXTRAS[extra]} <= installed, extra


def test_hooks_and_workflows_use_what_bin_test_uses():
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    pinned = dict(re.findall(r"(\w+)==([\d.]+)", hooks))
    assert set(pinned) == {"ruff", "mypy", "codespell", "nbstripout"}
    for name, version in pinned.items():
        assert f"{name}=={version}" in EXTRAS["dev"], name
    # The hook's environment has none of them, where bin/test has all.
    (skipped,) = PROJECT["tool"]["mypy"]["overrides"]
    assert {f"{module}.*" for module in extras._EXTRAS} <= set(skipped["module"])
    workflows = "".join(path.read_text() for path in (ROOT / ".github" / "workflows").glob("*.yml"))
    minors = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())
    assert f"python: {minors}".replace("'", '"') in workflows
    for command in re.findall(r"run: (?:python )?((?:bin|benchmarks)/[\w.]+)", workflows):
        assert (ROOT / command).is_file(), command
    for form in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        assert form.name != "bug.yml" or "environment.json" in form.read_text()
