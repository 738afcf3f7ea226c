"""What is known of a study, as JSON, CSV and text."""

import contextlib
import csv
import math
import statistics
from pathlib import Path

import keras

from keras_mosaickd.errors import InputError
from keras_mosaickd.files import replacing
from keras_mosaickd.run_directory import METRICS, RunDirectory, commit, versions
from keras_mosaickd.tuning.runs import last_line
from keras_mosaickd.tuning.space import OBJECTIVE

RESULTS, TABLE = "study.json", "study.csv"


def results(config, study, oracle):
    """Everything that is known of a study, as a dict for JSON.

    `mean` and `sd` (with n - 1; null for one execution) are over the executions of a trial; a mean
    is of whatever executions are finished. `best` is the trial of full length with the highest mean
    objective.
    """
    trials = [_trial(config, study, oracle.trials[name]) for name in oracle.start_order]
    full = [
        trial
        for trial in trials
        if trial["status"] == "COMPLETED" and trial["share_of_updates"] == 1
    ]
    measured = [trial for trial in full if OBJECTIVE in trial["mean"]]
    best = max(measured, key=lambda trial: trial["mean"][OBJECTIVE], default=None)
    packages = ("keras", "keras-tuner", keras.backend.backend(), "numpy")
    return {
        "study": study.study,
        "objective": OBJECTIVE,
        "finished": False,
        "best": best and best["trial"],
        "flags": {**vars(config), **vars(study)},
        "backend": keras.backend.backend(),
        "commit": commit(),
        "versions": versions(*packages),
        "hyperparameters": [parameter.name for parameter in oracle.hyperparameters.space],
        "trials": trials,
    }


def table(final):
    """The results as lines of text, the best first in a search and in the grid's order else."""
    trials = final["trials"]
    if final["study"] == "search":
        trials = sorted(
            trials, key=lambda t: (-t["share_of_updates"], -t["mean"].get(OBJECTIVE, -1.0))
        )
    head = ["trial", *final["hyperparameters"], "updates", "agreement", "accuracy", ""]
    rows = [
        [
            trial["trial"],
            *(f"{trial['hyperparameters'][name]}" for name in final["hyperparameters"]),
            str(trial["student_updates"] or "-"),
            _mean_and_sd(trial, OBJECTIVE),
            _mean_and_sd(trial, "student_accuracy"),
            "" if trial["status"] == "COMPLETED" else trial["error"] or trial["status"],
        ]
        for trial in trials
    ]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head) - 1)]
    return "\n".join(
        "  ".join(
            [*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]
        ).rstrip()
        for row in [head, *rows]
    )


def write(directory, final):
    """Writes `study.json` and `study.csv`, each whole or not at all."""
    directory.write_json(RESULTS, final)
    names = list(dict.fromkeys(name for trial in final["trials"] for name in trial["mean"]))
    varied = [n for n in final["hyperparameters"] if n not in ("student", "local_reduction")]
    rows = [
        {
            "trial": trial["trial"],
            "status": trial["status"],
            "student": trial["student"],
            "local_reduction": trial["local_reduction"],
            **{name: trial["hyperparameters"][name] for name in varied},
            "student_updates": trial["student_updates"],
            "executions": len(trial["executions"]),
            **{f"{name}_mean": trial["mean"].get(name) for name in names},
            **{f"{name}_sd": trial["sd"].get(name) for name in names},
            "runs": " ".join(trial["runs"]),
        }
        for trial in final["trials"]
    ]
    with (
        replacing(directory / TABLE) as new,
        new.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else ["trial"])
        writer.writeheader()
        writer.writerows(rows)


def _trial(config, study, trial):
    values = trial.hyperparameters.values
    configs = study.configs(config, trial.trial_id, values)
    executions = []
    for run_config in configs:
        with contextlib.suppress(InputError):
            executions.append(RunDirectory(run_config.run_dir).read_json(METRICS))
    measured = columns(executions)
    return {
        "trial": trial.trial_id,
        "status": trial.status,
        "hyperparameters": study.settings(config, values),
        "student": configs[0].student,
        "local_reduction": configs[0].local_reduction,
        "share_of_updates": study.share(values),
        "student_updates": executions[0]["student_updates"] if executions else None,
        "runs": [str(Path(c.run_dir).relative_to(config.run_dir)) for c in configs],
        "executions": executions,
        "mean": {name: statistics.fmean(column) for name, column in measured.items()},
        "sd": {
            name: statistics.stdev(column) if _has_deviation(column) else None
            for name, column in measured.items()
        },
        "error": _error(configs) if trial.status == "FAILED" else None,
    }


def _error(configs):
    """The last words of a trial's first run that came to no end."""
    for config in configs:
        log = Path(f"{config.run_dir}.log")
        if not RunDirectory(config.run_dir).is_finished and log.is_file():
            return last_line(log.read_bytes())
    return "its metrics cannot be read"


def first_error(final):
    """The error of the first trial that failed."""
    return next((t["error"] for t in final["trials"] if t["error"]), "there is none")


def columns(executions):
    """The metrics that are floats in all executions, each with its list of values."""
    first = executions[0] if executions else {}
    return {
        name: [metrics[name] for metrics in executions]
        for name in first
        if all(isinstance(metrics.get(name), float) for metrics in executions)
    }


def _mean_and_sd(trial, name):
    if name not in trial["mean"]:
        return "-"
    mean, deviation = trial["mean"][name], trial["sd"][name]
    return f"{mean:.4f}" if deviation is None else f"{mean:.4f} ± {deviation:.4f}"


def _has_deviation(column):
    return len(column) > 1 and all(map(math.isfinite, column))
