"""Resident memory over a digits run of 2,000 iterations, with evaluations and checkpoints.

    PYTHONPATH=. python benchmarks/memory.py [--iterations 2000]

KERAS_BACKEND chooses the backend. Prints the process's resident size every 200 iterations and how
much it grew after the first 200; exit status 1 where that is 2% or more.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import keras

from keras_mosaickd.runs import fitting
from keras_mosaickd.runs.run import ExperimentConfig, train

ROUND = 100


def resident():
    """Resident size of this process, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def noted(sizes):
    """Makes every training note its memory after each round, when all else of it is done."""
    usual = fitting._callbacks

    def note(epoch, logs):
        sizes.append(resident())
        print(f"{(epoch + 1) * ROUND:5} iterations: {sizes[-1]:7.1f} MB", flush=True)

    def with_note(*arguments):
        return [*usual(*arguments), keras.callbacks.LambdaCallback(on_epoch_end=note)]

    fitting._callbacks = with_note


def main():
    """Trains and judges."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--iterations", type=int, default=2000)
    rounds = parser.parse_args().iterations // ROUND
    sizes: list[float] = []
    noted(sizes)
    with tempfile.TemporaryDirectory() as folder:
        train(
            ExperimentConfig(
                dataset="digits[0-4]",
                ood="digits[5-9]",
                teacher="wrn10_1",
                teacher_epochs=1,
                teacher_batch_size=64,
                image_size=8,
                batch_size=8,
                student_steps=1,
                student_updates=rounds * ROUND,
                evaluations=rounds,
                checkpoint_every_steps=50,
                run_dir=f"{folder}/run",
                cache_dir=f"{folder}/cache",
            )
        )
    warm, last = sizes[200 // ROUND - 1], sizes[-1]
    growth = last / warm - 1
    print(f"{keras.backend.backend()}: {warm:.1f} MB to {last:.1f} MB, growth {growth:.2%}")
    sys.exit(0 if growth < 0.02 else 1)


if __name__ == "__main__":
    main()
