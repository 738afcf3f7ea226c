"""The tests with the lowest version of everything that pyproject.toml asks for.

    python benchmarks/lowest_versions.py --backends tensorflow jax

Makes build/lowest by uv (`--resolution lowest-direct`) with the extras that those backends can use,
prints the versions, and runs the tests that are neither slow nor long. PyTorch's lowest version has
wheels with CUDA libraries alone, gigabytes of them, so it is not among the defaults. What old
releases deprecate among themselves is no error here.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / "build" / "lowest"
EXTRAS = "tensorflow,tune,datasets,report,onnx,litert,safetensors,hub"
TESTS = ("pytest>=9.0", "pytest-xdist>=3.8", "hypothesis>=6.100", "setuptools>=77", "packaging>=24")


def install(backends: list[str]) -> Path:
    """Makes the environment and prints what is in it; returns its Python."""
    python = PLACE / "bin" / "python"
    uv = [sys.executable, "-m", "uv"]
    extras = ",".join(dict.fromkeys([*EXTRAS.split(","), *backends]))
    subprocess.run([*uv, "venv", "--quiet", "--clear", PLACE], check=True)
    chosen = [*uv, "pip", "install", "--quiet", "--python", python]
    chosen += ["--resolution", "lowest-direct", f"{ROOT}[{extras}]", *TESTS]
    subprocess.run(chosen, check=True)
    subprocess.run([*uv, "pip", "list", "--python", python], check=True)
    return python


def main() -> None:
    """Installs, tests on each backend, and leaves with the number of backends that failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", nargs="+", default=["tensorflow", "jax"])
    parser.add_argument("--tests", nargs="+", default=["tests"], help="files or folders")
    arguments = parser.parse_args()
    python = install(arguments.backends)
    command = [python, "-m", "pytest", "-q", "-W", "ignore::DeprecationWarning"]
    command += ["-p", "no:cacheprovider", "-m", "not slow and not long", *arguments.tests]
    failed = 0
    for backend in arguments.backends:
        environment = {**os.environ, "KERAS_BACKEND": backend}
        print(f"== {backend}", flush=True)
        failed += subprocess.run(command, cwd=ROOT, env=environment).returncode != 0
    sys.exit(failed)


if __name__ == "__main__":
    main()
