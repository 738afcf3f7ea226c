"""Segmentation on real images: garments on photographs, distilled from out-of-domain images.

    pip install scikit-image  # its bundled photographs
    PYTHONPATH=. python benchmarks/segmentation_scenes.py [--updates 2000] [--seeds 0 1]

Scenes of 48x48 pixels: one or two garments of Fashion-MNIST in a random colour on a cut-out of a
photograph, with exact labels (0: background). Domain: T-shirt, pullover, dress, coat, shirt on five
photographs; out-of-domain: trouser, sandal, sneaker, bag, ankle boot on seven others. Test scenes
are made of Fashion-MNIST's test images. Scenes and runs go to runs/scenes/; finished runs are not
made again. The table goes to standard output and to runs/scenes/table.md.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from made_run import ROOT, directory_name, made
from PIL import Image

from keras_mosaickd.data import load

RUNS = ROOT / "runs" / "scenes"
SIZE = 48
DOMAIN = ("fashion_mnist[0,2,3,4,6]", ("brick", "grass", "gravel", "coffee", "astronaut"))
OTHERS = (
    "fashion_mnist[1,5,7,8,9]",
    ("chelsea", "rocket", "camera", "coins", "moon", "motorcycle_left", "hubble_deep_field"),
)
METHODS = {
    "kd, temperature 1": ["--method=kd"],
    "kd, temperature 5": ["--method=kd", "--temperature=5"],
    "mosaickd": ["--method=mosaickd"],
    "mosaickd, local weight 0.01": ["--method=mosaickd", "--local_weight=0.01"],
    "mosaickd, practical": ["--recipe=practical"],
}


def photographs(names):
    """The bundled photographs as RGB images."""
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    return [Image.open(next(folder.glob(f"{name}.*"))).convert("RGB") for name in names]


def scene(generator, garments, labels, photos):
    """One scene and its labels: uint8 [SIZE, SIZE, 3] and [SIZE, SIZE]."""
    photo = photos[generator.integers(len(photos))]
    side = int(generator.integers(SIZE, min(4 * SIZE, *photo.size) + 1))
    left, top = (int(generator.integers(0, length - side + 1)) for length in photo.size)
    cut = photo.crop((left, top, left + side, top + side)).resize((SIZE, SIZE))
    image, label = np.array(cut), np.zeros((SIZE, SIZE), np.uint8)
    for _ in range(generator.integers(1, 3)):
        index = generator.integers(len(garments))
        garment = garments[index]
        row, column = generator.integers(0, SIZE - garment.shape[0] + 1, 2)
        place = np.s_[row : row + garment.shape[0], column : column + garment.shape[1]]
        mask = garment[..., 0] > 20
        colour = generator.uniform(0.4, 1.0, 3)
        image[place][mask] = (garment * colour).astype(np.uint8)[mask]
        label[place][mask] = 1 + labels[index]
    return image, label


def write(folder, source, photos, split, count, seed, with_labels):
    """Writes scenes as PNG files, in the layout of `segmentation:PATH` or as plain images."""
    image_set = load(source, split)
    generator = np.random.default_rng(seed)
    images = folder / split / "images" if with_labels else folder
    label_folder = folder / split / "labels"
    images.mkdir(parents=True)
    if with_labels:
        label_folder.mkdir(parents=True)
    for number in range(count):
        image, label = scene(generator, image_set.images, image_set.labels, photos)
        Image.fromarray(image).save(images / f"{number:05d}.png")
        if with_labels:
            Image.fromarray(label).save(label_folder / f"{number:05d}.png")
    return image_set.class_names


def make_scenes():
    """Writes the scenes, unless they are there."""
    domain, others = RUNS / "domain", RUNS / "out_of_domain"
    if (domain / "classes.txt").is_file():
        return
    source, names = DOMAIN
    photos = photographs(names)
    write(domain, source, photos, "train", 4000, 0, with_labels=True)
    classes = write(domain, source, photos, "test", 600, 1, with_labels=True)
    source, names = OTHERS
    write(others, source, photographs(names), "train", 4000, 2, with_labels=False)
    (domain / "classes.txt").write_text("\n".join(["background", *classes]) + "\n")


def run(method, seed, updates):
    """Makes one run; returns its metrics."""
    return made(
        RUNS / directory_name(method, updates, f"seed{seed}"),
        f"--flagfile={ROOT / 'configs' / 'scenes.flags'}",
        f"--dataset=segmentation:{RUNS / 'domain'}",
        f"--ood=folder:{RUNS / 'out_of_domain'}",
        f"--student_updates={updates}",
        f"--seed={seed}",
        f"--cache_dir={ROOT / '.cache'}",
        *METHODS[method],
    )


def main():
    """Makes scenes and runs, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    arguments = parser.parse_args()
    make_scenes()
    rows = [
        "| method | seed | mIoU | pixel accuracy | agreement | teacher's mIoU | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for method in arguments.methods:
        for seed in arguments.seeds:
            metrics = run(method, seed, arguments.updates)
            cells = (
                f"{metrics[name]:.3f}"
                for name in (
                    "student_mean_iou",
                    "student_accuracy",
                    "student_agreement",
                    "teacher_mean_iou",
                )
            )
            rows.append(
                f"| {method} | {seed} | {' | '.join(cells)} | {metrics['train_seconds']:.0f} |"
            )
    table = "\n".join(rows) + "\n"
    (RUNS / "table.md").write_text(table)
    sys.stdout.write(table)


if __name__ == "__main__":
    main()
