"""The README's image: out-of-domain images, synthetic images, and what they teach.

    bin/quickstart
    PYTHONPATH=. python benchmarks/readme_picture.py

Reads the quickstart's two runs (`--runs`) and writes `docs/pictures/digits.png` (`--out`): some
out-of-domain images, one row of synthetic images for each class that the teacher sees in
them, and the students' test accuracies from the runs' metrics.json.
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from keras_mosaickd import data
from keras_mosaickd.data import image_grid
from keras_mosaickd.evaluation import of_run as evaluation

_ROWS, _COLUMNS, _DRAWN = 5, 8, 512
_INK, _MUTED, _ACCENT, _PLAIN = "#1f2328", "#57606a", "#0969da", "#afb8c1"


@dataclasses.dataclass(frozen=True)
class Content:
    """What the image shows.

    Attributes:
        out_of_domain: uint8 or float images [_ROWS * _COLUMNS, h, w, c].
        synthetic: images likewise, one row per class.
        classes: the rows' class names.
        accuracies: (name, test accuracy) from the teacher down.
    """

    out_of_domain: np.ndarray
    synthetic: np.ndarray
    classes: list[str]
    accuracies: list[tuple[str, float]]


def content(runs: Path) -> Content:
    """Gathers the images and numbers of the runs `kd` and `mosaickd` in a directory."""
    kd, mosaickd = (
        json.loads((runs / method / "metrics.json").read_text()) for method in ("kd", "mosaickd")
    )
    game = evaluation.load_run(runs / "mosaickd")
    random = np.random.default_rng(0)
    synthetic = game.generator.predict(
        random.standard_normal((_DRAWN, game.latent_dim), "float32"), verbose=0
    )
    seen = game.teacher.predict(synthetic, verbose=0).argmax(axis=-1)
    rows = [synthetic[seen == number][:_COLUMNS] for number in range(_ROWS)]
    if any(len(row) < _COLUMNS for row in rows):
        raise SystemExit(f"expected {_COLUMNS} synthetic images of each class. Received: fewer")
    size = game.student.input_shape[1]
    pool = data.load(mosaickd["ood"], "train", image_size=size).images
    names = data.load(mosaickd["dataset"], "test", image_size=size).class_names
    return Content(
        np.asarray(pool[random.permutation(len(pool))[: _ROWS * _COLUMNS]]),
        np.concatenate(rows),
        [str(name) for name in names[:_ROWS]],
        [
            ("teacher", mosaickd["teacher_accuracy"]),
            ("kd", kd["student_accuracy"]),
            ("mosaickd", mosaickd["student_accuracy"]),
        ],
    )


def draw(shown: Content, path: Path) -> None:
    """Draws the three panels side by side and writes them as PNG."""
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(11, 3.0), width_ratios=(1.6, 1.6, 1.2), layout="constrained"
    )
    for axes, images, title in (
        (left, shown.out_of_domain, "What there is: other images"),
        (middle, shown.synthetic, "What the teacher is asked: synthetic ones"),
    ):
        sheet = image_grid.grid(images, columns=_COLUMNS)
        axes.imshow(sheet.squeeze(), cmap="gray", vmin=0, vmax=255)
        axes.set_title(title, color=_INK, fontsize=11)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    side = (sheet.shape[0] + 1) / _ROWS
    middle.set_yticks([side * (row + 0.5) for row in range(len(shown.classes))], shown.classes)
    middle.set_ylabel("the teacher sees a ...", color=_MUTED)
    middle.tick_params(length=0, labelcolor=_INK)

    names, values = zip(*shown.accuracies, strict=True)
    colours = [_ACCENT if name == "mosaickd" else _PLAIN for name in names]
    bars = right.barh(names, values, color=colours, height=0.6)
    right.bar_label(bars, [f"{value:.3f}" for value in values], padding=4, color=_INK)
    right.invert_yaxis()
    right.set_xlim(0, 1.2)
    right.set_box_aspect(0.78)
    right.set_xticks([])
    right.tick_params(length=0, labelcolor=_INK, labelsize=11)
    right.spines[:].set_visible(False)
    right.set_title("Test accuracy", color=_INK, fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100, facecolor="white", metadata={"Software": None})
    plt.close(figure)


def main() -> int:
    """Draws the image; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/quickstart"))
    parser.add_argument("--out", type=Path, default=Path("docs/pictures/digits.png"))
    arguments = parser.parse_args()
    draw(content(arguments.runs), arguments.out)
    print(arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
