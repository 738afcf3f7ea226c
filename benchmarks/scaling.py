"""What a training step costs when one thing grows: batch, image, student steps, pool, devices.

    KERAS_BACKEND=jax PYTHONPATH=. python benchmarks/scaling.py [--of batch size ...]

One thing at a time is changed from the middle setting, whose steps run in turn with those of the
changed one. Prints seconds per step and the ratio to the middle setting, beside the ratio of the
operations that `bin/train --dry_run` counts: where the former is the smaller one, the machine is
used better. For devices, where there are several: one against all of them, on the same batch.
"""

import argparse
import statistics
import time

import keras
import numpy as np

import keras_mosaickd as km
from keras_mosaickd.backend.training import devices, distribution
from keras_mosaickd.runs.cost import floating_point_operations

MIDDLE = {"batch": 32, "size": 32, "student_steps": 5, "pool": 1_000}
GRID = {
    "batch": [8, 16, 64, 128],
    "size": [16, 64],
    "student_steps": [1, 2, 10],
    "pool": [10_000, 100_000],
}


class Setting:
    """A compiled game of one setting and its stream."""

    def __init__(self, options, strategy="none", **values):
        shape = (values["size"], values["size"], 3)
        with distribution(strategy).scope():
            teacher, student = (
                km.networks.build(name, shape, 100, mean=0.5, std=0.25)
                for name in (options.teacher, options.student)
            )
            self.model = km.MosaicKD(
                teacher,
                student,
                km.networks.generator(shape),
                km.networks.discriminator(shape),
                student_steps=values["student_steps"],
            )
            self.model.compile(**km.recipe(40_000, values["student_steps"]))
        drawn = np.random.default_rng(0)
        pool = drawn.integers(0, 256, (max(values["pool"], values["batch"]), *shape), "uint8")
        self.iterations = options.iterations
        self.stream = km.mosaic_stream(
            pool,
            values["batch"],
            student_steps=values["student_steps"],
            steps_per_epoch=options.iterations,
        )
        self.operations = sum(floating_point_operations(self.model, values["batch"]).values())
        self.step()

    def step(self):
        """Seconds of one step."""
        start = time.perf_counter()
        self.model.fit(self.stream, verbose=0, shuffle=False)
        return (time.perf_counter() - start) / self.iterations


def compare(name, middle, other, pairs):
    """Prints one line."""
    taken = [(middle.step(), other.step()) for _ in range(pairs)]
    ratios = [b / a for a, b in taken]
    print(
        f"{name:<22} {statistics.median(b for _, b in taken):8.3f} s per step, "
        f"{statistics.median(ratios):6.2f} ({min(ratios):.2f} to {max(ratios):.2f}) of the middle "
        f"setting's; operations {other.operations / middle.operations:.2f}",
        flush=True,
    )


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--of", nargs="+", choices=[*GRID, "devices"], default=[*GRID, "devices"])
    parser.add_argument("--teacher", default="wrn40_2")
    parser.add_argument("--student", default="wrn16_1")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=3, help="steps of each side in one pair")
    options = parser.parse_args()
    middle = Setting(options, **MIDDLE)
    described = ", ".join(f"{name} {value}" for name, value in MIDDLE.items())
    print(f"{keras.backend.backend()}, {options.teacher} -> {options.student}; middle: {described}")
    for name in options.of:
        for value in GRID.get(name, []):
            other = Setting(options, **{**MIDDLE, name: value})
            compare(f"{name} {value}", middle, other, options.pairs)
    if "devices" in options.of and len(devices()) > 1:
        other = Setting(options, "mirrored", **MIDDLE)
        compare(f"{len(devices())} devices", middle, other, options.pairs)


if __name__ == "__main__":
    main()
