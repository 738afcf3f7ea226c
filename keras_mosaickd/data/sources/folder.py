"""Images in a folder: found, split, decoded when asked for."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_mosaickd.data.sources.decoding import (
    UnreadableError,
    all_unreadable,
    decode,
    suffixes,
    unreadable,
)
from keras_mosaickd.data.sources.resizing import THREADS
from keras_mosaickd.errors import InputError
from keras_mosaickd.files import file_sha256, read_text, say_once, sha256

# Names of sub-folders that are splits. Of several for testing the first one is taken.
TRAIN, TEST = "train", ("test", "val", "valid", "validation")
# What a sub-folder is called -> the split that it is.
SPLITS = {name: name for name in (TRAIN, *TEST)} | {"training": TRAIN, "testing": "test"}
# The classes of a folder that a transfer set was written to, one in each line.
CLASSES = "classes.txt"
_LONGEST_NAME = 60


class FolderImages:
    """Images of any size as an array of squares, each decoded when it is indexed.

    Has `shape`, `dtype` and `len()`; an index that is a slice or an array of integers gives uint8
    [m, image_size, image_size, channels]. Each image is turned upright (EXIF), converted to
    grey or RGB, cropped to its centre square and resized with antialiasing.

    Args:
        root: The folder.
        files: Paths relative to it.
        image_size: Height and width of the result in pixels.
        channels: 1 (grey) or 3 (RGB).
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, root: str, files: Sequence[str], image_size: int, channels: int):
        self.root = root
        self.files = list(files)
        self.image_size = image_size
        self.channels = channels

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(n, image_size, image_size, channels)."""
        return len(self.files), self.image_size, self.image_size, self.channels

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: Any) -> np.ndarray:
        chosen = np.arange(len(self.files))[index]
        if chosen.ndim == 0:
            return self._decode(chosen)
        result = np.empty((len(chosen), *self.shape[1:]), np.uint8)
        if not len(chosen):
            return result
        try:
            with ThreadPoolExecutor(min(THREADS, len(chosen))) as pool:
                for position, image in enumerate(pool.map(self._decode, chosen)):
                    result[position] = image
        except UnreadableError as first:
            # Those in the whole folder, not in this part alone.
            files = _walk(self.root)
            raise all_unreadable(first, self.root, files, self.image_size, self.channels) from first
        return result

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("images in a folder have to be decoded: copy=False is impossible")
        return self[:].astype(dtype or np.uint8, copy=False)

    def subset(self, index: Any) -> FolderImages:
        """The images at an array of integers, not decoded."""
        files = [self.files[position] for position in index]
        return FolderImages(self.root, files, self.image_size, self.channels)

    def fingerprint(self) -> str:
        """SHA-256 of the images' relative paths and contents."""

        def identity(file: str) -> str:
            path = os.path.join(self.root, file)
            try:
                # A pipe would be waited for without end.
                return file_sha256(path) if os.path.isfile(path) else "no file"
            except OSError as error:
                return str(error.strerror)

        with ThreadPoolExecutor(THREADS) as pool:
            return sha256(self._named(pool.map(identity, self.files)))

    def state(self) -> str:
        """SHA-256 of the images' paths, sizes and times of change: quicker than `fingerprint`."""

        def identity(file: str) -> str:
            try:
                status = os.stat(os.path.join(self.root, file))
                # The time of change too: the other one may be set, and archives do.
                return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
            except OSError as error:
                return str(error.strerror)

        return sha256(
            [os.fsencode(os.path.abspath(self.root)), *self._named(map(identity, self.files))]
        )

    def _named(self, identities: Iterable[str]) -> Iterator[bytes]:
        for file, identity in zip(self.files, identities, strict=True):
            yield os.fsencode(file) + f"\0{identity}\0".encode()

    def unreadable(self) -> np.ndarray:
        """Reads all; gives the positions of those that cannot be read."""
        found = unreadable(self.root, self.files, self.image_size, self.channels)
        return np.array(sorted(found), np.int64)

    def _decode(self, position: Any) -> np.ndarray:
        path = os.path.join(self.root, self.files[position])
        return decode(path, self.image_size, self.channels)


@dataclass(frozen=True)
class Listing:
    """What was found in a folder, before anything is decoded.

    Attributes:
        files: Paths relative to the folder, sorted.
        labels: int64 [n], or None.
        class_names: Names of the classes in label order, those of the sub-folders or as `CLASSES`
            has them; or ().
    """

    files: list[str]
    labels: np.ndarray | None
    class_names: tuple[str, ...]


