"""Studies: one experiment many times with other settings, by KerasTuner.

Every trial is an ordinary run directory, trained by a process of its own: its memory is free
afterwards, and a trial that fails does not end the study. The objective is always
`student_agreement`, how often student and teacher agree on the test pictures: the labels of the
test pictures choose nothing, accuracy only stands beside it.

KerasTuner 1.4.8 alone loses trials of a grid, or does some twice, when it is killed at the wrong
moment; `_Durable` and `_GridOracle` say where. A trial is never trained by two processes at once: a
lock on it is inherited by the process that trains it and outlives a tuner that was killed.
"""

import contextlib
import csv
import dataclasses
import fcntl
import itertools
import json
import math
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
import warnings
from importlib import metadata
from pathlib import Path

import keras
import keras_tuner
from keras_tuner.engine.base_tuner import BaseTuner

from keras_mosaickd.config import ExperimentConfig
from keras_mosaickd.errors import InputError
from keras_mosaickd.run_directory import FLAGS, METRICS, RunDirectory, commit, flag_value

OBJECTIVE = "student_agreement"
RESULTS, TABLE, TRIALS = "study.json", "study.csv", "trials"

_WEIGHTS = {"lambda": "regularization_weight", "local": "local_weight", "align": "align_weight"}
_WEIGHT_GRID, _STRIDE_GRID = "0,0.1,0.3,1,3,10", "1,2,3,4"
# A full training is nine of Hyperband's units, so that its rungs are 1/9, 1/3 and the whole.
_UNITS = 9
_ADDRESS = ("KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")
_TUNER_ID = "KERASTUNER_TUNER_ID"
# As long as KerasTuner's own workers wait for their chief.
_CHIEF_TIMEOUT = 3600


@dataclasses.dataclass(frozen=True)
class Study:
    """What is varied: a field for each flag of `bin/tune` that `bin/train` does not have.

    `search` takes logarithmic ranges: lambda from 0.03 to 10, the balance weight from 0.1 to 30,
    the temperature from 1 to 20, the student's learning rate from 0.01 to 0.3. Hyperband's shorter
    rungs are trainings of their own, with the whole cosine in a third or a ninth of the updates.
    All other trials are as long as the config says.
    """

    study: str = "stride"
    students: str = ""
    grid: str = ""
    tuner: str = "hyperband"
    max_trials: int = 23
    executions_per_trial: int = 1

    def space(self, config):
        """The `HyperParameters` to try; their names are fields of `ExperimentConfig`.

        The values of a grid are strings: what goes between chief and worker is rounded to 32 bits,
        and a grid's own 0.1 would not be recognised when it comes back.
        """
        space = keras_tuner.HyperParameters()
        if self.study == "search":
            space.Float("regularization_weight", 0.03, 10.0, sampling="log")
            space.Float("balance_weight", 0.1, 30.0, sampling="log")
            space.Float("temperature", 1.0, 20.0, sampling="log")
            space.Float("student_learning_rate", 0.01, 0.3, sampling="log")
            return space
        space.Choice("student", self.names_of_students(config))
        if self.study == "stride":
            space.Choice("local_reduction", ["mean", "sum"])
            space.Choice("overlap_stride", self._values(int, 1, 4))
        else:
            space.Choice(_WEIGHTS[self.study], self._values(float, 0, math.inf))
        return space

    def names_of_students(self, config):
        """The students of the grid: `students`, or the config's."""
        names = [name.strip() for name in (self.students or config.student).split(",")]
        if not all(names) or len(set(names)) < len(names):
            raise InputError(
                f"--students: expected different names between commas. Received: {self.students}"
            )
        return names

    def check(self, config):
        """Raises InputError for a study that the config's method has no use for."""
        if self.study == "search":
            for name in ("students", "grid"):
                if getattr(self, name):
                    raise InputError(
                        f"--{name}: expected none with --study=search, which has ranges of its "
                        f"own. Received: {getattr(self, name)}"
                    )
        needs_patches = self.study in ("stride", "local")
        if not config.is_game or (needs_patches and config.method != "mosaickd"):
            raise InputError(
                f"--study={self.study}: expected --method=mosaickd. Received: {config.method}"
            )
        judged = {"stride": ("patch",), "local": ("patch", "image")}.get(self.study)
        if judged and config.regularizer not in judged:
            raise InputError(
                f"--study={self.study}: expected --regularizer={' or '.join(judged)}. "
                f"Received: {config.regularizer}"
            )
        self.space(config)

    def settings(self, config, values):
        """The fields of `ExperimentConfig` that a trial changes.

        Args:
            config: `ExperimentConfig` of the study.
            values: dict of a trial's hyperparameter values.
        """
        changes = {}
        for name, value in values.items():
            if name.startswith("tuner/"):
                continue
            # Four digits are the same on both sides of KerasTuner's 32 bits.
            exact = value if isinstance(value, str) else f"{value:.4g}"
            changes[name] = type(getattr(config, name))(exact)
        return changes

    def share(self, values):
        """Which part of the config's updates a trial trains: 1 but for Hyperband's rungs."""
        return values.get("tuner/epochs", _UNITS) / _UNITS

    def configs(self, config, trial_id, values):
        """The `ExperimentConfig` of each execution of a trial: seeds seed, seed + 1 and so on."""
        length = "student_updates" if config.student_updates else "epochs"
        # In whole units, not by the share: 500 x (1/9 of 9) must not be rounded up to 501.
        units = values.get("tuner/epochs", _UNITS)
        changes = self.settings(config, values)
        changes[length] = math.ceil(getattr(config, length) * units / _UNITS)
        folder = Path(config.run_dir) / TRIALS
        several = self.executions_per_trial > 1
        return [
            dataclasses.replace(
                config,
                **changes,
                seed=config.seed + execution,
                run_dir=str(
                    folder / (f"{trial_id}-execution-{execution}" if several else trial_id)
                ),
            )
            for execution in range(self.executions_per_trial)
        ]

    def _values(self, kind, lower, upper):
        grid = self.grid or (_STRIDE_GRID if self.study == "stride" else _WEIGHT_GRID)
        try:
            numbers = [kind(part) for part in grid.split(",")]
        except ValueError:
            numbers = []
        good = all(lower <= number <= upper and math.isfinite(number) for number in numbers)
        if not numbers or not good or len(set(numbers)) < len(numbers):
            noun = "whole numbers from 1 to 4" if kind is int else "numbers of at least 0"
            raise InputError(f"--grid: expected different {noun}, with commas. Received: {grid}")
        return [str(number) for number in numbers]


