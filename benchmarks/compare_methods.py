r"""MosaicKD against the baselines on one domain: a table of docs/measured.md, from one command.

    PYTHONPATH=. python benchmarks/compare_methods.py [--domain fashion_mnist] \
        [--updates 2000 6000] [--seeds 0 1 2] [--methods kd mosaickd] [--ood_size 500]

A domain is a flagfile of configs/, with flags beside it or none, and the size of its out-of-domain
part; `colour` and `colour_64` need the folders that benchmarks/colour_domain.py makes in
runs/colour, `scenes` those that benchmarks/segmentation_scenes.py makes in runs/scenes (there the
accuracy is the mean IoU). Every run is an ordinary `bin/train` into runs/DOMAIN/, on one core, as
many at a time as there are cores (`--jobs`); runs that are finished are not made again and
interrupted ones are continued, so the command can be stopped and repeated. All runs share one
teacher, that of seed 0. The table goes to standard output and to runs/DOMAIN/table.md, test
accuracy against updates to runs/DOMAIN/curves-UPDATES.png; what a run prints goes to its directory
with `.log` appended.
"""

import argparse
import os
import queue
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import matplotlib
import numpy as np
from made_run import ROOT, directory_name, made
from matplotlib import pyplot

from keras_mosaickd.callbacks.traces import read_history
from keras_mosaickd.cli import flags
from keras_mosaickd.cli.commands import COMMANDS

matplotlib.use("Agg")
# Domain -> its flagfile of configs/, flags beside it, and how many out-of-domain images are
# selected unless --ood_size says otherwise. The second has the roles of the first exchanged;
# nothing was chosen on it.
EXCHANGED = ["--dataset=fashion_mnist[1,5,7,8,9]", "--ood=fashion_mnist[0,2,3,4,6]"]
# Four times the pixels, with a smaller teacher and student and half the images in a batch.
PIXELS_64 = "--image_size=64 --teacher=wrn16_1 --student=wrn10_1 --teacher_epochs=10".split()
DOMAINS = {
    "fashion_mnist": ("fashion_mnist", [], 500),
    "fashion_mnist_exchanged": ("fashion_mnist", EXCHANGED, 500),
    "colour": ("colour", [], 500),
    "colour_64": ("colour", [*PIXELS_64, "--batch_size=16"], 500),
    "scenes": ("scenes", [], 0),
    "quickstart": ("quickstart", [], 128),
}
# As configs/fashion_mnist_kd.flags has it, which says why.
KD = ["--temperature=5"]
FITNET = ["--method=fitnet", *KD]
# What the practical recipe changes in the student's part of the game, for the other methods too.
STUDENT_SIDE = ["--student_start=teacher", "--feature_weight=2"]
PRACTICAL = ["--recipe=practical"]
# Row -> what is added to the domain's flagfile.
METHODS = {
    "supervised": ["--method=supervised"],
    "kd": ["--method=kd", *KD],
    "balanced": ["--method=balanced", *KD],
    "fitnet": FITNET,
    "fitnet, hint weight 10": [*FITNET, "--hint_weight=10"],
    "data_free": ["--method=data_free"],
    "mosaickd": [],
    "mosaickd, local weight 0.01": ["--local_weight=0.01"],
    "mosaickd, image, local weight 0.01": ["--regularizer=image", "--local_weight=0.01"],
    "mosaickd, image": ["--regularizer=image"],
    "mosaickd, none": ["--regularizer=none"],
    "mosaickd, synthetic only": ["--synthetic_only"],
    "mosaickd, image, synthetic only": ["--regularizer=image", "--synthetic_only"],
    "mosaickd, none, synthetic only": ["--regularizer=none", "--synthetic_only"],
    "mosaickd, practical": PRACTICAL,
    "kd, practical student": ["--method=kd", *KD, *STUDENT_SIDE],
    "fitnet, practical student": [*FITNET, "--hint_weight=10", *STUDENT_SIDE],
    "kd, temperature 1": ["--method=kd", "--temperature=1"],
    "kd, temperature 20": ["--method=kd", "--temperature=20"],
}
# One change of each: the practical recipe less a part of it or with another weight, the paper's
# with one part of the practical more, multipliers that find themselves and where they start.
CHANGES = {
    "practical": (
        PRACTICAL,
        "student_start=own feature_weight=0 feature_weight=10 generator_multiple=1 "
        "batch_norm_weight=0 local_weight=1 student_steps=5 adversarial_weight=1 temperature=1 "
        "regularization=adaptive",
    ),
    "mosaickd": (
        [],
        "student_start=teacher feature_weight=2 generator_multiple=4 batch_norm_weight=100 "
        "student_steps=2 adversarial_weight=5 temperature=5 "
        "local_weight=0.1 local_weight=0.03 local_weight=0.003 regularization=adaptive",
    ),
    "mosaickd, regularization adaptive": (
        ["--regularization=adaptive"],
        "regularization_weight=0.01 regularization_weight=30",
    ),
}
for base, (always, changes) in CHANGES.items():
    for change in changes.split():
        METHODS[f"{base}, {change.replace('=', ' ')}"] = [*always, f"--{change}"]


