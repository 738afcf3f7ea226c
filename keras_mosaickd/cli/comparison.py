"""The table at the end of ``bin/quickstart``: a teacher and the students that runs made of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_mosaickd.cli.table import aligned

_HEADINGS = ("", "accuracy", "agreement", "parameters", "seconds")


def table(run_dirs: Sequence[str | Path]) -> str:
    """Returns the comparison of finished runs that share one teacher, as text.

    Args:
        run_dirs: Directories with a ``metrics.json`` each; a row per run, named after its method,
            under the teacher's. The last one's sample grid is named below the table.
    """
    runs = [json.loads((Path(run) / "metrics.json").read_text()) for run in run_dirs]
    rows = [_HEADINGS, _teacher_row(runs)]
    rows += [
        (
            metrics["method"],
            f"{metrics['student_accuracy']:.4f}",
            f"{metrics['student_agreement']:.4f}",
            f"{metrics['student_parameters']:,}",
            f"{metrics['train_seconds']:.0f}",
        )
        for metrics in runs
    ]
    return f"{aligned(rows)}\n\nSynthetic images: {Path(run_dirs[-1]) / 'samples.png'}"


def _teacher_row(runs: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    # The run that trained the teacher knows how long that took; the others found it in the cache.
    seconds = max(metrics.get("teacher_seconds") or 0.0 for metrics in runs)
    metrics = runs[0]
    return (
        "teacher",
        f"{metrics['teacher_accuracy']:.4f}",
        "1.0000",
        f"{metrics['teacher_parameters']:,}",
        f"{seconds:.0f}" if seconds else "-",
    )


if __name__ == "__main__":
    print(table(sys.argv[1:]))
