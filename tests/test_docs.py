"""Every command and every Python block of README.md and docs/*.md runs.

Commands run in this process, in the order of the page, in one new directory for each page; those
that would take long in a few updates on small images, and those on data sets that have to be
downloaded with the stand-in images of tensorflow-datasets.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import runpy
import shutil
import struct
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pytest
from PIL import Image

from keras_mosaickd import data, networks, tuning
from keras_mosaickd.cli import flags, runner
from keras_mosaickd.cli.commands import COMMANDS
from tests.documents import PAGES, ROOT, blocks, commands, python_is_run_by

SHAPE, CLASSES = (16, 16, 1), 5
# The values of flags that decide how long a command takes.
SHORT = {
    "teacher_epochs": 1,
    "teacher_batch_size": 32,
    "batch_size": 4,
    "student_updates": 2,
    "student_steps": 2,
    "evaluations": 1,
    "latent_dim": 8,
}
LOCAL = ("digits", "folder", "segmentation")


# Pages whose commands another test gives, too; the others' are given here.
SHELL_IS_RUN_BY = {"ship.md": "test_ship_guide.py"}
# Pages that the map names before they are written.
AWAITED: set[str] = set()


class Shared(NamedTuple):
    """What is made once for all pages, in `folder`; and the commands that have been run."""

    folder: Path
    done: list[tuple]


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, *SHAPE), dtype="float32")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A cache and a finished run of digits, made once for all pages."""
    folder = tmp_path_factory.mktemp("shared")
    made = Shared(folder, [])
    given = {**SHORT, "image_size": 16, "teacher": "wrn10_1", "run_dir": folder / "run"}
    given["export"] = "keras"
    assert main("train", [f"--{name}={value}" for name, value in given.items()], made) == 0
    return made


def mock_data(num_examples: int) -> contextlib.AbstractContextManager:
    """Random images in the place of everything that tensorflow-datasets would download."""
    import tensorflow_datasets

    return tensorflow_datasets.testing.mock_data(num_examples=num_examples)


def main(name: str, arguments: list[str], shared: Shared) -> int:
    """Runs a command in this process; returns its exit status."""
    if "cache_dir" in COMMANDS[name].flags:
        arguments = [*arguments, f"--cache_dir={shared.folder / 'cache'}"]
    module = importlib.import_module(f"keras_mosaickd.cli.{name}")
    return runner.run(module.main, name, arguments)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A new working directory with what a checkout has besides code."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    return tmp_path


@pytest.fixture(autouse=True)
def _one_device():
    """Undoes what a page does to Keras for the whole process."""
    yield
    if keras.backend.backend() == "jax":
        keras.distribution.set_distribution(None)


def test_the_pages_are_found():
    found = {named(page): blocks(page) for page in PAGES}
    assert {"README.md", "docs/own_code.md", "docs/reproduce.md", "docs/workers.md"} <= set(found)
    languages = [block.language for block in found["docs/pytorch_teacher.md"]]
    assert languages == ["python", "shell", "shell"]
    assert sum(len(page) for page in found.values()) > 25


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists() or target in AWAITED, target


# The one that people copy from first is run by every bin/test.
WITH_BLOCKS = [
    pytest.param(
        page,
        marks=() if named(page) == "README.md" else pytest.mark.long,
        id=named(page),
    )
    for page in PAGES
    if blocks(page)
]


@pytest.mark.slow
@pytest.mark.usefixtures("without_graph")  # two updates of each run
@pytest.mark.filterwarnings("default")  # of tensorflow-datasets, when it reads stand-in data
@pytest.mark.parametrize("page", WITH_BLOCKS)
def test_blocks_run(page, request, folder):
    backend = keras.backend.backend()
    scope = beforehand(page)
    with_python = python_is_run_by(page) is None
    elsewhere = ROOT / "tests" / SHELL_IS_RUN_BY.get(page.name, "none")
    with_shell = backend == "tensorflow" and not elsewhere.exists()
    for block in blocks(page):
        if block.backend not in ("", backend):
            continue
        if block.language == "python" and with_python:
            exec(compile(block.text, named(page), "exec"), scope)
        elif block.language == "shell" and with_shell:
            shared = request.getfixturevalue("shared")
            for program, *arguments in commands(block.text, folder):
                replay(program, arguments, shared)


def beforehand(page: Path) -> dict[str, object]:
    """What a page's reader has: images and a teacher's file, or a network in PyTorch."""
    if page.name == "pytorch_teacher.md":
        from tests.test_import_weights import WideResNet

        return {"model": WideResNet()}
    teacher = networks.build("wrn10_1", SHAPE, CLASSES, mean=0.5, std=0.25)
    inputs = keras.Input(SHAPE)
    keras.Model(inputs, keras.layers.Softmax()(teacher(inputs))).save("teacher.keras")
    Path("names.txt").write_text("".join(f"class {number}\n" for number in range(CLASSES)))
    return {"images": images(64), "held_out": images(16, seed=1)}


