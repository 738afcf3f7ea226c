"""How long one waits at the beginning: `--help`, the import, the first training step.

    PYTHONPATH=. python benchmarks/startup.py [--repetitions 5]

Every number is the median over new processes. The import is that of the package and of what the
backend brings; the first step is everything from there to the end of the first `fit` of one step
(networks, tracing, compilation), on wrn40_2 -> wrn16_1 at 32 px.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIRST_STEP = """
import time
start = time.perf_counter()
import keras
import keras_mosaickd as km
km.MosaicKD
imported = time.perf_counter()
import numpy as np
shape = (32, 32, 3)
model = km.MosaicKD(
    km.networks.build("wrn40_2", shape, 100, mean=0.5, std=0.25),
    km.networks.build("wrn16_1", shape, 100, mean=0.5, std=0.25),
    km.networks.generator(shape),
    km.networks.discriminator(shape),
)
model.compile(**km.recipe(100))
pool = np.zeros((32, *shape), "uint8")
model.fit(km.mosaic_stream(pool, 32, steps_per_epoch=1), verbose=0, shuffle=False)
print(imported - start, time.perf_counter() - imported)
"""


def helped():
    """Seconds of `bin/train --help`."""
    start = time.perf_counter()
    command = [ROOT / "bin" / "train", "--help"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def begun(backend):
    """Seconds of the import and of the first step on a backend."""
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "2"}
    environment.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # As the commands do.
    command = [sys.executable, "-c", FIRST_STEP]
    finished = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
    )
    return [float(text) for text in finished.stdout.split()[-2:]]


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", nargs="+", default=["tensorflow", "jax", "torch"])
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    median = statistics.median(helped() for _ in range(options.repetitions))
    print(f"bin/train --help: {median:.2f} s", flush=True)
    for backend in options.backends:
        taken = [begun(backend) for _ in range(options.repetitions)]
        imported, first = (statistics.median(column) for column in zip(*taken, strict=True))
        print(f"{backend}: import {imported:.1f} s, first step {first:.1f} s", flush=True)


if __name__ == "__main__":
    main()
