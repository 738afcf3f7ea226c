"""Results that are kept on disk: written whole or not at all, checked whenever they are read."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_mosaickd.backend import processes
from keras_mosaickd.errors import InputError
from keras_mosaickd.files import (
    file_sha256,
    locked,
    remove_abandoned,
    replacing,
    sha256,
)

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
    make = functools.partial(_cached, Path(folder), record_name, build)
    record, fresh = make() if is_joint else processes.from_chief(make)
    if is_joint:
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
        write_header(file, shape, dtype)
        for part in parts:
            file.write(np.ascontiguousarray(part, dtype).data)


def write_header(file: Any, shape: tuple[int, ...], dtype: Any) -> None:
    """Writes what a .npy file begins with, before the values."""
    header = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
        "fortran_order": False,
        "shape": tuple(int(size) for size in shape),
    }
    np.lib.format.write_array_header_2_0(file, header)


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
