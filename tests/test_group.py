"""Processes that end together, as threads of one: tests/test_processes_job.py has real ones."""

import atexit
import contextlib
import os
import queue
import signal
import socket
import threading
import time

import keras
import numpy as np
import pytest

from keras_mosaickd.backend import processes
from keras_mosaickd.backend.processes import group as module
from keras_mosaickd.backend.processes import links
from keras_mosaickd.backend.processes.stream import OwnRows
from keras_mosaickd.errors import InputError


class Ended(SystemExit):
    """What `os._exit` raises here, in the place of the process's end."""


@pytest.fixture
def ends(monkeypatch):
    """Queue of the statuses that processes end with."""
    statuses = queue.SimpleQueue()

    def end(status):
        statuses.put(status)
        raise Ended(status)

    report = threading.excepthook

    def report_others(raised):
        if raised.exc_type is not Ended:
            report(raised)

    monkeypatch.setattr(threading, "excepthook", report_others)
    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(module, "_GRACE", 0.2)
    return statuses


def until_said(capsys, wanted=""):
    """The lines on stderr, once there is one, or the wanted one."""
    deadline, text = time.monotonic() + 30, ""
    while not text.endswith("\n") or wanted not in text:
        assert time.monotonic() < deadline
        time.sleep(0.01)
        text += capsys.readouterr().err
    return text.splitlines()


def connected_pair():
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    return near, far


@pytest.fixture
def made(ends):
    """Makes the groups of `count` processes; the sockets of the others' connections beside them."""
    groups, sockets = [], []

    def make(count):
        pairs = [connected_pair() for _ in range(count - 1)]
        chiefs = [links.Link(ours, number, "b") for number, (ours, _) in enumerate(pairs, 1)]
        groups.append(module.Group(0, count, chiefs, "chief: "))
        for number, (_, theirs) in enumerate(pairs, 1):
            group = module.Group(number, count, [links.Link(theirs, 0, "a")], f"{number}: ")
            groups.append(group)
        sockets.extend(end for pair in pairs for end in pair)
        return groups, [theirs for _, theirs in pairs]

    yield make
    for group in groups:
        atexit.unregister(group._at_exit)
    for end in sockets:
        with contextlib.suppress(OSError):  # closed by the other end
            end.shutdown(socket.SHUT_RDWR)
    for listener in threading.enumerate():
        if listener is not threading.current_thread() and listener.name.startswith("Thread-"):
            listener.join(10)
    for end in sockets:
        end.close()


