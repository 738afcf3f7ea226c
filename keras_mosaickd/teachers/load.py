"""A teacher of the user's own: loaded, its input declared, its output made logits, described.

Loaded are a `.keras` or `.h5` file, a directory of a SavedModel, and what a function makes: a Keras
model or, on PyTorch, a `torch.nn.Module`. A file is loaded in Keras's safe mode, so that no code in
it is run. A SavedModel and a function are run because the user named them.
"""

import importlib
import inspect
import os

import keras

from keras_mosaickd.backend.keras_graph import graph
from keras_mosaickd.config import FUNCTION, MODEL_FILES, is_saved_model
from keras_mosaickd.errors import InputError
from keras_mosaickd.files import file_sha256
from keras_mosaickd.networks.flops import count_parameters
from keras_mosaickd.networks.loading import load_model, working_directory_first
from keras_mosaickd.networks.logits import one_output, recognized, with_shapes
from keras_mosaickd.teachers import foreign, remote
from keras_mosaickd.teachers.scaling import contradiction, declared


def load_teacher(
    teacher, teacher_input="0-1", image_size=None, head="auto", teacher_output="", unsafe=False
):
    """Makes any Keras classifier a teacher: images in [0, 1] in, logits out.

    What is recognised is printed, and what speaks against the declared input.

    Args:
        teacher: built `keras.Model`, a `torch.nn.Module` (PyTorch), or what `--teacher` takes: the
            path of a `.keras` or `.h5` file (loaded in safe mode) or of a SavedModel's directory
            (TensorFlow), `https://…#sha256=…`, `hf://OWNER/NAME`, or `module:function`.
        teacher_input: what the model takes: "0-1", "0-255", "-1-1"; "caffe", "tf" or "torch", the
            modes of `keras.applications`; or MEAN/STD of images in [0, 1], as
            "0.485,0.456,0.406/0.229,0.224,0.225". A layer in front turns images in [0, 1] into it.
            What the model does inside, by layers of its own, is not declared.
        image_size: height and width in pixels, for a model that takes images of any size.
        head: "classes" or "labels", where the model gives logits of either; "auto" looks for a
            softmax or sigmoids, and takes other logits for those of classes.
        teacher_output: name of the output to take, of a model with several.
        unsafe: whether code in a file (Lambda layers) is run; never for what was downloaded.

    Returns:
        `keras.Model` from `[batch, h, w, c]` in [0, 1] to logits `[batch, units]` or `[batch, h, w,
        units]`, on the layers of the given model, which is left as it is.

    Raises:
        InputError: if it cannot be loaded, or does not take square images, grey or RGB.
    """
    if isinstance(teacher, os.PathLike):
        teacher = os.fspath(teacher)
    name = teacher if isinstance(teacher, str) else getattr(teacher, "name", "the model")
    if isinstance(teacher, str):
        model = load(teacher, "--teacher", unsafe, teacher_output, image_size)
    else:
        model = _checked(teacher, name, "the teacher", teacher_output, image_size)
    shape = _image_shape(model, name, image_size)
    scaling = declared(teacher_input, shape[-1])
    model = _of_fixed_size(model, shape, name)
    logits, recognized_as = recognized(model, head=head)
    per_pixel = "for each pixel " if len(logits.output_shape) == 4 else ""
    print(
        f"Teacher {name}: images {shape[0]}x{shape[1]}x{shape[2]}, given to it as "
        f"{teacher_input}; {per_pixel}{recognized_as}; {count_parameters(model):,} parameters"
    )
    if line := contradiction(model, teacher_input):
        print(line)
    if teacher_input == "0-1":
        return logits
    images = keras.Input(shape)
    return keras.Model(images, logits(scaling(images)), name=f"{model.name}_teacher")


def load(text, flag, unsafe=False, output="", image_size=None, **arguments):
    """Loads or makes the model that a flag names.

    Args:
        text: as `teacher` of `load_teacher`.
        flag: the flag, for messages.
        unsafe: as of `load_teacher`.
        output: name of the output to take.
        image_size: height and width in pixels, for a `torch.nn.Module`.
        **arguments: what the function is given, as far as it has parameters of these names.

    Returns:
        Built `keras.Model` with one input `[batch, height, width, channels]` and one output.

    Raises:
        InputError: if there is no such model or it cannot be used.
    """
    if _is_function(text):
        return _checked(_made(text, flag, unsafe, arguments), text, flag, output, image_size)
    if is_saved_model(text):
        return _checked(foreign.saved_model(text, output), text, flag)
    if remote.is_remote(text):
        if unsafe:
            raise InputError(
                f"--unsafe_load is for files that you made yourself. Received: {flag}={text}"
            )
        return _checked(load_model(remote.fetched(text), flag), text, flag, output)
    if not os.path.isfile(text):
        raise _missing(text, flag)
    if unsafe:
        print(f"Warning: --unsafe_load runs the code that is written in {text}")
    return _checked(load_model(text, flag, unsafe=unsafe), text, flag, output)


