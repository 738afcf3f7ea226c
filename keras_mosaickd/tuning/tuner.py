"""The tuner: asks the oracle for trials, alone or as a worker, and trains them."""

import os
import statistics
import time
from pathlib import Path

import keras_tuner

from keras_mosaickd.errors import InputError
from keras_mosaickd.run_directory import FLAGS, RunDirectory
from keras_mosaickd.tuning import hparams, oracles, runs
from keras_mosaickd.tuning.space import OBJECTIVE
from keras_mosaickd.tuning.summary import columns, first_error, results, write

_ADDRESS = ("KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")
_TUNER_ID = "KERASTUNER_TUNER_ID"
# As long as KerasTuner's own workers wait for their chief.
_CHIEF_TIMEOUT = 3600


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


def dry_run(config, study, command=runs.train_command):
    """What `tune` would do, as text: how many runs, and what one of each student would be.

    Nothing is written.

    Raises:
        InputError: as of the runs.
    """
    trials, each = study.trials(config), study.executions_per_trial
    count = (
        f"runs               {trials * each} ({trials} trials, {each} each); one of each student:"
    )
    return "\n\n".join([count, *runs.check(config, study, command)])


def tune(config, study, command=runs.train_command):
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
        runs.check(config, study, command)
    oracle = oracles.make(config, study)
    oracle.belongs_to_workers = part == "chief"
    oracle.changed = lambda: write(directory, results(config, study, oracle))
    # The tuner says itself what it does.
    oracle.verbose = 0
    tuner = _Tuner(oracle, config, study, command)
    if part != "worker":
        # KerasTuner looks for this file to know that there is something to continue.
        tuner.save()
        hparams.write_experiment(directory.path, config, oracle.hyperparameters)
    tuner.search()
    if part == "worker":
        return None
    final = {**results(config, study, oracle), "finished": True}
    write(directory, final)
    if not any(done["status"] == "COMPLETED" for done in final["trials"]):
        raise RuntimeError(f"no trial was completed: {first_error(final)}")
    return final


class _Tuner(oracles.DurableTuner):
    """Trains each trial's runs in processes of their own."""

    def __init__(self, oracle, config, study, command):
        self._config, self._study, self._command = config, study, command
        super().__init__(oracle, directory=config.run_dir, project_name="tuner")

    def on_trial_begin(self, trial):
        super().on_trial_begin(trial)
        values = trial.hyperparameters.values
        shown = ", ".join(
            f"{name}={value}" for name, value in self._study.settings(self._config, values).items()
        )
        print(f"Trial {trial.trial_id}: {shown}", flush=True)

    def run_trial(self, trial):
        configs = self._study.configs(self._config, trial.trial_id, trial.hyperparameters.values)
        measured = [self._train(config, trial) for config in configs]
        means = {name: statistics.fmean(column) for name, column in columns(measured).items()}
        print(f"Trial {trial.trial_id}: agreement {means[OBJECTIVE]:.4f}", flush=True)
        return means

    def _train(self, config, trial):
        values = self._study.settings(self._config, trial.hyperparameters.values)
        try:
            metrics = runs.train(config, self._command)
        except keras_tuner.errors.FailedTrialError:
            hparams.write_session(config, values, trial.trial_id, succeeded=False)
            raise
        hparams.write_session(config, values, trial.trial_id, succeeded=True)
        return metrics
