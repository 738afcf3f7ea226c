"""Files that are whole or not there: atomic writes, replaced directories, checksums, locks."""

from __future__ import annotations

import codecs
import contextlib
import functools
import glob
import hashlib
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

_DAY = 24 * 3600


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], suffix: str | None = None) -> Iterator[Path]:
    """Gives a path to write to, which takes the place of `path` once all of it is on the disk.

    ```python
    with replacing("table.csv") as new:
        new.write_text(...)
    ```

    Args:
        path: the file or directory; its own directory is made.
        suffix: the new path's, where its writer insists on one; that of `path` by default.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(path.parent, path.name)
    # Beside it: a rename stays within one file system. The owner's alone, unlike what is in it.
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.new-", dir=path.parent))
    try:
        new = temporary / f"new{path.suffix if suffix is None else suffix}"
        yield new
        for written in [*new.rglob("*"), new] if new.is_dir() else [new]:
            _flush(written)
        if path.is_dir():
            os.rename(path, temporary / "old")
        os.replace(new, path)
        _flush(path.parent)
    except OSError as error:
        # A full disk does not say which file it had no room for. (Without a number it is another
        # library's error, whose text the name would replace.)
        if error.errno is not None:
            error.filename = error.filename or str(path)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_file(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Writes a file whole or not at all; text as UTF-8."""
    with replacing(path) as new:
        if isinstance(content, str):  # Names of files may be no UTF-8.
            content = content.encode(errors="backslashreplace")
        new.write_bytes(content)


def read_text(path: str | os.PathLike[str]) -> str:
    """Text that people wrote: UTF-8, or whatever the byte order mark that it opens with says."""
    content = Path(path).read_bytes()
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if is_utf16 else "utf-8-sig")


@functools.cache
def say_once(line: str) -> None:
    """Prints a line, unless this process has printed it."""
    print(line, flush=True)


def remove_abandoned(folder: Path, name: str | None = None, older_than: float = _DAY) -> None:
    """Removes what writers that were killed left in a directory.

    Args:
        folder: the directory.
        name: of the file or directory that they were writing; None for all.
        older_than: seconds; 0 is right where a lock shows that nobody is writing.
    """
    name = "*" if name is None else glob.escape(name)
    for path in folder.glob(f".{name}.new-*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime >= older_than:
                shutil.rmtree(path)


def sha256(parts: str | bytes | Iterable[Any]) -> str:
    """SHA-256, in hexadecimal digits, of text (as UTF-8), of bytes, or of many such parts."""
    digest = hashlib.sha256()
    several: Iterable[Any] = [parts] if isinstance(parts, str | bytes) else parts
    for part in several:
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def locked(path: str | os.PathLike[str], waiting_for: str = "") -> Iterator[IO[str] | None]:
    """Holds a lock between processes, which the system frees when its holder ends in any way.

    Args:
        path: the lock's file; it is made, and stays.
        waiting_for: what to say that one waits for, while another process holds it.

    Yields:
        The open file, with which a child process may inherit the lock; None where the file system
        has no locks, which is warned of.

    Raises:
        BlockingIOError: if another process holds it and `waiting_for` is empty.
    """
    with open(path, "a") as file:
        held: IO[str] | None = file
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not waiting_for:
                raise
            print(f"Waiting for {waiting_for}", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        except (ImportError, OSError) as error:
            warnings.warn(
                f"there are no locks in {Path(path).parent} ({error}): let no second process "
                "write there",
                stacklevel=3,
            )
            held = None
        yield held


def _flush(path: Path) -> None:
    # Not every system can open a directory, nor every file system flush one.
    with contextlib.suppress(OSError) if path.is_dir() else contextlib.nullcontext():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
