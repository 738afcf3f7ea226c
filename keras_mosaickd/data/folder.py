"""Pictures in a folder: found, split, decoded when asked for."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_mosaickd.data.resizing import THREADS
from keras_mosaickd.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
_ADVICE = "; remove it or put a readable one in its place"


class FolderImages:
    """Pictures of any size as an array of squares, each decoded when it is indexed.

    Has `shape`, `dtype` and `len()`; an index that is a slice or an array of integers gives uint8
    [m, image_size, image_size, channels]. Each picture is turned upright (EXIF), converted to
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
        if len(chosen):
            with ThreadPoolExecutor(min(THREADS, len(chosen))) as pool:
                for position, picture in enumerate(pool.map(self._decode, chosen)):
                    result[position] = picture
        return result

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("pictures in a folder have to be decoded: copy=False is impossible")
        return self[:].astype(dtype or np.uint8, copy=False)

    def subset(self, index: Any) -> FolderImages:
        """The pictures at an array of integers, not decoded."""
        files = [self.files[position] for position in index]
        return FolderImages(self.root, files, self.image_size, self.channels)

    def fingerprint(self) -> str:
        """SHA-256 of the pictures' relative paths, sizes and times of change."""
        digest = hashlib.sha256()
        for file in self.files:
            path = os.path.join(self.root, file)
            try:
                status = os.stat(path)
            except OSError as error:
                raise InputError(
                    f"expected a readable picture. Received: {path!r} ({error.strerror})"
                ) from error
            digest.update(os.fsencode(file))
            digest.update(f"\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
        return digest.hexdigest()

    def _decode(self, position: Any) -> np.ndarray:
        path = os.path.join(self.root, self.files[position])
        return decode(path, self.image_size, self.channels)


def decode(path: str | Path, image_size: int, channels: int) -> np.ndarray:
    """Reads one picture as a uint8 square.

    Transparent parts become white; 16-bit pictures keep their upper eight bits; of an animation
    the first frame is used.

    Args:
        path: The file.
        image_size: Height and width of the result in pixels.
        channels: 1 (grey) or 3 (RGB).

    Returns:
        uint8 [image_size, image_size, channels].

    Raises:
        InputError: where the file is not a readable picture, naming it.
    """
    from PIL import Image, ImageOps

    if not os.path.isfile(path):  # A pipe would be waited for without end.
        raise InputError(
            f"expected a readable picture. Received: {str(path)!r}, which is no file{_ADVICE}"
        )
    try:
        with Image.open(path) as file:
            mode = "L" if channels == 1 else "RGB"
            # JPEGs much larger than needed are decoded at a fraction of their size.
            file.draft(mode, (2 * image_size, 2 * image_size))
            picture = _flat(ImageOps.exif_transpose(file)).convert(mode)
            size = (image_size, image_size)
            if picture.size != size:
                picture = ImageOps.fit(picture, size, Image.Resampling.BILINEAR)
            return np.asarray(picture, np.uint8).reshape(image_size, image_size, channels)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers let many kinds of exception through.
        # Both the operating system and Pillow name the file again.
        reason = getattr(error, "strerror", None) or str(error).replace(f" {str(path)!r}", "")
        detail = " ".join(f"{type(error).__name__}: {reason}".split())
        raise InputError(
            f"expected a readable picture. Received: {str(path)!r} ({detail}){_ADVICE}"
        ) from error


def _flat(picture: Any) -> Any:
    """The picture in a mode of eight bits per channel, on white where it is transparent."""
    from PIL import Image

    if picture.mode.startswith("I"):
        values = np.asarray(picture).astype(np.int64)
        return Image.fromarray((np.clip(values, 0, 65535) // 257).astype(np.uint8))
    if picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture)
    return picture


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
    """Finds the pictures of a folder and their labels.

    Two or more sub-folders with pictures, and none beside them, are classes in the order of their
    names. Sub-folders `train` and `test`, both with pictures, are the splits; otherwise every
    fifth picture of a class (rank % 5 == 4 in the order of the names) is in the test split.
    Pictures without classes are all training pictures. Hidden files are left out; a folder that
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
            f"{flag}: expected a folder with pictures ({', '.join(SUFFIXES)}). Received: {root!r}, "
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
            f"classes with five pictures. Received: {root!r}"
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
    """How many earlier pictures have the same label, [n]."""
    result = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        result[members] = np.arange(len(members))
    return result


def _walk(root: str, flag: str) -> list[str]:
    """Relative paths of all pictures, sorted; each real folder is entered once."""
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
