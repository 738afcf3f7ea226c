"""A teacher of the user's own: loaded, its input declared, its output made logits, described."""

import keras

from keras_mosaickd.errors import InputError
from keras_mosaickd.networks.logits import recognized, with_shapes
from keras_mosaickd.teachers import given_models
from keras_mosaickd.teachers.normalization import declared


def load_teacher(teacher, teacher_input="0-1", image_size=None, head="auto"):
    """Makes any Keras classifier a teacher: images in [0, 1] in, logits out.

    Args:
        teacher: built `keras.Model`, or what `--teacher` takes: the path of a `.keras` file
            (loaded in safe mode) or of a SavedModel's directory (TensorFlow), or
            `module:function`.
        teacher_input: what the model takes: "0-1", "0-255", "-1-1", or MEAN/STD of images in
            [0, 1], as "0.485,0.456,0.406/0.229,0.224,0.225". A layer in front turns images in
            [0, 1] into it. What the model does inside, by layers of its own, is not declared.
        image_size: height and width in pixels, for a model that takes images of any size.
        head: "classes" or "labels", where the model gives logits of either; "auto" looks for a
            softmax or sigmoids, and takes other logits for those of classes.

    Returns:
        `keras.Model` from `[batch, h, w, c]` in [0, 1] to logits `[batch, classes]` or `[batch, h,
        w, classes]`, on the layers of the given model, which is left as it is.

    Raises:
        InputError: if it cannot be loaded, or does not take square images, grey or RGB.
    """
    return read(teacher, teacher_input, image_size, head)[0]


def read(teacher, teacher_input="0-1", image_size=None, head="auto"):
    """As `load_teacher`, with what was read from the model besides.

    Returns:
        The teacher, and one line of text: its image size, channels, classes and ending.
    """
    name = teacher if isinstance(teacher, str) else getattr(teacher, "name", "the model")
    model = given_models.load(teacher, "--teacher") if isinstance(teacher, str) else teacher
    model = with_shapes(model)
    shape = _image_shape(model, name, image_size)
    mean, std = declared(teacher_input, shape[-1])
    if tuple(model.input_shape[1:]) != shape:
        model = _of_fixed_size(model, shape, name)
    logits, recognized_as = recognized(model, head=head)
    per_pixel = "for each pixel " if len(logits.output_shape) == 4 else ""
    line = (
        f"Teacher {name}: images {shape[0]}x{shape[1]}x{shape[2]}, given to it as "
        f"{teacher_input}; {per_pixel}{recognized_as}; {model.count_params():,} parameters"
    )
    if teacher_input == "0-1":
        return logits, line
    images = keras.Input(shape)
    scaled = keras.layers.Rescaling(
        [1 / value for value in std],
        [-m / s for m, s in zip(mean, std, strict=True)],
        dtype="float32",
        name="teacher_input",
    )(images)
    return keras.Model(images, logits(scaled), name=f"{model.name}_teacher"), line


def _image_shape(model, name, image_size):
    height, width, channels = model.input_shape[1:]
    wanted = (image_size or height or width, image_size or width or height, channels)
    if channels not in (1, 3):
        raise InputError(
            "--teacher must take grey images (1 channel) or RGB ones (3). "
            f"Received: {name} with input {model.input_shape[1:]}"
        )
    if wanted[0] is None:
        raise InputError(
            f"--image_size must be given: --teacher {name} takes images of any size. Received: 0"
        )
    if wanted[0] != wanted[1]:
        raise InputError(
            "--teacher must take square images. "
            f"Received: {name} with input {model.input_shape[1:]}"
        )
    if any(size not in (None, wanted[0]) for size in (height, width)):
        raise InputError(
            f"--teacher must take images of {wanted}, as --image_size or --dataset has them. "
            f"Received: {name} with input {model.input_shape[1:]}"
        )
    return wanted


def _of_fixed_size(model, shape, name):
    images = keras.Input(shape)
    try:
        return keras.Model(images, model(images), name=model.name)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"--image_size must be one that --teacher {name} takes. Received: {shape[0]}: {reason}"
        ) from error
