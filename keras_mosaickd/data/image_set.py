"""One split of a data set: images, labels, names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_mosaickd.files import sha256


@dataclass(frozen=True)
class ImageSet:
    """One split of a data set.

    Attributes:
        images: uint8 [n, h, w, c]: a numpy array, a `FolderImages` that decodes on demand, or a
            `ForwardImages` that is read forward.
        labels: int64 [n]; for segmentation uint8 [n, h, w] with VOID (255) where a pixel belongs
            to no class; None where the images have none.
        class_names: Names in label order, or ().
        name: The data set in its canonical spelling, such as "digits[0-4]".
        split: "train", "test" or "all".
        flip: Whether a horizontal flip leaves the label true.
        unreadable: Paths of the images that were left out, as they cannot be read.
    """

    images: Any
    labels: np.ndarray | None
    class_names: tuple[str, ...]
    name: str
    split: str
    flip: bool
    unreadable: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    @property
    def origin(self) -> dict[str, str]:
        """Name and split, part of what a named data set is; {} of a folder, which may move."""
        return {} if ":" in self.name else {"name": self.name, "split": self.split}

    @property
    def task(self) -> str:
        """Either "segmentation", where every pixel has a label, or "classification"."""
        is_map = self.labels is not None and self.labels.ndim == 3
        return "segmentation" if is_map else "classification"

    def fingerprint(self) -> str:
        """SHA-256 of the content, label maps included.

        Of the bytes, or of what names them: in a folder relative paths and files, for a stream
        the data set's name and version.
        """
        if not isinstance(self.images, np.ndarray):
            return self.images.fingerprint()
        arrays = [self.images]
        if self.labels is not None and self.task == "segmentation":
            arrays.append(self.labels)

        def parts() -> Iterator[Any]:
            for array in arrays:
                yield f"{array.shape} {array.dtype}"
                for start in range(0, len(array), 4096):
                    yield np.ascontiguousarray(array[start : start + 4096]).data

        return sha256(parts())


def subset(images: Any, indices: np.ndarray) -> Any:
    """Some of the images of an `ImageSet`; none is decoded or read."""
    return images.subset(indices) if hasattr(images, "subset") else images[indices]


def spread(images: Any, count: int) -> np.ndarray:
    """So many images, evenly spaced, read one by one: they may be more than fit into memory."""
    chosen = np.linspace(0, len(images) - 1, count).round().astype(int)
    return np.stack([np.asarray(images[index]) for index in chosen])


def evaluation_arrays(image_set: ImageSet) -> tuple[np.ndarray, np.ndarray | None]:
    """Images as `evaluate` and `predict` take them.

    Args:
        image_set: One split of a data set.

    Returns:
        x, float32 [n, h, w, c] in [0, 1], and y: int64 [n], int32 [n, h, w] for segmentation,
        or None.
    """
    from keras_mosaickd.data.pixels import unit_range

    labels = image_set.labels
    if labels is not None and image_set.task == "segmentation":
        # Losses and metrics compute in the labels' type, in which uint8 would overflow.
        labels = labels.astype(np.int32)
    return unit_range(np.asarray(image_set.images[:])), labels