def list_folder(
    root: str, split: str, flag: str = "--dataset", with_labels: bool = True
) -> Listing:
    """Finds the images of a folder and their labels.

    Two or more sub-folders with images are classes, in the order of their names, or in that of a
    transfer set's `classes.txt` beside them, whose classes may have no image; what lies beside them
    is named and left out. Sub-folders that are all called `train` (`training`), `test`
    (`testing`), `val`, `valid` or `validation`, in any case, are the splits; without `test` one of
    the others is the test split.
    Otherwise every fifth image of a class (rank % 5 == 4 in the order of the names) is in the test
    split. Images without classes are all training images. Hidden files are left out, files that
    are no images are counted by their endings; a folder that is reached twice through links is
    read once.

    Args:
        root: The folder.
        split: "train", "test" or "all".
        flag: The flag that named the folder, for messages.
        with_labels: Whether labels are wanted; without them "all" is every image there is.

    Raises:
        InputError: for a missing or empty folder, a split that it does not have, or splits that are
            there twice or beside other folders.
    """
    if not os.path.isdir(root):
        raise InputError(f"{flag}: expected an existing folder. Received: {root!r}")
    found = _walk(root, flag)
    if not found:
        raise InputError(
            f"{flag}: expected a folder with images (.png, .jpg, .tif and whatever else Pillow "
            f"reads). Received: {root!r}, which has none"
        )
    if split == "all" and not with_labels:
        return Listing(found, None, ())
    tops = sorted({file.split(os.sep, 1)[0] for file in found if os.sep in file})
    splits = _splits(tops, root, flag)
    if splits:
        pieces = {name: _labelled(found, root, flag, top) for name, top in splits.items()}
        listing = _given_splits(pieces, split, root, flag)
        _name_left_out([file for file in found if os.sep not in file], root, "splits", flag)
    else:
        listing = _split_by_rank(_labelled(found, root, flag), split)
    if not listing.files:
        raise InputError(
            f"{flag}: expected a {split} split: sub-folders train and test (or val), or "
            f"sub-folders of classes with five images. Received: {root!r}"
        )
    return listing


def _splits(tops: list[str], root: str, flag: str) -> dict[str, str]:
    """The sub-folders that are splits, by the names of these; none where they are classes."""
    folded = {top: top.casefold() for top in tops}
    known = {top: SPLITS[name] for top, name in folded.items() if name in SPLITS}
    names = set(known.values())
    # A class may be called train; with a test beside it, it is none.
    if not known or (len(known) < len(tops) and not (TRAIN in names and names & {*TEST})):
        return {}
    if len(known) < len(tops):
        other = next(top for top in tops if top not in known)
        raise InputError(
            f"{flag}: expected beside the splits {', '.join(known)} no other folders with images. "
            f"Received: {root!r} with {other!r}"
        )
    if len(names) < len(known):
        first, second = next(
            (one, other)
            for one in known
            for other in known
            if one < other and known[one] == known[other]
        )
        raise InputError(
            f"{flag}: expected one folder of each split. Received: {root!r} with {first!r} and "
            f"{second!r}"
        )
    return {name: top for top, name in known.items()}


def _labelled(files: list[str], root: str, flag: str, top: str = "") -> Listing:
    """The images below a sub-folder, or all, with the names of the folders there as labels."""
    prefix = top and top + os.sep
    files = [file for file in files if file.startswith(prefix)]
    parts = [file.removeprefix(prefix).split(os.sep, 1) for file in files]
    names = sorted({part[0] for part in parts if len(part) == 2})
    if wrong := [name for name in names if any("\udc80" <= sign <= "\udcff" for sign in name)]:
        raise InputError(
            f"expected names of sub-folders in UTF-8. Received: {os.fsencode(wrong[0])!r}"
        )
    inside = [file for file, part in zip(files, parts, strict=True) if len(part) == 2]
    beside = [file for file, part in zip(files, parts, strict=True) if len(part) == 1]
    folders, names = _declared(os.path.join(root, top), names)
    if len(names) < 2 or len(beside) > len(inside):
        return Listing(files, None, ())
    _name_left_out(beside, root, "folders of classes", flag)
    index = {folder: label for label, folder in enumerate(folders)}
    labels = np.array([index[part[0]] for part in parts if len(part) == 2], np.int64)
    return Listing(inside, labels, tuple(names))


def _declared(folder: str, found: list[str]) -> tuple[list[str], list[str]]:
    """Sub-folders and names of all classes, as `CLASSES` declares them, or those that were found.

    A class without an image is one of them, so that the others keep their numbers.
    """
    try:
        names = read_text(os.path.join(folder, CLASSES)).splitlines()
    except (OSError, UnicodeDecodeError):
        return found, found
    folders = folder_names(names)
    return (folders, names) if set(found) <= set(folders) else (found, found)


