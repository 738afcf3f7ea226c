"""Names of a teacher's classes, and labelled images that are to be counted by them."""

import dataclasses
from pathlib import Path

import numpy as np

from keras_mosaickd.data import load, parse
from keras_mosaickd.data.pixels import VOID
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
        # The operating system's reason alone: its message names the file again.
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"--class_names must be a readable text file. Received: {path} ({reason})"
        ) from error
    names = tuple(line.strip() for line in text.rstrip().splitlines())
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


def read_labelled(name, input_shape, data_dir="", flag="--eval"):
    """Reads labelled images to test on.

    Args:
        name: data set, as `keras_mosaickd.data.parse` reads it.
        input_shape: `(height, width, channels)` of the networks.
        data_dir: directory of data files.
        flag: the flag that named it: of a folder `--eval` takes every image. The test split of
            everything else is taken.

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
    )


def labelled_as(image_set, class_names, task, is_named, flag="--eval"):
    """Labelled images with the labels of a teacher, matched by the names of the classes.

    Args:
        image_set: `ImageSet`.
        class_names: names of the teacher's classes.
        task: "classification" or "segmentation".
        is_named: whether these names were given; where they are numbers only, images with
            other names and as many classes are taken to have them in the teacher's order.
        flag: the flag that named the images, for messages.

    Returns:
        `ImageSet` whose labels are positions in `class_names`; some classes may have none.

    Raises:
        InputError: if they have no labels, or classes that the teacher does not have.
    """
    if image_set.labels is None or image_set.task != task:
        raise InputError(
            f"{flag} must have labels for --task={task}: of folder:PATH one sub-folder for each "
            f"class. Received: {image_set.name}"
        )
    names = tuple(image_set.class_names)
    unknown = [name for name in names if name not in class_names]
    if not unknown:
        positions = np.array([class_names.index(name) for name in names])
    elif not is_named and len(names) == len(class_names):
        print(f"{flag}: {', '.join(names)} are taken for the teacher's classes in this order")
        positions = np.arange(len(names))
    else:
        raise InputError(
            f"{flag} must have classes of the teacher, named as --class_names or --dataset of the "
            f"run names them ({_shortened(class_names)}). "
            f"Received: {image_set.name} with {unknown[0]}"
        )
    labels = np.asarray(image_set.labels)
    if task == "segmentation":
        renamed = np.full(256, VOID, labels.dtype)
        renamed[: len(positions)] = positions
        return dataclasses.replace(image_set, labels=renamed[labels], class_names=class_names)
    return dataclasses.replace(image_set, labels=positions[labels], class_names=class_names)


def _shortened(names):
    return ", ".join(names) if len(names) <= 10 else f"{', '.join(names[:10])}, ..."
