"""Reads a named data set into pictures and labels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_mosaickd.data.folder import FolderImages, list_folder, ranks
from keras_mosaickd.data.idx import find_idx, read_split
from keras_mosaickd.data.specs import DatasetRequest, DatasetSpec, parse
from keras_mosaickd.errors import InputError

SPLITS = ("train", "test", "all")
# Where Debian's package dataset-fashion-mnist puts the files.
_SYSTEM_FOLDERS = {"fashion_mnist": "/usr/share/datasets/fashion-mnist"}


@dataclass(frozen=True)
class Pictures:
    """One split of a data set.

    Attributes:
        images: uint8 [n, h, w, c]: a numpy array, or a `FolderImages` that decodes on demand.
        labels: int64 [n], or None where the pictures have none.
        class_names: Names in label order, or ().
        name: The data set in its canonical spelling, such as "digits[0-4]".
        split: "train", "test" or "all".
        flip: Whether a horizontal flip leaves the label true.
    """

    images: Any
    labels: np.ndarray | None
    class_names: tuple[str, ...]
    name: str
    split: str
    flip: bool

    def __len__(self) -> int:
        return len(self.images)

    def fingerprint(self) -> str:
        """SHA-256 of the content: of the bytes, or for a folder of paths, sizes and times."""
        if isinstance(self.images, FolderImages):
            return self.images.fingerprint()
        digest = hashlib.sha256(f"{self.images.shape} {self.images.dtype}".encode())
        for start in range(0, len(self.images), 4096):
            digest.update(np.ascontiguousarray(self.images[start : start + 4096]).data)
        return digest.hexdigest()


def load(
    text: str,
    split: str,
    image_size: int | None = None,
    channels: int | None = None,
    data_dir: str | Path | None = None,
    flag: str = "--dataset",
) -> Pictures:
    """Reads one split of a data set, or some classes of it.

    Args:
        text: The data set, as `specs.parse` reads it.
        split: "train", "test", or "all" (both; of pictures without labels, every one).
        image_size: Height and width in pixels, or None for the data set's training size.
        channels: 1 (grey), 3 (RGB), or None for the data set's own.
        data_dir: Folder of the data set's files, or of tensorflow-datasets.
        flag: The flag that named the data set, for messages.

    Returns:
        The pictures in a fixed order. Chosen classes are relabelled 0 .. n - 1 in the order given.

    Raises:
        InputError: where the data set, a class, the folder or a file cannot be used.
        RuntimeError: where a data set cannot be downloaded.
    """
    request = parse(text, flag)
    if split not in SPLITS:
        raise InputError(f"expected a split out of {', '.join(SPLITS)}. Received: {split!r}")
    spec = request.spec
    size = spec.image_size if image_size is None else image_size
    if int(size) != size or size < 1:
        raise InputError(f"--image_size: expected a whole number of at least 1. Received: {size!r}")
    depth = spec.channels if channels is None else channels
    if depth not in (1, 3):
        raise InputError(f"expected 1 or 3 channels. Received: {depth!r}")
    if request.path is not None:
        return _load_folder(request, split, int(size), depth)
    parts = [
        _read(spec, part, data_dir) for part in (("train", "test") if split == "all" else (split,))
    ]
    images = np.concatenate([part[0] for part in parts]) if len(parts) > 1 else parts[0][0]
    labels = np.concatenate([part[1] for part in parts])
    kept, labels, names = _chosen(request, labels, spec.class_names)
    if kept is not None:
        images = images[kept]
    images = resized(with_channels(images, depth), int(size))
    return Pictures(images, labels, names, request.canonical(), split, spec.flip)


def _load_folder(request: DatasetRequest, split: str, size: int, channels: int) -> Pictures:
    root = str(request.path)
    listing = list_folder(root, split, request.flag)
    images = FolderImages(root, listing.files, size, channels)
    name = request.canonical(listing.class_names)
    if listing.labels is None:
        return Pictures(images, None, (), name, split, request.spec.flip)
    kept, labels, names = _chosen(request, listing.labels, listing.class_names)
    if kept is not None:
        images = images.subset(kept)
    return Pictures(images, labels, names, name, split, request.spec.flip)


def _chosen(
    request: DatasetRequest, labels: np.ndarray, class_names: tuple[str, ...]
) -> tuple[np.ndarray | None, np.ndarray, tuple[str, ...]]:
    """Indices of the pictures in the chosen classes (None = all), new labels, names."""
    indices = request.class_indices(class_names)
    if indices is None:
        return None, labels, class_names
    relabelled = np.full(len(class_names), -1, np.int64)
    relabelled[list(indices)] = np.arange(len(indices))
    kept = np.flatnonzero(relabelled[labels] >= 0)
    if not len(kept):
        raise InputError(
            f"{request.flag}: expected classes with pictures. Received: {str(request)!r}"
        )
    return kept, relabelled[labels[kept]], tuple(class_names[index] for index in indices)


def _read(
    spec: DatasetSpec, split: str, data_dir: str | Path | None
) -> tuple[np.ndarray, np.ndarray]:
    """uint8 pictures [n, h, w, c] at their own size, and int64 labels [n]."""
    if spec.name == "digits":
        return _read_digits(split)
    if spec.name in _SYSTEM_FOLDERS:
        folder = _SYSTEM_FOLDERS[spec.name] if data_dir is None else data_dir
        files = find_idx(folder, split)
        if files is not None:
            return read_split(*files, classes=len(spec.class_names))
    from keras_mosaickd.data.from_tfds import read_tfds

    return read_tfds(spec, spec.train_split if split == "train" else spec.test_split, data_dir)


def _read_digits(split: str) -> tuple[np.ndarray, np.ndarray]:
    """The digits' fixed stratified split: ranks 0-6 of each ten of a class train, 7-9 test."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise InputError(
            "the data set digits is part of the package scikit-learn: expected it to be installed. "
            f"Received: {error}"
        ) from error
    digits = load_digits()
    labels = digits.target.astype(np.int64)
    images = np.round(digits.images[..., None] * (255 / 16)).astype(np.uint8)
    train = ranks(labels) % 10 < 7
    chosen = train if split == "train" else ~train
    return images[chosen], labels[chosen]


