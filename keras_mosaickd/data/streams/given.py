"""What people hand to `fit`, `evaluate` and `predict`, looked at before any work."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from types import GeneratorType
from typing import Any

import keras
import numpy as np

from keras_mosaickd.errors import InputError

# Floats are checked whole up to this many images, beyond it on as many spread evenly.
_CHECKED_IMAGES = 4096


def is_array(x: Any) -> bool:
    """Whether `x` is one array or tensor, of whatever library."""
    return hasattr(x, "shape") and hasattr(x, "dtype")


def first_element(x: Any) -> tuple[Any, Any]:
    """Looks at what a stream begins with.

    Args:
        x: A tf.data.Dataset, `keras.utils.PyDataset`, torch DataLoader, generator or the like.

    Returns:
        Its first element, None where there is none or it was checked when the stream was made;
        and `x`, of a generator another one that begins with the same element.
    """
    if getattr(x, "images_are_checked", False):
        return None, x
    if isinstance(x, GeneratorType):
        first = next(x, None)
        return first, (element for element in itertools.chain([first], x))
    if isinstance(x, keras.utils.PyDataset):
        return x[0], x
    if hasattr(x, "element_spec"):
        return next(iter(x.take(1)), None) if hasattr(x, "take") else None, x
    if not hasattr(x, "__iter__") or isinstance(x, str | bytes | dict) or _is_of_numbers(x):
        raise InputError(
            "expected images as one array [n, h, w, c], or a stream of batches of them. "
            f"Received: {type(x).__name__}{'' if x or x is None else ', empty'}"
        )
    return next(iter(x), None), x


def _is_of_numbers(x: Any) -> bool:
    """Whether it is a list without an array in it."""
    if not isinstance(x, list | tuple):
        return False
    return not any(is_array(images_of(element)) for element in x[:1])


def images_of(element: Any) -> Any:
    """The images of an element: its first item, or what a dict calls "image"."""
    if isinstance(element, dict):
        return element.get("image")
    return element[0] if isinstance(element, tuple | list) and len(element) else element


def beside(element: Any) -> Any:
    """What an element has beside its images: labels, or a game's out-of-domain images; or None."""
    return element[1] if isinstance(element, tuple | list) and len(element) > 1 else None


def is_of_game(element: Any) -> bool:
    """Whether it is `(patches [B, h, w, c], ood [B, K, h, w, c])`."""
    return len(getattr(beside(element), "shape", ())) == 5


def is_plain(x: Any, first: Any) -> bool:
    """Whether `x`, of which `first` is the first element, is images, not elements of a game."""
    if first is None:
        return is_array(x)
    return not (is_of_game(first) or isinstance(x, GeneratorType))


def batch_size_of(first: Any) -> int | None:
    """How many images the first element of a stream holds; None where it is no batch."""
    images = None if first is None else images_of(first)
    shape = tuple(getattr(images, "shape", ()))
    return int(shape[0]) if len(shape) == 4 else None


def check_game_element(patches: Any, ood: Any, student_steps: int) -> None:
    """Raises InputError unless the batches of a training step are as many as the game takes."""
    shape = getattr(ood, "shape", None)
    if shape is None or len(shape) != 5 or shape[1] != student_steps:
        raise InputError(
            "each element of the training data must be (patches [B, h, w, c], ood [B, "
            f"{student_steps}, h, w, c]); keras_mosaickd.mosaic_stream makes it from "
            f"images. Received: shapes {getattr(patches, 'shape', None)} and {shape}"
        )


def as_pool(x: Any) -> Any:
    """Plain images as `mosaic_stream` takes them: of another finite stream of batches one array."""
    if is_array(x) or hasattr(x, "element_spec"):
        return x
    elements: Any = x
    if isinstance(x, keras.utils.PyDataset):
        elements = (x[index] for index in range(len(x)))
    parts = [_numpy(images_of(element)) for element in elements]
    return np.stack(parts) if parts and parts[0].ndim == 3 else np.concatenate(parts)


def check(images: Any, shape: tuple[int | None, ...], x: Any = None) -> None:
    """Refuses images that networks do not take.

    Args:
        images: Array [n, h, w, c].
        shape: `(h, w, c)` of the networks; None is any size.
        x: The stream that they were taken from.

    Raises:
        InputError: with both shapes, or with the range and the line that mends it.
    """
    received = tuple(images.shape)
    if not fits(received, shape):
        mend = ""
        if len(received) == 4 and fits((0, *received[2:], received[1]), shape):
            mend = "; channels come last here: np.moveaxis(images, 1, -1)"
        expected = ", ".join(str(size or "any") for size in shape)
        raise InputError(
            f"expected images [n, {expected}], as the networks take. "
            f"Received: shape {received}{mend}"
        )
    check_range(images, lambda expression: _line(expression, x))


def fits(received: tuple[int | None, ...], shape: tuple[int | None, ...]) -> bool:
    """Whether a batch of images has the size and channels of the networks."""
    return len(received) == 4 and all(
        a == b or None in (a, b) for a, b in zip(received[1:], shape, strict=True)
    )


def check_range(images: Any, line: Callable[[str], str] = str) -> None:
    """Refuses images that are neither uint8 nor floats in [0, 1].

    Args:
        images: Array [n, ...].
        line: Gives, for an expression of `images`, the line that mends them.
    """
    sample = _numpy(images[:: max(1, len(images) // _CHECKED_IMAGES)])
    if sample.dtype == np.uint8 or not sample.size:
        return
    if not np.issubdtype(sample.dtype, np.floating):
        raise InputError(
            f"expected images as uint8 or as floats in [0, 1]. Received: type {sample.dtype}"
        )
    check_extremes(float(sample.min()), float(sample.max()), line)


def check_extremes(low: float, high: float, line: Callable[[str], str] = str) -> None:
    """As `check_range`, of the least and the greatest value."""
    # Written so that NaN fails.
    if low >= 0 and high <= 1:
        return
    mend = ""
    if low >= 0 and high <= 255:
        mend = f"; give {line('images / 255.0')}"
    elif low >= -1 and high <= 1:
        mend = f"; give {line('(images + 1) / 2')}"
    raise InputError(
        "expected images as uint8 or as floats in [0, 1]. "
        f"Received: floats in [{low:g}, {high:g}]{mend}"
    )


def _line(expression: str, x: Any) -> str:
    spec = getattr(x, "element_spec", None)
    if spec is None:
        return expression
    if isinstance(spec, tuple) and len(spec) == 2:
        return f"dataset.map(lambda images, labels: ({expression}, labels))"
    return f"dataset.map(lambda images: {expression})"


def _numpy(values: Any) -> np.ndarray:
    # A tensor of PyTorch's may lie on a GPU, whatever the backend.
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
