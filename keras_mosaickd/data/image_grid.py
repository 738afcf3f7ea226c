"""Images on disk: a grid of many as one PNG."""

from __future__ import annotations

import colorsys
import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy

from keras_mosaickd.files import write_file

# White lines between the images: early synthetic images are grey, and digits are on black.
_SEPARATOR = 255
# In pixels, as large as the names of classes can be below images of 48 pixels.
_LEAST_FONT_SIZE = 10


def grid(
    images: Any,
    columns: int | None = None,
    least_size: int = 48,
    captions: Sequence[str] | None = None,
) -> numpy.ndarray:
    """Lays images out in rows, with a line of one pixel between them.

    Args:
        images: [n, h, w, c], c 1 or 3; floats in [0, 1] or uint8. Values outside are clipped.
        columns: Images per row; by default as many as make the grid square.
        least_size: Images with a side shorter than this (pixels) are enlarged by the least whole
            factor that reaches it, without smoothing, so that 16x16 images can be seen.
        captions: What to write below each image, n texts; one that is too wide is cut.

    Returns:
        uint8 [H, W, c]. Places that are left over in the last row are white.

    Raises:
        ValueError: No images, another shape, or ``columns`` below 1.
    """
    pixels = as_bytes(images)
    count, height, width, _ = pixels.shape
    columns = math.ceil(math.sqrt(count)) if columns is None else columns
    if columns < 1:
        raise ValueError(f"expected columns of at least 1. Received: {columns}")
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    factor = max(1, math.ceil(least_size / min(height, width)))
    pixels = pixels.repeat(factor, axis=1).repeat(factor, axis=2)
    if captions is not None:
        pixels = _above_captions(pixels, captions)
    _, height, width, channels = pixels.shape
    sheet = numpy.full(
        (rows * (height + 1) - 1, columns * (width + 1) - 1, channels), _SEPARATOR, numpy.uint8
    )
    for index in range(count):
        top, left = index // columns * (height + 1), index % columns * (width + 1)
        sheet[top : top + height, left : left + width] = pixels[index]
    return sheet


def _above_captions(pixels: numpy.ndarray, captions: Sequence[str]) -> numpy.ndarray:
    """uint8 images [n, h, w, c] with a text below each, black on white."""
    from PIL import Image, ImageDraw, ImageFont

    width, channels = pixels.shape[2:]
    font = ImageFont.load_default(max(_LEAST_FONT_SIZE, width // 12))
    strips = {}
    for caption in set(captions):
        text = caption
        while len(text) > 1 and font.getlength(text) > width:
            text = f"{text.removesuffix('.')[:-1]}."
        strip = Image.new("L", (width, sum(font.getmetrics())), _SEPARATOR)
        ImageDraw.Draw(strip).text((width / 2, 0), text, fill=0, font=font, anchor="ma")
        strips[caption] = numpy.asarray(strip)[..., None].repeat(channels, axis=-1)
    below = numpy.stack([strips[caption] for caption in captions])
    return numpy.concatenate([pixels, below], axis=1)


def beside_label_maps(images: Any, labels: Any, classes: int) -> numpy.ndarray:
    """Puts the map of labels to the right of every image, each class in a colour of its own.

    Args:
        images: [n, h, w, c], c 1 or 3; floats in [0, 1] or uint8.
        labels: [n, h, w] integers in 0 .. classes - 1.
        classes: Number of classes.

    Returns:
        uint8 [n, h, 2 w, 3].
    """
    pixels = as_bytes(images)
    colours = [
        colorsys.hsv_to_rgb(index / classes, 0.75, 0.95 if index % 2 else 0.6)
        for index in range(classes)
    ]
    maps = as_bytes(numpy.asarray(colours)[numpy.asarray(labels)])
    return numpy.concatenate([numpy.broadcast_to(pixels, maps.shape), maps], axis=2)


def encode_png(image: numpy.ndarray) -> bytes:
    """Returns a uint8 [h, w, c] image, c 1 or 3, as the bytes of a PNG file."""
    from PIL import Image

    image = numpy.asarray(image)
    if image.dtype != numpy.uint8 or image.ndim != 3 or image.shape[-1] not in (1, 3):
        raise ValueError(
            "expected a uint8 image [h, w, c] with c 1 or 3. "
            f"Received: {image.dtype} {list(image.shape)}"
        )
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "PNG")
    return buffer.getvalue()


def write_png(path: str | os.PathLike[str], image: numpy.ndarray) -> Path:
    """Writes a uint8 [h, w, c] image as PNG; the file appears whole or not at all."""
    write_file(path, encode_png(image))
    return Path(path)


def as_bytes(images: Any) -> numpy.ndarray:
    """Images [n, h, w, c], c 1 or 3, floats in [0, 1] or uint8, as uint8.

    Raises:
        ValueError: No images, or another shape.
    """
    pixels = numpy.asarray(images)
    if pixels.ndim != 4 or pixels.shape[-1] not in (1, 3) or 0 in pixels.shape:
        raise ValueError(
            "expected images [n, h, w, c] with n at least 1 and c 1 or 3. "
            f"Received: {list(pixels.shape)}"
        )
    if pixels.dtype == numpy.uint8:
        return pixels
    # bfloat16 generators give arrays that numpy's rounding does not know; NaN becomes black.
    scaled = numpy.nan_to_num(pixels.astype(numpy.float32)) * 255.0
    return numpy.clip(numpy.rint(scaled), 0, 255).astype(numpy.uint8)
