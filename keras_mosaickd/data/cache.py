"""Results that are kept on disk: written whole or not at all, checked whenever they are read."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_mosaickd.backend import processes
from keras_mosaickd.data.image_set import ImageSet
from keras_mosaickd.data.sources.decoding import left_out_line
from keras_mosaickd.data.sources.folder import FolderImages
from keras_mosaickd.data.sources.forward import ForwardImages
from keras_mosaickd.errors import InputError
from keras_mosaickd.files import (
    file_sha256,
    locked,
    remove_abandoned,
    replacing,
    sha256,
    write_file,
)

_VERSION = 1
_CHUNK = 1024


class _DamagedError(Exception):
    """An entry that is there and is not what was written."""


def cached(
    folder: str | Path,
    record_name: str,
    build: Callable[[Path], dict[str, Any]],
    is_joint: bool = False,
) -> tuple[dict[str, Any], bool]:
    """Reads an entry of a cache, or builds it.

    The files are written into a temporary folder beside the entry, flushed to disk and moved into
    place by one rename. A damaged entry is built again with a warning. Of several processes that
    want the same entry one builds it and the others wait.

    Args:
        folder: The entry.
        record_name: Name of its JSON file, which holds what `build` returned and the SHA-256 of
            every file.
        build: Writes the files into the folder that it is given and returns a record for JSON.
        is_joint: Whether all processes of a group build it together, in one folder, of which the
            chief's record is kept; otherwise the chief builds it while the others wait.

    Returns:
        The record, and whether it was built just now.

    Raises:
        InputError: where the folder cannot be written.
    """
    folder = Path(folder)
    if not is_joint:

        def alone() -> tuple[dict[str, Any], bool]:
            return _cached(folder, record_name, build)

        record, fresh = processes.from_chief(alone)
        return record, fresh
    record, fresh = _cached(folder, record_name, build)
    processes.barrier()
    return record, fresh


def _cached(
    folder: Path, record_name: str, build: Callable[[Path], dict[str, Any]]
) -> tuple[dict[str, Any], bool]:
    with contextlib.ExitStack() as stack:
        # The lock is the chief's alone.
        record = processes.from_chief(lambda: _found(stack, folder, record_name))
        if record is not None:
            return record, False
        return _build(stack, folder, record_name, build), True


def _found(stack: contextlib.ExitStack, folder: Path, record_name: str) -> dict[str, Any] | None:
    """The record of an entry; None where it has to be built, for which the stack holds a lock."""
    with contextlib.suppress(_DamagedError):
        record = _read(folder, record_name)
        if record is not None:
            return record
    path = folder.parent / f".{folder.name}.lock"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = stack.enter_context(locked(path, f"the process that makes {folder}"))
    except OSError as error:
        raise InputError(
            f"expected a folder for the cache that can be written. Received: {folder.parent} "
            f"({error})"
        ) from error
    try:
        record = _read(folder, record_name)
    except _DamagedError as error:
        warnings.warn(f"{folder} is damaged ({error}) and is built again", stacklevel=2)
        record = None
    if record is None and lock is not None:
        remove_abandoned(folder.parent, folder.name, older_than=0)
    return record


def write_array(
    path: Path, shape: tuple[int, ...], dtype: Any, parts: Iterable[np.ndarray]
) -> None:
    """Writes a .npy file part by part.

    Written as a stream and not through a memory map: on a full disk that raises an error, where
    the map would end the process.
    """
    with open(path, "wb") as file:
        np.lib.format.write_array_header_2_0(
            file,
            {
                "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
                "fortran_order": False,
                "shape": tuple(int(size) for size in shape),
            },
        )
        for part in parts:
            file.write(np.ascontiguousarray(part, dtype).data)


def read_array(path: Path) -> np.ndarray:
    """Reads a .npy file as a read-only memory map."""
    return np.load(path, mmap_mode="r", allow_pickle=False)


def write_images(
    path: Path, images: Any, indices: np.ndarray | None = None, part: slice | None = None
) -> None:
    """Writes images, or those at `indices`, as one uint8 .npy file.

    Args:
        path: The file.
        images: [n, h, w, c].
        indices: Positions of those to write; None for all.
        part: Which of them this process writes, where several write one file together.
    """
    count = len(images) if indices is None else len(indices)
    shape = (count, *images.shape[1:])
    part = slice(0, count) if part is None else part

    def parts() -> Iterator[np.ndarray]:
        for start in range(part.start, part.stop, _CHUNK):
            chosen = slice(start, min(start + _CHUNK, part.stop))
            yield images[chosen] if indices is None else images[indices[chosen]]

    if processes.count() == 1:
        write_array(path, shape, np.uint8, parts())
        return
    if processes.is_chief():
        write_array(path, shape, np.uint8, ())
        os.truncate(path, path.stat().st_size + math.prod(shape))
    processes.barrier()
    with open(path, "r+b") as file:
        file.seek(math.prod(shape[1:]) * (part.start - count), os.SEEK_END)
        for written in parts():
            file.write(np.ascontiguousarray(written, np.uint8).data)
        file.flush()
        os.fsync(file.fileno())
    processes.barrier()


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


def _read(folder: Path, record_name: str) -> dict[str, Any] | None:
    """The record of an entry whose files are as they were written; None where there is none."""
    if not folder.exists():
        return None
    try:
        record = json.loads((folder / record_name).read_text(encoding="utf-8"))
        checksum = record.pop("sha256")
        if checksum != _record_hash(record):
            raise _DamagedError(f"{record_name} was changed")
        for name, expected in record["files"].items():
            if file_sha256(folder / name) != expected:
                raise _DamagedError(f"{name} was changed")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _DamagedError(f"{record_name}: {error!r}") from error
    return record


def _build(
    stack: contextlib.ExitStack,
    folder: Path,
    record_name: str,
    build: Callable[[Path], dict[str, Any]],
) -> dict[str, Any]:
    def begin() -> str:
        directory = stack.enter_context(replacing(folder))
        directory.mkdir()
        return str(directory)

    directory = Path(processes.from_chief(begin))
    record = build(directory)
    processes.barrier()  # What the others write is there too.
    return processes.from_chief(lambda: _complete(directory, record_name, record))


def _complete(directory: Path, record_name: str, record: dict[str, Any]) -> dict[str, Any]:
    """Writes the record beside the files, with their checksums."""
    record["files"] = {path.name: file_sha256(path) for path in sorted(directory.iterdir())}
    content = json.dumps(
        record | {"sha256": _record_hash(record)}, indent=2, sort_keys=True, allow_nan=False
    )
    (directory / record_name).write_text(content + "\n", encoding="utf-8")
    return record


def _record_hash(record: dict[str, Any]) -> str:
    return sha256(json.dumps(record, sort_keys=True))