def role():
    """What this process is: `alone`, or in KerasTuner's distributed mode `chief` or `worker`.

    Raises:
        InputError: if only some of the environment variables of that mode are set.
    """
    if not any(os.environ.get(name) for name in _ADDRESS):
        return "alone"
    for name in (*_ADDRESS, _TUNER_ID):
        if not os.environ.get(name):
            raise InputError(
                f"expected {', '.join(_ADDRESS)} and {_TUNER_ID} together. Received: no {name}"
            )
    return "chief" if "chief" in os.environ[_TUNER_ID] else "worker"


def check(config, study):
    """Raises InputError unless the study can be started, or continued, in the config's run_dir.

    A worker waits here until its chief has made the study's directory.
    """
    study.check(config)
    if role() == "worker":
        deadline = time.monotonic() + _CHIEF_TIMEOUT
        while not (Path(config.run_dir) / FLAGS).is_file():
            if time.monotonic() > deadline:
                raise InputError(
                    "--run_dir: expected the directory in which the chief keeps the study. "
                    f"Received: {config.run_dir}"
                )
            time.sleep(0.5)
    RunDirectory(config.run_dir).check({**vars(config), **vars(study)})


def train_command(config):
    """The command line of the process that trains one run: a list of strings."""
    flags = [f"--{name}={flag_value(value)}" for name, value in vars(config).items()]
    return [sys.executable, "-m", "keras_mosaickd.cli.train", *flags]


def tune(config, study, command=train_command):
    """Runs all trials that are not done yet.

    Args:
        config: `ExperimentConfig` of which the trials differ; its run_dir is the study's directory.
        study: `Study`.
        command: function from the `ExperimentConfig` of one run to the command line that trains it.

    Returns:
        Dict as it stands in `study.json`; None in a worker, whose chief writes it.
    """
    part = role()
    directory = RunDirectory(config.run_dir)
    if part != "worker" and not (directory / "tuner" / "oracle.json").exists():
        _check_runs(config, study, command)
    oracle = _oracle(config, study)
    oracle.belongs_to_workers = part == "chief"
    oracle.changed = lambda: _write(directory, results(config, study, oracle))
    # The tuner says itself what it does.
    oracle.verbose = 0
    tuner = _Tuner(oracle, config, study, command)
    if part != "worker":
        # KerasTuner looks for this file to know that there is something to continue.
        tuner.save()
    tuner.search()
    if part == "worker":
        return None
    final = {**results(config, study, oracle), "finished": True}
    _write(directory, final)
    if not any(trial["status"] == "COMPLETED" for trial in final["trials"]):
        raise RuntimeError(f"no trial was completed: {_first_error(final)}")
    return final


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
    best = max(full, key=lambda trial: trial["mean"][OBJECTIVE], default=None)
    packages = ("keras-mosaickd", "keras", "keras-tuner", keras.backend.backend(), "numpy")
    return {
        "study": study.study,
        "objective": OBJECTIVE,
        "finished": False,
        "best": best and best["trial"],
        "flags": {**vars(config), **vars(study)},
        "backend": keras.backend.backend(),
        "commit": commit(),
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in packages},
        },
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


