"""The quality of the synthetic images after every epoch, in the logs and in TensorBoard."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mosaickd.callbacks.event_files import EventFile
from keras_mosaickd.data.image_set import spread
from keras_mosaickd.evaluation import image_quality as quality
from keras_mosaickd.teachers.features import Features, generate

# More out-of-domain images change the numbers little and cost time after every epoch.
MOST_IMAGES = 1024


class ImageQuality(keras.callbacks.Callback):
    """Adds `evaluation.image_quality.summarize` to the epoch's logs, as ``synthetic_...``.

    Keras gives all callbacks of an epoch's end one dict, in their order, whatever the backend
    (`keras.callbacks.CallbackList`): put this one before those that write the logs.

    The model must have the attributes ``generator`` and ``teacher``, whose outputs are logits.

    Args:
        latents: [n, latent_dim] float32, n at least 2, drawn once by the caller, so that epochs can
            be compared.
        ood_images: [m, h, w, c], m at least 2: uint8, or floats in [0, 1]. Of more than 1024 as
            many are taken, evenly spaced. None where there are none: then the numbers that are
            measured against them are left out.
        every: Look after every this many epochs; the last epoch is always looked at.
        log_dir: TensorBoard's directory; a histogram of the classes that the teacher sees goes to
            its sub-directory ``quality``. None writes none.
    """

    def __init__(
        self,
        latents: Any,
        ood_images: Any = None,
        every: int = 1,
        log_dir: str | os.PathLike[str] | None = None,
    ):
        super().__init__()
        if every < 1:
            raise ValueError(f"expected every of at least 1. Received: {every}")
        self.latents = np.asarray(latents, dtype="float32")
        self.every = every
        self._ood_images: Any = None
        if ood_images is not None:
            self._ood_images = spread(ood_images, min(len(ood_images), MOST_IMAGES))
        self._log = None if log_dir is None else EventFile(Path(log_dir) / "quality")
        self._features: Any = None
        self._out_of_domain: Any = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks at the images when its turn has come, and adds to ``logs``."""
        is_last = epoch + 1 == self.params.get("epochs")
        if logs is None or ((epoch + 1) % self.every and not is_last):
            return
        if self._features is None:
            # The teacher is frozen: what it sees in real images stays the same.
            self._features = Features(self.model.teacher)
            if self._ood_images is not None:
                self._out_of_domain = self._features.see(self._ood_images)
            self._ood_images = None
        synthetic = self._features.see(generate(self.model.generator, self.latents))
        head = self._features.head
        numbers = quality.summarize(head, synthetic, self._out_of_domain)
        logs.update({f"synthetic_{name}": value for name, value in numbers.items()})
        if self._log is not None:
            predictions = keras.ops.convert_to_numpy(head.predictions(synthetic[1]))
            self._log.histogram(epoch, "predicted_classes", head.counts(predictions).tolist())

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Closes the event file."""
        if self._log is not None:
            self._log.close()
