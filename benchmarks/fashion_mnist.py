r"""MosaicKD against the baselines on Fashion-MNIST: the README's tables, from one command.

    PYTHONPATH=. python benchmarks/fashion_mnist.py [--updates 2000 6000] [--seeds 0 1 2] \
        [--ood_size 500]

Every run is an ordinary `bin/train` into runs/fashion_mnist/, on one core, as many at a time as
there are cores (`--jobs`); runs that are finished are not made again and interrupted ones are
continued, so the command can be stopped and repeated. All runs share one teacher, that of seed 0.
The table goes to standard output and to runs/fashion_mnist/table.md; what a run prints goes to its
directory with `.log` appended.
"""

import argparse
import os
import queue
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from made_run import ROOT, directory_name, made

from keras_mosaickd.cli import flags
from keras_mosaickd.cli.commands import COMMANDS

RUNS = ROOT / "runs" / "fashion_mnist"
# What the practical recipe changes in the student's part of the game, for the other methods too.
STUDENT_SIDE = ["--student_start=teacher", "--feature_weight=10"]
# Row -> flagfile in configs/ and what is added to it.
METHODS = {
    "supervised": ("fashion_mnist", ["--method=supervised"]),
    "kd": ("fashion_mnist_kd", []),
    "balanced": ("fashion_mnist_kd", ["--method=balanced"]),
    "fitnet": ("fashion_mnist_kd", ["--method=fitnet"]),
    "fitnet, hint weight 10": ("fashion_mnist_kd", ["--method=fitnet", "--hint_weight=10"]),
    "data_free": ("fashion_mnist", ["--method=data_free"]),
    "mosaickd": ("fashion_mnist_mosaickd", []),
    "mosaickd, local weight 0.01": ("fashion_mnist_mosaickd", ["--local_weight=0.01"]),
    "mosaickd, image, local weight 0.01": (
        "fashion_mnist_mosaickd",
        ["--regularizer=image", "--local_weight=0.01"],
    ),
    "mosaickd, image": ("fashion_mnist_mosaickd", ["--regularizer=image"]),
    "mosaickd, none": ("fashion_mnist_mosaickd", ["--regularizer=none"]),
    "mosaickd, synthetic only": ("fashion_mnist_mosaickd", ["--synthetic_only"]),
    "mosaickd, image, synthetic only": (
        "fashion_mnist_mosaickd",
        ["--regularizer=image", "--synthetic_only"],
    ),
    "mosaickd, none, synthetic only": (
        "fashion_mnist_mosaickd",
        ["--regularizer=none", "--synthetic_only"],
    ),
    "mosaickd, practical": ("fashion_mnist_mosaickd", ["--recipe=practical"]),
    "kd, practical student": ("fashion_mnist_kd", STUDENT_SIDE),
    "fitnet, practical student": (
        "fashion_mnist_kd",
        ["--method=fitnet", "--hint_weight=10", *STUDENT_SIDE],
    ),
    "kd, temperature 1": ("fashion_mnist_kd", ["--temperature=1"]),
    "kd, temperature 20": ("fashion_mnist_kd", ["--temperature=20"]),
}


def train_teacher():
    """Trains the teacher of seed 0, or finds it in the cache; returns its file."""
    config = ROOT / "configs" / "fashion_mnist.flags"
    settings = flags.parse("train", [f"--flagfile={config}"]).settings()
    accepted = [name for name in COMMANDS["teacher"].flags if name in settings]
    arguments = [f"--{name}={settings[name]}" for name in accepted]
    command = [str(ROOT / "bin" / "teacher"), *arguments, f"--cache_dir={ROOT / '.cache'}"]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return printed.split("teacher_file")[1].split()[0]


def run(method, seed, updates, ood_size, teacher, cores):
    """Makes one run on a core out of a queue of them; returns its metrics."""
    config, settings = METHODS[method]
    core = cores.get()
    try:
        return made(
            RUNS / directory_name(method, updates, f"ood{ood_size}", f"seed{seed}"),
            f"--flagfile={ROOT / 'configs' / f'{config}.flags'}",
            f"--student_updates={updates}",
            f"--ood_size={ood_size}",
            f"--seed={seed}",
            f"--teacher={teacher}",
            f"--cache_dir={ROOT / '.cache'}",
            *settings,
            core=core,
        )
    finally:
        cores.put(core)


def spread(values):
    """Mean and standard deviation as text."""
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{deviation}"


def main():
    """Runs the grid and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, nargs="+", default=[2000, 6000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--ood_size", type=int, default=500, help="0 takes the whole pool")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    RUNS.mkdir(parents=True, exist_ok=True)
    teacher = train_teacher()
    cores: queue.Queue[int] = queue.Queue()
    for core in sorted(os.sched_getaffinity(0))[: arguments.jobs]:
        cores.put(core)
    rows = [
        "| student updates | method | accuracy | by seed | agreement | seconds | teacher |",
        "|---|---|---|---|---|---|---|",
    ]
    cells = [(updates, method) for updates in arguments.updates for method in arguments.methods]
    with ThreadPoolExecutor(cores.qsize()) as pool:
        pending = {
            (cell, seed): pool.submit(
                run, cell[1], seed, cell[0], arguments.ood_size, teacher, cores
            )
            for cell in cells
            for seed in arguments.seeds
        }
        results = {key: future.result() for key, future in pending.items()}
    for updates, method in cells:
        metrics = [results[(updates, method), seed] for seed in arguments.seeds]
        accuracies, agreements, seconds, teachers = (
            [run[key] for run in metrics]
            for key in (
                "student_accuracy",
                "student_agreement",
                "train_seconds",
                "teacher_accuracy",
            )
        )
        rows.append(
            f"| {updates} | {method} | {spread(accuracies)} "
            f"| {', '.join(f'{accuracy:.3f}' for accuracy in accuracies)} "
            f"| {spread(agreements)} | {statistics.mean(seconds):.0f} | {spread(teachers)} |"
        )
    table = "\n".join(rows) + "\n"
    (RUNS / "table.md").write_text(table)
    sys.stdout.write(table)


if __name__ == "__main__":
    main()