def train_teacher(domain):
    """Trains the teacher of seed 0, or finds it in the cache; returns its file.

    Args:
        domain: list of the flags that make the domain.
    """
    settings = flags.parse("train", domain).settings()
    accepted = [name for name in COMMANDS["teacher"].flags if name in settings]
    arguments = [f"--{name}={settings[name]}" for name in accepted]
    command = [str(ROOT / "bin" / "teacher"), *arguments, f"--cache_dir={ROOT / '.cache'}"]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return printed.split("teacher_file")[1].split()[0]


def run(directory, arguments, cores):
    """Makes one run on a core out of a queue of them; returns its metrics."""
    core = cores.get()
    try:
        return made(directory, *arguments, f"--cache_dir={ROOT / '.cache'}", core=core)
    finally:
        cores.put(core)


def draw(file, lines, updates):
    """Draws test accuracy against updates: the mean of the seeds, and from the least to the most.

    Args:
        file: the PNG.
        lines: dict from a method to the directories of its runs.
        updates: updates of the student in each run.
    """
    figure, axis = pyplot.subplots(figsize=(6.4, 3.6), dpi=150, layout="constrained")
    for method, directories in lines.items():
        rows = [read_history(directory / "history.csv") for directory in directories]
        name = "val_mean_iou" if "val_mean_iou" in rows[0][0] else "val_accuracy"
        accuracy = np.array([[row[name] for row in history] for history in rows])
        at = updates * np.arange(1, accuracy.shape[1] + 1) / accuracy.shape[1]
        axis.plot(at, accuracy.mean(0), marker=".", label=method)
        axis.fill_between(at, accuracy.min(0), accuracy.max(0), alpha=0.15)
    axis.set(xlabel="updates of the student", ylabel="test accuracy")
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    figure.savefig(file)
    pyplot.close(figure)


def spread(values):
    """Mean and standard deviation as text."""
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{deviation}"


def main():
    """Makes the runs and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--domain", default="fashion_mnist", choices=list(DOMAINS))
    parser.add_argument("--updates", type=int, nargs="+", default=[2000, 6000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--ood_size", type=int, help="0 takes the whole pool")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    runs = ROOT / "runs" / arguments.domain
    runs.mkdir(parents=True, exist_ok=True)
    flagfile, added, ood_size = DOMAINS[arguments.domain]
    domain = [f"--flagfile={ROOT / 'configs' / f'{flagfile}.flags'}", *added]
    if arguments.ood_size is not None:
        ood_size = arguments.ood_size
    teacher = train_teacher(domain)
    cores: queue.Queue[int] = queue.Queue()
    for core in sorted(os.sched_getaffinity(0))[: arguments.jobs]:
        cores.put(core)

    def place(method, updates, seed):
        return runs / directory_name(method, updates, f"ood{ood_size}", f"seed{seed}")

    cells = [(updates, method) for updates in arguments.updates for method in arguments.methods]
    with ThreadPoolExecutor(cores.qsize()) as pool:
        pending = {
            (updates, method, seed): pool.submit(
                run,
                place(method, updates, seed),
                [
                    *domain,
                    f"--teacher={teacher}",
                    f"--student_updates={updates}",
                    f"--ood_size={ood_size}",
                    f"--seed={seed}",
                    *METHODS[method],
                ],
                cores,
            )
            for seed in arguments.seeds
            for updates, method in cells
        }
        results = {key: future.result() for key, future in pending.items()}
    rows = [
        "| student updates | method | accuracy | by seed | agreement | seconds | teacher |",
        "|---|---|---|---|---|---|---|",
    ]
    for updates, method in cells:
        metrics = [results[updates, method, seed] for seed in arguments.seeds]
        score = "mean_iou" if "student_mean_iou" in metrics[0] else "accuracy"
        names = (f"student_{score}", "student_agreement", "train_seconds", f"teacher_{score}")
        accuracies, agreements, seconds, teachers = (
            [run[name] for run in metrics] for name in names
        )
        rows.append(
            f"| {updates} | {method} | {spread(accuracies)} "
            f"| {', '.join(f'{accuracy:.3f}' for accuracy in accuracies)} "
            f"| {spread(agreements)} | {statistics.mean(seconds):.0f} | {spread(teachers)} |"
        )
    table = "\n".join(rows) + "\n"
    (runs / "table.md").write_text(table)
    sys.stdout.write(table)
    for updates in arguments.updates:
        lines = {
            method: [place(method, updates, seed) for seed in arguments.seeds]
            for method in arguments.methods
        }
        draw(runs / f"curves-{updates}.png", lines, updates)


if __name__ == "__main__":
    main()
