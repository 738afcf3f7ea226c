"""Memory of out-of-domain selection (supplement, algorithm 1) by the size of the pool.

    PYTHONPATH=. python benchmarks/pool_memory.py [--sizes 100000 1000000] [--teacher wrn10_1]

Each pool of 32x32x3 images goes through `select` in a process of its own, which keeps --count of
them. The images are made from their index whenever they are asked for, so what grows with the
pool is what the selection itself holds. Prints the largest resident size of each process and the
growth from the first size to the last.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np

SHAPE = (32, 32, 3)


class GeneratedImages:
    """`size` different images as an array-like that stores one of them."""

    dtype = np.dtype(np.uint8)

    def __init__(self, size):
        self.shape = (size, *SHAPE)
        self.noise = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, index):
        positions = np.arange(len(self))[index]
        # Contrast and brightness of one image of noise, both modulo 256.
        contrast, brightness = (
            part.astype(np.uint8)[:, None, None, None]
            for part in (positions % 251 + 1, positions // 251)
        )
        return self.noise * contrast + brightness

    def fingerprint(self):
        """What distinguishes this pool from others."""
        return f"generated {self.shape}"


def measure(size, count, teacher, batch_size):
    """Selects in this process; returns its largest resident size in MB, and the seconds."""
    from keras_mosaickd import networks
    from keras_mosaickd.data import ImageSet, select

    network = networks.build(teacher, SHAPE, 100, mean=0.5, std=0.25)
    pool = ImageSet(GeneratedImages(size), None, (), "generated", "train", True)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as cache_dir:
        selection = select(network, pool, count, batch_size, cache_dir)
        assert len(selection) == count and len(selection.entropies) == size
    # Linux gives kilobytes, macOS bytes.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return {"megabytes": resident, "seconds": time.perf_counter() - start}


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--count", type=int, default=50_000, help="images that are kept")
    parser.add_argument("--teacher", default="wrn10_1")
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    options = (arguments.count, arguments.teacher, arguments.batch_size)
    if arguments.here:
        print(json.dumps(measure(arguments.sizes[0], *options)))
        return
    resident = []
    for size in arguments.sizes:
        command = [sys.executable, __file__, "--here", f"--sizes={size}"]
        command += [
            f"--count={options[0]}",
            f"--teacher={options[1]}",
            f"--batch_size={options[2]}",
        ]
        finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        result = json.loads(finished.stdout.splitlines()[-1])
        resident.append(result["megabytes"])
        print(
            f"{size:>9,} images, {arguments.count:,} kept: "
            f"{result['megabytes']:.0f} MB resident, {result['seconds']:.0f} s",
            flush=True,
        )
    print(
        f"growth from {arguments.sizes[0]:,} to {arguments.sizes[-1]:,} images: "
        f"{resident[-1] - resident[0]:.0f} MB"
    )


if __name__ == "__main__":
    main()
