"""What a report is made of: the files of finished runs and studies, read without Keras models."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from keras_mosaickd.callbacks.traces import read_history
from keras_mosaickd.errors import InputError
from keras_mosaickd.run_directory import FLAGS, HISTORY, INPUTS, METRICS, PLACES, RunDirectory

STUDY, SELECTION = "study.json", "selection.json"
_NEEDED: dict[str, Any] = {"method": str, "student": str, "student_agreement": (int, float)}
# What does not make another experiment: places, the seed, and how a run is saved.
_NOT_COMPARED = {*PLACES, "seed", "checkpoint_every_steps", "config", "export", "eval"}
# What bin/evaluate writes into the metrics.
_MEASURED_LATER = re.compile("^eval|_bytes$|_latency_ms$|^verdict$")
# Named by paths and the same for all seeds; which images are held out depends on the seed.
_FILES = ("teacher", "student", "class_names")


@dataclasses.dataclass(frozen=True)
class Run:
    """One finished run.

    Attributes:
        path: Its directory.
        metrics: ``metrics.json``.
        settings: ``flags.txt``, by name; empty where there is none.
        history: Rows of ``history.csv``, one dict of numbers per epoch.
        selection: ``selection.json``, or None.
        inputs: ``inputs.json``: SHA-256 of what the settings name by paths; empty where there is
            none.
    """

    path: Path
    metrics: dict[str, Any]
    settings: dict[str, str]
    history: list[dict[str, float]]
    selection: dict[str, Any] | None
    inputs: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """Directory's name with its parent's: ``quickstart/kd``."""
        return "/".join(self.path.resolve().parts[-2:])

    @property
    def seed(self) -> int:
        """The run's seed; 0 where nothing says it."""
        seed = self.metrics.get("seed")
        return seed if isinstance(seed, int) else 0

    @property
    def experiment(self) -> dict[str, str]:
        """Everything by which runs of different experiments differ; seeds share it."""
        known = {
            name: str(self.metrics[name])
            for name in ("method", "student", "dataset", "ood", "backend", "student_updates")
            if self.metrics.get(name) is not None
        }
        # A path may have held another network for another run.
        by_content = {
            f"{name} file": str(self.inputs[name])[:12] for name in _FILES if name in self.inputs
        }
        compared = {k: v for k, v in self.settings.items() if k not in _NOT_COMPARED}
        return compared | known | by_content

    @property
    def published(self) -> float | None:
        """The paper's accuracy as a fraction, or None where the run's config names none."""
        number = self.metrics.get("published_accuracy")
        return float(number) if isinstance(number, int | float) else None


@dataclasses.dataclass(frozen=True)
class Study:
    """One study of `bin/tune`.

    Attributes:
        path: Its directory.
        content: ``study.json``.
    """

    path: Path
    content: dict[str, Any]

    @property
    def name(self) -> str:
        """Directory's name with its parent's."""
        return "/".join(self.path.resolve().parts[-2:])

    @property
    def trials(self) -> list[dict[str, Any]]:
        """Trials with at least one finished execution."""
        return [trial for trial in self.content["trials"] if metrics_of(trial)]


def metrics_of(trial: dict[str, Any]) -> list[dict[str, Any]]:
    """The metrics of a trial's finished executions."""
    return [
        metrics
        for metrics in trial.get("executions") or []
        if isinstance(metrics, dict) and _lack(metrics) is None
    ]


def read(paths: Iterable[str | Path]) -> tuple[list[Run], list[Study], list[str]]:
    """Reads runs and studies; a directory stands for all that lie in it, however deep.

    Args:
        paths: Directories.

    Returns:
        Runs, studies, and a sentence for everything that could not be read.
    """
    runs: dict[Path, Run] = {}
    studies: dict[Path, Study] = {}
    problems: list[str] = []
    for path in [found for given in paths for found in _places(Path(given), problems)]:
        if path.resolve() in runs or path.resolve() in studies:
            continue
        try:
            if (path / STUDY).exists():
                studies[path.resolve()] = _read_study(path)
            else:
                run = _read_run(path, problems)
                # With its seconds in it, no two runs measure the same.
                if other := next((r for r in runs.values() if _is_copy(r, run)), None):
                    raise InputError(f"{path}: left out, a copy of {other.path}")
                runs[path.resolve()] = run
        except InputError as error:
            problems.append(str(error))
    return list(runs.values()), list(studies.values()), problems


def _places(path: Path, problems: list[str]) -> list[Path]:
    """The path itself, or the runs and studies in it."""
    return [path] if not path.is_dir() or _is_one(path) else _inside(path, problems) or [path]


def _inside(path: Path, problems: list[str]) -> list[Path]:
    found: list[Path] = []
    try:
        for child in sorted(path.iterdir()):
            if _is_one(child):
                found.append(child)
            # Links may lead round in a circle.
            elif child.is_dir() and not child.is_symlink() and not child.name.startswith("."):
                found += _inside(child, problems)
    except OSError as error:
        problems.append(f"{path}: not looked into ({error.strerror})")
    return found


def _is_copy(one: Run, other: Run) -> bool:
    """Whether two directories hold one training, evaluated since then perhaps."""
    first, second = (
        dataclasses.replace(
            run,
            path=Path(),
            metrics={k: v for k, v in run.metrics.items() if not _MEASURED_LATER.search(k)},
        )
        for run in (one, other)
    )
    return first == second


def _is_one(path: Path) -> bool:
    return any((path / name).exists() for name in (STUDY, METRICS, FLAGS))


def _read_run(path: Path, problems: list[str]) -> Run:
    metrics = _json(path / METRICS)
    if (lack := _lack(metrics)) is not None:
        raise InputError(f"{path / METRICS}: expected a usable {lack}. Received: none")
    settings: dict[str, str] = {}
    history: list[dict[str, float]] = []
    selection, inputs = None, {}
    try:
        if (path / FLAGS).is_file():
            settings = RunDirectory(path).settings()
        history = read_history(path / HISTORY)
        if (path / SELECTION).is_file():
            selection = _json(path / SELECTION)
        if (path / INPUTS).is_file():
            inputs = _json(path / INPUTS)
    except (OSError, ValueError) as error:  # InputError and UnicodeDecodeError are ValueErrors
        problems.append(f"{path}: read in part only ({error})")
    return Run(path, metrics, settings, history, selection, inputs)


def _read_study(path: Path) -> Study:
    content = _json(path / STUDY)
    trials = content.get("trials")
    good = isinstance(trials, list) and all(
        isinstance(trial, dict) and isinstance(trial.get("hyperparameters"), dict)
        for trial in trials
    )
    if not good or not isinstance(content.get("study"), str):
        raise InputError(f"{path / STUDY}: expected a study with trials. Received: another content")
    return Study(path, content)


def _lack(metrics: dict[str, Any]) -> str | None:
    for name, kind in _NEEDED.items():
        if not isinstance(metrics.get(name), kind):
            return name
    return None


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        kind = "a finished run or study" if path.parent.is_dir() else "a directory"
        raise InputError(f"{path.parent}: expected {kind}. Received: no {path.name}") from error
    except OSError as error:
        raise InputError(f"{path}: expected a readable file. Received: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path}: expected JSON. Received: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object. Received: {type(content).__name__}")
    return content
