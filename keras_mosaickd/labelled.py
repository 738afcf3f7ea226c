"""Names of a teacher's classes, and labelled pictures that are to be counted by them."""

import dataclasses
from pathlib import Path

import numpy as np

from keras_mosaickd.data.labels import VOID
from keras_mosaickd.errors import InputError


def class_names_of(path, classes):
    """Reads the names of a teacher's classes.

    Args:
        path: text file (UTF-8) with one name per line; empty lines at its end do not count.
        classes: how many there must be.

    Returns:
        Tuple of names, in the order of the teacher's outputs.

    Raises:
        InputError: if it cannot be read, or the names are not as many different ones.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"--class_names must be a readable text file. Received: {path} ({error})"
        ) from error
    names = tuple(line.strip() for line in text.rstrip().splitlines())
    if len(names) != classes or len(set(names)) != classes or "" in names:
        raise InputError(
            f"--class_names must have {classes} different names, one per line, as many as the "
            f"teacher has classes. Received: {path} with {len(set(names))} of {len(names)} lines"
        )
    return names


def labelled_as(pictures, class_names, task, is_named):
    """Labelled pictures with the labels of a teacher, matched by the names of the classes.

    Args:
        pictures: `Pictures`.
        class_names: names of the teacher's classes.
        task: "classification" or "segmentation".
        is_named: whether these names were given; where they are numbers only, pictures with
            other names and as many classes are taken to have them in the teacher's order.

    Returns:
        `Pictures` whose labels are positions in `class_names`; some classes may have none.

    Raises:
        InputError: if they have no labels, or classes that the teacher does not have.
    """
    if pictures.labels is None or pictures.task != task:
        raise InputError(
            f"--eval must have labels for --task={task}: of folder:PATH one sub-folder for each "
            f"class. Received: {pictures.name}"
        )
    names = tuple(pictures.class_names)
    unknown = [name for name in names if name not in class_names]
    if not unknown:
        positions = np.array([class_names.index(name) for name in names])
    elif not is_named and len(names) == len(class_names):
        print(f"--eval: {', '.join(names)} are taken for the teacher's classes in this order")
        positions = np.arange(len(names))
    else:
        raise InputError(
            "--eval must have classes of the teacher, named as --class_names or --dataset names "
            f"them. Received: {pictures.name} with {unknown[0]}"
        )
    labels = np.asarray(pictures.labels)
    if task == "segmentation":
        renamed = np.full(256, VOID, labels.dtype)
        renamed[: len(positions)] = positions
        return dataclasses.replace(pictures, labels=renamed[labels], class_names=class_names)
    return dataclasses.replace(pictures, labels=positions[labels], class_names=class_names)