def together(groups, function):
    """What a function gives in each process; None where it ends the process."""
    results = [None] * len(groups)

    def call(number):
        results[number] = function(groups[number])

    threads = [threading.Thread(target=call, args=(number,)) for number in range(len(groups))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    return results


def test_every_process_has_every_array(made):
    groups, _ = made(3)
    gathered = together(groups, lambda group: group.gather(np.arange(group.rank + 1)))
    for arrays in gathered:
        assert [array.tolist() for array in arrays] == [[0], [0, 1], [0, 1, 2]]


@pytest.mark.slow
@pytest.mark.parametrize("asker", [0, 1, 2])
def test_a_signal_at_one_stops_all_after_the_same_step(asker, made):
    groups, _ = made(3)

    def steps(group):
        for step in range(1, 2000):
            asked = signal.SIGTERM if group.rank == asker and step >= 5 else None
            if (found := group.stop_now(asked)) is not None:
                return step, found
            group.gather(np.zeros(1))  # as the exchange of gradients keeps them in step
        return None

    (first, *others) = together(groups, steps)
    assert first is not None and first[0] >= 5 and first[1] == signal.SIGTERM
    assert others == [first, first]


def test_all_leave_well(made, ends):
    groups, _ = made(3)
    together(groups, lambda group: group.leave(0, ""))
    assert ends.empty()


def test_a_failure_of_one_ends_all_with_its_line(made, ends, capsys):
    groups, _ = made(3)
    together(groups[1:2], lambda group: group.leave(2, "--ood: expected a folder"))
    assert until_said(capsys) == [
        "chief: process 1 (of 3, counted from 0) on b: --ood: expected a folder"
    ]
    assert {ends.get(timeout=30) for _ in range(3)} == {2}


def test_a_failure_of_all_is_said_once_by_the_chief(made, ends, capsys):
    groups, _ = made(2)
    together(groups, lambda group: group.leave(2, "--ood: expected a folder"))
    assert until_said(capsys) == ["chief: --ood: expected a folder"]
    assert {ends.get(timeout=30) for _ in range(2)} == {2}


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_death_ends_the_others_with_one_line(victim, made, ends, capsys):
    groups, theirs = made(3)
    dead = theirs[:1] if victim else theirs
    for end in dead:
        end.shutdown(socket.SHUT_RDWR)
    name = f"process {victim} (of 3, counted from 0) on {'b' if victim else 'a'}"
    speaker = "1" if victim == 0 else "chief"
    line = f"{speaker}: {name} ended without a word: killed, or out of memory, or its machine"
    # Beside the line of the dead one itself, which here sees its own end, too.
    assert line in until_said(capsys, line)
    assert {ends.get(timeout=30) for _ in range(2)} == {1}


def test_a_program_that_fails_says_so_when_it_ends(made, ends, monkeypatch, capsys):
    groups, _ = made(2)
    monkeypatch.setattr("sys.last_value", ValueError("of no use"), raising=False)
    together(groups[1:], lambda group: group._at_exit())
    (line,) = until_said(capsys)
    assert line == "chief: process 1 (of 2, counted from 0) on b: ValueError: of no use"
    assert {ends.get(timeout=30) for _ in range(2)} == {1}


def connected(count, strangers=0):
    """The links of `count` processes that find each other by TCP; the chief's place beside them."""
    place: queue.SimpleQueue = queue.SimpleQueue()

    def broadcast_of(rank):
        def broadcast(array):
            if rank == 0:
                port = links.json.loads(array.tobytes().decode())["port"]
                for _ in range(strangers):
                    with socket.create_connection(("127.0.0.1", port)) as stranger:
                        stranger.sendall(b"?" * (links._TOKEN + 4 + 64))
                for _ in range(count - 1):
                    place.put(array)
            return array if rank == 0 else place.get()

        return broadcast

    class Rank(int):
        rank = property(int)

    ranks = [Rank(number) for number in range(count)]
    return together(ranks, lambda rank: links.links(rank, count, "", broadcast_of(rank)))


def test_processes_find_each_other_and_a_stranger_is_sent_away():
    chief, *others = connected(3, strangers=1)
    assert [link.rank for link in chief] == [1, 2]
    for (link,), ours in zip(others, chief, strict=True):
        link.send(b"x", b"hello")
        assert ours.receive() == (b"x", b"hello") and ours.host == socket.gethostname()
        link._socket.close()
        assert ours.receive() is None
        ours._socket.close()


def test_whoever_does_not_connect_is_named(monkeypatch):
    monkeypatch.setattr(links, "_JOINING", 0.3)
    with pytest.raises(RuntimeError, match="process 1 of 2 does not connect to the chief"):
        links.links(0, 2, "", lambda array: array)
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    place = {"port": free, "token": "00" * 16, "hosts": ["localhost"]}
    array = np.frombuffer(links.json.dumps(place).encode().ljust(1024), np.uint8)
    with pytest.raises(RuntimeError, match=f"process 1 cannot connect to the chief's port {free}"):
        links.links(1, 2, "", lambda _: array)


class Counting(keras.utils.PyDataset):
    """One element of six images and their labels; counts its epochs."""

    begun, ended = 0, 0

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return np.arange(6), np.arange(6) * 10

    def on_epoch_begin(self):
        self.begun += 1

    def on_epoch_end(self):
        self.ended += 1


def test_a_stream_of_ones_own_gives_each_process_its_rows(monkeypatch):
    monkeypatch.setattr(processes, "rows", lambda count: slice(count // 2, count))
    stream = Counting()
    rows = OwnRows(stream)
    assert len(rows) == 1
    assert [part.tolist() for part in rows[0]] == [[3, 4, 5], [30, 40, 50]]
    rows.on_epoch_begin()
    rows.on_epoch_end()
    assert (stream.begun, stream.ended) == (1, 1)
    with pytest.raises(InputError, match="Received: list"):
        OwnRows([1, 2])
