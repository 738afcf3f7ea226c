"""Studies: one experiment many times with other settings, by KerasTuner.

Every trial is an ordinary run directory, trained by a process of its own: its memory is free
afterwards, and a trial that fails does not end the study. The objective is always
`student_agreement`, how often student and teacher agree on the test images: the labels of the
test images choose nothing, accuracy only stands beside it.

KerasTuner 1.4.8 alone loses trials of a grid, or does some twice, when it is killed at the wrong
moment; `oracles` says where. A trial is never trained by two processes at once: a lock on it is
inherited by the process that trains it and outlives a tuner that was killed.
"""

from keras_mosaickd.config import ExperimentConfig
from keras_mosaickd.tuning.runs import train_command
from keras_mosaickd.tuning.space import OBJECTIVE, Study
from keras_mosaickd.tuning.summary import results, table
from keras_mosaickd.tuning.tuner import check, dry_run, role, tune

__all__ = [
    "OBJECTIVE",
    "ExperimentConfig",
    "Study",
    "check",
    "dry_run",
    "results",
    "role",
    "table",
    "train_command",
    "tune",
]
