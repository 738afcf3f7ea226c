"""Keras callbacks: checkpoints, traces of a run, and what stops a training that diverges."""

from keras_mosaickd.callbacks.traces import (
    HistoryCsv,
    SampleGrid,
    TensorBoardScalars,
    read_history,
)
from keras_mosaickd.evaluation.drawing import draw_samples

__all__ = ["HistoryCsv", "SampleGrid", "TensorBoardScalars", "draw_samples", "read_history"]
