"""Reads a named data set into images and labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from keras_mosaickd.data.image_set import ImageSet, subset
from keras_mosaickd.data.sources.folder import FolderImages, list_folder, ranks
from keras_mosaickd.data.sources.idx import find_idx, read_split
from keras_mosaickd.data.sources.request import DatasetRequest, DatasetSpec, parse
from keras_mosaickd.data.sources.resizing import resized, with_channels
from keras_mosaickd.data.streams.plan import positive
from keras_mosaickd.errors import InputError
from keras_mosaickd.extras import require

SPLITS = ("train", "test", "all")
# Larger sets of tensorflow-datasets are read from their files whenever they are used.
IN_MEMORY_BYTES = 10**9
# Where Debian's package dataset-fashion-mnist puts the files.
_SYSTEM_FOLDERS = {"fashion_mnist": "/usr/share/datasets/fashion-mnist"}


def load(
    text: str,
    split: str,
    image_size: int | None = None,
    channels: int | None = None,
    data_dir: str | Path | None = None,
    flag: str = "--dataset",
    with_labels: bool = True,
    skip_unreadable: bool = False,
) -> ImageSet:
    """Reads one split of a data set, or some classes of it.

    What tensorflow-datasets provides stays in its files where it would take more than
    `IN_MEMORY_BYTES`: `images` is then a `ForwardImages`, which `select` and `stored` read forward.

    Args:
        text: The data set, as `specs.parse` reads it.
        split: "train", "test", or "all" (both; of images without labels, every one).
        image_size: Height and width in pixels, or None for the data set's training size.
        channels: 1 (grey), 3 (RGB), or None for the data set's own.
        data_dir: Folder of the data set's files, or of tensorflow-datasets.
        flag: The flag that named the data set, for messages.
        with_labels: Whether labels are wanted (an out-of-domain pool needs none): then images
            beside a folder's classes are left out, and labels are read where that takes a pass
            over the files of a large set.
        skip_unreadable: Whether images with a label map that cannot be read are left out, instead
            of refused; other folders are decoded later (`stored`, `without_unreadable`).

    Returns:
        The images in a fixed order. Chosen classes are relabelled 0 .. n - 1 in the order given.

    Raises:
        InputError: where the data set, a class, the folder or a file cannot be used.
        RuntimeError: where a data set cannot be downloaded.
    """
    request = parse(text, flag)
    if split not in SPLITS:
        raise InputError(f"expected a split out of {', '.join(SPLITS)}. Received: {split!r}")
    spec = request.spec
    size = positive(spec.image_size if image_size is None else image_size, "--image_size")
    depth = spec.channels if channels is None else channels
    if depth not in (1, 3):
        raise InputError(f"expected 1 or 3 channels. Received: {depth!r}")
    if spec.task == "segmentation":
        from keras_mosaickd.data.sources.segmentation import read_label_maps

        return read_label_maps(request, split, size, depth, data_dir, skip_unreadable)
    if request.path is not None:
        return _load_folder(request, split, size, depth, with_labels)
    parts = [_read(spec, part, data_dir) for part in _parts(split)]
    found = [part for part in parts if part is not None]
    if len(found) < len(parts):
        return _load_tfds(request, split, size, depth, data_dir, with_labels)
    images, labels = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    images, labels, names = _chosen(request, images, labels, spec.class_names)
    images = resized(with_channels(images, depth), size)
    return ImageSet(images, labels, names, request.canonical(), split, spec.flip)


def _parts(split: str) -> tuple[str, ...]:
    return ("train", "test") if split == "all" else (split,)


def _load_tfds(
    request: DatasetRequest,
    split: str,
    size: int,
    channels: int,
    data_dir: str | Path | None,
    with_labels: bool,
) -> ImageSet:
    from keras_mosaickd.data.sources.tfds import open_tfds

    spec = request.spec
    splits = [spec.train_split if part == "train" else spec.test_split for part in _parts(split)]
    source = open_tfds(spec, splits, size, channels, data_dir)
    images, labels, names = source.images, None, source.class_names
    if request.classes is not None or with_labels or images.nbytes <= IN_MEMORY_BYTES:
        images, labels, names = _chosen(request, images, source.labels(), names)
    return ImageSet(
        images[:] if images.nbytes <= IN_MEMORY_BYTES else images,
        labels,
        names,
        request.canonical(),
        split,
        spec.flip,
    )


def _load_folder(
    request: DatasetRequest, split: str, size: int, channels: int, with_labels: bool
) -> ImageSet:
    root = str(request.path)
    listing = list_folder(root, split, request.flag, with_labels or request.classes is not None)
    images = FolderImages(root, listing.files, size, channels)
    name = request.canonical(listing.class_names)
    if listing.labels is None:
        return ImageSet(images, None, (), name, split, request.spec.flip)
    images, labels, names = _chosen(request, images, listing.labels, listing.class_names)
    return ImageSet(images, labels, names, name, split, request.spec.flip)


def _chosen(
    request: DatasetRequest, images: Any, labels: np.ndarray, class_names: tuple[str, ...]
) -> tuple[Any, np.ndarray, tuple[str, ...]]:
    """The images in the chosen classes, their new labels, and the names of those classes."""
    indices = request.class_indices(class_names)
    if indices is None:
        return images, labels, class_names
    relabelled = np.full(len(class_names), -1, np.int64)
    relabelled[list(indices)] = np.arange(len(indices))
    kept = np.flatnonzero(relabelled[labels] >= 0)
    if not len(kept):
        raise InputError(
            f"{request.flag}: expected classes with images. Received: {str(request)!r}"
        )
    names = tuple(class_names[index] for index in indices)
    return subset(images, kept), relabelled[labels[kept]], names


def _read(
    spec: DatasetSpec, split: str, data_dir: str | Path | None
) -> tuple[np.ndarray, np.ndarray] | None:
    """uint8 images [n, h, w, c] at their own size and int64 labels; None where tfds has them."""
    if spec.name == "digits":
        return _read_digits(split)
    if spec.name in _SYSTEM_FOLDERS:
        folder = _SYSTEM_FOLDERS[spec.name] if data_dir is None else data_dir
        files = find_idx(folder, split)
        if files is not None:
            return read_split(*files, classes=len(spec.class_names))
    return None


def _read_digits(split: str) -> tuple[np.ndarray, np.ndarray]:
    """The digits' fixed stratified split: ranks 0-6 of each ten of a class train, 7-9 test."""
    require("the data set digits", "sklearn")
    from sklearn.datasets import load_digits

    digits = load_digits()
    labels = digits.target.astype(np.int64)
    images = np.round(digits.images[..., None] * (255 / 16)).astype(np.uint8)
    train = ranks(labels) % 10 < 7
    chosen = train if split == "train" else ~train
    return images[chosen], labels[chosen]