class _Durable(keras_tuner.Oracle):
    """An oracle that survives a kill at any moment; mixed into KerasTuner's.

    Attributes:
        belongs_to_workers: whether a trial that was not finished waits for the tuner that had it,
            which may be alive, or goes to the next one that asks.
        changed: called after each trial, without arguments.
    """

    belongs_to_workers = False
    trials: dict
    ongoing_trials: dict
    start_order: list
    end_order: list

    def changed(self):
        """Does nothing until it is replaced."""

    def save(self):
        # KerasTuner writes in place: a kill at that moment would leave half a file.
        _replace(Path(self._get_oracle_fname()), json.dumps(self.get_state()))

    def _save_trial(self, trial):
        folder = Path(self._get_trial_dir(trial.trial_id))
        _replace(folder / "trial.json", json.dumps(trial.get_state()))

    def set_state(self, state):
        super().set_state(state)
        self._owners = dict(self.ongoing_trials)

    def reload(self):
        super().reload()
        # A trial is written before the oracle that knows of it: one without the other never began.
        self.trials = {name: self.trials[name] for name in self.start_order}
        # Failures are tried once more each time that the study is continued.
        self.end_order = [name for name in self.end_order if self.trials[name].status != "FAILED"]
        # KerasTuner saves a trial's end while the trial still counts as ongoing.
        waiting = [name for name in self.start_order if name not in self.end_order]
        if self.belongs_to_workers:
            self.ongoing_trials = {
                tuner: trial
                for tuner, trial in self._owners.items()
                if trial.trial_id in waiting and trial.status != "FAILED"
            }
        owned = {trial.trial_id for trial in self.ongoing_trials.values()}
        # It is taken from the end.
        self._retry_queue = [name for name in reversed(waiting) if name not in owned]

    @keras_tuner.synchronized
    def end_trial(self, trial):
        super().end_trial(trial)
        self.save()
        self.changed()


class _GridOracle(_Durable, keras_tuner.oracles.GridSearchOracle):
    """A grid search that can be continued.

    KerasTuner's keeps its place in the grid in memory only; after a reload it fails or stops early.
    This one hands out the first combination that was not handed out yet, which is saved.
    """

    def populate_space(self, trial_id):
        names = [parameter.name for parameter in self.hyperparameters.space]
        for combination in itertools.product(*(p.values for p in self.hyperparameters.space)):
            values = dict(zip(names, combination, strict=True))
            if not self._duplicate(values):
                return {"status": "RUNNING", "values": values}
        return {"status": "STOPPED", "values": None}


class _HyperbandOracle(_Durable, keras_tuner.oracles.HyperbandOracle):
    pass


class _BayesianOracle(_Durable, keras_tuner.oracles.BayesianOptimizationOracle):
    def populate_space(self, trial_id):
        with warnings.catch_warnings():
            # scikit-learn's, that a handful of trials determine its Gaussian process badly.
            warnings.simplefilter("ignore")
            return super().populate_space(trial_id)


class _Tuner(BaseTuner):
    """Trains each trial's runs in processes of their own."""

    def __init__(self, oracle, config, study, command):
        self._config, self._study, self._command = config, study, command
        self._asked_in_vain = False
        super().__init__(oracle, directory=config.run_dir, project_name="tuner")

    def save(self):
        if not self._is_worker():
            self.oracle.save()
        _replace(Path(self._get_tuner_fname()), json.dumps(self.get_state()))

    def pre_create_trial(self):
        # While the oracle waits for other workers, KerasTuner asks it without a pause.
        if self._asked_in_vain:
            time.sleep(1)
        self._asked_in_vain = True

    def on_trial_begin(self, trial):
        self._asked_in_vain = False
        values = trial.hyperparameters.values
        shown = ", ".join(
            f"{name}={value}" for name, value in self._study.settings(self._config, values).items()
        )
        print(f"Trial {trial.trial_id}: {shown}", flush=True)

    def _try_run_and_update_trial(self, trial):
        # KerasTuner takes every error for the trial's failure, and prints a traceback. Here any
        # other error (a full disk, a chief that is gone) ends the process and leaves the trial to
        # be continued.
        try:
            # Reported a second time, after a kill at that moment, the mean stays what it is.
            self.oracle.update_trial(trial.trial_id, self.run_trial(trial))
            trial.status = "COMPLETED"
        except keras_tuner.errors.FailedTrialError as error:
            trial.status, trial.message = "FAILED", str(error)
            print(f"Trial {trial.trial_id}: {error}", flush=True)

    def run_trial(self, trial):
        configs = self._study.configs(self._config, trial.trial_id, trial.hyperparameters.values)
        measured = [_run(config, self._command) for config in configs]
        means = {name: statistics.fmean(column) for name, column in _columns(measured).items()}
        print(f"Trial {trial.trial_id}: agreement {means[OBJECTIVE]:.4f}", flush=True)
        return means


