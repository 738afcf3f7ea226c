"""Images with a label map each, in folders: data sets for segmentation."""

from __future__ import annotations

import os
from collections.abc import Set
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from keras_mosaickd.data.image_set import ImageSet
from keras_mosaickd.data.pixels import VOID
from keras_mosaickd.data.sources.decoding import (
    UnreadableError,
    all_unreadable,
    decode,
    left_out_line,
    suffixes,
)
from keras_mosaickd.data.sources.folder import TEST
from keras_mosaickd.data.sources.request import DatasetRequest
from keras_mosaickd.data.sources.resizing import THREADS
from keras_mosaickd.errors import InputError
from keras_mosaickd.files import read_text

_CLASSES_FILE = "classes.txt"
# EXIF's tag of orientation; from 5 on, height and width are exchanged when it is applied.
_ORIENTATION, _TRANSPOSED = 0x0112, 5
# Pillow's names of grey pixels of two and of four bits -> what it multiplies them by.
_BRIGHTER = {"L;2": 85, "L;4": 17}


def read_label_maps(
    request: DatasetRequest,
    split: str,
    image_size: int,
    channels: int,
    data_dir: str | Path | None,
    skip_unreadable: bool = False,
) -> ImageSet:
    """Reads images and label maps of `nyuv2` or `segmentation:PATH`.

    For each split the folder holds `SPLIT/images` and `SPLIT/labels` with a PNG of the same stem
    and size for every image; a pixel of it is a class 0 .. n - 1, or 255 for void (no class).
    `nyuv2` is in `data_dir`/nyuv2 or in `data_dir` itself, with 13 classes 0 .. 12;
    `segmentation:PATH` names its classes in `classes.txt`, one on each line. Both are cropped to
    the centre square and resized: images bilinear, labels to the nearest pixel.

    Args:
        request: The data set.
        split: "train", "test" or "all".
        image_size: Height and width in pixels.
        channels: 1 (grey) or 3 (RGB).
        data_dir: Folder of data sets.
        skip_unreadable: Whether pairs of which a file cannot be read are left out, which is said.

    Returns:
        The images, with `unreadable` the paths of images and label maps that were left out.

    Raises:
        InputError: where files are missing or do not fit, saying how to lay them out.
    """
    root = _root(request, data_dir)
    names = request.spec.class_names or _read_class_names(request, root)
    splits = ("train", "test") if split == "all" else (split,)
    pairs = [pair for name in splits for pair in _pairs(request, root, name)]
    images = np.empty((len(pairs), image_size, image_size, channels), np.uint8)
    labels = np.empty(images.shape[:3], np.uint8)

    left_out: dict[int, str] = {}

    def read(position: int) -> None:
        image, label = pairs[position]
        try:
            images[position] = decode(image, image_size, channels)
            labels[position] = _read_labels(request, image, label, len(names), image_size)
        except UnreadableError as error:
            if not skip_unreadable:
                raise
            left_out[position] = error.path

    try:
        with ThreadPoolExecutor(THREADS) as pool:
            for _ in pool.map(read, range(len(pairs))):
                pass
    except UnreadableError as first:
        files = [os.path.relpath(image, root) for image, _ in pairs]
        raise all_unreadable(first, root, files, image_size, channels) from first
    name, paths = request.canonical(), tuple(left_out[place] for place in sorted(left_out))
    if left_out:
        if len(left_out) == len(pairs):
            raise UnreadableError(left_out[0], "and so are all the others")
        print(left_out_line(paths, len(pairs), name), flush=True)
        images, labels = (np.delete(array, sorted(left_out), axis=0) for array in (images, labels))
    return ImageSet(images, labels, names, name, split, request.spec.flip, paths)


def _root(request: DatasetRequest, data_dir: str | Path | None) -> str:
    if request.path is not None:
        if not os.path.isdir(request.path):
            raise _wrong_layout(request, request.path, "no such folder")
        return request.path
    if data_dir is None:
        raise _wrong_layout(request, "DIR", "no --data_dir=DIR")
    folder = Path(data_dir).expanduser()
    for candidate in (folder / request.name, folder):
        if (candidate / "train").is_dir():
            return str(candidate)
    raise _wrong_layout(
        request, str(folder), f"no folder train in {folder / request.name} or {folder}"
    )


