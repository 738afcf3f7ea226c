"""A wheel in a fresh environment with one backend alone: an own teacher to an exported student.

    python benchmarks/fresh_environment.py --extras torch jax tensorflow
    python benchmarks/fresh_environment.py --extras torch,datasets,report jax,onnx

For each set of extras, the first of them the backend: an environment without any other backend, the
wheel of this checkout with those extras, a teacher of Keras layers and a folder of images, then
`keras-mosaickd-train` to an exported .keras by the command line (and to .onnx with the extra onnx,
which brings TensorFlow). With the extras datasets and report the second notebook is run too, by
nbclient. Prints the size of each environment. Packages come from the registry that pip is set up
with; torch is the build of requirements-torch.txt.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BACKENDS = ("tensorflow", "jax", "torch")

TEACHER = """
import sys
import keras
import numpy as np
from PIL import Image

keras.utils.set_random_seed(0)
keras.Sequential([
    keras.Input((16, 16, 3)),
    keras.layers.Conv2D(8, 3, activation="relu"),
    keras.layers.GlobalAveragePooling2D(),
    keras.layers.Dense(3, activation="softmax"),
]).save(sys.argv[1] + "/teacher.keras")
random = np.random.default_rng(0)
for number in range(48):
    pixels = random.integers(0, 256, (20, 24, 3), "uint8")
    Image.fromarray(pixels).save(f"{sys.argv[1]}/images/{number}.png")
"""
CHECK = """
import importlib.util, sys
import keras
others = sys.argv[2].split(",")
found = [name for name in others if name and importlib.util.find_spec(name)]
assert not found, f"the environment has {found}"
student = keras.saving.load_model(sys.argv[1])
assert student.output_shape == (None, 3), student.output_shape
"""


def build(folder: Path) -> Path:
    """Builds the wheel in a copy of the checkout: setuptools leaves outputs where it works."""
    source = folder / "source"
    shutil.copytree(ROOT / "keras_mosaickd", source / "keras_mosaickd")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, source]
    subprocess.run(command, check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(folder: Path, wheel: Path, extras: str) -> Path:
    """Makes an environment with the wheel and the extras; returns its directory of programs."""
    venv.create(folder, with_pip=True)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    what = [f"{wheel}[{extras}]" if extras else str(wheel)]
    if "torch" in extras.split(","):
        what += ["-r", str(ROOT / "requirements-torch.txt")]
    subprocess.run([programs / "python", "-m", "pip", "install", "--quiet", *what], check=True)
    return programs


def megabytes(folder: Path) -> float:
    """The size of what was installed, without pip."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    own = {"pip", "__pycache__"}
    return sum(path.stat().st_size for path in files if not own & set(path.parts)) / 1e6


def distil(programs: Path, folder: Path, extras: str) -> None:
    """From a teacher's file and a folder of images to an exported student."""
    (folder / "images").mkdir(parents=True)
    given = extras.split(",")
    with_onnx = "onnx" in given
    others = [] if with_onnx else [name for name in BACKENDS if name not in given]
    # The commands find the one backend that is installed; Keras by itself takes TensorFlow.
    without = {name: os.environ[name] for name in os.environ if name != "KERAS_BACKEND"}
    with_backend = {**without, "KERAS_BACKEND": given[0]}
    environment = with_backend if with_onnx else without
    python = [str(programs / "python"), "-c"]
    subprocess.run([*python, TEACHER, str(folder)], check=True, cwd=folder, env=with_backend)
    formats = "keras,onnx" if with_onnx else "keras"
    command = [
        str(programs / "keras-mosaickd-train"),
        *("--teacher=teacher.keras", "--ood=folder:images", "--run_dir=run", f"--export={formats}"),
        *("--student=wrn10_1", "--batch_size=8", "--student_updates=6", "--student_steps=2"),
    ]
    finished = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    arguments = [str(folder / "run" / "student.keras"), ",".join(others)]
    subprocess.run([*python, CHECK, *arguments], check=True, cwd=folder, env=with_backend)
    assert (folder / "run" / "student.onnx").is_file() == with_onnx
    if {"datasets", "report"} <= set(given):
        run_notebook(programs, folder, with_backend)


def run_notebook(programs: Path, folder: Path, environment: dict[str, str]) -> None:
    """Runs the second notebook to its end; what runs it is installed after the size was taken."""
    pip = [programs / "python", "-m", "pip", "install", "--quiet", "nbclient", "ipykernel"]
    subprocess.run(pip, check=True)
    notebook = shutil.copy(ROOT / "docs" / "notebooks" / "game.ipynb", folder)
    command = [programs / "jupyter-execute", "--timeout=1200", notebook]
    subprocess.run(command, check=True, cwd=folder, env=environment)
    assert (folder / "best.keras").is_file()


def main() -> None:
    """Makes, uses, measures and removes an environment for each set of extras."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--extras", nargs="+", default=["torch", "jax", "tensorflow"], help="with commas in a set"
    )
    parser.add_argument("--sizes_only", action="store_true", help="measure, train nothing")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wheel = build(Path(folder))
        for number, extras in enumerate(arguments.extras):
            extras = extras.strip("-")  # "-" is the core alone
            place = Path(folder) / str(number)
            programs = install(place / "environment", wheel, extras)
            size = megabytes(place / "environment")
            has_backend = set(BACKENDS) & set(extras.split(","))
            if has_backend and not arguments.sizes_only:
                distil(programs, place / "work", extras)
            print(f"{extras or 'core':<24} {size:8,.0f} MB", flush=True)


if __name__ == "__main__":
    main()
