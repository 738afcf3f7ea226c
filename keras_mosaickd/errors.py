"""The exceptions that have a meaning of their own: bad input, a diverged and a stopped training."""

import difflib
import signal

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
    nearest = difflib.get_close_matches(received, known, n=1, cutoff=0.6)
    return f"; did you mean {nearest[0]}?" if nearest else ""
