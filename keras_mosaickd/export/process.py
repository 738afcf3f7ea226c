"""Exports by a fresh process on the TensorFlow backend, for students of the other backends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from keras_mosaickd.export.comparison import ExportError
from keras_mosaickd.export.formats import Request

REQUEST, ARRAYS, RESULT = "request.json", "arrays.npz", "result.json"


def in_tensorflow_process(source: Path, request: Request, folder: Path) -> list[dict[str, Any]]:
    """Writes the request's targets from a ``.keras`` file.

    Args:
        source: The ``.keras`` file.
        request: What to write.
        folder: Directory for what the two processes tell each other.

    Returns:
        As `keras_mosaickd.export.export_student`.

    Raises:
        ExportError: It failed, for the reason that the process gave.
    """
    targets = {name: str(path.absolute()) for name, path in request.targets.items()}
    content = {
        "source": str(source.absolute()),
        "targets": targets,
        "class_names": list(request.class_names),
        "head": request.head,
    }
    (folder / REQUEST).write_text(json.dumps(content), encoding="utf-8")
    arrays = {
        name: array
        for name in ("images", "calibration", "reference")
        if (array := getattr(request, name)) is not None
    }
    np.savez(folder / ARRAYS, **arrays)
    command = [sys.executable, "-m", "keras_mosaickd.export", str(folder)]
    finished = subprocess.run(command, env=_environment(), capture_output=True, text=True)
    if not (folder / RESULT).is_file():
        lines = finished.stderr.strip().splitlines() or [f"exit status {finished.returncode}"]
        raise ExportError(f"the export by TensorFlow of {source} failed: {lines[-1]}")
    result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    exports: list[dict[str, Any]] = result["exports"]
    exports = [{**export, "file": str(request.targets[export["format"]])} for export in exports]
    if "error" in result:
        message = f"the export by TensorFlow of {source} failed: {result['error']}"
        raise ExportError(message, exports)
    return exports


def read_request(folder: Path) -> tuple[str, Request]:
    """The ``.keras`` file and the request, in the process that was asked."""
    content = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
    with np.load(folder / ARRAYS, allow_pickle=False) as arrays:
        request = Request(
            targets={name: Path(path) for name, path in content["targets"].items()},
            images=arrays["images"],
            calibration=arrays.get("calibration"),
            class_names=content["class_names"],
            head=content["head"],
            reference=arrays.get("reference"),
        )
    return content["source"], request


def _environment() -> dict[str, str]:
    package_parent = str(Path(__file__).resolve().parents[2])
    environment = dict(os.environ, KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="2")
    # The export is a matter of seconds on the CPU, and the accelerator's memory may be taken by
    # the process that waits for it.
    environment["CUDA_VISIBLE_DEVICES"] = "-1"
    paths = [package_parent, environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return environment
