"""The one table of data sets, and the text by which a flag names one of them.

A data set is named as `NAME` or `NAME[CLASSES]`: `digits`, `digits[0-4]`,
`fashion_mnist[0,2,3,4,6]`, `fashion_mnist[Sandal,Bag]`, `folder:/some/path[cat,dog]`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from keras_mosaickd.data.classes import class_indices, compressed
from keras_mosaickd.errors import InputError

_FOLDER = "folder"


@dataclass(frozen=True)
class DatasetSpec:
    """What is known of a data set before any of it is read.

    Attributes:
        name: The name that a flag gives.
        title: The name that people read.
        image_size: Height and width in pixels at which it is trained unless told otherwise.
        channels: 1 (grey) or 3 (RGB).
        class_names: Names of the classes in label order; empty where only the files know them.
        train_split: Name of the training split at the source.
        test_split: Name of the test split at the source.
        flip: Whether a horizontal flip leaves the label true (it does not for digits).
        tfds_name: Name in tensorflow-datasets, or None.
        licence: Terms under which the pictures may be used.
        source: Where the data set is described.
    """

    name: str
    title: str
    image_size: int
    channels: int
    class_names: tuple[str, ...]
    train_split: str
    test_split: str
    flip: bool
    tfds_name: str | None
    licence: str
    source: str


_DIGITS = tuple(str(digit) for digit in range(10))
_CIFAR100 = tuple(
    """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
    butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab
    crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard
    lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom
    oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
    possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake
    spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor
    train trout tulip turtle wardrobe whale willow_tree wolf woman worm""".split()
)

SPECS: dict[str, DatasetSpec] = {
    spec.name: spec
    for spec in (
        DatasetSpec(
            "digits",
            "Optical recognition of handwritten digits (scikit-learn's copy)",
            image_size=16,
            channels=1,
            class_names=_DIGITS,
            train_split="train",
            test_split="test",
            flip=False,
            tfds_name=None,
            licence="CC BY 4.0",
            source="Alpaydin and Kaynak, 1998, UCI Machine Learning Repository, 10.24432/C50P49",
        ),
        DatasetSpec(
            "fashion_mnist",
            "Fashion-MNIST",
            image_size=28,
            channels=1,
            class_names=(
                "T-shirt/top",
                "Trouser",
                "Pullover",
                "Dress",
                "Coat",
                "Sandal",
                "Shirt",
                "Sneaker",
                "Bag",
                "Ankle boot",
            ),
            train_split="train",
            test_split="test",
            flip=True,
            tfds_name="fashion_mnist",
            licence="MIT",
            source="Xiao et al., 2017, arXiv:1708.07747",
        ),
        DatasetSpec(
            "cifar10",
            "CIFAR-10",
            image_size=32,
            channels=3,
            class_names=tuple(
                "airplane automobile bird cat deer dog frog horse ship truck".split()
            ),
            train_split="train",
            test_split="test",
            flip=True,
            tfds_name="cifar10",
            licence="none stated by its authors",
            source="Krizhevsky, 2009, Learning multiple layers of features from tiny images",
        ),
        DatasetSpec(
            "cifar100",
            "CIFAR-100",
            image_size=32,
            channels=3,
            class_names=_CIFAR100,
            train_split="train",
            test_split="test",
            flip=True,
            tfds_name="cifar100",
            licence="none stated by its authors",
            source="Krizhevsky, 2009, Learning multiple layers of features from tiny images",
        ),
        DatasetSpec(
            "svhn_cropped",
            "Street View House Numbers, cropped digits",
            image_size=32,
            channels=3,
            class_names=_DIGITS,
            train_split="train",
            test_split="test",
            flip=False,
            tfds_name="svhn_cropped",
            licence="non-commercial use only",
            source="Netzer et al., 2011, Reading digits in natural images",
        ),
        DatasetSpec(
            _FOLDER,
            "Pictures in a folder",
            image_size=32,
            channels=3,
            class_names=(),
            train_split="train",
            test_split="test",
            flip=True,
            tfds_name=None,
            licence="the owner's",
            source="the user's own pictures",
        ),
    )
}


@dataclass(frozen=True)
class DatasetRequest:
    """A data set as a flag named it.

    Attributes:
        name: A key of `SPECS`.
        path: The folder of `folder:PATH`, else None.
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
        text: `NAME`, `NAME[CLASSES]`, `folder:PATH` or `folder:PATH[CLASSES]`. CLASSES are class
            names, labels and ranges of labels (`0-4`) with commas between them.
        flag: The flag that gave it, named in messages.

    Returns:
        The request. The classes of a folder are resolved when it is read.

    Raises:
        InputError: for an unknown data set or class, or a range outside the labels.
    """
    text = text.strip()
    if text == _FOLDER or text.startswith(f"{_FOLDER}:"):
        return _parse_folder(text.removeprefix(_FOLDER).removeprefix(":"), flag)
    name, classes = _split_brackets(text)
    if name not in SPECS:
        known = ", ".join(key for key in SPECS if key != _FOLDER)
        raise InputError(f"{flag}: expected one of {known}, folder:PATH. Received: {text!r}")
    request = DatasetRequest(name, None, classes, flag)
    request.class_indices()
    return request


def _parse_folder(rest: str, flag: str) -> DatasetRequest:
    path, classes = _split_brackets(rest)
    # A folder whose own name ends in brackets is taken as it stands.
    if classes is not None and os.path.isdir(os.path.expanduser(rest)):
        path, classes = rest, None
    if not path:
        raise InputError(f"{flag}: expected folder:PATH with a path. Received: '{_FOLDER}:{rest}'")
    return DatasetRequest(_FOLDER, os.path.expanduser(path), classes, flag)


def _split_brackets(text: str) -> tuple[str, str | None]:
    if text.endswith("]") and "[" in text:
        start, _, classes = text[:-1].rpartition("[")
        return start, classes
    return text, None