def _wrong_layout(request: DatasetRequest, root: str, received: str) -> InputError:
    spec = request.spec
    where = root if request.path is not None else f"{root}/{request.name} or {root}"
    fetched = f"{spec.name} has to be fetched by hand: {spec.by_hand}. " if spec.by_hand else ""
    classes = "" if spec.class_names else f", and {_CLASSES_FILE} with one class name on each line"
    last = len(spec.class_names) - 1 if spec.class_names else "n - 1"
    return InputError(
        f"{request.flag}: {fetched}expected in {where} the folders train/images, train/labels, "
        "test/images and test/labels, for every image in images (*.png, *.jpg ...) a one-channel "
        f"*.png of the same name and size in labels with values 0 to {last}, or {VOID} for "
        f"void{classes}. Received: {received}"
    )


def _read_class_names(request: DatasetRequest, root: str) -> tuple[str, ...]:
    try:
        text = read_text(Path(root, _CLASSES_FILE))
    except (OSError, UnicodeDecodeError) as error:
        raise _wrong_layout(request, root, f"{_CLASSES_FILE}: {error}") from error
    names = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not 1 <= len(names) <= VOID or len(set(names)) < len(names):
        raise InputError(
            f"{request.flag}: expected 1 to {VOID} different class names in "
            f"{os.path.join(root, _CLASSES_FILE)}. Received: {len(names)}, {len(set(names))} of "
            "them different"
        )
    return names


def _pairs(request: DatasetRequest, root: str, split: str) -> list[tuple[str, str]]:
    """Paths of images and their label maps, in the order of their names."""
    if split == "test":
        there = [name for name in TEST if os.path.isdir(os.path.join(root, name))]
        split = (there or [split])[0]
    images = _stems(request, root, os.path.join(split, "images"), suffixes())
    labels = _stems(request, root, os.path.join(split, "labels"), {".png"})
    odd = sorted(set(images) ^ set(labels))
    if odd:
        lacking = "labels" if odd[0] in images else "images"
        raise _wrong_layout(request, root, f"{split}/{lacking} without {odd[0]!r}")
    expected = request.spec.size(split)
    if expected is not None and len(images) != expected:
        raise InputError(
            f"{request.flag}: expected {expected} images in {os.path.join(root, split)} "
            f"({request.name}). Received: {len(images)}"
        )
    if not images:
        raise _wrong_layout(request, root, f"no images in {split}/images")
    return [(images[stem], labels[stem]) for stem in sorted(images)]


def _stems(request: DatasetRequest, root: str, folder: str, endings: Set[str]) -> dict[str, str]:
    path = os.path.join(root, folder)
    try:
        names = os.listdir(path)
    except OSError as error:
        raise _wrong_layout(request, root, f"{folder}: {error.strerror}") from error
    found: dict[str, str] = {}
    for name in sorted(names):
        stem, suffix = os.path.splitext(name)
        if name.startswith(".") or suffix.lower() not in endings:
            continue
        if stem in found:
            raise _wrong_layout(request, root, f"two files {stem!r} in {folder}")
        found[stem] = os.path.join(path, name)
    return found


def _read_labels(
    request: DatasetRequest, image: str, label: str, classes: int, image_size: int
) -> np.ndarray:
    """One label map, checked against its image and resized: uint8 [image_size, image_size]."""
    from PIL import Image, ImageOps

    try:
        with Image.open(image) as file:
            size = file.size
            if file.getexif().get(_ORIENTATION, 1) >= _TRANSPOSED:
                size = size[::-1]
        with Image.open(label) as file:
            # Grey of fewer bits is made brighter by Pillow: 3 of two bits becomes 255.
            factor = _BRIGHTER.get(str(file.tile[0][3]) if file.tile else "", 1)
            mode, values = file.mode, np.asarray(file)
            values = values // factor if factor > 1 else values
    except Exception as error:  # Pillow's readers let many kinds of exception through.
        raise UnreadableError(label, f"{type(error).__name__}: {error}") from error
    if values.ndim != 2 or mode == "1":
        raise InputError(
            f"{request.flag}: expected a label map of one channel with 8 bits or more. Received: "
            f"{label!r} of mode {mode}"
        )
    if values.shape[::-1] != size:
        raise InputError(
            f"{request.flag}: expected {label!r} of its image's width and height {size}. "
            f"Received: {values.shape[::-1]}"
        )
    wrong = values[(values < 0) | ((values >= classes) & (values != VOID))]
    if len(wrong):
        by_hand = f" ({request.name} is fetched as: {request.spec.by_hand})"
        raise InputError(
            f"{request.flag}: expected labels 0 to {classes - 1}, or {VOID} for void, in "
            f"{label!r}{by_hand if request.spec.by_hand else ''}. Received: {int(wrong[0])}"
        )
    upright = Image.fromarray(values.astype(np.uint8))
    return np.asarray(ImageOps.fit(upright, (image_size, image_size), Image.Resampling.NEAREST))
