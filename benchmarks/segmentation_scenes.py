"""Scenes for segmentation: garments on photographs, with exact labels, and other such scenes.

    pip install scikit-image  # its bundled photographs
    PYTHONPATH=. python benchmarks/segmentation_scenes.py --out=runs/scenes
    PYTHONPATH=. python benchmarks/compare_methods.py --domain scenes --updates 2000

Scenes of 48x48 pixels: one or two garments of Fashion-MNIST in a random colour on a cut-out of a
photograph, with exact labels (0: background). Domain: T-shirt, pullover, dress, coat, shirt on five
photographs; out-of-domain: trouser, sandal, sneaker, bag, ankle boot on seven others. Test scenes
are made of Fashion-MNIST's test images. configs/scenes.flags reads them from runs/scenes.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from keras_mosaickd.data import load

SIZE = 48
DOMAIN = ("fashion_mnist[0,2,3,4,6]", ("brick", "grass", "gravel", "coffee", "astronaut"))
OTHERS = (
    "fashion_mnist[1,5,7,8,9]",
    ("chelsea", "rocket", "camera", "coins", "moon", "motorcycle_left", "hubble_deep_field"),
)


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


def main():
    """Writes the scenes, unless they are there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/scenes"))
    out = parser.parse_args().out
    domain, others = out / "domain", out / "out_of_domain"
    if (domain / "classes.txt").is_file():
        return
    source, names = DOMAIN
    photos = photographs(names)
    write(domain, source, photos, "train", 4000, 0, with_labels=True)
    classes = write(domain, source, photos, "test", 600, 1, with_labels=True)
    source, names = OTHERS
    write(others, source, photographs(names), "train", 4000, 2, with_labels=False)
    (domain / "classes.txt").write_text("\n".join(["background", *classes]) + "\n")


if __name__ == "__main__":
    main()