def _oracle(config, study):
    common = {
        "objective": keras_tuner.Objective(OBJECTIVE, "max"),
        "hyperparameters": study.space(config),
        # KerasTuner takes 0 for no seed.
        "seed": config.seed + 1,
        # It would raise in the middle of writing, in a chief with its lock held.
        "max_consecutive_failed_trials": None,
    }
    if study.study != "search":
        return _GridOracle(**common)
    if study.tuner == "bayesian":
        return _BayesianOracle(
            max_trials=study.max_trials,
            num_initial_points=max(3, study.max_trials // 4),
            **common,
        )
    # Without an end of its own: it begins anew until max_trials, which it has no argument for.
    oracle = _HyperbandOracle(max_epochs=_UNITS, hyperband_iterations=None, **common)
    oracle.max_trials = study.max_trials
    return oracle


def _check_runs(config, study, command):
    """Lets the training itself check one run of each student, before any is trained."""
    space = study.space(config).space
    last = {p.name: p.values[-1] for p in space} if study.study != "search" else {}
    for student in study.names_of_students(config):
        values = {**last, "student": student}
        run = study.configs(config, "check", values)[0]
        finished = subprocess.run(
            [*command(run), "--dry_run"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if finished.returncode:
            error = _last_line(finished.stdout)
            raise InputError(error) if finished.returncode == 2 else RuntimeError(error)


def _run(config, command):
    """Trains one run, continues it, or waits for whoever does; returns its metrics."""
    run = RunDirectory(config.run_dir)
    run.path.parent.mkdir(parents=True, exist_ok=True)
    log = Path(f"{run.path}.log")
    with _locked(Path(f"{run.path}.lock")) as lock:
        if not run.is_finished:
            with log.open("ab") as output:
                process = subprocess.Popen(
                    command(config),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    pass_fds=(lock.fileno(),),
                )
            try:
                status = process.wait()
            except BaseException:
                process.terminate()
                process.wait()
                raise
            if status == 2:
                raise InputError(_last_line(log.read_bytes()))
            if status > 128 or -status in (signal.SIGINT, signal.SIGTERM):
                # Someone stopped it: it is to be continued, not to be counted as failed.
                raise KeyboardInterrupt
            if status:
                raise keras_tuner.errors.FailedTrialError(_last_line(log.read_bytes()))
        return run.read_json(METRICS)


@contextlib.contextmanager
def _locked(path):
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Waiting for the process that still trains {path.stem}", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        # Closing does not unlock what a child has inherited.
        yield file


def _trial(config, study, trial):
    values = trial.hyperparameters.values
    configs = study.configs(config, trial.trial_id, values)
    executions = []
    for run_config in configs:
        with contextlib.suppress(InputError):
            executions.append(RunDirectory(run_config.run_dir).read_json(METRICS))
    columns = _columns(executions)
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
        "mean": {name: statistics.fmean(column) for name, column in columns.items()},
        "sd": {
            name: statistics.stdev(column) if len(column) > 1 else None
            for name, column in columns.items()
        },
        "error": _error(configs) if trial.status == "FAILED" else None,
    }


def _error(configs):
    """The last words of a trial's first run that came to no end."""
    for config in configs:
        log = Path(f"{config.run_dir}.log")
        if not RunDirectory(config.run_dir).is_finished and log.is_file():
            return _last_line(log.read_bytes())
    return "its metrics cannot be read"


def _first_error(final):
    return next((t["error"] for t in final["trials"] if t["error"]), "there is none")


def _last_line(output):
    lines = [line for line in output.decode(errors="replace").splitlines() if line.strip()]
    return (lines or ["it said nothing"])[-1].strip().removeprefix("bin/train: ")


def _columns(executions):
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


def _write(directory, final):
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
    temporary = directory / f".{TABLE}.{os.getpid()}"
    with temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else ["trial"])
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, directory / TABLE)


def _replace(path, text):
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _version(package):
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


__all__ = [
    "OBJECTIVE",
    "ExperimentConfig",
    "Study",
    "check",
    "results",
    "role",
    "table",
    "train_command",
    "tune",
]