def replay(program: str, arguments: list[str], shared: Shared) -> None:
    """Runs one command of a page, shortened."""
    name = re.sub(r"^(bin/|keras-mosaickd-)", "", program).replace("-", "_")
    if program == "pip":
        check_pip(arguments)
    elif program == "python":
        check_benchmark(arguments)
    elif name == "environment":
        assert arguments and all((ROOT / file).is_file() for file in arguments), arguments
    elif name in COMMANDS:
        check_command(name, arguments, shared)
    else:  # quickstart, test, docs: tests/cli/test_processes.py and this test itself
        assert (ROOT / program).is_file() and not arguments, program


def check_command(name: str, arguments: list[str], shared: Shared) -> None:
    parsed = flags.parse(name, arguments)
    values = parsed.values
    if (name, values) in shared.done:  # on another page
        return
    shared.done.append((name, values))
    extra: dict[str, object] = {}
    if "teacher_epochs" in values:
        extra = {flag: value for flag, value in SHORT.items() if flag in values}
        if "export" in values and not any("--export" in argument for argument in arguments):
            extra["export"] = "keras"
        wanted = [values[flag] for flag in ("dataset", "ood", "eval") if values.get(flag)]
        for path in (text.removeprefix("folder:") for text in wanted if "folder:" in text):
            make_images(Path(path))
        if values.get("ood_size"):
            extra["ood_size"] = 16
        if not all(text.startswith(LOCAL) for text in wanted):
            # Only a run that is prepared and not begun is cheap with the paper's networks.
            extra |= {"dry_run": "true"} if "dry_run" in values else {"teacher": "wrn10_1"}
        if any(text.startswith("fashion_mnist") for text in wanted):
            extra["data_dir"] = fashion_mnist(shared.folder / "fashion")
    if name in ("evaluate", "sample", "export") and values["run_dir"]:
        finished_run(values["run_dir"], shared)
    for path in parsed.arguments:
        finished_run(path, shared)
    with pytest.MonkeyPatch.context() as patch, mock_data(num_examples=64):
        # The trials of a study are run by tests/test_tuning.py.
        patch.setattr(tuning, "tune", lambda *_: None)
        status = main(name, [*arguments, *(f"--{k}={v}" for k, v in extra.items())], shared)
    assert status == 0, f"bin/{name} {' '.join(arguments)}"


def finished_run(path: str, shared: Shared) -> None:
    """Puts a finished run where a page says that there is one."""
    if not (Path(path) / "metrics.json").exists():
        shutil.copytree(shared.folder / "run", path, dirs_exist_ok=True)


def make_images(path: Path) -> None:
    """Makes the folder of images that a page's reader has."""
    if not path.exists():
        for kind in ("one", "another"):
            (path / kind).mkdir(parents=True)
            for number in range(40):
                pixels = np.random.default_rng(number).integers(0, 256, (40, 48, 3), "uint8")
                Image.fromarray(pixels).save(path / kind / f"{number}.png")


def fashion_mnist(path: Path) -> Path:
    """Makes Fashion-MNIST's four files with 64 random images in each."""
    path.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    for split in ("train", "t10k"):
        for kind, values in (
            ("images-idx3", random.integers(0, 256, (64, 28, 28), "uint8")),
            ("labels-idx1", np.arange(64, dtype="uint8") % 10),
        ):
            header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
            (path / f"{split}-{kind}-ubyte").write_bytes(header + values.tobytes())
    return path


def check_benchmark(arguments: list[str]) -> None:
    """A benchmark takes minutes: it starts here, and knows every flag that the page gives it."""
    file, *rest = arguments
    if file == "train.py":  # the page's own program, which tests/test_processes.py runs
        return
    assert file.startswith("benchmarks/"), file
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(sys, "argv", [file, "--help"])
        patch.syspath_prepend(ROOT / "benchmarks")  # as of a script that is started
        patch.setenv("KERAS_BACKEND", keras.backend.backend())  # a script may set its own
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(ROOT / file), run_name="__main__")
    assert stopped.value.code in (0, None)
    known = set(re.findall(r"--[\w-]+", printed.getvalue()))
    # A word with a space was in quotes: flags of bin/train, for the benchmark to pass on.
    given = {word.partition("=")[0] for word in rest if word.startswith("--") and " " not in word}
    assert given <= known, f"{file} has no {given - known}"


def check_pip(arguments: list[str]) -> None:
    """What a page installs exists: files of requirements, and extras of this package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    known = project["project"]["optional-dependencies"]
    assert arguments[0] == "install", arguments
    for extras in re.findall(r"\[([\w,-]+)\]", " ".join(arguments)):
        assert set(extras.split(",")) <= set(known), extras
    for file in re.findall(r"-r (\S+)", " ".join(arguments)):
        assert (ROOT / file).is_file(), file


def test_the_pool_of_a_page_is_a_pool(tmp_path):
    make_images(tmp_path / "photos")
    assert len(data.load(f"folder:{tmp_path}/photos", "all", image_size=16)) == 80


@pytest.mark.backend("tensorflow")
def test_the_model_of_many_devices_is_what_its_page_shows(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["scale.py"])
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    runpy.run_path(str(ROOT / "benchmarks" / "scale.py"), run_name="__main__")
    page = (ROOT / "docs" / "scale.md").read_text()
    shown = [line.split() for line in page.splitlines()]
    printed = [line.split() for line in capsys.readouterr().out.splitlines() if line]
    assert len(printed) > 12 and [line for line in printed if line not in shown] == []
