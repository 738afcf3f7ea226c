"""What a study varies: its hyperparameters, and the runs that each trial of them is."""

import dataclasses
import math
from pathlib import Path

import keras_tuner

from keras_mosaickd.errors import InputError
from keras_mosaickd.methods.multipliers import LEAST, MOST

OBJECTIVE, TRIALS = "student_agreement", "trials"

_WEIGHTS = {"lambda": "regularization_weight", "local": "local_weight", "align": "align_weight"}
_GRIDS = {"stride": "1,2,3,4", "epsilon": "0.1,0.3,0.5,0.7,0.9"}
_WEIGHT_GRID = "0,0.1,0.3,1,3,10"
# A full training is nine of Hyperband's units, so that its rungs are 1/9, 1/3 and the whole.
UNITS = 9


@dataclasses.dataclass(frozen=True)
class Study:
    """What is varied: a field for each flag of `bin/tune` that `bin/train` does not have.

    `search` takes logarithmic ranges: lambda from 0.03 to 10 (where it finds itself, epsilon_local
    from 0.05 to 0.95, linear), the balance weight from 0.1 to 30, the temperature from 1 to 20, the
    student's learning rate from 0.01 to 0.3. Hyperband's shorter
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
            if config.regularization == "adaptive":
                space.Float("epsilon_local", 0.05, 0.95)
            else:
                space.Float("regularization_weight", 0.03, 10.0, sampling="log")
            space.Float("balance_weight", 0.1, 30.0, sampling="log")
            space.Float("temperature", 1.0, 20.0, sampling="log")
            space.Float("student_learning_rate", 0.01, 0.3, sampling="log")
            return space
        space.Choice("student", self.names_of_students(config))
        if self.study == "stride":
            space.Choice("local_reduction", ["mean", "sum"])
            space.Choice("overlap_stride", self._values(int, 1, 4))
        elif self.study == "epsilon":
            space.Choice("epsilon_local", self._values(float, 0, 1))
        else:
            is_start = self.study == "lambda" and config.regularization == "adaptive"
            bounds = (LEAST, MOST) if is_start else (0, math.inf)
            space.Choice(_WEIGHTS[self.study], self._values(float, *bounds))
        return space

    def trials(self, config):
        """How many trials there are; of a search the most that there can be."""
        if self.study == "search":
            return self.max_trials
        return math.prod(len(varied.values) for varied in self.space(config).space)

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
        if config.seed + self.executions_per_trial > 2**32:
            raise InputError(
                f"--seed: expected {self.executions_per_trial} seeds from it on, each below "
                f"{2**32}. Received: {config.seed}"
            )
        if self.study == "search":
            for name in ("students", "grid"):
                if getattr(self, name):
                    raise InputError(
                        f"--{name}: expected none with --study=search, which has ranges of its "
                        f"own. Received: {getattr(self, name)}"
                    )
        wanted = {"local": "fixed", "align": "fixed", "epsilon": "adaptive"}.get(self.study)
        if wanted not in (None, config.regularization):
            raise InputError(
                f"--study={self.study}: expected --regularization={wanted}. Received: "
                f"{config.regularization}"
            )
        needs_patches = self.study in ("stride", "local", "epsilon")
        if not config.is_game or (needs_patches and config.method != "mosaickd"):
            raise InputError(
                f"--study={self.study}: expected --method=mosaickd. Received: {config.method}"
            )
        judged = {
            "stride": ("patch",),
            "local": ("patch", "image"),
            "epsilon": ("patch", "image"),
        }.get(self.study)
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
        return values.get("tuner/epochs", UNITS) / UNITS

    def configs(self, config, trial_id, values):
        """The `ExperimentConfig` of each execution of a trial: seeds seed, seed + 1 and so on."""
        length = "student_updates" if config.student_updates else "epochs"
        # In whole units, not by the share: 500 x (1/9 of 9) must not be rounded up to 501.
        units = values.get("tuner/epochs", UNITS)
        changes = self.settings(config, values)
        changes[length] = math.ceil(getattr(config, length) * units / UNITS)
        folder = Path(config.run_dir) / TRIALS
        several = self.executions_per_trial > 1
        configs = []
        for execution in range(self.executions_per_trial):
            name = f"{trial_id}-execution-{execution}" if several else trial_id
            changes |= {"seed": config.seed + execution, "run_dir": str(folder / name)}
            configs.append(dataclasses.replace(config, **changes))
        return configs

    def _values(self, kind, lower, upper):
        grid = self.grid or _GRIDS.get(self.study, _WEIGHT_GRID)
        try:
            numbers = [kind(part) for part in grid.split(",")]
        except ValueError:
            numbers = []
        good = all(lower <= number <= upper and math.isfinite(number) for number in numbers)
        if not numbers or not good or len(set(numbers)) < len(numbers):
            noun = "whole numbers" if kind is int else "numbers"
            upwards = f" of at least {lower}"
            noun += upwards if upper == math.inf else f" from {lower:g} to {upper:g}"
            raise InputError(f"--grid: expected different {noun}, with commas. Received: {grid}")
        return [str(number) for number in numbers]
