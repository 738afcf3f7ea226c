"""Distillation without any images."""

import warnings

import keras
import numpy as np

from keras_mosaickd.data.streams.plan import positive
from keras_mosaickd.methods.mosaic_kd import MosaicKD


def data_free(teacher, student, generator, **options):
    """MosaicKD's game without out-of-domain images: no discriminator, generated images only.

    The generator's objective is `adversarial`, `align` and `balance`. It stands for the data-free
    row of the paper's tables, DFQ (Choi et al. 2020, "Data-Free Network Quantization with
    Adversarial Knowledge Distillation", arXiv 2005.04136), which besides matches the statistics of
    the teacher's BatchNorm layers; this game does not. `fit` takes what `data_free_stream` makes.

    Args:
        teacher: as of `MosaicKD`.
        student: as of `MosaicKD`.
        generator: as of `MosaicKD`.
        **options: as of `MosaicKD`.

    Returns:
        `MosaicKD`.
    """
    return MosaicKD(teacher, student, generator, None, synthetic_only=True, **options)


@keras.saving.register_keras_serializable(package="keras_mosaickd")
class DataFree(MosaicKD):
    """The name of `data_free` in version 0.1, which its checkpoints hold."""

    def __new__(cls, *args, **options):
        """Makes the `MosaicKD`, with a warning."""
        warnings.warn("DataFree is data_free now", DeprecationWarning, stacklevel=2)
        return data_free(*args, **options)

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Makes the `MosaicKD` of a checkpoint."""
        config = {**config, "discriminator": None, "synthetic_only": True}
        return MosaicKD.from_config(config, custom_objects)


class _Placeholders(keras.utils.PyDataset):
    """Elements `(zeros [B, 1],)`."""

    images_are_checked = True

    def __init__(self, batch_size, steps_per_epoch):
        super().__init__()
        self.zeros = np.zeros((batch_size, 1), "float32")
        self.steps_per_epoch = steps_per_epoch

    def __len__(self):
        return self.steps_per_epoch

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            raise IndexError(f"expected an index below {len(self)}. Received: {index}")
        return (self.zeros,)


def data_free_stream(batch_size, steps_per_epoch):
    """The training data of `data_free`: nothing but the size of the batch.

    Args:
        batch_size: B, the number of images to generate for each update, over all replicas.
        steps_per_epoch: elements per epoch.

    Returns:
        Elements `(zeros [B, 1],)`: a tf.data.Dataset on the TensorFlow backend (which a
        distribution strategy can split), else a `keras.utils.PyDataset`.

    Raises:
        InputError: if a number is not a positive whole one.
    """
    batches = _Placeholders(
        positive(batch_size, "batch_size"), positive(steps_per_epoch, "steps_per_epoch")
    )
    if keras.backend.backend() != "tensorflow":
        return batches
    from keras_mosaickd.data.streams.tensorflow import pool_dataset

    return pool_dataset(batches)