def folder_names(class_names: Sequence[str]) -> list[str]:
    """Names of folders that are safe, different in any case, and sort as the classes do.

    Letters, digits, ``-`` and ``_`` stay; whatever else there is becomes ``_``.
    """
    safe = [re.sub(r"[^\w-]+", "_", name)[:_LONGEST_NAME] for name in class_names]
    folded = [name.casefold() for name in safe]
    is_good = all(safe) and len(set(folded)) == len(safe) and sorted(safe) == safe
    # Folders of these names may be taken for the splits of a data set.
    if is_good and not SPLITS.keys() & set(folded):
        return safe
    width = len(str(len(safe) - 1))
    return [f"{index:0{width}}-{name}" for index, name in enumerate(safe)]


def _name_left_out(beside: list[str], root: str, what: str, flag: str) -> None:
    if beside:
        more = f" and {len(beside) - 3:,} more" if len(beside) > 3 else ""
        say_once(
            f"{flag}: left out, as beside the {what} in {root!r}: "
            f"{', '.join(map(ascii, beside[:3]))}{more}"
        )


def _given_splits(pieces: dict[str, Listing], split: str, root: str, flag: str) -> Listing:
    if len(pieces) == 1:
        return _split_by_rank(next(iter(pieces.values())), split)
    test = next(name for name in TEST if name in pieces)
    if set(pieces) != {TRAIN, "test"}:
        unused = sorted(set(pieces) - {TRAIN, test})
        rest = f"; {', '.join(unused)} is in neither" if unused else ""
        say_once(f"{flag}: the test split of {root!r} is its folder {test}{rest}")
    order = [name for name in (TRAIN, *TEST) if name in pieces]
    chosen = order if split == "all" else [TRAIN] if split == "train" else [test]
    # The training images' classes have the labels that those for testing are given.
    compared = chosen if split == "train" else [order[0], *chosen]
    names = {pieces[name].class_names for name in compared if name in pieces}
    if len(names) > 1:
        first, second, *_ = map(set, names)
        raise InputError(
            f"{flag}: expected the same classes in {' and '.join(dict.fromkeys(compared))}. "
            f"Received: {root!r}, where {min(first ^ second)!r} is not in all of them"
        )
    found = [pieces[name] for name in chosen if name in pieces]
    labels = [piece.labels for piece in found if piece.labels is not None]
    files = [file for piece in found for file in piece.files]
    return Listing(files, np.concatenate(labels) if labels else None, *(names or [()]))


def _split_by_rank(listing: Listing, split: str) -> Listing:
    if split == "all" or (listing.labels is None and split == "train"):
        return listing
    if listing.labels is None:
        return Listing([], None, ())
    test = ranks(listing.labels) % 5 == 4
    chosen = np.flatnonzero(test if split == "test" else ~test)
    files = [listing.files[index] for index in chosen]
    return Listing(files, listing.labels[chosen], listing.class_names)


def ranks(labels: np.ndarray) -> np.ndarray:
    """How many earlier images have the same label, [n]."""
    result = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        result[members] = np.arange(len(members))
    return result


def _walk(root: str, flag: str = "") -> list[str]:
    """Relative paths of all images, sorted; each real folder is entered once.

    What is left out is said for a flag.
    """
    found: list[str] = []
    others: Counter[str] = Counter()
    endings = suffixes()
    seen: set[tuple[int, int]] = set()
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        path = os.path.join(root, folder)
        try:
            status = os.stat(path)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            names = sorted(os.listdir(path))
        except OSError as error:
            raise InputError(
                f"{flag or root}: expected a readable folder. Received: {path!r} ({error})"
            ) from error
        folders = []
        for name in names:
            if name.startswith(".") or name == CLASSES:
                continue
            relative = os.path.join(folder, name)
            if os.path.isdir(os.path.join(root, relative)):
                folders.append(relative)
            elif (ending := os.path.splitext(name)[1].lower()) in endings:
                found.append(relative)
            else:
                others[ending or "without ending"] += 1
        waiting.extend(reversed(folders))
    if others and flag:
        counts = ", ".join(
            f"{count:,} {ascii(ending)[1:-1]}" for ending, count in others.most_common(8)
        )
        more = " and others" if len(others) > 8 else ""
        say_once(f"{flag}: left out, as no images that Pillow reads, in {root!r}: {counts}{more}")
    return sorted(found)
