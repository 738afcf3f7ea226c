"""Elements of a stream that are made, and lie on the device, before a training step wants them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from keras_mosaickd.backend.operations import placing

# Elements that are made ahead of the one in use: as many as wait on TensorFlow.
AHEAD = 2


class Ahead:
    """What a function gives for whole numbers, made in a thread for those that come next.

    Who asks for one number alone gets what the function gives. From the second in a row on, those
    that follow are made meanwhile and laid on the device. An error comes when its element is asked
    for.

    Args:
        make: function of a number that gives a tuple of numpy arrays, the same at every call.
        depth: how many elements are made ahead; 0 for none.
    """

    def __init__(self, make: Callable[[int], tuple], depth: int = AHEAD):
        self.make, self.depth = make, depth
        self._last: int | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._place: Callable[[tuple], tuple] = tuple
        self._coming: dict[int, Future] = {}

    def __call__(self, number: int) -> tuple[Any, ...]:
        """The element of a number."""
        known = self._coming.pop(number, None)
        if self.depth and self._last == number - 1:
            self._look_ahead(number)
        self._last = number
        return known.result() if known else self.make(number)

    def _look_ahead(self, number: int) -> None:
        if self._thread is None:
            # Here and not in the thread, which does not know this one's device.
            self._place = placing()
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="ahead")
        wanted = range(number + 1, number + 1 + self.depth)
        self._coming = {
            n: self._coming.get(n) or self._thread.submit(self._laid, n) for n in wanted
        }

    def _laid(self, number: int) -> tuple[Any, ...]:
        return self._place(self.make(number))
