"""Images in memory as grey or RGB squares of one size."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

THREADS = min(16, 2 * (os.cpu_count() or 1))


def with_channels(images: np.ndarray, channels: int) -> np.ndarray:
    """uint8 images [..., c] as grey or RGB; grey is ITU-R BT.601's luma, as in Pillow."""
    if images.shape[-1] == channels:
        return images
    if channels == 3:
        return np.repeat(images, 3, axis=-1)
    weights = np.array([19595, 38470, 7471], np.uint32)
    luma = np.empty((*images.shape[:-1], 1), np.uint8)
    for start in range(0, len(images), 4096):
        part = images[start : start + 4096].astype(np.uint32)
        luma[start : start + 4096, ..., 0] = (part @ weights + 0x8000) >> 16
    return luma


def resized(images: Sequence[np.ndarray] | np.ndarray, size: int) -> np.ndarray:
    """Resizes images as a folder's are: the centre square, bilinear, antialiased.

    Args:
        images: uint8 [n, h, w, c], or images [h, w, c] of any heights and widths.
        size: Height and width of the result in pixels.

    Returns:
        uint8 [n, size, size, c].
    """
    if isinstance(images, np.ndarray) and images.shape[1:3] == (size, size):
        return images
    from PIL import Image, ImageOps

    result = np.empty((len(images), size, size, images[0].shape[-1]), np.uint8)

    def resize(position: int) -> None:
        image = images[position]
        if image.shape[:2] == (size, size):
            result[position] = image
            return
        grey = image.shape[-1] == 1
        source = Image.fromarray(image[..., 0] if grey else image)
        fitted = np.asarray(ImageOps.fit(source, (size, size), Image.Resampling.BILINEAR))
        result[position] = fitted[..., None] if grey else fitted

    with ThreadPoolExecutor(min(THREADS, len(images))) as pool:
        # Read to the end, so that an error in a thread is raised here.
        for _ in pool.map(resize, range(len(images))):
            pass
    return result
