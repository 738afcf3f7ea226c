"""One process's side of a group: what all agree on, and how all end when one does."""

import atexit
import json
import os
import queue
import sys
import threading
from pathlib import Path
from typing import Any

from keras_mosaickd.backend.processes import links

# Kinds of messages. Data goes to the chief and from it; the rest is about the end.
_DATA, _SIGNAL, _ASK, _STEP, _STOP, _FAILED, _END, _DONE = (
    bytes([number]) for number in range(1, 9)
)
# How long the chief waits for its own version of what another one reports.
_GRACE = 3.0
_STATUS = 1


class Group:
    """See the functions of `keras_mosaickd.backend.processes`.

    Args:
        rank: this process's number.
        count: how many there are.
        connections: list of `Link`: the chief's to all others, everyone else's to the chief.
        prefix: what a line about another process's end begins with.
    """

    def __init__(self, rank, count, connections, prefix):
        self.rank, self.count, self.prefix = rank, count, prefix
        self.links = {link.rank: link for link in connections}
        self._inbox: dict[int, queue.SimpleQueue] = {n: queue.SimpleQueue() for n in self.links}
        self._done = {number: threading.Event() for number in self.links}
        self._state = threading.Condition()
        # Steps made; the one at which to wait for the chief's word; and what it said.
        self._step = 0
        self._gate: Any = None
        self._stop: Any = None
        self._asked: Any = None
        self._answers: list[int] = []
        self._ending = threading.Event()
        self._failure: Any = None
        self._has_left = False
        for link in connections:
            threading.Thread(target=self._listen, args=(link,), daemon=True).start()
        atexit.register(self._at_exit)

    # ---- data ----------------------------------------------------------------------------

    def send(self, content):
        """Of the chief: sends the same to all others."""
        for link in self.links.values():
            self._to(link, _DATA, content)

    def receive(self, rank=0):
        """Waits for what a process sends, by default the chief."""
        return self._inbox[rank].get()

    def gather(self, array):
        """Every process's array, in all of them."""
        if self.rank:
            self._to(self.links[0], _DATA, links.as_bytes(array))
            contents = links.split_bytes(self.receive())
        else:
            others = [self.receive(rank) for rank in self.links]
            contents = [links.as_bytes(array), *others]
            self.send(links.join_bytes(contents))
        return [links.as_array(content) for content in contents]

    # ---- stopping together ---------------------------------------------------------------

    def stop_now(self, signal_number):
        """Notes the end of a step; gives the signal after which all stop at this one."""
        with self._state:
            self._step += 1
        if signal_number is not None and self._asked is None:
            if self.rank:
                self._asked = signal_number
                self._to(self.links[0], _SIGNAL, bytes([signal_number]))
            else:
                self._ask(signal_number)
        with self._state:
            # Nobody is past its gate when the chief hears of it, and so all can stop at the last.
            while self._gate is not None and self._stop is None and self._step >= self._gate:
                self._state.wait()
            if self._stop is None or self._step < self._stop[0]:
                return None
            return self._stop[1]

    def _ask(self, signal_number):
        """Of the chief: asks all others how far they are."""
        with self._state:
            if self._asked is not None:
                return
            self._asked = signal_number
            self._gate = self._step + 1
        for link in self.links.values():
            self._to(link, _ASK)

    def _answer(self):
        with self._state:
            self._gate = self._step + 1
            step = self._gate
        self._to(self.links[0], _STEP, step.to_bytes(8, "big"))

    def _collect(self, step):
        """Of the chief: tells all where to stop, once all have answered."""
        with self._state:
            self._answers.append(step)
            if len(self._answers) < len(self.links):
                return
            last = max(*self._answers, self._gate)
            self._stop = last, self._asked
            self._state.notify_all()
        for link in self.links.values():
            self._to(link, _STOP, last.to_bytes(8, "big") + bytes([self._asked]))

    # ---- ending together -----------------------------------------------------------------

    def leave(self, status, line):
        """Ends this process's part; with a status other than 0, the process."""
        self._has_left = True
        if not status:
            self._leave_well()
            return
        if self.rank:
            self._to(self.links[0], _FAILED, json.dumps([status, line]).encode())
            # The chief ends first, or a launcher would end it before it has spoken.
            self._done[0].wait(30)
            self._exit(status)
        self._ending.set()
        # Whose connection broke because another one died reports that one's death.
        with self._state:
            self._state.wait_for(lambda: self._failure is not None, 1.0)
            failure = self._failure
        if failure is not None and failure[2]:
            status, line = failure[:2]
        self._end_all(status)
        self._exit(status, line)

    def _leave_well(self):
        for number, link in self.links.items():
            if self.rank:
                self._to(link, _DONE)
            self._done[number].wait()
        for link in self.links.values() if not self.rank else ():
            self._to(link, _DONE)

    def _at_exit(self):
        """Of a program that does not leave by itself: says how it ended."""
        if not self._has_left:
            error = getattr(sys, "last_value", None)
            self.leave(_STATUS if error is not None else 0, f"{type(error).__name__}: {error}")

    def _end_all(self, status):
        for link in self.links.values():
            self._to(link, _END, bytes([status]))

    def _report(self, rank, status, line, is_death):
        """Of the chief's listeners: another process failed, and so all end.

        A failure of all, as of the same settings, is the chief's too, which then says it itself.
        """
        with self._state:
            if self._failure is not None:
                return
            self._failure = status, line, is_death
            self._state.notify_all()
        if self._ending.wait(0.0 if is_death else _GRACE):
            return
        # The main thread may be about to fail for this very reason.
        if is_death and self._ending.wait(1.0):
            return
        self._end_all(status)
        self._exit(status, line)

    def _exit(self, status, line=""):
        """Ends this process, whatever its threads wait for."""
        sys.stdout.flush()
        if line:
            print(f"{self.prefix}{line}", file=sys.stderr, flush=True)
        os._exit(status)

    # ---- listening -----------------------------------------------------------------------

    def _listen(self, link):
        while (message := link.receive()) is not None:
            kind, content = message
            if kind == _DATA:
                self._inbox[link.rank].put(content)
            elif kind == _SIGNAL:
                self._ask(content[0])
            elif kind == _ASK:
                self._answer()
            elif kind == _STEP:
                self._collect(int.from_bytes(content, "big"))
            elif kind == _STOP:
                with self._state:
                    self._stop = int.from_bytes(content[:8], "big"), content[8]
                    self._state.notify_all()
            elif kind == _FAILED:
                status, line = json.loads(content)
                self._report(link.rank, status, f"{self._name(link)}: {line}", False)
                return
            else:
                self._done[link.rank].set()
                if kind == _END:
                    self._exit(content[0])
                return
        self._lost(link)

    def _lost(self, link):
        line = f"{self._name(link)} ended without a word: killed, or out of memory, or its machine"
        if self.rank == 0:
            self._report(link.rank, _STATUS, line, True)
        elif not self._done[0].is_set():
            # One of those that are left speaks for all.
            self._exit(_STATUS, line if self.rank == 1 else "")

    def _name(self, link):
        return f"process {link.rank} (of {self.count}, counted from 0) on {link.host}"

    def _to(self, link, kind, content=b""):
        try:
            link.send(kind, content)
        except OSError:
            return  # Its listener sees that it has gone, and says so.


def connect(rank, count, host, broadcast, prefix=None):
    """The `Group` of this process, connected to the others."""
    if prefix is None:
        prefix = f"{Path(sys.argv[0]).name}: "
    found = links.links(rank, count, host, broadcast) if count > 1 else []
    return Group(rank, count, found, prefix)
