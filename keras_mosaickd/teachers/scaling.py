"""Which pixels a teacher takes: declared, seen in its layers, measured on images."""

import contextlib
from typing import NamedTuple

import keras
import numpy as np

from keras_mosaickd.backend.keras_graph import graph
from keras_mosaickd.backend.training import whole_batches
from keras_mosaickd.errors import InputError
from keras_mosaickd.networks.heads import head_of

RANGES = {"0-1": (0.0, 1.0), "0-255": (0.0, 1 / 255), "-1-1": (0.5, 0.5)}
# The modes of keras.applications.imagenet_utils.preprocess_input, for images in [0, 1].
_IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
_CAFFE = ([value / 255 for value in (123.68, 116.779, 103.939)], [1 / 255] * 3)
MODES = ("caffe", "tf", "torch")
# From black to white, what reaches the first kernel of a network spans about 1 (0 to 1), 2 (-1 to
# 1), 4 (a usual MEAN/STD) or 255, with 0 in it or near: anything far from that is another range
# than the network was made for.
_LEAST_SPAN, _MOST_SPAN, _MOST_OFFSET = 0.1, 300.0, 3.0
# A teacher whose probabilities differ by less (standard deviation over images) tells nothing apart.
_LEAST_VARIETY = 0.01
# Numbers beyond this are no normalisation that a student would learn well with.
_LARGEST = 10.0


class Scaling(NamedTuple):
    """What becomes of images in [0, 1] before a teacher gets them: `(image - mean) / std`.

    Attributes:
        mean: a number for each channel.
        std: likewise.
        is_bgr: whether the channels are reversed afterwards.
    """

    mean: list[float]
    std: list[float]
    is_bgr: bool = False

    def __call__(self, images):
        """The images as the teacher gets them: an array, a tensor or a symbolic tensor."""
        scale = keras.layers.Rescaling(
            [1 / value for value in self.std],
            [-mean / std for mean, std in zip(self.mean, self.std, strict=True)],
            dtype="float32",
            name="teacher_input",
        )
        scaled = scale(images)
        return keras.ops.flip(scaled, axis=-1) if self.is_bgr else scaled


def declared(text, channels):
    """The `Scaling` that `--teacher_input` stands for.

    Args:
        text: "0-1", "0-255", "-1-1"; "caffe", "tf" or "torch", the modes of `keras.applications`;
            or MEAN/STD, each one number or one per channel with commas between them, of images in
            [0, 1]: `0.485,0.456,0.406/0.229,0.224,0.225`.
        channels: number of channels.

    Raises:
        InputError: for any other text, or a mode that has other channels.
    """
    if text in MODES and channels != 3 and text != "tf":
        raise InputError(
            f"--teacher_input={text} is for RGB images. Received: a --teacher with {channels} "
            f"channel{'s' if channels > 1 else ''}"
        )
    if text == "caffe":
        return Scaling(*_CAFFE, is_bgr=True)
    if text == "torch":
        return Scaling(*_IMAGENET)
    text = "-1-1" if text == "tf" else text
    if text in RANGES:
        mean, std = ([value] * channels for value in RANGES[text])
        return Scaling(mean, std)
    try:
        mean, std = ([float(number) for number in part.split(",")] for part in text.split("/"))
    except ValueError:
        mean = std = []
    good = all(len(part) in (1, channels) for part in (mean, std))
    if not good or not np.isfinite([*mean, *std]).all() or not all(value > 0 for value in std):
        raise InputError(
            f"--teacher_input must be {', '.join([*RANGES, *MODES])}, or MEAN/STD with one number "
            f"or one for each of {channels} channels, as 0.5,0.5,0.5/0.25,0.25,0.25. "
            f"Received: {text}"
        )
    mean, std = (part * channels if len(part) == 1 else part for part in (mean, std))
    return Scaling(mean, std)


def normalization(teacher):
    """Mean and standard deviation by which a teacher's first layers normalise images in [0, 1].

    Whatever stands before the first kernel counts, also in models inside the teacher.

    Returns:
        `(mean, std)`, lists with one number per channel; `(None, None)` where the images arrive as
        they are, or nothing can be seen. Where they arrive far from 0 or all alike (a teacher of
        pixels up to 255 that does not scale them), `([0.5], [0.5])`.
    """
    first = _at_first_kernel(teacher, Scaling([0.0], [1.0]))
    if first is None:
        return None, None
    black, white = first
    span = (white - black).astype("float64")
    if np.abs(first).max() > _LARGEST or np.abs(span).min() < _LEAST_SPAN:
        return [0.5], [0.5]
    mean, std = -black / span, 1 / span
    if (mean == 0).all() and (std == 1).all() or (std < 0).any():
        return None, None
    return mean.tolist(), std.tolist()


def contradiction(model, text):
    """Says that a declared range is not what the layers of a model are made for.

    Args:
        model: the user's model, before any layer in front of it.
        text: its `--teacher_input`.

    Returns:
        One line with the flag to give; empty where nothing speaks against the declaration.
    """
    channels = model.input_shape[-1]

    def arrives(name):
        """From black to white, by how much pixels change at the first kernel, and around what."""
        first = _at_first_kernel(model, declared(name, channels))
        if first is None:
            return None
        return float(np.abs(first[1] - first[0]).mean()), float(first.mean())

    def is_usual(found):
        span, centre = found or (0.0, 0.0)
        return _LEAST_SPAN <= span <= _MOST_SPAN and abs(centre) <= _MOST_OFFSET * span

    found = arrives(text)
    if found is None or is_usual(found):
        return ""
    others = [name for name in RANGES if name != text]
    if "/" in text:
        parts = [[float(x) / 255 for x in part.split(",")] for part in text.split("/")]
        others.insert(0, "/".join(",".join(f"{value:.4g}" for value in part) for part in parts))
    better = next((name for name in others if is_usual(arrives(name))), None)
    advice = f"give --teacher_input={better}" if better else "look at --teacher_input"
    advice += " (from Python, km.load_teacher's)"
    return (
        f"Warning: from black to white, pixels change by {found[0]:.3g} around {found[1]:.3g} "
        f"where the teacher's first kernel sees them, with --teacher_input={text} and the scaling "
        f"inside the teacher; {advice}, unless that is meant"
    )


