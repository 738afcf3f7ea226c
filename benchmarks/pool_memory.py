"""Memory of out-of-domain selection (supplement, algorithm 1) by the size of the pool.

    PYTHONPATH=. python benchmarks/pool_memory.py [--sizes 100000 1000000] [--teacher wrn10_1]
    KERAS_BACKEND=torch PYTHONPATH=. python benchmarks/pool_memory.py --processes 2

Each pool of --side x --side x 3 images goes through `select` in a process of its own, which keeps
--count of them; with --processes also in a group of so many, on PyTorch or JAX. The images are made
from their index whenever they are asked for, so what grows with the pool is what the selection
itself holds. Prints the largest resident size of each process, the growth from the first size to
the last, and whether several processes kept what one kept.
"""

import argparse
import hashlib
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time

import numpy as np


class GeneratedImages:
    """`size` different images as an array-like that stores one of them."""

    dtype = np.dtype(np.uint8)

    def __init__(self, size, side):
        self.shape = (size, side, side, 3)
        self.noise = np.random.default_rng(0).integers(0, 256, self.shape[1:], np.uint8)

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, index):
        chosen = range(len(self))[index] if isinstance(index, slice) else index
        positions = np.asarray(chosen, np.int64)
        # Contrast and brightness of one image of noise, both modulo 256.
        contrast, brightness = (
            part.astype(np.uint8)[:, None, None, None]
            for part in (positions % 251 + 1, positions // 251)
        )
        return self.noise * contrast + brightness

    def fingerprint(self):
        """What distinguishes this pool from others."""
        return f"generated {self.shape}"


def measure(options, cache_dir):
    """Selects in this process.

    Returns:
        Its largest resident size in MB, the seconds, and a hash of the images that were kept.
    """
    import keras

    from keras_mosaickd import networks
    from keras_mosaickd.backend import processes
    from keras_mosaickd.backend.training import distribution
    from keras_mosaickd.data import ImageSet, select

    distribution("processes" if options.processes else "none")
    keras.utils.set_random_seed(0)
    (size,), shape = options.sizes, (options.side, options.side, 3)
    network = networks.build(options.teacher, shape, 100, mean=0.5, std=0.25)
    images = GeneratedImages(size, options.side)
    pool = ImageSet(images, None, (), "generated", "train", True)
    start = time.perf_counter()
    selection = select(network, pool, options.count, options.batch_size, cache_dir)
    seconds = time.perf_counter() - start
    assert len(selection) == options.count and len(selection.entropies) == size
    kept = hashlib.sha256(selection.indices.tobytes())
    for start in range(0, options.count, 4096):
        kept.update(np.ascontiguousarray(selection.images[start : start + 4096]).data)
    # Linux gives kilobytes, macOS bytes.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    processes.leave()
    return {"megabytes": resident, "seconds": seconds, "kept": kept.hexdigest()}


def variables(count):
    """The launcher's variables for each of `count` processes of one group here."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for number in range(count):
        named = {
            **{"RANK": number, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1"},
            "MASTER_PORT": port,
            "KERAS_DISTRIBUTION_JOB_ADDRESSES": f"127.0.0.1:{port}",
            "KERAS_DISTRIBUTION_NUM_PROCESSES": count,
            "KERAS_DISTRIBUTION_PROCESS_ID": number,
            # As torchrun does: threads of several processes on the same cores wait for each other.
            "OMP_NUM_THREADS": 1,
        }
        yield {**os.environ, **{name: str(value) for name, value in named.items()}}


def selected(options, size, count):
    """What `measure` gives in each of `count` processes; in one without a group for 0."""
    with tempfile.TemporaryDirectory() as cache_dir:
        command = [sys.executable, __file__, f"--here={cache_dir}", f"--sizes={size}"]
        for name in ("count", "teacher", "batch_size", "side"):
            command.append(f"--{name}={getattr(options, name)}")
        command.append(f"--processes={count}")
        started = [
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
            for environment in (variables(count) if count else [dict(os.environ)])
        ]
        results = [process.communicate()[0] for process in started]
    assert not any(process.returncode for process in started)
    return [json.loads(result.splitlines()[-1]) for result in results]


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--count", type=int, default=50_000, help="images that are kept")
    parser.add_argument("--teacher", default="wrn10_1")
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--side", type=int, default=32, help="height and width of the images")
    parser.add_argument("--processes", type=int, default=0, help="also in a group of so many")
    parser.add_argument("--here", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure(options, options.here)))
        return
    resident: dict[int, list[float]] = {}
    for size in options.sizes:
        kept = []
        for count in dict.fromkeys((0, options.processes)):
            results = selected(options, size, count)
            resident.setdefault(count, []).append(max(part["megabytes"] for part in results))
            kept += [part["kept"] for part in results]
            print(
                f"{size:>9,} images, {options.count:,} kept by {len(results)} process(es): "
                f"{', '.join(format(part['megabytes'], '.0f') for part in results)} MB resident, "
                f"{max(part['seconds'] for part in results):.0f} s",
                flush=True,
            )
        if options.processes:
            print("the same images kept" if len(set(kept)) == 1 else "OTHER IMAGES KEPT")
    for count, sizes in resident.items():
        print(
            f"growth from {options.sizes[0]:,} to {options.sizes[-1]:,} images, "
            f"{max(count, 1)} process(es): {sizes[-1] - sizes[0]:.0f} MB"
        )


if __name__ == "__main__":
    main()
