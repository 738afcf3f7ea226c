"""Images that stay in their files and are read from the first to the last."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from keras_mosaickd.data.sources.resizing import resized, with_channels
from keras_mosaickd.errors import InputError
from keras_mosaickd.files import sha256


class ForwardImages:
    """Images of a large data set as an array of squares that is read forward, not held.

    Has `shape`, `dtype` and `len()`; an index that is a slice or an array of ascending integers
    gives uint8 [m, image_size, image_size, channels]. One reader goes through the images in
    their stored order; an index before its place starts it again. Images are converted to grey
    or RGB, cropped to their centre square and resized, as those of a folder are.

    Args:
        read: Opens the images from the first on: chunks of uint8 images [h, w, c].
        count: How many there are.
        image_size: Height and width of the result in pixels.
        channels: 1 (grey) or 3 (RGB).
        identity: What distinguishes the images at the source: name, version, splits.
        kept: Positions at the source of a subset, ascending; None for all.
    """

    dtype = np.dtype(np.uint8)

    def __init__(
        self,
        read: Callable[[], Iterator[Sequence[np.ndarray]]],
        count: int,
        image_size: int,
        channels: int,
        identity: str,
        kept: np.ndarray | None = None,
    ):
        self._read = read
        self._count = count
        self._kept = kept
        self.image_size = image_size
        self.channels = channels
        self.identity = identity
        self._lock = threading.Lock()
        self._reader: Iterator[Sequence[np.ndarray]] = iter(())
        self._chunk: Sequence[np.ndarray] = ()
        # Position at the source of the chunk's first image; beyond the end before any is read.
        self._start = count

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(n, image_size, image_size, channels)."""
        count = self._count if self._kept is None else len(self._kept)
        return count, self.image_size, self.image_size, self.channels

    @property
    def nbytes(self) -> int:
        """Size of all images in memory."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        positions = np.arange(len(self))[index]
        if positions.ndim == 0:
            return self[positions[None]][0]
        if np.any(positions[1:] < positions[:-1]):
            raise InputError(
                "expected ascending positions in images that are read forward. Received: an "
                f"index that goes back, {positions[:8].tolist()} ..."
            )
        wanted = positions if self._kept is None else self._kept[positions]
        result = np.empty((len(wanted), *self.shape[1:]), np.uint8)
        done = 0
        # Two readers of one pool take turns: each may move the other's place, not its images.
        with self._lock:
            while done < len(wanted):
                chunk = self._chunk_of(wanted[done])
                end = int(np.searchsorted(wanted, self._start + len(chunk)))
                chosen = [
                    with_channels(chunk[place], self.channels)
                    for place in wanted[done:end] - self._start
                ]
                result[done:end] = resized(chosen, self.image_size)
                done = end
        return result

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("images that are read forward have no memory to share: copy=False")
        return self[:].astype(dtype or np.uint8, copy=False)

    def subset(self, index: np.ndarray) -> ForwardImages:
        """The images at an array of ascending integers, not read."""
        kept = np.asarray(index) if self._kept is None else self._kept[index]
        return ForwardImages(
            self._read, self._count, self.image_size, self.channels, self.identity, kept
        )

    def fingerprint(self) -> str:
        """SHA-256 of the source's name, version and splits, and of size, channels and number."""
        kept = [] if self._kept is None else [np.ascontiguousarray(self._kept, np.int64).data]
        return sha256([f"{self.identity} {self._count} {self.shape}", *kept])

    def _chunk_of(self, position: int) -> Sequence[np.ndarray]:
        if position < self._start:
            self._reader, self._chunk, self._start = self._read(), (), 0
        while position >= self._start + len(self._chunk):
            self._start += len(self._chunk)
            self._chunk = next(self._reader, ())
            if not len(self._chunk):
                received, self._start = self._start, self._count
                raise RuntimeError(
                    f"expected {self._count} images of {self.identity}. Received: {received}"
                )
        return self._chunk
