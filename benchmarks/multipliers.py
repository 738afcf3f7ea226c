r"""Lambda and what it holds below epsilon, update by update, with --regularization=adaptive.

    PYTHONPATH=. python benchmarks/multipliers.py --out lambda.png \
        "--flagfile=configs/fashion_mnist_mosaickd.flags" \
        "--flagfile=configs/fashion_mnist_mosaickd.flags --regularization_weight=0.01" \
        "--flagfile=configs/fashion_mnist_mosaickd.flags --regularization_weight=30"

Each argument is one run, of `bin/train`'s flags, with --regularization=adaptive added. A line is
printed for each, with its agreement with the teacher on the domain's training images, and the last
values. --json keeps what was drawn, and is drawn again without a training where it is given alone.
"""

import argparse
import json
import time
from pathlib import Path

import keras
import training_agreement

from keras_mosaickd.cli import flags
from keras_mosaickd.config import ExperimentConfig


class Trace(keras.callbacks.Callback):
    """Keeps the multipliers, and the smoothed r that moves them, after every update of G."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def on_train_batch_end(self, batch, logs=None):
        """Reads the state."""
        multipliers = self.model.multipliers
        row = {key: float(value) for key, value in multipliers.logs().items()}
        smoothed = keras.ops.convert_to_numpy(multipliers.smoothed)
        for (name, epsilon), violation in zip(multipliers.epsilons.items(), smoothed, strict=True):
            row |= {f"r_{name}": float(violation) + epsilon, f"epsilon_{name}": epsilon}
        self.rows.append(row)


def trained(text):
    """One run: what it was told, its rows, and how it ended."""
    given = [*text.split(), "--regularization=adaptive"]
    config = ExperimentConfig(**flags.parse("train", given).settings())
    trace, start = Trace(), time.perf_counter()
    agreement, divergence = training_agreement.measure(config, callbacks=[trace])
    last = ", ".join(f"{name} {value:.3g}" for name, value in trace.rows[-1].items())
    print(
        f"{text}: agreement {agreement:.4f}, KL {divergence:.4f} nats, {last}, "
        f"{time.perf_counter() - start:.0f} s",
        flush=True,
    )
    label = f"start {config.regularization_weight:g}: agreement {agreement:.3f}"
    return {"label": label, "flags": text, "rows": trace.rows}


def draw(runs, path):
    """The multipliers above, r and epsilon below, a column for each constraint."""
    from matplotlib.figure import Figure

    names = [name.removeprefix("lambda_") for name in runs[0]["rows"][0] if "lambda" in name]
    figure = Figure(figsize=(4.6 * len(names), 5.4), dpi=110, layout="constrained")
    axes = figure.subplots(2, len(names), sharex=True, squeeze=False)
    for column, name in zip(axes.T, names, strict=True):
        for run in runs:
            for axis, key in zip(column, (f"lambda_{name}", f"r_{name}"), strict=True):
                axis.plot([row[key] for row in run["rows"]], lw=1.2, label=run["label"])
        epsilons = {run["rows"][0][f"epsilon_{name}"] for run in runs}
        for epsilon in sorted(epsilons):
            label = f"epsilon_{name} {epsilon:g}"
            column[1].axhline(epsilon, color="black", ls=":", lw=1, label=label)
        column[0].set(yscale="log", ylabel=f"lambda_{name}")
        column[1].set(xlabel="update of the generator", ylabel=f"r_{name}", ylim=(0, 1))
        column[0].legend(fontsize=7)
        column[1].legend(fontsize=7, handles=column[1].get_lines()[-len(epsilons) :])
    figure.savefig(path)


def main():
    """Trains, prints and draws."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("settings", nargs="*", help="flags of bin/train, in quotes")
    parser.add_argument("--out", help="PNG file")
    parser.add_argument("--json", type=Path, help="file of what is drawn")
    arguments = parser.parse_args()
    if arguments.settings:
        runs = [trained(text) for text in arguments.settings]
        if arguments.json:
            arguments.json.write_text(json.dumps(runs))
    else:
        runs = json.loads(arguments.json.read_text())
    if arguments.out:
        draw(runs, arguments.out)


if __name__ == "__main__":
    main()
