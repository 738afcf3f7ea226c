"""Keras's mean intersection over union, without pixels that belong to no class."""

import warnings

import keras

from keras_mosaickd.data.pixels import VOID


class MeanIoU(keras.metrics.MeanIoU):
    """`keras.metrics.MeanIoU` that leaves void pixels out and is quiet on JAX.

    Args:
        classes: number of classes.
        from_logits: whether predictions come as logits of every class rather than as classes.
    """

    def __init__(self, classes, from_logits=False):
        super().__init__(classes, name="mean_iou", ignore_class=VOID, sparse_y_pred=not from_logits)

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Counts a batch."""
        with warnings.catch_warnings():
            # Keras counts in int64, which JAX narrows and says so.
            warnings.filterwarnings("ignore", message="Explicitly requested dtype")
            return super().update_state(y_true, y_pred, sample_weight)
