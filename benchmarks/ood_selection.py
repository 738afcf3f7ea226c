r"""Scoring a pool for algorithm 1 against plain `teacher.predict` on the same images.

    KERAS_BACKEND=jax PYTHONPATH=. python benchmarks/ood_selection.py [--pictures 20480] \
        [--repetitions 7]

The sides alternate; the first call of each (hashing, compilation) is left out. Prints the ratio of
the throughputs, selection / predict, as median and range.
"""

import argparse
import statistics
import time

import keras
import numpy as np

from keras_mosaickd import networks
from keras_mosaickd.data import entropies


def seconds(function):
    """Wall time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=20480)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--teacher", default="wrn16_1")
    parser.add_argument("--batch", type=int, default=256)
    arguments = parser.parse_args()
    shape = (arguments.size, arguments.size, 3)
    teacher = networks.build(arguments.teacher, shape, 100, mean=0.5, std=0.25)
    images = np.random.default_rng(0).integers(0, 256, (arguments.pictures, *shape), "uint8")
    image_set = images.astype("float32") / 255
    sides = {
        "predict": lambda: teacher.predict(image_set, batch_size=arguments.batch, verbose=0),
        "selection": lambda: entropies(teacher, images, batch_size=arguments.batch),
    }
    first = {
        "predict": lambda: teacher.predict(
            image_set[: arguments.batch], batch_size=arguments.batch, verbose=0
        ),
        "selection": lambda: entropies(
            teacher, images[: arguments.batch], batch_size=arguments.batch
        ),
    }
    for side in sides.values():
        side()
    ratios = []
    for _ in range(arguments.repetitions):
        # Every selection compiles its function once, which the call on one batch has to do too.
        taken = {name: seconds(side) - seconds(first[name]) for name, side in sides.items()}
        ratios.append(taken["predict"] / taken["selection"])
    print(
        f"{keras.backend.backend()}, {arguments.teacher}, {arguments.pictures:,} images: selection "
        f"runs at {statistics.median(ratios):.2f} of predict's throughput "
        f"({min(ratios):.2f} to {max(ratios):.2f}, {len(ratios)} pairs)"
    )


if __name__ == "__main__":
    main()
