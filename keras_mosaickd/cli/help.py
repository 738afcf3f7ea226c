"""The text of ``--help``."""

from __future__ import annotations

import textwrap

from keras_mosaickd.cli.commands import COMMANDS
from keras_mosaickd.errors import program
from keras_mosaickd.runs.flag_table import Flag


def help_text(command: str, width: int = 96, full: bool = False) -> str:
    """Returns the help of one command: its summary, usage and flags in groups.

    Args:
        command: Key of `COMMANDS`.
        width: Longest line, in characters.
        full: Every flag, not only those that most people need.
    """
    specification = COMMANDS[command]
    blocks = [
        textwrap.fill(f"{program(command)}: {specification.summary}", width),
        f"usage: {program(command)} {specification.arguments} ".rstrip()
        + " [--flagfile=FILE] [--name=value ...]",
    ]
    groups: dict[str, list[Flag]] = {}
    shown = specification.flags if full else specification.common or specification.flags
    for name in shown:
        flag = specification.flag(name)
        groups.setdefault(flag.group, []).append(flag)
    for group, flags in groups.items():
        blocks.append("\n".join([f"{group}:", *(_entry(flag, width) for flag in flags)]))
    if len(shown) < len(specification.flags):
        blocks.append(f"--helpfull lists all {len(specification.flags)} flags.")
    blocks.append(
        textwrap.fill(
            "A flagfile holds one --name=value per line, # comments, and further --flagfile lines; "
            "where a flag is given twice the later one wins. KERAS_BACKEND chooses tensorflow, jax "
            "or torch. Exit status: 0 done, 1 failed, 2 wrong flags or input, 130 interrupted.",
            width,
            break_on_hyphens=False,
        )
    )
    return "\n\n".join(blocks) + "\n"


def _entry(flag: Flag, width: int) -> str:
    value = str(flag.default).lower() if flag.kind is bool else flag.default
    head = f"  --{flag.name}={value}"
    allowed = "" if flag.kind is bool else flag.expectation()
    body = f"{flag.help} [{allowed}]" if allowed else flag.help
    indent = " " * 6
    lines = textwrap.wrap(
        body, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
    return "\n".join([head, *lines])
