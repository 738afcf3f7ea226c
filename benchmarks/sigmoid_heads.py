"""A binary and a multi-label teacher, distilled end to end without a label: accuracy of each label.

    PYTHONPATH=. python benchmarks/sigmoid_heads.py [--student_updates 1000] [--seed 0]

- `trousers`: Fashion-MNIST's trousers against its dresses, coats and shirts; one sigmoid unit. The
  out-of-domain images are its sandals, sneakers, bags and ankle boots.
- `digits`: scikit-learn's digits; three sigmoid units: even, above four, has a loop (0, 6, 8, 9).
  The out-of-domain images are Fashion-MNIST's.

Both teachers are made with Keras alone. Every run is `bin/train` without --dataset; the test images
and their labels are read here, afterwards. Students are measured as `student.keras` and as the
served endpoint `classify` of the SavedModel (TensorFlow). Everything goes to runs/sigmoid_heads/;
what is finished is not made again. The table goes to standard output.
"""

import argparse

import keras
import numpy as np
import tensorflow as tf
from made_run import ROOT, directory_name, made

from keras_mosaickd.data import load

RUNS = ROOT / "runs" / "sigmoid_heads"
METHODS = {
    "kd": ["--method=kd"],
    "mosaickd": ["--method=mosaickd"],
    "mosaickd, practical": ["--recipe=practical"],
}
TASKS = {
    "trousers": ("fashion_mnist[1,3,4,6]", "fashion_mnist[5,7,8,9]", ["not_trouser", "trouser"]),
    "digits": ("digits", "fashion_mnist", ["even", "above_four", "loop"]),
}


def labels_of(task, classes):
    """Labels `[n, units]`, 0 or 1, of classes as `load` numbers them."""
    if task == "trousers":
        return (classes == 0)[:, None].astype("float32")
    names = (classes % 2 == 0, classes > 4, np.isin(classes, [0, 6, 8, 9]))
    return np.stack(names, axis=-1).astype("float32")


def images_of(task, split):
    """Images in [0, 1] and their labels."""
    found = load(TASKS[task][0], split)
    images = np.asarray(found.images[:], "float32") / 255
    return images, labels_of(task, np.asarray(found.labels))


def make_teacher(task, file):
    """Trains a small network of stock Keras, unless it is there."""
    if file.is_file():
        return
    keras.utils.set_random_seed(0)
    images, labels = images_of(task, "train")
    layers = [keras.Input(images.shape[1:])]
    for filters in (32, 64, 64):
        layers += [
            keras.layers.Conv2D(filters, 3, padding="same", use_bias=False),
            keras.layers.BatchNormalization(momentum=0.9),  # few steps
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(),
        ]
    layers += [keras.layers.Flatten(), keras.layers.Dense(labels.shape[-1], "sigmoid")]
    model = keras.Sequential(layers, name=task)
    model.compile("adam", "binary_crossentropy")
    model.fit(images, labels, batch_size=64, epochs=2 if task == "trousers" else 15, verbose=2)
    file.parent.mkdir(parents=True, exist_ok=True)
    model.save(file)


def train(task, method, folder, arguments):
    """Makes a run; returns its directory."""
    run_dir = folder / directory_name(method)
    made(
        run_dir,
        f"--teacher={folder / 'teacher.keras'}",
        f"--class_names={folder / 'names.txt'}",
        f"--ood={TASKS[task][1]}",
        "--ood_size=2000",
        "--student=wrn10_1",
        "--batch_size=32",
        f"--student_updates={arguments.student_updates}",
        f"--seed={arguments.seed}",
        f"--cache_dir={folder / 'cache'}",
        *METHODS[method],
    )
    return run_dir


def accuracies(probabilities, labels):
    """Share of test images on the right side of 0.5, label by label, as text."""
    right = np.mean((np.asarray(probabilities) > 0.5) == (labels > 0.5), axis=0)
    return ", ".join(f"{value:.3f}" for value in right)


def served(run_dir, images):
    """The probabilities that the SavedModel's endpoint `classify` gives for bytes."""
    model = tf.saved_model.load(run_dir / "saved_model")
    answers = model.classify(tf.constant(np.rint(images * 255).astype("uint8")))
    probabilities = answers["probabilities"].numpy()
    # Of a binary head there are two classes.
    return probabilities if "holds" in answers else probabilities[:, 1:]


def main():
    """Makes teachers and runs, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--student_updates", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    arguments = parser.parse_args()
    print("| task | labels | network | test accuracy | served |\n|---|---|---|---|---|")
    for task in arguments.tasks:
        folder = RUNS / task
        make_teacher(task, folder / "teacher.keras")
        names = TASKS[task][2]
        (folder / "names.txt").write_text("\n".join(names) + "\n")
        images, labels = images_of(task, "test")
        told = ", ".join(names[-labels.shape[-1] :])
        teacher = keras.saving.load_model(folder / "teacher.keras")
        answers = teacher.predict(images, verbose=0)
        print(f"| {task} | {told} | teacher | {accuracies(answers, labels)} | |", flush=True)
        for method in METHODS:
            run_dir = train(task, method, folder, arguments)
            student = keras.saving.load_model(run_dir / "student.keras")
            answers = keras.ops.sigmoid(student.predict(images, verbose=0))
            cells = accuracies(answers, labels), accuracies(served(run_dir, images), labels)
            print(f"| {task} | {told} | {method} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
