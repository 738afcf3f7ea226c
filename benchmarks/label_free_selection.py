"""How well agreement without labels predicts accuracy: rank correlation over the epochs of runs.

    PYTHONPATH=. python benchmarks/label_free_selection.py [--runs digits_mosaickd ...]

Every run is `bin/train --select=agreement` with a data set, whose test labels take part in the
check alone: each row of its history has the accuracy on the test images and, from images of
other classes that training never saw and from synthetic ones, the agreement with the teacher. Runs
go to runs/label_free_selection/; finished ones are not made again. The table (Spearman's rank
correlation with the accuracy, and the accuracy of the chosen epoch beside the last and the best
one) goes to standard output and to runs/label_free_selection/table.md.
"""

import argparse
import sys

from made_run import ROOT, made
from scipy.stats import spearmanr

from keras_mosaickd.callbacks.traces import read_history

RUNS = ROOT / "runs" / "label_free_selection"
_DIGITS = ["--student_updates=300", "--evaluations=15"]
_FASHION = ["--student_updates=600", "--evaluations=15"]
# Run -> flagfile in configs/ and what is added to it.
SETTINGS = {
    "digits_mosaickd": ("quickstart_mosaickd", _DIGITS),
    "digits_kd": ("quickstart_kd", _DIGITS),
    "fashion_mnist_mosaickd": ("fashion_mnist_mosaickd", _FASHION),
    "fashion_mnist_kd": ("fashion_mnist_kd", _FASHION),
}
# Heading -> column of history.csv.
SCORES = {
    "both": "label_free_agreement",
    "held out": "held_out_agreement",
    "synthetic": "synthetic_agreement",
}


def train(name):
    """Makes a run; returns the rows of its history."""
    config, settings = SETTINGS[name]
    run_dir = RUNS / name
    made(
        run_dir,
        f"--flagfile={ROOT / 'configs' / f'{config}.flags'}",
        "--select=agreement",
        f"--cache_dir={ROOT / '.cache'}",
        *settings,
    )
    return read_history(run_dir / "history.csv")


def row(name, history):
    """A line of the table."""
    accuracies = [epoch["val_accuracy"] for epoch in history]
    correlations = []
    for column in SCORES.values():
        values = [epoch[column] for epoch in history if column in epoch]
        # A constant column has no ranks to correlate; kd has no synthetic images.
        known = len(set(values)) > 1 and len(set(accuracies)) > 1
        correlations.append(f"{spearmanr(values, accuracies).statistic:+.2f}" if known else "-")
    chosen = max(history, key=lambda epoch: epoch["label_free_agreement"])["val_accuracy"]
    picked = [f"{value:.3f}" for value in (chosen, accuracies[-1], max(accuracies))]
    return f"| {' | '.join([name, str(len(history)), *correlations, *picked])} |"


def main():
    """Makes the runs and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    arguments = parser.parse_args()
    RUNS.mkdir(parents=True, exist_ok=True)
    lines = [
        f"| run | epochs | {' | '.join(SCORES)} | accuracy: chosen | last | best |",
        f"|{'---|' * (len(SCORES) + 5)}",
        *(row(name, train(name)) for name in arguments.runs),
    ]
    table = "\n".join(lines) + "\n"
    (RUNS / "table.md").write_text(table)
    sys.stdout.write(table)


if __name__ == "__main__":
    main()
