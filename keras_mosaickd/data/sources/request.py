"""The one table of data sets, and the text by which a flag names one of them.

A data set is named as `NAME` or `NAME[CLASSES]`: `digits`, `digits[0-4]`,
`fashion_mnist[0,2,3,4,6]`, `fashion_mnist[Sandal,Bag]`, `folder:/some/path[cat,dog]`; label maps
beside the user's own images as `segmentation:/some/path`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from keras_mosaickd.data.sources.classes import class_indices, compressed
from keras_mosaickd.data.sources.table import ALIASES, FOLDER, SEGMENTATION, SPECS, DatasetSpec
from keras_mosaickd.errors import InputError, did_you_mean


@dataclass(frozen=True)
class DatasetRequest:
    """A data set as a flag named it.

    Attributes:
        name: A key of `SPECS`.
        path: The folder of `folder:PATH` or `segmentation:PATH`, else None.
        classes: The text between the brackets, or None for all classes.
        flag: The flag that named it, for messages.
    """

    name: str
    path: str | None = None
    classes: str | None = None
    flag: str = "--dataset"

    @property
    def spec(self) -> DatasetSpec:
        """The row of `SPECS`."""
        return SPECS[self.name]

    def class_indices(self, class_names: Sequence[str] | None = None) -> tuple[int, ...] | None:
        """Labels of the named classes, in the order given; None where all are wanted.

        Args:
            class_names: The names that exist, in label order; by default those of the table.
        """
        if self.classes is None:
            return None
        names = self.spec.class_names if class_names is None else class_names
        return class_indices(self.classes, names, str(self), self.flag)

    def canonical(self, class_names: Sequence[str] | None = None) -> str:
        """The same request in one fixed spelling, which `parse` reads back as the same classes."""
        start = self.name if self.path is None else f"{self.name}:{self.path}"
        indices = self.class_indices(class_names)
        if indices is None:
            return start
        if self.path is None:
            return f"{start}[{compressed(indices)}]"
        # The labels of a folder move when a sub-folder is added; their names stay.
        names = class_names or ()
        return f"{start}[{','.join(names[index] for index in indices)}]"

    def __str__(self) -> str:
        start = self.name if self.path is None else f"{self.name}:{self.path}"
        return start if self.classes is None else f"{start}[{self.classes}]"


def parse(text: str, flag: str = "--dataset") -> DatasetRequest:
    """Reads the name of a data set and checks what can be checked without its files.

    Args:
        text: `NAME`, `NAME[CLASSES]`, `folder:PATH`, `folder:PATH[CLASSES]` or
            `segmentation:PATH`. CLASSES are class names, labels and ranges of labels (`0-4`) with
            commas between them.
        flag: The flag that gave it, named in messages.

    Returns:
        The request. The classes of a folder are resolved when it is read.

    Raises:
        InputError: for an unknown data set or class, a range outside the labels, or classes of a
            data set for segmentation.
    """
    text = text.strip()
    for kind in (FOLDER, SEGMENTATION):
        if text == kind or text.startswith(f"{kind}:"):
            return _checked(_parse_path(kind, text.removeprefix(kind).removeprefix(":"), flag))
    name, classes = _split_brackets(text)
    name = ALIASES.get(name, name)
    if name not in SPECS:
        known = [key for key in SPECS if key not in (FOLDER, SEGMENTATION)]
        is_folder = os.path.isdir(os.path.expanduser(text))
        meant = f"; did you mean {FOLDER}:{text}?" if is_folder else did_you_mean(name, known)
        raise InputError(
            f"{flag}: expected one of {', '.join(known)}, folder:PATH, segmentation:PATH. "
            f"Received: {text!r}{meant}"
        )
    request = _checked(DatasetRequest(name, None, classes, flag))
    request.class_indices()
    return request


def _checked(request: DatasetRequest) -> DatasetRequest:
    if request.classes is not None and request.spec.task == "segmentation":
        raise InputError(
            f"{request.flag}: expected all classes of a data set for segmentation (its images "
            f"show several at once). Received: {str(request)!r}"
        )
    return request


def _parse_path(kind: str, rest: str, flag: str) -> DatasetRequest:
    path, classes = _split_brackets(rest)
    # A folder whose own name ends in brackets is taken as it stands.
    if classes is not None and os.path.isdir(os.path.expanduser(rest)):
        path, classes = rest, None
    if not path:
        raise InputError(f"{flag}: expected {kind}:PATH with a path. Received: '{kind}:{rest}'")
    return DatasetRequest(kind, os.path.expanduser(path), classes, flag)


def _split_brackets(text: str) -> tuple[str, str | None]:
    if text.endswith("]") and "[" in text:
        start, _, classes = text[:-1].rpartition("[")
        return start, classes
    return text, None
