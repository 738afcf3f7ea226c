"""Several processes of one group on this machine, started by a launcher's variables."""

import os
import socket
import subprocess
import sys

import keras

from tests.documents import ROOT


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def variables(count):
    """The environment of each of `count` processes on this process's backend."""
    port = free_port()
    for number in range(count):
        if keras.backend.backend() == "torch":
            names = {"RANK": number, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1"}
            names["MASTER_PORT"] = port
        else:
            names = {
                "KERAS_DISTRIBUTION_JOB_ADDRESSES": f"127.0.0.1:{port}",
                "KERAS_DISTRIBUTION_NUM_PROCESSES": count,
                "KERAS_DISTRIBUTION_PROCESS_ID": number,
            }
        yield {name: str(value) for name, value in names.items()}


def start(command, folder=ROOT, **environment):
    """Starts a process, whose output and errors are kept."""
    return subprocess.Popen(
        list(map(str, command)),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_group(count, commands, folder=ROOT):
    """Starts `count` processes of one group, by one command for all or one for each."""
    if not isinstance(commands[0], list):
        commands = [commands] * count
    pairs = zip(commands, variables(count), strict=True)
    return [start(command, folder, **names) for command, names in pairs]


def module(name, *arguments):
    """The command that runs a module of this project."""
    return [sys.executable, "-m", name, *arguments]


def finish(process, status=0, timeout=1200):
    """Waits for a process's end; its output and its errors without the libraries' talk."""
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == status, (process.returncode, out[-2000:], err[-3000:])
    noise = ("I0", "W0", "WARNING: All log messages", "[Gloo]")
    lines = [
        [line for line in text.splitlines() if not line.startswith(noise)] for text in (out, err)
    ]
    return tuple(lines)
