"""Random command lines, flagfiles and folders, and what every command must make of them.

`cases()` is a hypothesis strategy. A case is built in a folder of its own, run in this process or
as one of its own, and judged: exit status 0 or 2 (1 stands for a failure nobody foresaw), at most
one line on stderr, no traceback, an end in time, and nothing left half-written.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hypothesis import strategies as st

from keras_mosaickd import extras
from keras_mosaickd.cli import runner
from keras_mosaickd.cli.commands import COMMANDS
from tests import fuzz_files

ROOT = Path(__file__).resolve().parent.parent
# A busy machine takes half a minute to start a process.
SECONDS = 120
# Left out: they change what is said, not what is done.
_FIXED = {"help", "helpfull", "version", "traceback", "dry_run", "run_dir", "cache_dir", "out"}
# What keeps a command short. It stands first, so that a case may overrule it.
_SMALL = {
    "train": "--dry_run --image_size=8 --teacher={root}/teacher.keras --student=wrn10_1 "
    "--dataset=digits[0-2] --ood=digits[5-9] --batch_size=4 --teacher_batch_size=8",
    "teacher": "--image_size=8 --teacher={root}/teacher.keras --dataset=digits[0-2]",
    "ood": "--image_size=8 --teacher={root}/teacher.keras --dataset=digits[0-2]",
    "evaluate": "--run_dir={root}/run",
    "sample": "--run_dir={root}/run --count=2 --out={root}/new/grid.png",
    "report": "--out={root}/new {root}/run",
    "export": "--out={root}/new",
    "import_weights": "--weights={root}/teacher.keras --network=wrn10_1 --image_size=8 "
    "--out={root}/new.keras",
    "tune": "",
}
_PLACES = {
    "train": "--run_dir={root}/new --cache_dir={root}/cache",
    # Its last word cannot be parsed: a study without any error would train for hours.
    "tune": "--run_dir={root}/new --cache_dir={root}/cache --seed=none",
    "teacher": "--cache_dir={root}/cache",
    "ood": "--cache_dir={root}/cache",
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One command line, with `{root}` for the folder in which `files` are made first."""

    command: str
    arguments: tuple[str, ...]
    files: tuple[tuple[str, str], ...] = ()

    def command_line(self, root: Path) -> list[str]:
        """The arguments, with the folder's name in them."""
        return [argument.replace("{root}", str(root)) for argument in self.arguments]


def _texts() -> st.SearchStrategy[str]:
    junk = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
    known = "nan inf -inf 1e400 -1 0 0x10 1_0 999999999999999999999 true None [] .. / ~ {root} -- ="
    names = "digits[9-0] digits[] digits[0-2 folder: folder:{root} segmentation:{root} wrn16_ "
    names += "wrn999999999_1 wrn10_-1 resnet0 vgg mobilenet_v2 {root}/none.keras {root}/run"
    return junk | st.sampled_from([*known.split(), *names.split(), "", " ", "a b", "\n", "é", "٣"])


def _flag_values(command: str, name: str) -> st.SearchStrategy[str]:
    flag = COMMANDS[command].flag(name)
    if flag.choices:
        good = st.sampled_from(flag.choices)
    elif flag.kind is bool:
        good = st.sampled_from(["true", "false", "0", "1"])
    elif flag.kind is int:
        good = st.integers(-1, 12).map(str)
    elif flag.kind is float:
        good = st.floats(-1, 10).map(repr)
    else:
        good = st.sampled_from(["digits[0-2]", "digits[5-9]", "wrn10_1", "resnet18", "vgg11"])
    return good | good | _texts()


def _flags(command: str, least: int = 0, most: int = 4) -> st.SearchStrategy[list[str]]:
    names = [name for name in COMMANDS[command].flags if name not in _FIXED]
    one = st.sampled_from(names).flatmap(
        lambda name: _flag_values(command, name).map(lambda value: f"--{name}={value}")
    )
    if not names:
        return _texts().map(lambda text: [f"--{text}"])
    odd = _texts().map(lambda text: f"--{text}") | _texts() | st.sampled_from(["--seed", "-h=3"])
    # A word that asks for help, a traceback or a longer run is another matter than a wrong one.
    odd = odd.filter(lambda word: word.strip("-")[:2] not in ("h", "he", "tr", "dr", "no"))
    return st.lists(one | one | one | one | odd, min_size=least, max_size=most)


def _line(command: str, words: list[str]) -> tuple[str, ...]:
    return (*_SMALL[command].split(), *words, *_PLACES.get(command, "").split())


@st.composite
def _flag_cases(draw: st.DrawFn) -> Case:
    command = draw(st.sampled_from(sorted(COMMANDS)))
    return Case(command, _line(command, draw(_flags(command, least=1))))


@st.composite
def _flagfile_cases(draw: st.DrawFn) -> Case:
    command = draw(st.sampled_from(["train", "train", "teacher", "evaluate", "report"]))
    lines = draw(_flags(command, most=3))
    lines += draw(st.lists(st.sampled_from(fuzz_files.LINES), max_size=2))
    content = draw(st.sampled_from(["\n", "\r\n", "\n\n", "\r"])).join(lines)
    name = draw(st.sampled_from(["a.flags", "a.flags", "b.flags", "none", ".", "folder", "bytes"]))
    files = (("text:" + content, "a.flags"), ("text:--flagfile=a.flags", "b.flags"))
    files += (("text:x", "folder/x"), ("noise", "bytes"))
    return Case(command, _line(command, [f"--flagfile={{root}}/{name}"]), files)


