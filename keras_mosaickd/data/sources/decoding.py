"""One image out of its file as a square of uint8, and what is said of those that are none."""

from __future__ import annotations

import contextlib
import io
import os
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from keras_mosaickd.data.sources.resizing import THREADS
from keras_mosaickd.errors import InputError

# Of the images that cannot be read so many are named.
_NAMED = 3
_CHUNK = 1024
# What Pillow opens and is no raster image: it runs other programs for them, or reads no pixels.
_NO_RASTER = ("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF")


class UnreadableError(InputError):
    """An image that cannot be read.

    Args:
        path: The file.
        reason: What is wrong with it.
    """

    def __init__(self, path: str | Path, reason: str):
        self.path = str(path)
        self.received = f"{str(path)!r} ({reason})"
        super().__init__(
            f"expected a readable image. Received: {self.received}; remove it, put a readable "
            "one in its place, or leave it out by --skip_unreadable"
        )


def decode(path: str | Path, image_size: int, channels: int) -> np.ndarray:
    """Reads one image as a uint8 square.

    Transparent parts become white; 16-bit images keep their upper eight bits; of an animation
    the first frame is used.

    Args:
        path: The file.
        image_size: Height and width of the result in pixels.
        channels: 1 (grey) or 3 (RGB).

    Returns:
        uint8 [image_size, image_size, channels].

    Raises:
        UnreadableError: where the file is not a readable image.
    """
    if not os.path.isfile(path):  # A pipe would be waited for without end.
        raise UnreadableError(path, "no file")
    try:
        return _decode(path, image_size, channels)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers let many kinds of exception through.
        with contextlib.suppress(Exception), open(path, "rb") as file:
            return _decode(io.BytesIO(_without_metadata(file.read())), image_size, channels)
        # Both the operating system and Pillow name the file again.
        reason = getattr(error, "strerror", None) or str(error).replace(f" {str(path)!r}", "")
        detail = " ".join(f"{type(error).__name__}: {reason}".split())
        raise UnreadableError(path, detail) from error


def suffixes() -> frozenset[str]:
    """Endings of the files that Pillow reads as images, in lower case, with their dot."""
    from PIL import Image

    endings = Image.registered_extensions().items()
    known = set(formats())
    return frozenset(ending for ending, format in endings if format in known)


def formats() -> tuple[str, ...]:
    """Pillow's names of the formats of raster images that it reads."""
    from PIL import Image

    Image.init()
    return tuple(name for name in Image.OPEN if name not in _NO_RASTER)


def _decode(source: Any, image_size: int, channels: int) -> np.ndarray:
    from PIL import Image, ImageOps

    with Image.open(source, formats=formats()) as file:
        mode = "L" if channels == 1 else "RGB"
        # JPEGs much larger than needed are decoded at a fraction of their size.
        file.draft(mode, (2 * image_size, 2 * image_size))
        file.load()
        if file.mode == "I" and file.format == "TIFF":
            raise ValueError("pixels are of 32 bits and no known range, not of 8 or 16 bits")
        image = file
        with contextlib.suppress(Exception):  # Damaged EXIF hides an orientation, no pixels.
            image = ImageOps.exif_transpose(file)
        image = _flat(image).convert(mode)
        size = (image_size, image_size)
        if image.size != size:
            image = ImageOps.fit(image, size, Image.Resampling.BILINEAR)
        return np.asarray(image, np.uint8).reshape(image_size, image_size, channels)


def _without_metadata(content: bytes) -> bytes:
    """A PNG or JPEG file less the parts, damaged perhaps, that hold no pixels and no colours."""
    if content.startswith(b"\x89PNG"):
        kept, position = [content[:8]], 8
        while position < len(content):
            length, kind = struct.unpack_from(">I4s", content, position)
            end = position + 12 + length
            if kind[:1].isupper() or kind == b"tRNS":
                kept.append(content[position:end])
            position = end
        return b"".join(kept)
    if not content.startswith(b"\xff\xd8"):
        raise ValueError("neither PNG nor JPEG")
    kept, position = [content[:2]], 2
    while content[position + 1] != 0xDA:  # From here on: pixels.
        marker, length = struct.unpack_from(">HH", content, position)
        end = position + 2 + length
        # APP0 and APP14 say how colours are coded.
        if not (0xFFE1 <= marker <= 0xFFEF or marker == 0xFFFE) or marker == 0xFFEE:
            kept.append(content[position:end])
        position = end
    return b"".join([*kept, content[position:]])


def unreadable(
    root: str, files: Sequence[str], image_size: int, channels: int
) -> dict[int, UnreadableError]:
    """Reads all images of a folder, and gives the errors of those that cannot be, by position.

    Args:
        root: The folder.
        files: Paths of its images, relative to it.
        image_size: As of `decode`.
        channels: As of `decode`.
    """

    def attempt(file: str) -> UnreadableError | None:
        try:
            decode(os.path.join(root, file), image_size, channels)
        except UnreadableError as error:
            return error
        return None

    found: dict[int, UnreadableError] = {}
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(files), _CHUNK):
            errors = pool.map(attempt, files[start : start + _CHUNK])
            found |= {start + i: error for i, error in enumerate(errors) if error is not None}
    return found


def all_unreadable(
    first: UnreadableError, root: str, files: Sequence[str], image_size: int, channels: int
) -> InputError:
    """The error of a whole folder in which one image could not be read.

    All of them are read once more, so that ten broken ones need not be found in ten attempts.

    Args:
        first: The error of that image.
        root: The folder.
        files: As of `unreadable`.
        image_size: As of `decode`.
        channels: As of `decode`.

    Returns:
        An error that says how many cannot be read and names the first few; `first` where it is
        the only one.
    """
    found = [*unreadable(root, files, image_size, channels).values()]
    if len(found) < 2:
        return first
    named = ", ".join(error.received for error in found[:_NAMED])
    more = f" and {len(found) - _NAMED:,} more" if len(found) > _NAMED else ""
    return InputError(
        f"expected readable images. Received: {len(found):,} of {len(files):,} in {root!r} that "
        f"are not: {named}{more}; remove them, put readable ones in their place, or leave them out "
        "by --skip_unreadable"
    )


def left_out_line(paths: Sequence[str], total: int, name: str) -> str:
    """What is said of images that cannot be read and are left out.

    Args:
        paths: Their files, at least one.
        total: How many images there are with them.
        name: Their data set.
    """
    return (
        f"{len(paths):,} of {total:,} images of {name} unreadable and left out: "
        f"{ascii(paths[0])}{' and others' if len(paths) > 1 else ''}"
    )


def _flat(image: Any) -> Any:
    """The image in a mode of eight bits per channel, on white where it is transparent."""
    from PIL import Image

    if image.mode == "F":
        raise ValueError("pixels are floats of no known range, not of 8 or 16 bits")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        upper = (np.clip(values, 0, 65535) // 257).astype(np.uint8)
        upper[values == image.info.get("transparency", -1)] = 255
        return Image.fromarray(upper)
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image)
    return image
