r"""Your own teacher, your own folder of images, no label: students and how they are judged.

    pip install scikit-image scipy  # its bundled photographs; rank correlation
    PYTHONPATH=. python benchmarks/own_teacher.py [--architecture=EfficientNetB0] \
        [--methods kd mosaickd practical] [--student_updates 2000] [--seeds 0 1 2]

Teacher: benchmarks/make_teacher.py's, which knows nothing of this project. Images: 3000 cut-outs
of scikit-image's photographs (PHOTOGRAPHS), 32 to 160 pixels high and wide, as JPEG and PNG.
Student: wrn16_1. Every run is `bin/train` without --dataset, so that no label takes part in
anything; Fashion-MNIST's 10000 test images are read here, afterwards, as the check. Everything
goes to runs/own_teacher/; what is finished is not made again and an interrupted run is continued.
The table, and Spearman's rank correlation of the runs' label-free verdicts with their true
accuracies, go to standard output and to runs/own_teacher/ARCHITECTURE/table.md.
"""

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
from made_run import ROOT, directory_name, made
from make_teacher import ARCHITECTURES, DATA_DIR, read
from PIL import Image
from scipy.stats import spearmanr

RUNS = ROOT / "runs" / "own_teacher"
PHOTOGRAPHS = (
    "astronaut brick camera chelsea clock_motion coffee coins grass gravel hubble_deep_field moon "
    "motorcycle_left rocket"
).split()
IMAGES, SIDES = 3000, (32, 160)
# Batch 16: an update of the student sees 16 synthetic and 16 out-of-domain images, or 32 of kd.
# Temperature of kd: that of 1 and 5 with the higher agreement on held-out images at seed 0.
METHODS = {
    "kd": ["--method=kd", "--temperature=1"],
    "kd, temperature 5": ["--method=kd", "--temperature=5"],
    "mosaickd": ["--method=mosaickd"],
    "practical": ["--recipe=practical"],
    "practical, generator_multiple 1": ["--recipe=practical", "--generator_multiple=1"],
    "practical, synthetic only": ["--recipe=practical", "--synthetic_only"],
    "practical, no features": ["--recipe=practical", "--feature_weight=0"],
    "practical, own start": ["--recipe=practical", "--student_start=own"],
    "practical, no statistics": ["--recipe=practical", "--batch_norm_weight=0"],
}
DEFAULT = ("kd", "mosaickd", "practical")


def make_teacher(architecture):
    """Trains the teacher in a process of its own, unless it is there; returns its directory."""
    folder = RUNS / architecture
    if not (folder / "teacher.keras").is_file():
        script = Path(__file__).with_name("make_teacher.py")
        options = [f"--out={folder}", f"--architecture={architecture}"]
        subprocess.run([sys.executable, str(script), *options], check=True)
    return folder


def cut_images():
    """Cuts the photographs into a folder, unless it is there; returns the folder."""
    import skimage

    folder = RUNS / "pictures"
    if folder.is_dir():
        return folder
    data = Path(skimage.__file__).parent / "data"
    photos = [Image.open(next(data.glob(f"{name}.*"))) for name in PHOTOGRAPHS]
    photos = [photo.convert("L" if photo.mode.startswith("I") else "RGB") for photo in photos]
    unfinished = RUNS / "pictures-unfinished"
    unfinished.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    for index in range(IMAGES):
        photo = photos[index % len(photos)]
        width, height = (int(side) for side in generator.integers(SIDES[0], SIDES[1] + 1, 2))
        left, top = (
            int(generator.integers(0, length - side + 1))
            for length, side in zip(photo.size, (width, height), strict=True)
        )
        cut = photo.crop((left, top, left + width, top + height))
        cut.save(unfinished / f"{index:04d}.{'jpg' if index % 2 else 'png'}")
    unfinished.rename(folder)
    return folder


def train(method, updates, seed, images, folder):
    """Makes one run; returns its metrics and its student's file."""
    run_dir = folder / directory_name(method, updates, f"seed{seed}")
    metrics = made(
        run_dir,
        f"--teacher={folder / 'teacher.keras'}",
        "--teacher_input=0-255",
        f"--class_names={folder / 'class_names.txt'}",
        f"--ood=folder:{images}",
        "--student=wrn16_1",
        "--batch_size=16",
        f"--student_updates={updates}",
        "--select=agreement",
        f"--seed={seed}",
        f"--cache_dir={RUNS / 'cache'}",
        *METHODS[method],
    )
    return metrics, run_dir / "student.keras"


def test_accuracy(file, scale):
    """Accuracy of a model on Fashion-MNIST's test images: the only place that reads labels."""
    import keras

    images, labels = read(DATA_DIR, "t10k")
    model = keras.saving.load_model(file, compile=False)
    predicted = model.predict(images.astype("float32") * scale, batch_size=500, verbose=0)
    return float(np.mean(predicted.argmax(axis=-1) == labels))


def row(method, updates, seeds, metrics, accuracies):
    """A line of the table."""
    cells = [
        method,
        str(updates),
        ", ".join(map(str, seeds)),
        ", ".join(f"{value:.3f}" for value in accuracies),
        f"{statistics.mean(accuracies):.3f}",
        ", ".join(f"{run['held_out_agreement']:.3f}" for run in metrics),
        ", ".join(f"{m['synthetic_agreement']:.3f}" for m in metrics if is_game(m)) or "-",
        f"{statistics.mean(run['train_seconds'] for run in metrics):.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def is_game(metrics):
    """Whether a run had a generator, and so both of the agreements."""
    return "synthetic_agreement" in metrics


def verdict(metrics):
    """What the label-free verdict of a run of the game rests on: the lower of its agreements."""
    return min(metrics["held_out_agreement"], metrics["synthetic_agreement"])


def main():
    """Makes teacher, images and runs, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", default="MobileNetV2", choices=list(ARCHITECTURES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--student_updates", type=int, nargs="+", default=[2000])
    parser.add_argument("--methods", nargs="+", default=list(DEFAULT), choices=list(METHODS))
    arguments = parser.parse_args()
    folder = make_teacher(arguments.architecture)
    images = cut_images()
    teacher = test_accuracy(folder / "teacher.keras", 1.0)
    lines = [
        f"Teacher: {arguments.architecture}, test accuracy {teacher:.3f}. Photographs: "
        f"{', '.join(PHOTOGRAPHS)}.",
        "",
        "| method | updates | seeds | test accuracy | mean | agreement, held out | synthetic "
        "| seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    judged = []
    for updates in arguments.student_updates:
        for method in arguments.methods:
            runs = [train(method, updates, seed, images, folder) for seed in arguments.seeds]
            metrics = [found for found, _ in runs]
            accuracies = [test_accuracy(student, 1 / 255) for _, student in runs]
            lines.append(row(method, updates, arguments.seeds, metrics, accuracies))
            judged += [
                (verdict(m), accuracy)
                for m, accuracy in zip(metrics, accuracies, strict=True)
                if is_game(m)
            ]
    if len(judged) > 2:
        correlation = spearmanr(*zip(*judged, strict=True)).statistic
        lines += ["", f"Spearman over {len(judged)} runs of the game: {correlation:.2f}."]
    table = "\n".join(lines) + "\n"
    (folder / "table.md").write_text(table)
    sys.stdout.write(table)


if __name__ == "__main__":
    main()
