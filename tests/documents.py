"""README.md and docs/*.md as programs: their blocks in order, and what runs each."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_FENCED = re.compile(
    r"(?:<!-- (?P<comment>[^\n]*) -->\n)?^ *```(?P<language>\w*)\n(?P<fenced>.*?)^ *```$"
    r"|(?:^|(?<=\n\n))(?P<indented>(?: {4,}[^\n]*\n(?:\n(?= {4}))?)+)",
    re.DOTALL | re.MULTILINE,
)
# What makes a block one for the shell: a line that begins with one of the programs below.
_PROGRAM = r"(?:bin/\w+|keras-mosaickd-[\w-]+|python|pip)"
_SHELL = re.compile(rf"^ *(?:\w+=\S* )*{_PROGRAM}(?= |$)", re.MULTILINE)
# One write, so that those in the background do not come between each other's words.
_STAND_IN = r"""#!/bin/sh
printf '%s\0' "$0" "$@" "$(printf '\036')" >> "$COMMANDS"
"""


@dataclasses.dataclass(frozen=True)
class Block:
    """A piece of a page that runs.

    Attributes:
        language: "python" or "shell".
        text: What stands there, without indentation.
        backend: The only backend that it is for, or empty.
    """

    language: str
    text: str
    backend: str = ""


def blocks(page: Path) -> list[Block]:
    """The Python blocks (fenced) and the shell blocks (fenced or indented) of a page, in order."""
    found = []
    for match in _FENCED.finditer(page.read_text(encoding="utf-8")):
        text = _dedent(match["fenced"] if match["indented"] is None else match["indented"])
        named = re.fullmatch(r"backend: (\w+)", match["comment"] or "")
        backend = named[1] if named else ""
        if match["language"] == "python":
            found.append(Block("python", text, backend))
        elif _SHELL.search(text):
            found.append(Block("shell", text, backend))
    return found


def python_is_run_by(page: Path) -> str | None:
    """Another test file that names the page, and so runs its Python blocks."""
    others = (ROOT / "tests").glob("test_*.py")
    named = [file for file in others if file.name != "test_docs.py"]
    return next((file.name for file in sorted(named) if page.name in file.read_text()), None)


def commands(text: str, folder: Path) -> list[list[str]]:
    """The commands of a shell block, with their arguments, as a shell understands them.

    The shell runs, in `folder`, with stand-ins for all programs, which write down how they were
    called. Any other program that a page names is not found, and fails the test.
    """
    programs = folder / ".programs"
    log = folder / ".commands"
    (folder / "bin").mkdir(exist_ok=True)
    programs.mkdir(exist_ok=True)
    names = {path.name for path in (ROOT / "bin").iterdir()}
    console = {f"keras-mosaickd-{name.replace('_', '-')}" for name in names}
    for file in (
        *(folder / "bin" / name for name in names),
        *(programs / name for name in (*console, "python", "pip")),
    ):
        file.write_text(_STAND_IN)
        file.chmod(0o755)
    log.write_bytes(b"")
    environment = {"PATH": str(programs), "COMMANDS": str(log), "HOME": str(folder)}
    finished = subprocess.run(
        ["/bin/sh", "-eu", "-c", text], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert finished.returncode == 0, f"{text}\n{finished.stderr}"
    records = log.read_bytes().decode().split("\036\0")[:-1]
    called = [record.split("\0")[:-1] for record in records]
    return [[program.removeprefix(f"{programs}/"), *rest] for program, *rest in called]


def _dedent(text: str) -> str:
    lines = text.splitlines()
    margin = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    return "\n".join(line[margin:] for line in lines) + "\n"
