"""Names of a teacher's classes, and labelled images that are to be counted by them."""

import dataclasses
import re
from collections import Counter

import numpy as np

from keras_mosaickd.data import load, parse
from keras_mosaickd.data.pixels import VOID
from keras_mosaickd.data.sources.classes import composed
from keras_mosaickd.errors import InputError
from keras_mosaickd.files import read_text, say_once

# How images are labelled that are no data set of the table.
LABELLED = {
    "classification": "folder:PATH with one sub-folder for each class",
    "segmentation": "segmentation:PATH with a label map for each image",
}


def class_names_of(path, classes):
    """Reads the names of a teacher's classes.

    Args:
        path: text file with one name per line; empty lines at its end do not count.
        classes: how many there must be.

    Returns:
        Tuple of names, in the order of the teacher's outputs.

    Raises:
        InputError: if it cannot be read, or the names are not as many different ones.
    """
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        # The operating system's reason alone: its message names the file again.
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"--class_names must be a readable text file. Received: {path} ({reason})"
        ) from error
    names = tuple(composed(line.strip()) for line in text.rstrip().splitlines())
    wrong = None
    if len(names) != classes:
        wrong = f"with {len(names)} line{'' if len(names) == 1 else 's'} for {classes} classes"
    elif "" in names:
        wrong = f"whose line {names.index('') + 1} is empty"
    elif len(set(names)) != classes:
        twice = next(name for name in names if names.count(name) > 1)
        wrong = f"with {twice} on {names.count(twice)} lines"
    if wrong is not None:
        raise InputError(
            f"--class_names must have {classes} different names, one per line, as many as the "
            f"teacher has classes. Received: {path} {wrong}"
        )
    return names


def read_labelled(name, input_shape, data_dir="", flag="--eval", skip_unreadable=False):
    """Reads labelled images to test on.

    Args:
        name: data set, as `keras_mosaickd.data.parse` reads it.
        input_shape: `(height, width, channels)` of the networks.
        data_dir: directory of data files.
        flag: the flag that named it: of a folder `--eval` takes every image. The test split of
            everything else is taken.
        skip_unreadable: as of `load`.

    Returns:
        `ImageSet` as they are labelled there.
    """
    is_whole = flag == "--eval" and parse(name, flag).name == "folder"
    height, _, channels = input_shape
    return load(
        name,
        "all" if is_whole else "test",
        image_size=height,
        channels=channels,
        data_dir=data_dir or None,
        flag=flag,
        skip_unreadable=skip_unreadable,
    )


def renames(class_names, image_set):
    """Whether names are all others than those of a data set: other words for its classes."""
    return not set(map(composed, class_names)) & set(_spelled(image_set.class_names, class_names))


def labelled_as(image_set, class_names, task, is_named, flag="--eval"):
    """Labelled images with the labels of a teacher.

    One rule everywhere: classes are matched by their names. Capitals, blanks, underscores and
    hyphens make no difference, unless they tell two classes apart. Where the teacher's names are
    not known, the sub-folders are taken in the order of their names as text, in which Keras reads
    folders. Numbers that stand in another order there (0, 1, 10, 2) are not guessed about.

    Args:
        image_set: `ImageSet`.
        class_names: names of the teacher's classes; their numbers where they are not known.
        task: "classification" or "segmentation".
        is_named: whether these names were given.
        flag: the flag that named the images, for messages.

    Returns:
        `ImageSet` whose labels are positions in `class_names`; some classes may have none.

    Raises:
        InputError: if they have no labels, classes that the teacher does not have, or numbers for
            names that may mean two things.
    """
    if image_set.labels is None or image_set.task != task:
        raise InputError(
            f"{flag} must have labels for --task={task}: {LABELLED[task]}. "
            f"Received: {image_set.name}"
        )
    names = _spelled(image_set.class_names, class_names)
    class_names = tuple(map(composed, class_names))
    unknown = [name for name in names if name not in class_names]
    if not is_named and (not unknown or len(names) == len(class_names)):
        # Numbers are what the names are taken from, or stand for, where none were given.
        numbers = names if unknown else tuple(class_names)
        if all(name.isdecimal() for name in names) and sorted(numbers) != sorted(numbers, key=int):
            raise InputError(
                f"{flag} needs --class_names, the names of its sub-folders in the order of the "
                "teacher's outputs: numbers stand in another order as text (0, 1, 10, 2), in which "
                f"Keras reads folders, than by value. Received: {image_set.name} with "
                f"{shortened(names)}"
            )
        where = "by their numbers" if not unknown else "in this order"
        say_once(f"{flag}: {shortened(names)} are taken for the teacher's classes {where}")
    elif unknown:
        raise InputError(
            f"{flag} must have classes of the teacher, named as --class_names or --dataset of the "
            f"run names them ({shortened(class_names)}). "
            f"Received: {image_set.name} with {unknown[0]}"
        )
    if unknown:
        positions, class_names = np.arange(len(names)), names
    else:
        positions = np.array([class_names.index(name) for name in names])
    labels = np.asarray(image_set.labels)
    if task == "segmentation":
        renamed = np.full(256, VOID, labels.dtype)
        renamed[: len(positions)] = positions
        return dataclasses.replace(image_set, labels=renamed[labels], class_names=class_names)
    return dataclasses.replace(image_set, labels=positions[labels], class_names=class_names)


def _spelled(names, class_names):
    """Names as `class_names` spells them, where only one of each can be meant."""
    names, class_names = (tuple(map(composed, given)) for given in (names, class_names))
    counts = [Counter(map(_folded, given)) for given in (names, class_names)]
    known = {
        _folded(name): name
        for name in class_names
        if [count[_folded(name)] for count in counts] == [1, 1]
    }
    return tuple(name if name in class_names else known.get(_folded(name), name) for name in names)


def _folded(name):
    return re.sub(r"[\s_-]+", " ", name.casefold()).strip()


def has_empty_classes(image_set):
    """Whether a labelled set has classes of which it holds no image."""
    if image_set.labels is None:
        return False
    seen = np.unique(np.asarray(image_set.labels))
    return np.count_nonzero(seen != VOID) < len(image_set.class_names)


def shortened(names):
    """The first ten names as text."""
    return ", ".join(names) if len(names) <= 10 else f"{', '.join(names[:10])}, ..."
