"""Distillation without any images."""

import keras
import numpy as np

from keras_mosaickd.data.streams.plan import positive
from keras_mosaickd.errors import InputError
from keras_mosaickd.methods.mosaic_kd import MosaicKD


@keras.saving.register_keras_serializable(package="keras_mosaickd")
class DataFree(MosaicKD):
    """MosaicKD's game without out-of-domain images: no discriminator, generated images only.

    The generator's objective is `adversarial`, `align` and `balance`. It stands for the data-free
    row of the paper's tables, DFQ (Choi et al. 2020, "Data-Free Network Quantization with
    Adversarial Knowledge Distillation", arXiv 2005.04136), which besides matches the statistics of
    the teacher's BatchNorm layers; this class does not. `fit` takes what `data_free_stream` makes.

    Args:
        teacher: as of `MosaicKD`.
        student: as of `MosaicKD`.
        generator: as of `MosaicKD`.
        latent_dim: as of `MosaicKD`.
        student_steps: as of `MosaicKD`.
        regularization_weight: as of `MosaicKD`; scales the `align` term.
        align_weight: as of `MosaicKD`.
        adversarial_weight: as of `MosaicKD`.
        balance_weight: as of `MosaicKD`.
        temperature: as of `MosaicKD`.
        teacher_outputs: as of `MosaicKD`.
        batch_norm_policy: as of `MosaicKD`.
        seed: as of `MosaicKD`.
        **kwargs: of `keras.Model`.

    Raises:
        InputError: if an argument is out of range or the networks do not fit together.
    """

    networks = ("teacher", "student", "generator")

    def __init__(
        self,
        teacher,
        student,
        generator,
        latent_dim=100,
        student_steps=5,
        regularization_weight=1.0,
        align_weight=1.0,
        adversarial_weight=1.0,
        balance_weight=10.0,
        temperature=1.0,
        teacher_outputs="auto",
        batch_norm_policy="training",
        seed=None,
        **kwargs,
    ):
        super().__init__(
            teacher,
            student,
            generator,
            None,
            latent_dim=latent_dim,
            student_steps=student_steps,
            regularization_weight=regularization_weight,
            align_weight=align_weight,
            adversarial_weight=adversarial_weight,
            balance_weight=balance_weight,
            temperature=temperature,
            synthetic_only=True,
            teacher_outputs=teacher_outputs,
            batch_norm_policy=batch_norm_policy,
            seed=seed,
            **kwargs,
        )

    def fit(self, x=None, y=None, batch_size=None, **kwargs):
        """Trains as `keras.Model.fit` on elements of `data_free_stream`.

        Args:
            x: `data_free_stream(batch_size, steps_per_epoch)`.
            y: must be None.
            batch_size: must be None: the stream's elements are batches.
            **kwargs: of `keras.Model.fit`.

        Returns:
            `keras.callbacks.History`.

        Raises:
            InputError: if images or labels are given.
        """
        if y is not None:
            raise InputError("DataFree.fit() takes no labels: pass data_free_stream(...) alone")
        # Past MosaicKD's, which would take elements of one array for images.
        return super(MosaicKD, self).fit(x, batch_size=batch_size, **{"shuffle": False, **kwargs})

    def _unpack(self, data):
        """The placeholder, whose first axis is the batch's size, and no images."""
        placeholder, images, _ = keras.utils.unpack_x_y_sample_weight(data)
        shape = getattr(placeholder, "shape", ())
        if images is not None or len(shape) != 2:
            raise InputError(
                "DataFree takes no images: each element of the training data must be (zeros "
                "[B, 1],); keras_mosaickd.methods.data_free_stream makes it. Received: shape "
                f"{tuple(shape)}{' and a second array' if images is not None else ''}"
            )
        return placeholder, None

    def get_config(self):
        """Everything that makes the same game again."""
        config = super().get_config()
        for name in ("local_weight", "local_reduction", "synthetic_only"):
            del config[name]
        return config


class _Placeholders(keras.utils.PyDataset):
    """Elements `(zeros [B, 1],)`."""

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
    """The training data of `DataFree`: nothing but the size of the batch.

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
