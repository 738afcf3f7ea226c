"""The exceptions that have a meaning of their own; what messages call words meant and commands."""

import difflib
import signal
import sys
from pathlib import Path

STOPPING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
)
"""Signals after which a training saves and leaves; SIGUSR1 is what schedulers send in time."""


class InputError(ValueError):
    """An argument, flag or file that cannot be used.

    The message is one line that says what was expected and what was received, and names the flag
    or the file. The command line turns it into exit status 2; every other exception into 1.
    """


class DivergedError(RuntimeError):
    """A training whose losses or weights are no longer numbers."""


class StoppedError(RuntimeError):
    """A training that was left after a signal, with its state saved.

    Args:
        signal_number: the signal.
    """

    def __init__(self, signal_number):
        super().__init__(f"stopped by signal {signal_number}")
        self.signal_number = signal_number


def did_you_mean(received, known):
    """What a message about an unknown name ends in: the nearest known one, or nothing.

    Args:
        received: the name that was given.
        known: the names that there are.
    """
    likeness = {name: difflib.SequenceMatcher(None, name, received).ratio() for name in known}
    # Of equally near ones the first.
    nearest = max(likeness, key=likeness.__getitem__, default="")
    return f"; did you mean {nearest}?" if likeness.get(nearest, 0) >= 0.6 else ""


def program(command: str) -> str:
    """What the user calls a command by: ``bin/train``, or what ``pip install`` brings.

    Args:
        command: Key of `COMMANDS` in `cli/commands`.
    """
    called = Path(sys.argv[0]).stem
    if called.startswith("keras-mosaickd-"):
        return f"keras-mosaickd-{console_name(command)}"
    if called == "keras-mosaickd":
        return f"{called} {console_name(command)}"
    return f"bin/{command}"


def console_name(command: str) -> str:
    """What a command is called after ``keras-mosaickd`` and ``keras-mosaickd-``."""
    return command.replace("_", "-")
