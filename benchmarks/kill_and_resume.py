"""A run on the digits is killed again and again, and ends in the weights of one that never was.

    PYTHONPATH=. python benchmarks/kill_and_resume.py [--kills 20] [--seed 0] [--signal KILL]

KERAS_BACKEND chooses the backend. Every second kill comes while a checkpoint is being written, the
others after a random time, half of them in the start-up; each is followed by the same command.
Prints where each kill found the run; exit status 1 if a variable of the trainer or its optimizers
differs in one bit from the run that was left alone, or if the killed one ended before all kills.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import keras
import numpy as np

from keras_mosaickd.networks.loading import load_model
from keras_mosaickd.run_directory import newest_intact

ROOT = Path(__file__).resolve().parent.parent
FLAGS = """
    --dataset=digits[0-2] --ood=digits[5-9] --image_size=8 --teacher=wrn10_1 --student=wrn10_1
    --teacher_epochs=1 --teacher_batch_size=64 --batch_size=8 --student_steps=2 --evaluations=4
""".split()


def start(run_dir, folder, updates, *flags):
    """Starts the run's command; its output goes to `log`."""
    places = [f"--run_dir={run_dir}", f"--cache_dir={folder / 'cache'}"]
    with (folder / "log").open("w") as output:
        return subprocess.Popen(
            [ROOT / "bin" / "train", *FLAGS, f"--student_updates={updates}", *places, *flags],
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdout=output,
            start_new_session=True,
        )


def wait_for(condition, process, seconds=600):
    """Waits until a condition holds; False where the process ends before."""
    end = time.monotonic() + seconds
    while not condition() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.001)
    return process.poll() is None


def kill(process, run_dir, folder, kind, delay, number):
    """Sends the signal at its moment; returns what to say of it, or None where the run ended."""
    last, half_written = (run_dir / "checkpoints" / name for name in ("last.keras", ".last.keras"))
    moment = time.monotonic() + delay
    if kind != "start-up":
        is_saved = has_changed(last)
        if not wait_for(is_saved, process):
            return None
        moment = time.monotonic() + delay
    if not wait_for(lambda: time.monotonic() > moment, process):
        return None
    is_writing = has_changed(half_written)
    if kind == "writing":
        if not wait_for(is_writing, process):
            return None
        time.sleep(delay % 0.2)
    os.killpg(process.pid, number)
    status = process.wait()
    lines = (folder / "log").read_text().splitlines()
    said = [line for line in lines if "Continuing" in line or "damaged" in line]
    left = ", a checkpoint half-written" if is_writing() else ""
    return f"{kind}, {delay:.1f} s{left}, status {status}: {'; '.join(said) or 'from the start'}"


def has_changed(path):
    """A function that says whether a file is there and another than now."""

    def time_of_change():
        try:
            return path.stat().st_mtime_ns
        except FileNotFoundError:
            return None

    before = time_of_change()
    return lambda: time_of_change() not in (None, before)


def variables(run_dir):
    """All variables of a finished run's trainer and optimizers, by path."""
    newest = newest_intact(run_dir / "checkpoints" / "last.keras")
    trainer = load_model(newest, "the checkpoint", compile=True)
    every = [*trainer.variables, *trainer.optimizer.variables]
    return [np.asarray(keras.ops.convert_to_numpy(variable)) for variable in every]


def main():
    """Kills, continues and compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", choices=("KILL", "TERM"), default="KILL")
    arguments = parser.parse_args()
    generator = random.Random(arguments.seed)
    number = getattr(signal, f"SIG{arguments.signal}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole, killed = folder / "whole", folder / "killed"
        assert start(whole, folder, arguments.updates).wait() == 0  # fills the cache, too
        begun = time.monotonic()
        timed = folder / "timed"
        process = start(timed, folder, arguments.updates, "--checkpoint_every_steps=3")
        wait_for((timed / "checkpoints" / "last.keras").exists, process)
        start_up = time.monotonic() - begun
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        print(f"{keras.backend.backend()}: {start_up:.1f} s until the first checkpoint", flush=True)
        command = (killed, folder, arguments.updates, "--checkpoint_every_steps=3")
        for count in range(1, arguments.kills + 1):
            kind = ("start-up", "writing", "training", "writing")[count % 4]
            delay = generator.uniform(0.0, start_up if kind == "start-up" else 4.0)
            process = start(*command)
            told = kill(process, killed, folder, kind, delay, number)
            if told is None:
                sys.exit(f"the run ended before kill {count}: raise --updates")
            print(f"kill {count}: {told}", flush=True)
        assert start(*command).wait() == 0
        print((folder / "log").read_text().splitlines()[2])
        pairs = list(zip(variables(whole), variables(killed), strict=True))
    same = sum(np.array_equal(a, b) for a, b in pairs)
    print(f"{same} of {len(pairs)} variables bit for bit equal")
    sys.exit(0 if same == len(pairs) else 1)


if __name__ == "__main__":
    main()
