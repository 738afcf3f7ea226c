"""Images in a folder: found, split, decoded when asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_mosaickd.data.sources.decoding import UnreadableError, all_unreadable, decode
from keras_mosaickd.data.sources.resizing import THREADS
from keras_mosaickd.errors import InputError
from keras_mosaickd.files import sha256

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")


class FolderImages:
    """Images of any size as an array of squares, each decoded when it is indexed.

    Has `shape`, `dtype` and `len()`; an index that is a slice or an array of integers gives uint8
    [m, image_size, image_size, channels]. Each image is turned upright (EXIF), converted to
    grey or RGB, cropped to its centre square and resized with antialiasing.

    Args:
        root: The folder.
        files: Paths relative to it.
        image_size: Height and width of the result in pixels.
        channels: 1 (grey) or 3 (RGB).
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, root: str, files: Sequence[str], image_size: int, channels: int):
        self.root = root
        self.files = list(files)
        self.image_size = image_size
        self.channels = channels

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(n, image_size, image_size, channels)."""
        return len(self.files), self.image_size, self.image_size, self.channels

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: Any) -> np.ndarray:
        chosen = np.arange(len(self.files))[index]
        if chosen.ndim == 0:
            return self._decode(chosen)
        result = np.empty((len(chosen), *self.shape[1:]), np.uint8)
        if not len(chosen):
            return result
        try:
            with ThreadPoolExecutor(min(THREADS, len(chosen))) as pool:
                for position, image in enumerate(pool.map(self._decode, chosen)):
                    result[position] = image
        except UnreadableError as first:
            raise self._all_unreadable(first) from first
        return result

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("images in a folder have to be decoded: copy=False is impossible")
        return self[:].astype(dtype or np.uint8, copy=False)

    def subset(self, index: Any) -> FolderImages:
        """The images at an array of integers, not decoded."""
        files = [self.files[position] for position in index]
        return FolderImages(self.root, files, self.image_size, self.channels)

    def fingerprint(self) -> str:
        """SHA-256 of the images' relative paths, sizes and times of change."""
        return sha256(self._identities())

    def _identities(self) -> Iterator[bytes | str]:
        for file in self.files:
            path = os.path.join(self.root, file)
            try:
                status = os.stat(path)
            except OSError as error:
                first = UnreadableError(path, str(error.strerror))
                raise self._all_unreadable(first) from error
            yield os.fsencode(file)
            yield f"\0{status.st_size}\0{status.st_mtime_ns}\0"

    def _decode(self, position: Any) -> np.ndarray:
        path = os.path.join(self.root, self.files[position])
        return decode(path, self.image_size, self.channels)

    def _all_unreadable(self, first: UnreadableError) -> InputError:
        """The error that names what cannot be read in the whole folder, not in this part alone."""
        files = _walk(self.root, "folder:PATH")
        return all_unreadable(first, self.root, files, self.image_size, self.channels)


@dataclass(frozen=True)
class Listing:
    """What was found in a folder, before anything is decoded.

    Attributes:
        files: Paths relative to the folder, sorted.
        labels: int64 [n], or None.
        class_names: Names of the sub-folders in label order, or ().
    """

    files: list[str]
    labels: np.ndarray | None
    class_names: tuple[str, ...]


def list_folder(root: str, split: str, flag: str = "--dataset") -> Listing:
    """Finds the images of a folder and their labels.

    Two or more sub-folders with images, and none beside them, are classes in the order of their
    names. Sub-folders `train` and `test`, both with images, are the splits; otherwise every
    fifth image of a class (rank % 5 == 4 in the order of the names) is in the test split.
    Images without classes are all training images. Hidden files are left out; a folder that
    is reached twice through links is read once.

    Args:
        root: The folder.
        split: "train", "test" or "all".
        flag: The flag that named the folder, for messages.

    Raises:
        InputError: for a missing or empty folder, or a split that it does not have.
    """
    if not os.path.isdir(root):
        raise InputError(f"{flag}: expected an existing folder. Received: {root!r}")
    found = _walk(root, flag)
    if not found:
        raise InputError(
            f"{flag}: expected a folder with images ({', '.join(SUFFIXES)}). Received: {root!r}, "
            "which has none"
        )
    tops = {file.split(os.sep, 1)[0] for file in found}
    if tops == {"train", "test"}:
        listing = _given_splits(found, split, root, flag)
    else:
        listing = _split_by_rank(_labelled(found), split)
    if not listing.files:
        raise InputError(
            f"{flag}: expected a {split} split: sub-folders train and test, or sub-folders of "
            f"classes with five images. Received: {root!r}"
        )
    return listing


def _labelled(files: list[str], prefix: str = "") -> Listing:
    parts = [file.removeprefix(prefix).split(os.sep, 1) for file in files]
    names = sorted({part[0] for part in parts if len(part) == 2})
    if len(names) < 2 or any(len(part) == 1 for part in parts):
        return Listing(files, None, ())
    index = {name: label for label, name in enumerate(names)}
    labels = np.array([index[part[0]] for part in parts], np.int64)
    return Listing(files, labels, tuple(names))


def _given_splits(found: list[str], split: str, root: str, flag: str) -> Listing:
    pieces = {
        name: _labelled([file for file in found if file.startswith(name + os.sep)], name + os.sep)
        for name in ("train", "test")
    }
    names = pieces["train"].class_names
    if names != pieces["test"].class_names and split != "train":
        odd = sorted(set(names) ^ set(pieces["test"].class_names))
        raise InputError(
            f"{flag}: expected the same classes in train and test. Received: {root!r}, where "
            f"{odd[0]!r} is in one of them only"
        )
    if split != "all":
        return pieces[split]
    both = [pieces["train"], pieces["test"]]
    labels = [piece.labels for piece in both if piece.labels is not None]
    files = [file for piece in both for file in piece.files]
    return Listing(files, np.concatenate(labels) if labels else None, names)


def _split_by_rank(listing: Listing, split: str) -> Listing:
    if split == "all" or (listing.labels is None and split == "train"):
        return listing
    if listing.labels is None:
        return Listing([], None, ())
    test = ranks(listing.labels) % 5 == 4
    chosen = np.flatnonzero(test if split == "test" else ~test)
    files = [listing.files[index] for index in chosen]
    return Listing(files, listing.labels[chosen], listing.class_names)


def ranks(labels: np.ndarray) -> np.ndarray:
    """How many earlier images have the same label, [n]."""
    result = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        result[members] = np.arange(len(members))
    return result


def _walk(root: str, flag: str) -> list[str]:
    """Relative paths of all images, sorted; each real folder is entered once."""
    found: list[str] = []
    seen: set[tuple[int, int]] = set()
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        path = os.path.join(root, folder)
        try:
            status = os.stat(path)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            names = sorted(os.listdir(path))
        except OSError as error:
            raise InputError(
                f"{flag}: expected a readable folder. Received: {path!r} ({error})"
            ) from error
        folders = []
        for name in names:
            if name.startswith("."):
                continue
            relative = os.path.join(folder, name)
            if os.path.isdir(os.path.join(root, relative)):
                folders.append(relative)
            elif name.lower().endswith(SUFFIXES):
                found.append(relative)
        waiting.extend(reversed(folders))
    return sorted(found)
