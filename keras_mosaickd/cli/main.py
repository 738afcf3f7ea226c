"""``keras-mosaickd``: the one entry point, whose sub-commands are the programs of ``bin/``."""

from __future__ import annotations

import importlib
import os
import sys
import textwrap
from collections.abc import Sequence

from keras_mosaickd import __version__
from keras_mosaickd.cli.commands import COMMANDS
from keras_mosaickd.cli.completion import SHELLS, script
from keras_mosaickd.errors import console_name, did_you_mean

_COMPLETION = "completion"


def main(arguments: Sequence[str]) -> int:
    """Runs a sub-command; returns its exit status.

    Args:
        arguments: The sub-command and its own arguments; ``--help`` and ``--version`` alone.
    """
    name, *rest = arguments or ["--help"]
    if name in ("--help", "-h", "--helpfull", "help"):
        print(usage())
    elif name == "--version":
        print(f"keras-mosaickd {__version__}")
    elif name == _COMPLETION:
        if len(rest) != 1 or rest[0] not in SHELLS:
            received = " ".join(rest) or "nothing"
            return _refuse(f"completion: expected one of {', '.join(SHELLS)}. Received: {received}")
        print(script(rest[0]))
    elif name.replace("-", "_") in COMMANDS:
        key = name.replace("-", "_")
        command = importlib.import_module(f"keras_mosaickd.cli.{key}")
        from keras_mosaickd.cli import runner

        return runner.run(command.main, key, rest)
    else:
        known = [*map(console_name, COMMANDS), _COMPLETION]
        meant = did_you_mean(name, known)
        return _refuse(f"expected one of {', '.join(known)}. Received: {name}{meant}")
    return 0


def usage() -> str:
    """The sub-commands, a sentence for each."""
    lines = ["usage: keras-mosaickd COMMAND [--flagfile=FILE] [--name=value ...]", ""]
    summaries = {console_name(name): command.summary for name, command in COMMANDS.items()}
    summaries[_COMPLETION] = f"Print the completion of the shell: {', '.join(SHELLS)}."
    for name, summary in summaries.items():
        lines += textwrap.wrap(
            summary, 96, initial_indent=f"  {name:<15}", subsequent_indent=" " * 17
        )
    lines += ["", "keras-mosaickd COMMAND --help shows what a command takes."]
    return "\n".join(lines)


def _refuse(message: str) -> int:
    print(f"keras-mosaickd: {message}", file=sys.stderr)
    return 2


def console() -> None:
    """Entry point of the console script."""
    try:
        status = main(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:  # Before a sub-command tells of it itself.
        print("keras-mosaickd: interrupted", file=sys.stderr)
        status = 130
    except BrokenPipeError:
        # The reader of our output (such as head) has gone; nothing more can be said there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    sys.exit(status)


if __name__ == "__main__":
    console()
