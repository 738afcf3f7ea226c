"""Choice of classes by a text such as `0-4`, `0,2,3` or `Sandal,Bag`."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from keras_mosaickd.errors import InputError

_NUMBERS = re.compile(r"(\d+)(?:\s*-\s*(\d+))?")


def class_indices(
    text: str, class_names: Sequence[str], dataset: str, flag: str = "--dataset"
) -> tuple[int, ...]:
    """Labels of the classes that `text` names, in the order given.

    A number is a label, unless every class is itself named by a number: then it is that name.
    A class name may hold commas: the longest run of pieces that is a name is taken.

    Args:
        text: Class names, labels and ranges of labels, with commas between them.
        class_names: The names that exist, in label order.
        dataset: The data set, for messages.
        flag: The flag, for messages.

    Raises:
        InputError: for an unknown class, a label out of range, or a class named twice.
    """
    pieces = [piece.strip() for piece in composed(text).split(",")]
    class_names = [composed(name) for name in class_names]
    folded = {_folded(name): index for index, name in reversed(list(enumerate(class_names)))}
    exact = {_joined(name.split(",")): index for index, name in enumerate(class_names)}
    numbers = _numbers(class_names)
    found: list[int] = []
    position = 0
    while position < len(pieces):
        for end in range(len(pieces), position, -1):
            name = _joined(pieces[position:end])
            index = exact.get(name, folded.get(name.casefold()))
            if index is not None:
                found.append(index)
                position = end
                break
        else:
            found.extend(_range(pieces[position], numbers, class_names, dataset, flag))
            position += 1
    twice = sorted({index for index in found if found.count(index) > 1})
    if twice:
        name = class_names[twice[0]]
        raise InputError(
            f"{flag}: expected each class once, not {name!r} twice. Received: {dataset!r}"
        )
    return tuple(found)


def composed(name: str) -> str:
    """The one spelling of letters with marks, which file systems write in one piece or in two."""
    return unicodedata.normalize("NFC", name)


def _joined(pieces: Sequence[str]) -> str:
    return ",".join(piece.strip() for piece in pieces)


def _folded(name: str) -> str:
    return _joined(name.split(",")).casefold()


def _numbers(class_names: Sequence[str]) -> dict[int, int]:
    """Maps a number in the text to a label."""
    if class_names and all(name.isdecimal() for name in class_names):
        return {int(name): index for index, name in enumerate(class_names)}
    return {index: index for index in range(len(class_names))}


def _range(
    piece: str, numbers: dict[int, int], class_names: Sequence[str], dataset: str, flag: str
) -> list[int]:
    match = _NUMBERS.fullmatch(piece)
    if match:
        first = int(match[1])
        last = int(match[2] or match[1])
        # The bounds are checked before the range is walked: it may be absurdly long.
        if first <= last and first in numbers and last in numbers:
            wanted = range(first, last + 1)
            if all(number in numbers for number in wanted):
                return [numbers[number] for number in wanted]
    raise InputError(
        f"{flag}: expected {_known(class_names)}, not {piece!r}. Received: {dataset!r}"
    )


def _known(class_names: Sequence[str]) -> str:
    if not class_names:
        return "no class names (the images have no labels)"
    shown = ", ".join(repr(name) for name in class_names[:20])
    more = f", ... ({len(class_names)} in all)" if len(class_names) > 20 else ""
    if all(name.isdecimal() for name in class_names):
        return f"classes out of {shown}{more}"
    return f"labels in 0-{len(class_names) - 1} or class names out of {shown}{more}"


def compressed(indices: Sequence[int]) -> str:
    """`0,1,2,4` as `0-2,4`."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return ",".join(
        f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs
    )