def too_certain(entropy, most, text):
    """Says that a teacher is certain of nearly all out-of-domain images.

    Args:
        entropy: mean entropy of those of the highest, in nats.
        most: entropy of a teacher that knows nothing, in nats.
        text: its `--teacher_input`.

    Returns:
        One line; empty where it is not so.
    """
    if not entropy < 0.01 * most:
        return ""
    return (
        f"Warning: the teacher is certain of nearly all of these images (mean entropy "
        f"{entropy:.4f} of at most {most:.4f} nats). Is --teacher_input={text} what it takes?"
    )


def contradicting_answers(teacher, text, images):
    """Says that a teacher answers as if images reached it in another range than the declared one.

    It serves teachers whose layers cannot be seen, or that were made for raw pixels and scale none:
    what `contradiction` cannot tell.

    Args:
        teacher: what `load_teacher` made of the user's model.
        text: its `--teacher_input`.
        images: out-of-domain images, uint8 `[n, h, w, c]`; a few hundred are enough.

    Returns:
        One line; empty where nothing speaks against the declaration.
    """
    head = head_of(teacher)
    own = declared(text, images.shape[-1])
    if own.is_bgr:
        return ""
    pixels = np.asarray(images, "float32") / 255.0

    def variety(name):
        """How much probabilities differ between images that arrive as `name` declares."""
        other = declared(name, images.shape[-1])
        arriving = (pixels - np.float32(other.mean)) / np.float32(other.std)
        arriving = arriving * np.float32(own.std) + np.float32(own.mean)
        with whole_batches():
            logits = teacher.predict(arriving, batch_size=64, verbose=0)
        probabilities = keras.ops.convert_to_numpy(head.probabilities(logits))
        return float(np.std(probabilities, axis=0).max())

    found = variety(text)
    if found > _LEAST_VARIETY:
        return ""
    others = {name: variety(name) for name in RANGES if name != text}
    better = max(others, key=lambda name: others[name])
    if others[better] < 10 * _LEAST_VARIETY:
        return ""
    return (
        f"Warning: with --teacher_input={text} the teacher answers nearly the same to all images "
        f"(its probabilities differ by {found:.2g}); with --teacher_input={better}, by "
        f"{others[better]:.2g}: give that, unless this is meant"
    )


class _Arrived(Exception):
    """Ends the way through a graph; it holds what was last seen."""


def _at_first_kernel(model, scaling):
    """What black and white become, by channel, on the way to the first layer with a kernel.

    Returns:
        Array `[2, channels]`, in the order of the image's channels; None where the layers cannot
        be seen, or do more than scale each channel.
    """
    shape = model.input_shape[1:]
    channels = shape[-1]
    sides = [side or 32 for side in shape[:-1]]
    colours = np.concatenate([[[0] * channels, [1] * channels, [0.5] * channels], np.eye(channels)])
    images = np.broadcast_to(colours[:, None, None], (len(colours), *sides, channels))
    mean, std = (np.asarray(value, "float32") for value in scaling[:2])
    given = (images.astype("float32") - mean) / std
    seen = [keras.ops.convert_to_tensor(given[..., ::-1] if scaling.is_bgr else given)]
    if graph(model) is None:
        return None
    with contextlib.suppress(_Arrived):
        _follow(model, seen[0], seen)
    arrived = keras.ops.convert_to_numpy(keras.ops.cast(seen[-1], "float32"))
    by_colour = arrived[:, 0, 0]
    if not np.allclose(arrived, by_colour[:, None, None], rtol=1e-4, atol=1e-5):
        return None
    black, white, grey, *single = by_colour
    if not np.allclose(grey, (black + white) / 2, rtol=1e-3, atol=1e-4):
        return None
    # The channel of the image that each channel there follows.
    moved = np.abs(np.stack(single) - black)
    order = moved.argmax(axis=0)
    if sorted(order) != list(range(channels)) or (np.count_nonzero(moved, axis=0) > 1).any():
        return None
    return np.stack([black[np.argsort(order)], white[np.argsort(order)]])


def _follow(model, values, seen):
    """Runs a model as far as the first layer with a kernel, noting what has the image's shape."""
    inside = graph(model)
    if inside is None:
        raise _Arrived

    def call_layer(call, *args, **kwargs):
        if isinstance(call.layer, keras.Model):
            return _follow(call.layer, args[0], seen)
        if any(len(weight.shape) > 1 for weight in getattr(call.layer, "weights", ())):
            raise _Arrived
        if hasattr(call.layer, "sha256"):  # A whole network, which nobody can see into.
            raise _Arrived
        outputs = call(False, *args, **kwargs)
        if getattr(outputs, "shape", None) == seen[0].shape:
            seen.append(outputs)
        return outputs

    return inside.run([values], call_layer)[0]


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
