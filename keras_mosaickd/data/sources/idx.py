"""The idx file format of MNIST and its descendants, plain or gzip-compressed.

A file is: two zero bytes, one byte of type (8 = unsigned bytes), one byte with the number of
dimensions, each dimension as a big-endian 32-bit integer, then the values.
Source: http://yann.lecun.com/exdb/mnist/, section "file formats".
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from keras_mosaickd.errors import InputError

_UNSIGNED_BYTE = 8
_STEMS = {"train": "train", "test": "t10k"}


def read_idx(path: str | Path, rank: int) -> np.ndarray:
    """Reads one idx file of unsigned bytes.

    Args:
        path: The file; compressed if its name ends in `.gz`.
        rank: The number of dimensions that it must have (3 for images, 1 for labels).

    Returns:
        uint8 array with `rank` dimensions.

    Raises:
        InputError: where the header or the size is not what it should be, naming the file.
    """
    path = Path(path)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(4 + 4 * rank)
            if len(header) < 4 + 4 * rank:
                raise InputError(f"{path}: expected an idx header. Received: {len(header)} bytes")
            if header[:4] != bytes([0, 0, _UNSIGNED_BYTE, rank]):
                raise InputError(
                    f"{path}: expected an idx file of bytes with {rank} dimensions (it starts "
                    f"0000080{rank}). Received: a file that starts {header[:4].hex()}"
                )
            shape = struct.unpack(f">{rank}I", header[4:])
            expected = int(np.prod(shape, dtype=object))
            # One byte more than expected shows whether anything follows the values.
            content = file.read(expected + 1)
    except (OSError, EOFError, zlib.error, OverflowError, MemoryError) as error:
        raise InputError(f"{path}: expected a readable idx file. Received: {error!r}") from error
    if len(content) != expected:
        received = "more" if len(content) > expected else f"{len(content)}"
        raise InputError(
            f"{path}: expected {expected} bytes of values, as its header says. Received: {received}"
        )
    return np.frombuffer(content, np.uint8).reshape(shape)


def find_idx(folder: str | Path, split: str) -> tuple[Path, Path] | None:
    """Finds the two files of a split.

    Args:
        folder: Where to look.
        split: "train" or "test".

    Returns:
        The paths of images and labels, or None where there is neither.

    Raises:
        InputError: where only one of the two is there.
    """
    stem = _STEMS[split]
    names = (f"{stem}-images-idx3-ubyte", f"{stem}-labels-idx1-ubyte")
    found = [
        next((path for end in ("", ".gz") if (path := Path(folder, name + end)).is_file()), None)
        for name in names
    ]
    images, labels = found
    if images is None and labels is None:
        return None
    if images is None or labels is None:
        lacking = names[0] if images is None else names[1]
        raise InputError(f"--data_dir: expected {lacking} or {lacking}.gz too. Received: {folder}")
    return images, labels


def read_split(images: Path, labels: Path, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Reads the two files of a split and checks that they fit each other.

    Args:
        images: The idx file of images.
        labels: The idx file of labels.
        classes: Labels must be below this.

    Returns:
        uint8 images [n, h, w, 1] and int64 labels [n].

    Raises:
        InputError: where they do not fit.
    """
    image_set = read_idx(images, 3)
    targets = read_idx(labels, 1)
    if len(image_set) != len(targets) or not len(image_set):
        raise InputError(
            f"{labels}: expected as many labels as images, and at least one. "
            f"Received: {len(targets)} labels, {len(image_set)} images"
        )
    if targets.max() >= classes:
        raise InputError(f"{labels}: expected labels below {classes}. Received: {targets.max()}")
    return image_set[..., None], targets.astype(np.int64)
