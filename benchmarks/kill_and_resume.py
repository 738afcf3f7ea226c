"""A run on the digits is killed again and again, and ends in the weights of one that never was.

    PYTHONPATH=. python benchmarks/kill_and_resume.py [--kills 20] [--seed 0] [--signal KILL]
    KERAS_BACKEND=torch PYTHONPATH=. python benchmarks/kill_and_resume.py --processes 2 --kills 6

KERAS_BACKEND chooses the backend. Every second kill comes while a checkpoint is being written, the
others after a random time, half of them in the start-up; each is followed by the same command.
Prints where each kill found the run; exit status 1 if a variable of the trainer or its optimizers
differs in one bit from the run that was left alone, or if the killed one ended before all kills.

With --processes each run is a group of so many, on PyTorch or JAX. The kills come in turn while a
checkpoint is being written, in the training and in the selection, at one process, and all have to
end within 30 s with one line of ours. Where each found the run is followed by that time and line.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
from pool_memory import variables as launcher_variables

from keras_mosaickd.networks.loading import load_model
from keras_mosaickd.run_directory import newest_intact

ROOT = Path(__file__).resolve().parent.parent
FLAGS = """
    --dataset=digits[0-2] --ood=digits[5-9] --image_size=8 --teacher=wrn10_1 --student=wrn10_1
    --teacher_epochs=1 --teacher_batch_size=64 --batch_size=8 --student_steps=2 --evaluations=4
""".split()
ALONE = ("start-up", "writing", "training", "writing")
TOGETHER = ("selection", "writing", "training")


def start(run_dir, folder, options, *flags):
    """Starts the run's command, in a group where that is asked for; `log` has the first's output.

    Returns:
        The processes. What each says on stderr is in `errors.NUMBER`.
    """
    command = [ROOT / "bin" / "train", *FLAGS, f"--student_updates={options.updates}", *flags]
    command += [f"--run_dir={run_dir}", f"--cache_dir={folder / 'cache'}"]
    environments = [dict(os.environ)]
    if options.processes > 1:
        command.append("--strategy=processes")
        environments = launcher_variables(options.processes)
    started = []
    for number, environment in enumerate(environments):
        log = folder / ("log" if number == 0 else f"log.{number}")
        with log.open("w") as output, (folder / f"errors.{number}").open("w") as errors:
            process = subprocess.Popen(
                command,
                env={**environment, "PYTHONUNBUFFERED": "1"},
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )
        started.append(process)
    return started


def ended_well(processes):
    """Waits for all; whether none failed."""
    return not any([process.wait() for process in processes])


def wait_for(condition, processes, seconds=600):
    """Waits until a condition holds; False where a process ends before."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        if any(process.poll() is not None for process in processes):
            return False
        time.sleep(0.001)
    return all(process.poll() is None for process in processes)


def kill(processes, run_dir, folder, kind, delay, number):
    """Sends the signal at its moment; returns what to say of it, or None where the run ended."""
    last = run_dir / "checkpoints" / "last.keras"
    moment = time.monotonic() + delay
    if kind == "selection":
        # A folder of this name is there while the selection is being made.
        selected = folder / "cache" / "ood"
        if not wait_for(lambda: any(selected.glob(".*.new-*/new")), processes):
            return None
        moment = time.monotonic()
    elif kind != "start-up":
        is_saved = has_changed(last)
        if not wait_for(is_saved, processes):
            return None
        moment = time.monotonic() + delay
    if not wait_for(lambda: time.monotonic() > moment, processes):
        return None
    is_writing = is_being_written(last)
    if kind == "writing":
        if not wait_for(is_writing, processes):
            return None
        time.sleep(delay % 0.2)
    # The first one writes.
    victim = 0 if kind == "writing" else random.Random(delay).randrange(len(processes))
    os.killpg(processes[victim].pid, number)
    lines = (folder / "log").read_text().splitlines()
    said = [line for line in lines if "Continuing" in line or "damaged" in line]
    left = ", a checkpoint half-written" if is_writing() else ""
    told = f"{kind}, {delay:.1f} s{left}: {'; '.join(said) or 'from the start'}"
    return told + "; " + end_of(processes, victim, folder)


def end_of(processes, victim, folder):
    """Waits for the end of all; says how they did, and fails where they did not as they should."""
    begun = time.monotonic()
    statuses = [process.wait(60) for process in processes]
    if len(processes) == 1:
        return f"status {statuses[0]}"
    seconds = time.monotonic() - begun
    texts = [(folder / f"errors.{number}").read_text() for number in range(len(processes))]
    ours = [line for text in texts for line in text.splitlines() if line.startswith("bin/train: ")]
    told = f"process {victim} of {statuses}, all within {seconds:.1f} s: {' | '.join(ours)}"
    if seconds > 30 or len(ours) != 1 or not all(statuses):
        sys.exit(f"expected one line, and an end of all within 30 s. Received: {told}")
    return told


def is_being_written(path):
    """A function that says whether a file is, that was not when it was made."""
    pattern = f".{path.name}.new-*/*"
    before = {*path.parent.glob(pattern)}
    return lambda: bool({*path.parent.glob(pattern)} - before)


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
    parser.add_argument("--processes", type=int, default=1, help="in each run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", choices=("KILL", "TERM"), default="KILL")
    arguments = parser.parse_args()
    generator = random.Random(arguments.seed)
    number = getattr(signal, f"SIG{arguments.signal}")
    kinds = ALONE if arguments.processes == 1 else TOGETHER
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole, killed = folder / "whole", folder / "killed"
        assert ended_well(start(whole, folder, arguments))  # fills the cache, too
        begun = time.monotonic()
        timed = folder / "timed"
        processes = start(timed, folder, arguments, "--checkpoint_every_steps=3")
        wait_for((timed / "checkpoints" / "last.keras").exists, processes)
        start_up = time.monotonic() - begun
        for process in processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        print(f"{keras.backend.backend()}: {start_up:.1f} s until the first checkpoint", flush=True)
        command = (killed, folder, arguments, "--checkpoint_every_steps=3")
        for count in range(1, arguments.kills + 1):
            kind = kinds[count % len(kinds)]
            delay = generator.uniform(0.0, start_up if kind == "start-up" else 4.0)
            if kind == "selection":
                shutil.rmtree(folder / "cache" / "ood")
            processes = start(*command)
            told = kill(processes, killed, folder, kind, delay, number)
            if told is None:
                sys.exit(f"the run ended before kill {count}: raise --updates")
            print(f"kill {count}: {told}", flush=True)
        assert ended_well(start(*command))
        print((folder / "log").read_text().splitlines()[2])
        pairs = list(zip(variables(whole), variables(killed), strict=True))
    same = sum(np.array_equal(a, b) for a, b in pairs)
    print(f"{same} of {len(pairs)} variables bit for bit equal")
    sys.exit(0 if same == len(pairs) else 1)


if __name__ == "__main__":
    main()
