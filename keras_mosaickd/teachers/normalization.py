"""How images in [0, 1] are normalised: measured on images, read from a teacher, declared."""

import keras
import numpy as np

from keras_mosaickd.errors import InputError

RANGES = {"0-1": (0.0, 1.0), "0-255": (0.0, 1 / 255), "-1-1": (0.5, 0.5)}
# Numbers beyond this are no normalisation that a student would learn well with.
_LARGEST = 10.0


def declared(text, channels):
    """Mean and standard deviation that `--teacher_input` stands for.

    Args:
        text: "0-1", "0-255", "-1-1", or MEAN/STD, each one number or one per channel with commas
            between them, of images in [0, 1]: `0.485,0.456,0.406/0.229,0.224,0.225`.
        channels: number of channels.

    Returns:
        `(mean, std)`, two lists of as many numbers: the teacher takes `(image - mean) / std`.

    Raises:
        InputError: for any other text.
    """
    if text in RANGES:
        return tuple([value] * channels for value in RANGES[text])
    try:
        mean, std = ([float(number) for number in part.split(",")] for part in text.split("/"))
    except ValueError:
        mean = std = []
    good = all(len(part) in (1, channels) for part in (mean, std))
    if not good or not np.isfinite([*mean, *std]).all() or not all(value > 0 for value in std):
        raise InputError(
            f"--teacher_input must be {', '.join(RANGES)}, or MEAN/STD with one number or one for "
            f"each of {channels} channels, as 0.5,0.5,0.5/0.25,0.25,0.25. Received: {text}"
        )
    return tuple(part * channels if len(part) == 1 else part for part in (mean, std))


def normalization(teacher):
    """Mean and standard deviation by which a teacher's first layers normalise images in [0, 1].

    Several such layers in a row are taken together, those of a model inside the teacher too.

    Returns:
        `(mean, std)`, lists with one number or one per channel; `(None, None)` where there is no
        such layer. Where the images leave these layers far from 0 (a teacher of pixels up to
        255, whose own scaling is not a layer), `([0.5], [0.5])`.
    """
    steps = []
    for layer in _leaves(teacher):
        step = _affine(layer)
        if step is None:
            break
        steps.append(step)
    if not steps:
        return None, None
    mean, std = steps[0]
    for next_mean, next_std in steps[1:]:
        mean, std = mean + next_mean * std, std * next_std
    if max(np.abs(mean / std).max(), np.abs((1 - mean) / std).max()) > _LARGEST:
        return [0.5], [0.5]
    return mean.tolist(), std.tolist()


def _leaves(model):
    """Layers in the order in which images meet them, without inputs; models are entered."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _leaves(layer)
        elif not isinstance(layer, keras.layers.InputLayer):
            yield layer


def _affine(layer):
    """Mean and standard deviation of a layer that only normalises, else None."""
    if isinstance(layer, keras.layers.Normalization) and not layer.invert:
        if layer.input_mean is not None:
            mean, variance = layer.input_mean, layer.input_variance
        else:  # adapted to images
            mean, variance = (keras.ops.convert_to_numpy(v) for v in (layer.mean, layer.variance))
        return np.ravel(mean), np.sqrt(np.ravel(variance))
    if isinstance(layer, keras.layers.Rescaling):
        scale = np.ravel(np.asarray(layer.scale, "float64"))
        return np.ravel(-np.asarray(layer.offset) / scale), 1 / scale
    return None


def statistics(images):
    """Mean and standard deviation of each channel over all images and pixels, in [0, 1].

    Args:
        images: uint8 array-like `[n, h, w, c]`.

    Returns:
        `(mean, std)`, two lists of c numbers.
    """
    total = squares = np.zeros(images.shape[-1])
    pixels = 0
    for start in range(0, len(images), 4096):
        chunk = np.asarray(images[start : start + 4096], "float64") / 255.0
        total = total + chunk.sum(axis=(0, 1, 2))
        squares = squares + (chunk**2).sum(axis=(0, 1, 2))
        pixels += chunk[..., 0].size
    mean = total / pixels
    # A channel that never changes is left as it is.
    deviation = np.sqrt(np.maximum(squares / pixels - mean**2, 0.0))
    return mean.tolist(), np.where(deviation < 1e-6, 1.0, deviation).tolist()
