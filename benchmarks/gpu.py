"""Everything that docs/speed.md leaves open, on a machine with a GPU and JAX or PyTorch.

    PYTHONPATH=. python benchmarks/gpu.py [--minutes 10]

Runs the other benchmarks for each backend that is installed, in bfloat16 and the batch of the
paper, and prints what they print: seconds per iteration beside the reference loop, share of the
measured peak, memory; how long a step waits for its input; the selection's throughput; and where
there are two GPUs, two of them against one. What the minutes do not allow is named and left out.
`--device=cpu --small` shows within minutes that all of it runs.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent


def parts(backend, options, several):
    """The benchmarks of a backend: name, arguments; the most important first."""
    batch = "8" if options.small else "256"
    few = ["--pairs=1", "--iterations=1"] if options.small else ["--pairs=5", "--iterations=3"]
    networks = ["--teacher=wrn10_1", "--student=wrn10_1"] if options.small else []
    step = [f"--backend={backend}", f"--device={options.device}", f"--batch={batch}"]
    precision = "float32" if options.small else "bfloat16"
    yield "step_time.py", [*step, f"--precision={precision}", *few, *networks]
    images = "512" if options.small else "102400"
    yield "ood_selection.py", [f"--pictures={images}", "--repetitions=3", *networks[:1]]
    yield "input_pipeline.py", [f"--batch={batch}", *few, *networks]
    if backend == "torch" and (several or options.small):
        size = ["--size=16", "--steps=1"] if options.small else []
        yield "scale.py", ["--check", f"--batch={batch}", *size, *networks]
    if backend == "jax" and several:
        yield "scaling.py", ["--of", "devices"]


def gpus():
    """Number of NVIDIA's GPUs that this process may use."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return len([name for name in chosen.split(",") if name not in ("", "-1")])
    return len([*Path("/dev").glob("nvidia[0-9]*")])


def main():
    """Runs them, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="for all of it")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny settings, which measure nothing")
    options = parser.parse_args()
    if options.device == "cuda" and not gpus():
        sys.exit("benchmarks/gpu.py: expected an NVIDIA GPU, or --device=cpu. Received: none")
    installed = [name for name in ("jax", "torch") if importlib.util.find_spec(name)]
    deadline = time.monotonic() + 60 * options.minutes
    failed = False
    # Backend by backend within each kind, so that every backend has its most important numbers.
    queues = [[(b, *part) for part in parts(b, options, gpus() > 1)] for b in installed]
    longest = max(map(len, queues), default=0)
    for place in range(longest):
        for queue in queues:
            if place < len(queue):
                failed |= run(*queue[place], deadline)
    sys.exit(failed)


def run(backend, name, arguments, deadline):
    """Runs one benchmark; whether it failed."""
    title = f"{backend}: {name} {' '.join(arguments)}"
    left = deadline - time.monotonic()
    print(f"\n== {title}", flush=True)
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")]),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    if left <= 0:
        print("left out: no time is left")
        return False
    try:
        command = [sys.executable, str(HERE / name), *arguments]
        return subprocess.run(command, env=environment, timeout=left).returncode != 0
    except subprocess.TimeoutExpired:
        print("broken off: no time is left")
        return False


if __name__ == "__main__":
    main()
