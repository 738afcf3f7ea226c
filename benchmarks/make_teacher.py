r"""A teacher that knows nothing of this project: stock Keras, its own preprocessing and softmax.

    python benchmarks/make_teacher.py --out=runs/own_teacher [--architecture=EfficientNetB0] \
        [--data_dir=PATH] [--epochs=4]

A network of `keras.applications` with random weights, MobileNetV2 of width 0.5, MobileNetV3Small or
EfficientNetB0, on Fashion-MNIST, ten classes, grey images of 28x28 with a black border of two
pixels, repeated to 32x32x3. The model takes pixels from 0 to 255 and ends in softmax. Written to
--out: teacher.keras, teacher_saved_model and class_names.txt. It does not import keras_mosaickd: it
stands for somebody else's training script.
"""

import argparse
import gzip
from pathlib import Path

import keras
import numpy as np

# Where Debian's package dataset-fashion-mnist puts the four files.
DATA_DIR = "/usr/share/datasets/fashion-mnist"
# Architecture -> its preprocessing, and what it takes beside the size.
ARCHITECTURES = {
    "MobileNetV2": (keras.applications.mobilenet_v2.preprocess_input, {"alpha": 0.5}),
    "MobileNetV3Small": (keras.applications.mobilenet_v3.preprocess_input, {}),
    "EfficientNetB0": (keras.applications.efficientnet.preprocess_input, {}),
}
CLASS_NAMES = "T-shirt Trouser Pullover Dress Coat Sandal Shirt Sneaker Bag Ankle_boot".split()


def read(data_dir, split):
    """Images uint8 [n, 32, 32, 3] and labels [n] of "train" or "t10k"."""
    with gzip.open(Path(data_dir) / f"{split}-images-idx3-ubyte.gz") as file:
        grey = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28, 1)
    with gzip.open(Path(data_dir) / f"{split}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    return np.pad(grey, ((0, 0), (2, 2), (2, 2), (0, 0))).repeat(3, axis=-1), labels


def build(architecture):
    """The stock architecture behind its stock preprocessing, as Keras's own guide has it."""
    preprocess, options = ARCHITECTURES[architecture]
    inputs = keras.Input((32, 32, 3))
    make = getattr(keras.applications, architecture)
    backbone = make(input_shape=(32, 32, 3), weights=None, classes=10, **options)
    return keras.Model(inputs, backbone(preprocess(inputs)), name="garments")


def settle_statistics(teacher, images, batch, batches=100):
    """Lets BatchNorm's moving statistics catch up with the weights.

    Those of MobileNetV2 move by a thousandth per batch: after a few epochs they still hold so much
    of their first values that the test accuracy would be 0.1.
    """
    layers = [layer for layer in teacher.layers[-1].layers if hasattr(layer, "moving_mean")]
    for layer in layers:
        layer.momentum = 0.9
    for start in range(0, batch * batches, batch):
        teacher(images[start : start + batch].astype("float32"), training=True)


def main():
    """Trains and saves the teacher; prints its accuracy on the test images."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--architecture", default="MobileNetV2", choices=list(ARCHITECTURES))
    parser.add_argument("--data_dir", default=DATA_DIR)
    parser.add_argument("--epochs", type=int, default=4)
    arguments = parser.parse_args()
    keras.utils.set_random_seed(0)
    images, labels = read(arguments.data_dir, "train")
    batch = 64
    steps = arguments.epochs * (len(images) // batch + 1)
    teacher = build(arguments.architecture)
    teacher.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, steps)),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    teacher.fit(images, labels, batch_size=batch, epochs=arguments.epochs, verbose=2)
    settle_statistics(teacher, images, batch)
    accuracy = teacher.evaluate(*read(arguments.data_dir, "t10k"), verbose=0)[1]
    arguments.out.mkdir(parents=True, exist_ok=True)
    teacher.export(arguments.out / "teacher_saved_model", verbose=False)
    (arguments.out / "class_names.txt").write_text("\n".join(CLASS_NAMES) + "\n")
    teacher.save(arguments.out / "teacher.keras")
    print(f"test accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
