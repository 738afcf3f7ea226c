"""A transfer set: a run's synthetic images as files, with the teacher's soft labels.

Whoever has it can train a student of their own without the teacher and without this project.
"""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mosaickd.data import image_grid
from keras_mosaickd.data.cache import write_header
from keras_mosaickd.data.sources.folder import CLASSES, folder_names
from keras_mosaickd.errors import InputError
from keras_mosaickd.evaluation.of_run import class_names_in, load_game
from keras_mosaickd.files import replacing
from keras_mosaickd.run_directory import METRICS, RunDirectory
from keras_mosaickd.teachers.features import Features, generate

SOFT_LABELS = "soft_labels.npz"
_IMAGES, _LABELS = "train/images", "train/labels"

# Images at a time: what memory holds, whatever the size of the set.
_BATCH = 128


def write(
    run_dir: str | os.PathLike[str],
    count: int,
    out: str | os.PathLike[str],
    seed: int = 0,
    teacher: str = "",
    unsafe: bool = False,
) -> Path:
    """Draws synthetic images from a run's last checkpoint and writes them as a data set.

    Of a classifier each image is a PNG file in a folder of the class that the teacher sees, so
    that ``folder:OUT`` is the set with labels. The folders are called by the class names, as far as
    a file system takes them; where the alphabet would put them in another order than the teacher's,
    the class's number goes before. ``classes.txt`` has the names themselves, also of classes that
    the teacher never sees, and ``folder:OUT`` goes by it. Of predictions per pixel there are
    ``train/images``, ``train/labels`` (label maps) and ``classes.txt``: the training part of
    ``segmentation:OUT``. Of independent labels all are in ``train/images``.

    ``soft_labels.npz`` holds, in the order in which they were drawn, ``files`` (paths in the set),
    ``probabilities`` (float32 [n, classes] or [n, h, w, classes], what the teacher says of the
    images as they stand in the files, their 8 bits included), ``class_names`` in the
    probabilities' order, and ``temperature``, 1.

    Args:
        run_dir: Directory of a run with a generator.
        count: Number of images, at least 1; a smaller set is the beginning of a larger one.
        out: Directory to make, new or empty. It appears whole or not at all.
        seed: Seed of the latent vectors.
        teacher: As of `keras_mosaickd.evaluation.of_run.load_run`.
        unsafe: Likewise.

    Returns:
        The directory's path.

    Raises:
        InputError: If the run has no generator, or the directory is not empty or cannot be made.
    """
    target = Path(out)
    _check(target)
    trainer = load_game(run_dir, teacher, unsafe)
    names = _class_names(run_dir, trainer.head.classes)
    with replacing(target) as directory:
        _fill(directory, trainer, names, count, seed)
        # All at once: file by file, a million of them would take hours.
        os.sync()
    return target


def _check(target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise InputError(f"--out: expected a directory or a .png file. Received: {target}")
    if target.is_dir() and any(target.iterdir()):
        raise InputError(f"--out: expected a new or empty directory. Received: {target}")
    above = next(path for path in target.absolute().parents if path.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise InputError(f"--out: expected a directory that can be made. Received: {target}")


def _class_names(run_dir: str | os.PathLike[str], classes: int) -> list[str]:
    """Those of the run; numbers where it is not finished and has not said any."""
    run = RunDirectory(run_dir)
    metrics = run.read_json(METRICS) if run.is_finished else {}
    return list(class_names_in(metrics, classes) or map(str, range(classes)))


def _fill(directory: Path, trainer: Any, names: list[str], count: int, seed: int) -> None:
    per_pixel = len(trainer.teacher.output_shape) == 4
    has_maps = per_pixel and trainer.head.kind == "classes"
    folders = [_IMAGES] if per_pixel or trainer.head.kind == "labels" else folder_names(names)
    for folder in [*folders, _LABELS] if has_maps else folders:
        (directory / folder).mkdir(parents=True)
    if has_maps or len(folders) > 1:
        (directory / CLASSES).write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    width = len(str(count - 1))
    # Of which folder each image is: with a million of them, 4 MB.
    places = np.zeros(count, np.int32)
    with zipfile.ZipFile(directory / SOFT_LABELS, "w") as archive:
        shape = (count, *trainer.teacher.output_shape[1:-1], trainer.head.classes)
        with _array(archive, "probabilities", shape, np.float32) as entry:
            for start, images, probabilities, predicted in _drawn(trainer, count, seed):
                entry.write(probabilities.tobytes())
                if len(folders) > 1:
                    places[start : start + len(images)] = predicted
                for index, (image, label) in enumerate(zip(images, predicted, strict=True), start):
                    name = f"{index:0{width}}.png"
                    _write_png(directory / folders[places[index]] / name, image)
                    if has_maps:
                        _write_png(directory / _LABELS / name, label[..., None].astype(np.uint8))
        kind = np.dtype(f"<U{max(map(len, folders)) + len('/.png') + width}")
        with _array(archive, "files", (count,), kind) as entry:
            for start in range(0, count, _BATCH):
                part = enumerate(places[start : start + _BATCH], start)
                files = [f"{folders[place]}/{index:0{width}}.png" for index, place in part]
                entry.write(np.array(files, kind).tobytes())
        for key, value in (("class_names", np.array(names)), ("temperature", np.float32(1))):
            with _array(archive, key, value.shape, value.dtype) as entry:
                entry.write(value.tobytes())


def _write_png(path: Path, image: np.ndarray) -> None:
    path.write_bytes(image_grid.encode_png(image))


def _drawn(trainer: Any, count: int, seed: int) -> Iterator[tuple[Any, ...]]:
    """Parts of the set: first index, uint8 images, their float32 probabilities and predictions."""
    random = np.random.default_rng(seed)
    features = Features(trainer.teacher)
    for start in range(0, count, _BATCH):
        # Whole batches, of which the last is cut: its images do not depend on `count`.
        latents = random.standard_normal((_BATCH, trainer.latent_dim), "float32")
        images = generate(trainer.generator, latents)
        images = image_grid.as_bytes(images)[: count - start]
        _, logits = features.see(images)
        seen = trainer.head.probabilities(logits), trainer.head.predictions(logits)
        yield start, images, *map(keras.ops.convert_to_numpy, seen)


@contextlib.contextmanager
def _array(
    archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: Any
) -> Iterator[Any]:
    """An array of a .npz file, to be written part by part: `numpy.savez` would need it whole."""
    # A ZipInfo of its own has no time in it: equal sets are equal files.
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as entry:
        write_header(entry, shape, dtype)
        yield entry
