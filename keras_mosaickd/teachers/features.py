"""Images as a teacher sees them, and images as a generator makes them."""

import keras
import numpy as np

from keras_mosaickd.backend.operations import without_gradient
from keras_mosaickd.networks.features import features
from keras_mosaickd.networks.heads import head_of

# Images at a time through a network; a whole sample at once would fill an accelerator's memory.
_BATCH = 128


class Features:
    """What a teacher makes of images: what enters its last layer with weights, and its logits.

    Where the layers cannot be seen (a subclassed model), the logits stand for the features.

    Args:
        teacher: built Keras model from images to logits.

    Attributes:
        head: the teacher's head.
    """

    def __init__(self, teacher):
        self.head = head_of(teacher)
        seen = features(teacher)
        if seen is not None:
            self._model = keras.Model(teacher.inputs[0], [seen, teacher.outputs[0]])
        else:
            inputs = keras.Input(teacher.input_shape[1:])
            logits = teacher(inputs)
            self._model = keras.Model(inputs, [logits, logits])

    @without_gradient
    def see(self, images):
        """Runs the teacher.

        Args:
            images: `[n, h, w, c]`: uint8, or floats in [0, 1].

        Returns:
            Features `[n, d]`, averaged over the positions where there is a map of them, and logits
            `[n, units]` or, of predictions per pixel, `[n, h, w, units]`; float32.
        """
        seen: tuple[list[np.ndarray], list[np.ndarray]] = [], []
        for start in range(0, len(images), _BATCH):
            batch = np.asarray(images[start : start + _BATCH])
            scale = np.float32(1 / 255 if batch.dtype == np.uint8 else 1)
            batch = keras.ops.convert_to_tensor(batch.astype("float32") * scale)
            for part, output in zip(seen, self._model(batch, training=False), strict=True):
                part.append(keras.ops.convert_to_numpy(keras.ops.cast(output, "float32")))
        points, logits = (np.concatenate(part) for part in seen)
        points = points.reshape(len(points), -1, points.shape[-1])
        return points.mean(axis=1, dtype=np.float64), logits


@without_gradient
def generate(generator, latents):
    """Images float32 [n, h, w, c] of latents [n, latent_dim], in inference mode."""
    latents = np.asarray(latents, "float32")
    batches = [
        generator(keras.ops.convert_to_tensor(latents[start : start + _BATCH]), training=False)
        for start in range(0, len(latents), _BATCH)
    ]
    return np.concatenate(
        [keras.ops.convert_to_numpy(keras.ops.cast(batch, "float32")) for batch in batches]
    )
