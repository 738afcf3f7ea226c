"""What the training step waits for its images, and how fast they are decoded and augmented.

    KERAS_BACKEND=jax PYTHONPATH=. python benchmarks/input_pipeline.py [--pairs 7]

`fit` runs in turn on `mosaic_stream` and on one element of it that is given again and again: the
difference is what a step waits for data. On JAX and PyTorch it also runs with no element made ahead
of its step: the steps per second with and without. Beside it what making an element takes where
nothing else runs (that is the most that a step could wait), the images per second that this is, and
those that `load` reads out of a folder of JPEG files.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
from PIL import Image

import keras_mosaickd as km


def seconds(function):
    """Wall time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


class Again(keras.utils.PyDataset):
    """One element, `count` times."""

    def __init__(self, element, count):
        super().__init__()
        self.element, self.count = element, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return self.element


def game(options, shape):
    """The compiled networks of the benchmark."""
    teacher, student = (
        km.networks.build(name, shape, 100, mean=0.5, std=0.25)
        for name in (options.teacher, options.student)
    )
    model = km.MosaicKD(
        teacher,
        student,
        km.networks.generator(shape, preset="official"),
        km.networks.discriminator(shape, preset="official"),
        student_steps=options.student_steps,
    )
    model.compile(**km.recipe(40_000, options.student_steps))
    return model


def first_of(stream):
    """The first element, and the stream as an iterator that goes on for ever."""
    if isinstance(stream, keras.utils.PyDataset):
        elements = (stream[i % len(stream)] for i in range(10**9))
    else:
        elements = iter(stream.repeat())
    return next(elements), elements


def at_once(model, stream):
    """Fits with every element made when its step begins."""
    depth, stream.ahead.depth = stream.ahead.depth, 0
    model.fit(stream, verbose=0, shuffle=False)
    stream.ahead.depth = depth


def decoded_per_second(size):
    """Images per second out of 500 JPEG files of 128×96 pixels."""
    drawn = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(500):
            coarse = Image.fromarray(drawn.integers(0, 256, (12, 16, 3), "uint8"))
            coarse.resize((128, 96), Image.Resampling.BICUBIC).save(Path(folder) / f"{number}.jpg")
        images = km.load(f"folder:{folder}", "all", image_size=size).images
        return len(images) / seconds(lambda: images[:])


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", default="wrn40_2")
    parser.add_argument("--student", default="wrn16_1")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--student_steps", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--iterations", type=int, default=10, help="of each side in one pair")
    options = parser.parse_args()
    shape = (options.size, options.size, 3)
    model = game(options, shape)
    pool = np.random.default_rng(0).integers(0, 256, (20 * options.batch, *shape), "uint8")
    stream = km.mosaic_stream(
        pool,
        options.batch,
        student_steps=options.student_steps,
        steps_per_epoch=options.iterations,
    )
    element, elements = first_of(stream)
    again = Again(tuple(np.asarray(part) for part in element), options.iterations)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        from keras_mosaickd.data.streams.tensorflow import untuned

        again = untuned(tf.data.Dataset.from_tensors(element).repeat(options.iterations))
    sides = {
        "stream": lambda: model.fit(stream, verbose=0, shuffle=False),
        "again": lambda: model.fit(again, verbose=0, shuffle=False),
    }
    if isinstance(stream, keras.utils.PyDataset):
        sides["at once"] = lambda: at_once(model, stream)
    for side in sides.values():
        side()
    taken = {name: [] for name in sides}
    for pair in range(options.pairs):
        for name in sorted(sides, reverse=pair % 2 == 0):
            taken[name].append(seconds(sides[name]) / options.iterations)
    waits = [1 - a / s for s, a in zip(taken["stream"], taken["again"], strict=True)]
    step = statistics.median(taken["stream"])
    gains = [a / s for s, a in zip(taken["stream"], taken.get("at once", ()), strict=False)]
    alone = statistics.median(seconds(lambda: next(elements)) for _ in range(50))
    made = options.batch * (options.student_steps + 1)
    print(
        f"{keras.backend.backend()}, {options.teacher} -> {options.student}, {options.size} px, "
        f"batch {options.batch}: {step:.3f} s per step, of which waiting for data "
        f"{statistics.median(waits):.1%} ({min(waits):.1%} to {max(waits):.1%}, {len(waits)} "
        f"pairs); making an element alone takes {alone * 1e3:.1f} ms ({alone / step:.1%} of the "
        f"step), {made / alone:,.0f} images/s"
    )
    if gains:
        print(
            "steps per second, made ahead / at once: "
            f"{statistics.median(gains):.3f} ({min(gains):.3f} to {max(gains):.3f})"
        )
    print(f"a folder of JPEG files: {decoded_per_second(options.size):,.0f} images/s")


if __name__ == "__main__":
    main()
