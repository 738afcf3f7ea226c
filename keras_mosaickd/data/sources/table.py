"""The table of data sets: what is known of each before any of it is read."""

from __future__ import annotations

from dataclasses import dataclass

FOLDER = "folder"
SEGMENTATION = "segmentation"


@dataclass(frozen=True)
class DatasetSpec:
    """What is known of a data set before any of it is read.

    Attributes:
        name: The name that a flag gives.
        title: The name that people read.
        image_size: Height and width in pixels at which it is trained unless told otherwise.
        channels: 1 (grey) or 3 (RGB).
        class_names: Names of the classes in label order: their numbers where only the source
            knows the names, empty where only the files know how many there are.
        licence: Terms under which the images may be used.
        source: Where the data set is described.
        train_split: Name of the training split at the source.
        test_split: Name of the test split at the source.
        flip: Whether a horizontal flip leaves the label true (it does not for digits).
        tfds_name: Name in tensorflow-datasets, or None.
        task: "classification" (one label per image) or "segmentation" (one per pixel).
        train_size: Images in the training split (supplement, table 1), or None where it varies.
        test_size: Images in the test split, or None.
        by_hand: What has to be fetched by hand, and from where; None where a download does it.
    """

    name: str
    title: str
    image_size: int
    channels: int
    class_names: tuple[str, ...]
    licence: str
    source: str
    train_split: str = "train"
    test_split: str = "test"
    flip: bool = True
    tfds_name: str | None = None
    task: str = "classification"
    train_size: int | None = None
    test_size: int | None = None
    by_hand: str | None = None

    def size(self, split: str) -> int | None:
        """Images that a split must have, by its name at the source; None where it varies."""
        return {self.train_split: self.train_size, self.test_split: self.test_size}[split]


def _numbers(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))


def _imagenet(
    name: str, title: str, image_size: int, tfds_name: str, by_hand: str | None = None
) -> DatasetSpec:
    """ImageNet in one of its sizes; the test images are its validation split, as in table 1."""
    return DatasetSpec(
        name,
        title,
        image_size=image_size,
        channels=3,
        class_names=_numbers(1000),
        test_split="validation",
        tfds_name=tfds_name,
        licence="non-commercial research and education only",
        source="Russakovsky et al., 2015, arXiv:1409.0575"
        + (", resized: Chrabaszcz et al., 2017, arXiv:1707.08819" if by_hand is None else ""),
        train_size=1_281_167,
        test_size=50_000,
        by_hand=by_hand,
    )


_DIGITS = _numbers(10)
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
            flip=False,
            licence="CC BY 4.0",
            source="Alpaydin and Kaynak, 1998, UCI Machine Learning Repository, 10.24432/C50P49",
        ),
        DatasetSpec(
            "fashion_mnist",
            "Fashion-MNIST",
            image_size=28,
            channels=1,
            class_names=(
                *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt"),
                *("Sneaker", "Bag", "Ankle boot"),
            ),
            tfds_name="fashion_mnist",
            licence="MIT",
            source="Xiao et al., 2017, arXiv:1708.07747",
            train_size=60_000,
            test_size=10_000,
        ),
        DatasetSpec(
            "cifar10",
            "CIFAR-10",
            image_size=32,
            channels=3,
            class_names=tuple(
                "airplane automobile bird cat deer dog frog horse ship truck".split()
            ),
            tfds_name="cifar10",
            licence="none stated by its authors",
            source="Krizhevsky, 2009, Learning multiple layers of features from tiny images",
            train_size=50_000,
            test_size=10_000,
        ),
        DatasetSpec(
            "cifar100",
            "CIFAR-100",
            image_size=32,
            channels=3,
            class_names=_CIFAR100,
            tfds_name="cifar100",
            licence="none stated by its authors",
            source="Krizhevsky, 2009, Learning multiple layers of features from tiny images",
            train_size=50_000,
            test_size=10_000,
        ),
        DatasetSpec(
            "svhn",
            "Street View House Numbers, cropped digits",
            image_size=32,
            channels=3,
            class_names=_DIGITS,
            flip=False,
            tfds_name="svhn_cropped",
            licence="non-commercial use only",
            source="Netzer et al., 2011, Reading digits in natural images",
            train_size=73_257,
            test_size=26_032,
        ),
        DatasetSpec(
            "cub200",
            "Caltech-UCSD Birds 200 (2011)",
            image_size=64,
            channels=3,
            class_names=_numbers(200),
            tfds_name="caltech_birds2011",
            licence="non-commercial research and education only",
            source="Wah et al., 2011, Caltech, CNS-TR-2011-001",
            train_size=5_994,
            test_size=5_794,
        ),
        DatasetSpec(
            "stanford_dogs",
            "Stanford Dogs",
            image_size=64,
            channels=3,
            class_names=_numbers(120),
            tfds_name="stanford_dogs",
            licence="non-commercial research and education only (ImageNet's images)",
            source="Khosla et al., 2011, Novel dataset for fine-grained image categorization",
            train_size=12_000,
            test_size=8_580,
        ),
        _imagenet("imagenet32", "ImageNet at 32x32 pixels", 32, "imagenet_resized/32x32"),
        _imagenet("imagenet64", "ImageNet at 64x64 pixels", 64, "imagenet_resized/64x64"),
        _imagenet(
            "imagenet2012",
            "ImageNet (ILSVRC 2012)",
            128,
            "imagenet2012",
            by_hand="ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from "
            "https://image-net.org/download-images (after registration)",
        ),
        DatasetSpec(
            "places365",
            "Places365-Standard, small images",
            image_size=32,
            channels=3,
            class_names=_numbers(365),
            test_split="validation",
            tfds_name="places365_small",
            licence="non-commercial research and education only",
            source="Zhou et al., 2018, Places: a 10 million image database, "
            "10.1109/TPAMI.2017.2723009",
            train_size=1_803_460,
            test_size=36_500,
        ),
        DatasetSpec(
            "nyuv2",
            "NYU Depth V2, 13 classes",
            image_size=128,
            channels=3,
            class_names=tuple(
                """bed books ceiling chair floor furniture objects image sofa table tv wall
                window""".split()
            ),
            licence="none stated by its authors",
            source="Silberman et al., 2012, Indoor segmentation and support inference; 13 classes "
            "of Couprie et al., 2013, arXiv:1301.3572",
            task="segmentation",
            train_size=795,
            test_size=654,
            by_hand="the images nyu_train_rgb.tgz and nyu_test_rgb.tgz and the labels "
            "train_labels_13 and test_labels_13 that "
            "https://github.com/ankurhanda/nyuv2-meta-data names (its labels count from 1 with 0 "
            "for none: write each pixel as its value minus 1, and 255 for 0)",
        ),
        DatasetSpec(
            FOLDER,
            "Images in a folder",
            image_size=32,
            channels=3,
            class_names=(),
            licence="the owner's",
            source="the user's own images",
        ),
        DatasetSpec(
            SEGMENTATION,
            "Images and label maps in folders",
            image_size=128,
            channels=3,
            class_names=(),
            licence="the owner's",
            source="the user's own images",
            task="segmentation",
        ),
    )
}

# Other names that flags may give.
ALIASES = {"svhn_cropped": "svhn"}