@st.composite
def _folder_cases(draw: st.DrawFn) -> Case:
    files = tuple(draw(fuzz_files.folders()))
    flag = draw(st.sampled_from(["dataset", "ood", "ood", "data_dir"]))
    command = draw(st.sampled_from(["train", "train", "teacher" if flag != "ood" else "ood"]))
    words = [f"--{flag}=folder:{{root}}/in"]
    if flag == "data_dir":
        name = draw(st.sampled_from(["fashion_mnist", "nyuv2", "segmentation:{root}/in"]))
        words = ["--data_dir={root}/in", f"--dataset={name}"]
        words += ["--task=segmentation"] if name != "fashion_mnist" else []
        files += tuple(draw(fuzz_files.idx_files()))
    if flag != "ood":
        words.append("--teacher=wrn10_1")
        # No teacher is trained: what is wrong has to be found before.
        command = "train"
    elif command == "ood":
        words.append("--ood_size=1")
    words += draw(st.lists(st.sampled_from(["--image_size=8", "--image_size=4"]), max_size=1))
    return Case(command, _line(command, words), files)


@st.composite
def _model_cases(draw: st.DrawFn) -> Case:
    kind = draw(st.sampled_from(fuzz_files.MODELS))
    command = draw(st.sampled_from(["train", "teacher", "export"]))
    flag = "student" if command == "export" else "teacher"
    return Case(command, _line(command, [f"--{flag}={{root}}/m.keras"]), ((kind, "m.keras"),))


@st.composite
def _run_cases(draw: st.DrawFn) -> Case:
    command = draw(st.sampled_from(["evaluate", "sample", "report", "export", "train"]))
    words = {"train": ["--run_dir={root}/run"], "export": ["--run_dir={root}/run"]}.get(command, [])
    line = tuple(w for w in _line(command, []) if not (words and w.startswith("--run_dir")))
    return Case(command, (*line, *words), tuple(draw(fuzz_files.damages())))


def cases() -> st.SearchStrategy[Case]:
    """All kinds of cases; flags, which cost least, are the most frequent."""
    flags = _flag_cases()
    return st.one_of(
        flags, flags, _flagfile_cases(), _folder_cases(), _folder_cases(), _model_cases(),
        _run_cases(),
    )  # fmt: skip


@contextlib.contextmanager
def built(case: Case, material: Path) -> Iterator[Path]:
    """A folder with the case's files, beside copies of a small teacher and a small run."""
    root = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        shutil.copytree(material, root, dirs_exist_ok=True)
        for kind, name in case.files:
            fuzz_files.make(kind, root / name)
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


def complaint(case: Case, material: Path, as_process: bool = False) -> str | None:
    """Runs a case; returns what it did wrong, or None."""
    with built(case, material) as root:
        line = case.command_line(root)
        before = {path for path in root.rglob("*") if "cache" not in path.parts}
        run = _as_process if as_process else _in_process
        status, out, err = run(case.command, line, root)
        err = _without_noise(err)
        if status is None:
            return f"no end within {SECONDS} s"
        if status not in (0, 2):
            return f"exit status {status}: {err.strip()}"
        if len(err.splitlines()) > 1 or (status == 2 and not err.strip()):
            return f"expected {'one line' if status else 'at most one line'} on stderr: {err!r}"
        if "Traceback" in err + out or "Warning" in err:
            return f"a traceback or warning: {err + out}"
        # "flag --seed=x: expected ...", and flags that another command has.
        says = "eceived" in err or ": flag --" in err or "other commands" in err
        if status == 2 and not says:
            return f"the error does not say what was received: {err}"
        new = {path for path in root.rglob("*") if "cache" not in path.parts} - before
        if new and (status == 2 or case.command == "train"):
            return f"status {status} left {sorted(map(str, new))[:5]}"
        hidden = [p for p in root.rglob(".*") if p not in before and p.suffix != ".lock"]
        return f"left {hidden[:5]}" if hidden else None


def _in_process(command: str, line: list[str], root: Path) -> tuple[int | None, str, str]:
    """Runs a command's main here, with what C++ and Python write to both streams caught."""
    if importlib.import_module("keras").backend.backend() == "tensorflow":
        # Its log takes the streams that it finds at first, which must not be those of a case.
        importlib.import_module("tensorflow").get_logger()
    module = importlib.import_module(f"keras_mosaickd.cli.{command}")
    late = []

    def stop(*_: object) -> None:
        late.append(True)
        raise TimeoutError

    saved = [os.dup(1), os.dup(2)]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        before = signal.signal(signal.SIGALRM, stop)
        try:
            with _python_streams(out, err), contextlib.chdir(root):
                signal.alarm(SECONDS)
                status = runner.run(module.main, command, line)
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
            for number, copy in enumerate(saved, start=1):
                os.dup2(copy, number)
                os.close(copy)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return (None if late else status), texts[0], texts[1]


def _without_noise(err: str) -> str:
    """Drops what TensorFlow says of itself: as it is loaded, and of many models in one process."""
    lines = err.splitlines(keepends=True)
    kept = (line for line in lines if "triggered tf.function retracing" not in line)
    return "".join(line for line in kept if not extras._NOISE.match(line))


@contextlib.contextmanager
def _python_streams(out, err) -> Iterator[None]:
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    # Python's own streams may be a test runner's; strict, as those of a process are.
    with (
        open(1, "w", closefd=False, encoding="utf-8") as stdout,
        open(2, "w", closefd=False, encoding="utf-8", errors="backslashreplace") as stderr,
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        yield


def _as_process(command: str, line: list[str], root: Path) -> tuple[int | None, str, str]:
    try:
        finished = subprocess.run(
            [ROOT / "bin" / command, *line],
            capture_output=True,
            cwd=root,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, "", ""
    texts = (part.decode(errors="replace") for part in (finished.stdout, finished.stderr))
    return finished.returncode, *texts