def tell(text):
    """Lets a saved run load whose teacher is a SavedModel or a module that a function makes.

    Args:
        text: the run's `--teacher` again.
    """
    if _is_function(text):
        made = _made(text, "--teacher", True, {})
        if foreign.is_torch_module(made):
            foreign.tell(made)
    elif is_saved_model(text):
        foreign.tell(text)
    elif not remote.is_remote(text) and not os.path.isfile(text):
        raise _missing(text, "--teacher")


def content_hash(text, model):
    """SHA-256 of what `--teacher` named; None for a function that makes a Keras model."""
    for layer in getattr(model, "layers", ()):
        inner = content_hash(text, layer) if isinstance(layer, keras.Model) else None
        if inner or isinstance(layer, foreign.ForeignLayer):
            return inner or layer.sha256
    if remote.is_remote(text):
        return remote.content_hash(text)
    return file_sha256(text) if os.path.isfile(text) else None


def _is_function(text):
    return FUNCTION.fullmatch(text) is not None and not os.path.exists(text)


def _missing(text, flag):
    is_path = text.lower().endswith(MODEL_FILES) or os.sep in text
    reason = ": no such file" if is_path and not os.path.exists(text) else ""
    if os.path.isdir(text):
        reason = ", a directory without saved_model.pb"
    kinds = "a network's name, a .keras or .h5 file, "
    if flag != "--student":
        kinds += (
            "the directory of a SavedModel, https://.../NAME.keras#sha256=HASH, hf://OWNER/NAME, "
        )
    return InputError(f"{flag} must be {kinds}or module:function. Received: {text}{reason}")


# ---- making and checking ------------------------------------------------------------------------


def _made(text, flag, unsafe, arguments):
    module, _, name = text.partition(":")
    # Named by the user, so that what lies in the working directory may be imported.
    with working_directory_first():
        try:
            function = getattr(importlib.import_module(module), name)
            accepted = inspect.signature(function).parameters
            model = function(**{key: arguments[key] for key in arguments if key in accepted})
        except Exception as error:
            raise InputError(
                f"{flag} must be module:function, which returns a Keras model (on PyTorch a "
                f"torch.nn.Module, too). Received: {text}, which failed: "
                f"{type(error).__name__}: {_reason(error)}"
            ) from error
    if isinstance(model, keras.Model) and model.built and not unsafe:
        _check_saving(model, text, flag)
    return model


def _check_saving(model, text, flag):
    """Tries now what every checkpoint needs: a config that safe mode makes a model of again."""
    try:
        config = keras.saving.serialize_keras_object(model)
        keras.saving.deserialize_keras_object(config, safe_mode=True)
    except Exception as error:
        raise InputError(
            f"{flag} must be a model that Keras can save and load in safe mode (own layers "
            "registered with keras.saving.register_keras_serializable, by --import=MODULE in later "
            f"commands; a Lambda layer needs --unsafe_load). Received: {text}: {_reason(error)}"
        ) from error


def _checked(model, text, flag, output="", image_size=None):
    """The model with one input of images and the chosen output."""
    if foreign.is_torch_module(model):
        model = foreign.torch_module(model, text, image_size, output)
        output = ""
    if not isinstance(model, keras.Model):
        raise InputError(f"{flag} must be a Keras model. Received: {text}, {type(model).__name__}")
    model = _with_one_output(model, text, output)
    shape = model.input_shape
    if not isinstance(shape, tuple) or not shape or isinstance(shape[0], tuple):
        raise InputError(
            f"{flag} must be a built Keras model with one input. Received: {text}, whose shape is "
            f"{shape}"
        )
    if len(shape) != 4:
        raise InputError(
            f"{flag} must take images [batch, height, width, channels]. Received: {text} with "
            f"input {shape}"
        )
    return model


def _with_one_output(model, text, output):
    outputs = getattr(model, "outputs", None) or []
    if not outputs or (not output and len(outputs) == 1):
        return with_shapes(model, output)
    names = getattr(model, "output_names", [])
    # Several outputs of one layer have the same name.
    is_named = len(set(names)) == len(outputs)
    known = dict(zip(names, outputs, strict=True)) if is_named else outputs
    inputs = model.inputs[0] if len(model.inputs) == 1 else model.inputs
    return keras.Model(inputs, one_output(known, output, text), name=model.name)


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
    """The model on images of one size, in floats: whole numbers would end every gradient."""
    is_float = keras.backend.is_float_dtype(getattr(model.inputs[0], "dtype", "float32"))
    if tuple(model.input_shape[1:]) == shape and is_float:
        return model
    images, seen = keras.Input(shape), graph(model)
    try:
        if seen is None:
            return keras.Model(images, model(images), name=model.name)
        # On the model's own layers, so that they can be seen.
        outputs = seen.run([images], lambda call, *args, **kwargs: call.layer(*args, **kwargs))
        return keras.Model(images, outputs[0], name=model.name)
    except Exception as error:
        raise InputError(
            f"--image_size must be one that --teacher {name} takes. Received: {shape[0]}: "
            f"{_reason(error)[:200]}"
        ) from error


def _reason(error):
    return " ".join(str(error).split())[:300]
