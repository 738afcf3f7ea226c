"""A run on the digits is killed again and again, and ends in the weights of one that never was.

    python benchmarks/kill_and_resume.py [--kills 20] [--seed 0] [--signal KILL]

KERAS_BACKEND chooses the backend. The run is killed after random times out of its whole length, so
that checkpoints are hit while they are written too (`--checkpoint_every_steps=3`), and continued by
the same command. Prints where each kill found it; exit status 1 if a weight differs.
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

ROOT = Path(__file__).resolve().parent.parent
FLAGS = [
    "--dataset=digits[0-2]",
    "--ood=digits[5-9]",
    "--image_size=8",
    "--teacher=wrn10_1",
    "--student=wrn10_1",
    "--teacher_epochs=1",
    "--teacher_batch_size=64",
    "--batch_size=16",
    "--student_steps=2",
    "--student_updates=400",
    "--evaluations=5",
    "--checkpoint_every_steps=3",
]


def command(run_dir, cache_dir):
    """The command of the run."""
    return [
        str(ROOT / "bin" / "train"),
        *FLAGS,
        f"--run_dir={run_dir}",
        f"--cache_dir={cache_dir}",
    ]


def main():
    """Kills, continues and compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", choices=("KILL", "TERM"), default="KILL")
    arguments = parser.parse_args()
    generator = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        cache, whole, killed = (Path(folder) / name for name in ("cache", "whole", "killed"))
        quiet = {"stdout": subprocess.DEVNULL, "check": True}
        subprocess.run(command(whole, cache), **quiet)
        start = time.perf_counter()
        subprocess.run(command(Path(folder) / "timed", cache), **quiet)
        length = time.perf_counter() - start
        log = Path(folder) / "log"
        for kill in range(1, arguments.kills + 1):
            delay = generator.uniform(0.3, 0.6) * length
            with log.open("w") as output:
                process = subprocess.Popen(
                    command(killed, cache), stdout=output, start_new_session=True
                )
            try:
                process.wait(delay)
                print(f"kill {kill}: finished within {delay:.1f} s, removed and begun again")
                subprocess.run(["rm", "-r", str(killed)], check=True)
                continue
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, getattr(signal, f"SIG{arguments.signal}"))
            status = process.wait()
            lines = [line for line in log.read_text().splitlines() if "Continuing" in line]
            left = sorted(path.name for path in (killed / "checkpoints").glob("*"))
            print(f"kill {kill}: after {delay:.1f} s, status {status}, {lines or 'from the start'}")
            print(f"  left: {', '.join(left) or 'no checkpoint'}")
        subprocess.run(command(killed, cache), **quiet)
        weights = [
            keras.saving.load_model(run / "checkpoints" / "last.keras", safe_mode=True)
            for run in (whole, killed)
        ]
        values = [[np.asarray(value) for value in model.get_weights()] for model in weights]
        same = all(np.array_equal(a, b) for a, b in zip(*values, strict=True))
    print(f"{len(values[0])} weights, bit for bit equal: {same}")
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
