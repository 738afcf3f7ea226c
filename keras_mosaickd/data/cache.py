"""Results that are kept on disk: written whole or not at all, checked whenever they are read."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_mosaickd.data.image_set import ImageSet
from keras_mosaickd.data.sources.folder import FolderImages
from keras_mosaickd.data.sources.forward import ForwardImages
from keras_mosaickd.errors import InputError
from keras_mosaickd.files import file_sha256, locked, remove_abandoned, replacing, sha256

_VERSION = 1
_CHUNK = 1024


class _DamagedError(Exception):
    """An entry that is there and is not what was written."""


def cached(
    folder: str | Path, record_name: str, build: Callable[[Path], dict[str, Any]]
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

    Returns:
        The record, and whether it was built just now.

    Raises:
        InputError: where the folder cannot be written.
    """
    folder = Path(folder)
    with contextlib.suppress(_DamagedError):
        record = _read(folder, record_name)
        if record is not None:
            return record, False
    path = folder.parent / f".{folder.name}.lock"
    stack = contextlib.ExitStack()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = stack.enter_context(locked(path, f"the process that makes {folder}"))
    except OSError as error:
        raise InputError(
            f"expected a folder for the cache that can be written. Received: {folder.parent} "
            f"({error})"
        ) from error
    with stack:
        try:
            record = _read(folder, record_name)
        except _DamagedError as error:
            warnings.warn(f"{folder} is damaged ({error}) and is built again", stacklevel=2)
            record = None
        if record is not None:
            return record, False
        if lock is not None:
            remove_abandoned(folder.parent, folder.name, older_than=0)
        return _build(folder, record_name, build), True


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


def write_images(path: Path, images: Any, indices: np.ndarray | None = None) -> None:
    """Writes images, or those at `indices`, as one uint8 .npy file."""
    count = len(images) if indices is None else len(indices)

    def parts() -> Iterator[np.ndarray]:
        for start in range(0, count, _CHUNK):
            chosen = slice(start, start + _CHUNK)
            yield images[chosen] if indices is None else images[indices[chosen]]

    write_array(path, (count, *images.shape[1:]), np.uint8, parts())


def stored(image_set: ImageSet, cache_dir: str | Path, streams: bool = False) -> ImageSet:
    """Decodes the images of a folder once and keeps them as one file of uint8.

    Every image is read to its end, so a broken one is found here and not in mid-training.

    Args:
        image_set: Any images; those that are in memory already are returned as they are.
        cache_dir: Where to keep them; the file is made again when the folder has changed.
        streams: Whether large sets that are read forward are written too, as training on them
            needs (a pool to select from is read forward as it is).

    Returns:
        The same images with `images` a read-only memory map.

    Raises:
        InputError: for an image that cannot be read, or where the folder cannot be written.
    """
    images = image_set.images
    if not isinstance(images, FolderImages) and not (streams and isinstance(images, ForwardImages)):
        return image_set
    parts = [str(_VERSION), image_set.fingerprint(), str(images.shape)]
    key = sha256("\n".join(parts))[:32]
    folder = Path(cache_dir) / "pictures" / key

    def build(directory: Path) -> dict[str, Any]:
        write_images(directory / "images.npy", images)
        return {"name": image_set.name, "split": image_set.split}

    cached(folder, "pictures.json", build)
    return dataclasses.replace(image_set, images=read_array(folder / "images.npy"))


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
    folder: Path, record_name: str, build: Callable[[Path], dict[str, Any]]
) -> dict[str, Any]:
    with replacing(folder) as directory:
        directory.mkdir()
        record = build(directory)
        record["files"] = {path.name: file_sha256(path) for path in sorted(directory.iterdir())}
        content = json.dumps(
            record | {"sha256": _record_hash(record)}, indent=2, sort_keys=True, allow_nan=False
        )
        (directory / record_name).write_text(content + "\n", encoding="utf-8")
    return record


def _record_hash(record: dict[str, Any]) -> str:
    return sha256(json.dumps(record, sort_keys=True))