def with_channels(images: np.ndarray, channels: int) -> np.ndarray:
    """uint8 pictures as grey or RGB; grey is the luma of ITU-R BT.601, as in Pillow."""
    if images.shape[-1] == channels:
        return images
    if channels == 3:
        return np.repeat(images, 3, axis=-1)
    weights = np.array([19595, 38470, 7471], np.uint32)
    luma = np.empty((*images.shape[:-1], 1), np.uint8)
    for start in range(0, len(images), 4096):
        part = images[start : start + 4096].astype(np.uint32)
        luma[start : start + 4096, ..., 0] = (part @ weights + 0x8000) >> 16
    return luma


def resized(images: np.ndarray, size: int) -> np.ndarray:
    """uint8 pictures [n, h, w, c] resized to [n, size, size, c] (bilinear, antialiased)."""
    if images.shape[1:3] == (size, size):
        return images
    from PIL import Image

    result = np.empty((len(images), size, size, images.shape[-1]), np.uint8)
    for picture, target in zip(images, result, strict=True):
        grey = picture.shape[-1] == 1
        source = Image.fromarray(picture[..., 0] if grey else picture)
        smaller = np.asarray(source.resize((size, size), Image.Resampling.BILINEAR))
        target[...] = smaller[..., None] if grey else smaller
    return result


def evaluation_arrays(pictures: Pictures) -> tuple[np.ndarray, np.ndarray | None]:
    """Pictures as `evaluate` and `predict` take them.

    Args:
        pictures: One split of a data set.

    Returns:
        x, float32 [n, h, w, c] in [0, 1], and y, int64 [n] or None.
    """
    from keras_mosaickd.data.arrays import unit_range

    return unit_range(np.asarray(pictures.images[:])), pictures.labels
