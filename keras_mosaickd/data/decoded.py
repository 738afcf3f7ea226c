"""The images of a folder, decoded once and kept; those that cannot be read, left out."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np

from keras_mosaickd.data.cache import cached, read_array, write_images
from keras_mosaickd.data.image_set import ImageSet
from keras_mosaickd.data.sources.decoding import left_out_line
from keras_mosaickd.data.sources.folder import FolderImages
from keras_mosaickd.data.sources.forward import ForwardImages
from keras_mosaickd.errors import InputError
from keras_mosaickd.files import sha256, write_file

_VERSION = 1


def stored(
    image_set: ImageSet,
    cache_dir: str | Path,
    streams: bool = False,
    skip_unreadable: bool = False,
) -> ImageSet:
    """Decodes the images of a folder once and keeps them as one file of uint8.

    Every image is read to its end, so a broken one is found here and not in mid-training.

    Args:
        image_set: Any images; those that are in memory already are returned as they are.
        cache_dir: Where to keep them; the file is made again when the images have changed,
            wherever they lie.
        streams: Whether large sets that are read forward are written too, as training on them
            needs (a pool to select from is read forward as it is).
        skip_unreadable: Whether images that cannot be read are left out, which is said, instead of
            refused.

    Returns:
        The same images with `images` a read-only memory map; `unreadable` names those left out.

    Raises:
        InputError: for an image that cannot be read, or where the folder cannot be written.
    """
    images = image_set.images
    if not isinstance(images, FolderImages) and not (streams and isinstance(images, ForwardImages)):
        return image_set
    content = _content(images, cache_dir) if isinstance(images, FolderImages) else None
    parts = [str(_VERSION), content or images.fingerprint(), str(images.shape)]
    folder = Path(cache_dir) / "pictures" / sha256("\n".join(parts))[:32]

    def build(directory: Path) -> dict[str, Any]:
        left_out = np.array([], np.int64)
        try:
            write_images(directory / "images.npy", images)
        except InputError:
            if not skip_unreadable or not isinstance(images, FolderImages):
                raise
            left_out = images.unreadable()
            if not 0 < len(left_out) < len(images):
                raise
            rest = np.setdiff1d(np.arange(len(images)), left_out)
            write_images(directory / "images.npy", images, rest)
        return {
            "name": image_set.name,
            "split": image_set.split,
            "unreadable": left_out.tolist(),
        }

    record, _ = cached(folder, "pictures.json", build)
    decoded = dataclasses.replace(image_set, images=read_array(folder / "images.npy"))
    if not (record["unreadable"] and isinstance(images, FolderImages)):
        return decoded
    if not skip_unreadable:
        images[record["unreadable"]]  # Raises the error that names them.
    return dataclasses.replace(
        _less(image_set, images, record["unreadable"]), images=decoded.images
    )


def without_unreadable(image_set: ImageSet) -> ImageSet:
    """Leaves out the images of a folder that cannot be read, which is said; nothing is written.

    Args:
        image_set: Any images; those that are in memory already are returned as they are.

    Returns:
        The others; `unreadable` names those left out.

    Raises:
        InputError: where none can be read.
    """
    images = image_set.images
    left_out: Any = images.unreadable() if isinstance(images, FolderImages) else ()
    if not len(left_out):
        return image_set
    if len(left_out) == len(images):
        images[:]  # Raises the error that names them.
    return _less(image_set, images, left_out)


def _less(image_set: ImageSet, images: FolderImages, left_out: Any) -> ImageSet:
    """A folder's images without those at some positions, which is said."""
    paths = tuple(os.path.join(images.root, images.files[i]) for i in left_out)
    print(left_out_line(paths, len(images), image_set.name), flush=True)
    labels = image_set.labels
    return dataclasses.replace(
        image_set,
        images=images.subset(np.setdiff1d(np.arange(len(images)), left_out)),
        labels=None if labels is None else np.delete(labels, left_out),
        unreadable=paths,
    )


def _content(images: FolderImages, cache_dir: str | Path) -> str:
    """The images' fingerprint, for which they are read only where their files have changed."""
    known = Path(cache_dir) / "fingerprints" / images.state()[:32]
    with contextlib.suppress(OSError):
        return known.read_text(encoding="ascii")
    fingerprint = images.fingerprint()
    with contextlib.suppress(OSError):  # What cannot be written is said where images are.
        write_file(known, fingerprint)
    return fingerprint
