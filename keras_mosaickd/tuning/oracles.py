"""KerasTuner's oracles, which choose the trials, and its tuner, made to survive a kill.

Whatever of KerasTuner is not in its documentation is used here and nowhere else.
"""

import contextlib
import io
import itertools
import json
import time
import warnings
from pathlib import Path

import keras_tuner
from keras_tuner.engine.base_tuner import BaseTuner

from keras_mosaickd.files import write_file
from keras_mosaickd.tuning.space import OBJECTIVE, UNITS


def make(config, study):
    """The oracle of a study."""
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
    oracle = _HyperbandOracle(max_epochs=UNITS, hyperband_iterations=None, **common)
    oracle.max_trials = study.max_trials
    return oracle


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
        write_file(self._get_oracle_fname(), json.dumps(self.get_state()))

    def _save_trial(self, trial):
        folder = Path(self._get_trial_dir(trial.trial_id))
        write_file(folder / "trial.json", json.dumps(trial.get_state()))

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


class DurableTuner(BaseTuner):
    """A tuner whose study can be continued after a kill at any moment."""

    def __init__(self, oracle, **kwargs):
        self._asked_in_vain = False
        # It says on standard output where it reads its state from.
        with contextlib.redirect_stdout(io.StringIO()):
            super().__init__(oracle, **kwargs)

    def save(self):
        """Writes the tuner's state, and alone or in the chief the oracle's."""
        if not self._is_worker():
            self.oracle.save()
        write_file(self._get_tuner_fname(), json.dumps(self.get_state()))

    def pre_create_trial(self):
        """Waits where the oracle had no trial to give."""
        # While the oracle waits for other workers, KerasTuner asks it without a pause.
        if self._asked_in_vain:
            time.sleep(1)
        self._asked_in_vain = True

    def on_trial_begin(self, trial):
        """Notes that the oracle gave a trial."""
        self._asked_in_vain = False

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
