"""Networks that are no Keras models, as frozen Keras layers: a SavedModel, a PyTorch module.

A saved model keeps their name and hash, not the network, and loads only where this process was told
to run the same one (`told`): loading one runs what is written in it, so a file that names one must
not be enough.
"""

from pathlib import Path
from typing import Any

import keras

from keras_mosaickd import files
from keras_mosaickd.backend import keras_graph
from keras_mosaickd.config import is_saved_model
from keras_mosaickd.errors import InputError
from keras_mosaickd.networks.logits import one_output

# Hash of each network that this process was told to run -> where it is, or the module itself.
_told: dict[str, Any] = {}


class ForeignLayer(keras.layers.Layer):
    """A frozen network that is kept by name and hash.

    Args:
        sha256: hash of the network.
        output: name of the one of several outputs to give; empty for the only one.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(self, sha256, output="", **kwargs):
        # It takes float32, whatever the policy of the networks around it.
        super().__init__(**{"dtype": "float32", **kwargs, "trainable": False})
        self.sha256 = sha256
        self.output_choice = output

    def get_config(self):
        """Name and hash, not the network inside."""
        return {**super().get_config(), "sha256": self.sha256, "output": self.output_choice}

    @classmethod
    def from_config(cls, config):
        """Makes the layer again, if this process was told to run the network.

        Raises:
            InputError: if it was not.
        """
        if config["sha256"] not in _told:
            raise InputError(
                f"expected --teacher={config[cls.name_of_source]}, the run's teacher: loading it "
                "runs what is written in it, and so it must be named. Received: none"
            )
        return cls(**config)


@keras.saving.register_keras_serializable(package="keras_mosaickd")
class SavedModelLayer(ForeignLayer):
    """A signature of a SavedModel: one batch of floats in, one tensor out (TensorFlow).

    `keras.layers.TFSMLayer`, which it is made of, cannot be loaded in Keras's safe mode.

    Args:
        folder: directory of the SavedModel; another one where it was told to lie since.
        sha256: hash that `folder_hash` must give for it.
        output: as of `ForeignLayer`.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        InputError: if it is not there, is another one, or has not one input and one output.
    """

    name_of_source = "folder"

    def __init__(self, folder, sha256, output="", **kwargs):
        super().__init__(sha256, output, **kwargs)
        self.folder = str(_told.get(sha256, folder))
        if folder_hash(self.folder) != sha256:
            raise InputError(
                f"expected the SavedModel {folder} as it was, with the SHA-256 {sha256}. "
                "Received: another content"
            )
        try:
            self.network = keras.layers.TFSMLayer(
                self.folder, call_endpoint="serving_default", trainable=False, dtype="float32"
            )
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"expected a SavedModel with the signature serving_default. Received: {folder} "
                f"({reason})"
            ) from error
        signature = keras_graph.signature_of(self.network)
        inputs = list(signature.structured_input_signature[1].values())
        outputs = sorted(signature.structured_outputs)
        if len(inputs) != 1 or not inputs[0].dtype.is_floating:
            raise InputError(
                "expected a SavedModel that takes one batch of floats. "
                f"Received: {folder} with inputs {inputs}"
            )
        if inputs[0].shape.rank is None or inputs[0].shape[0] is not None:
            raise InputError(
                "expected a SavedModel that takes batches of any size. "
                f"Received: {folder} with input {inputs[0].shape}"
            )
        self.image_shape = tuple(inputs[0].shape[1:])
        self.chosen = one_output({name: name for name in outputs}, output, folder)

    def call(self, images):
        """What the SavedModel makes of a batch."""
        return self.network(images)[self.chosen]

    def get_config(self):
        """Path and hash, not the layer inside."""
        return {**super().get_config(), "folder": self.folder}


@keras.saving.register_keras_serializable(package="keras_mosaickd")
class TorchModuleLayer(ForeignLayer):
    """A `torch.nn.Module` that a function of the user's made (PyTorch).

    It takes and gives `[batch, height, width, channels]` where the module takes and gives
    `[batch, channels, height, width]`. Its weights are not Keras's, so that none is saved.

    Args:
        function: `module:function` that made it.
        sha256: hash that `module_hash` gives for it.
        output: as of `ForeignLayer`, of a module that gives a dict or an object with fields. The
            field `logits` and a dict's entries `logits` and `out` need no name.
        **kwargs: of `keras.layers.Layer`.
    """

    name_of_source = "function"

    def __init__(self, function, sha256, output="", **kwargs):
        super().__init__(sha256, output, **kwargs)
        self.function = function
        # In a list, PyTorch does not take it for a part of this layer, nor its weights for ours.
        self.held = [_told[sha256].eval().requires_grad_(False)]
        self.hidden_parameters = sum(weight.numel() for weight in self.held[0].parameters())

    def call(self, images):
        """What the module makes of a batch."""
        module = self.held[0].to(images.device)
        answer = module(images.permute(0, 3, 1, 2).contiguous())
        answer = self._chosen(answer).float()
        return answer.permute(0, 2, 3, 1) if answer.ndim == 4 else answer

    def compute_output_spec(self, images):
        """Found out by trying, since a module does not tell its shapes."""
        sizes = [size or 1 for size in images.shape[1:]]
        answer = self.call(keras.ops.zeros((2, *sizes)))
        return keras.KerasTensor((None, *answer.shape[1:]), "float32")

    def _chosen(self, answer):
        if self.output_choice:
            return one_output(answer, self.output_choice, self.function)
        if hasattr(answer, "logits"):
            return answer.logits
        for name in ("logits", "out"):  # Hugging Face, torchvision's segmenters
            if isinstance(answer, dict) and name in answer:
                return answer[name]
        return one_output(answer, "", self.function)

    def get_config(self):
        """Function and hash, not the module."""
        return {**super().get_config(), "function": self.function}


# ---- told to run ------------------------------------------------------------------------------


def saved_model(path, output=""):
    """A Keras model around a SavedModel that the user named.

    Args:
        path: its directory.
        output: name of its output, where it has several.

    Returns:
        `keras.Model` from `[batch, height, width, channels]` to the SavedModel's output.

    Raises:
        InputError: on another backend than TensorFlow, or if the SavedModel cannot be used.
    """
    if keras.backend.backend() != "tensorflow":
        raise InputError(
            "a SavedModel as teacher needs KERAS_BACKEND=tensorflow; on other backends give a "
            f".keras file. Received: {path} with KERAS_BACKEND={keras.backend.backend()}"
        )
    path = Path(path).absolute()
    sha256 = folder_hash(path)
    _told[sha256] = path
    layer = SavedModelLayer(path, sha256, output, name="saved_model")
    images = keras.Input(layer.image_shape)
    return keras.Model(images, layer(images), name="saved_model_teacher")


def is_torch_module(network):
    """Whether something is a PyTorch module and no Keras layer, which on PyTorch is one too."""
    bases = {f"{base.__module__}.{base.__qualname__}" for base in type(network).__mro__}
    return "torch.nn.modules.module.Module" in bases and not isinstance(network, keras.layers.Layer)


def torch_module(module, function, image_size=None, output=""):
    """A Keras model around a PyTorch module that a function of the user's made.

    Args:
        module: `torch.nn.Module` of `[batch, channels, height, width]`.
        function: `module:function` that made it.
        image_size: height and width in pixels; by default what the module says of itself, as
            those of timm and Hugging Face do.
        output: name of its output, where it has several.

    Raises:
        InputError: on another backend than PyTorch, or if its images are not known.
    """
    if keras.backend.backend() != "torch":
        raise InputError(
            "a torch.nn.Module as teacher needs KERAS_BACKEND=torch. "
            f"Received: {function} with KERAS_BACKEND={keras.backend.backend()}"
        )
    channels, size = _images_of(module)
    size = image_size or size
    if size is None:
        raise InputError(
            f"--image_size must be given: the torch.nn.Module of {function} does not say what "
            "images it takes. Received: 0"
        )
    sha256 = module_hash(module)
    _told[sha256] = module
    images = keras.Input((size, size, channels))
    layer = TorchModuleLayer(function, sha256, output, name="torch_module")
    try:
        outputs = layer(images)
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"--teacher must take images of {size}x{size}x{channels}, as --image_size says. "
            f"Received: {function}, which failed: {type(error).__name__}: {reason}"
        ) from error
    return keras.Model(images, outputs, name="torch_module_teacher")


def tell(network):
    """Lets a saved model load that holds this network, the path of a SavedModel or a module."""
    if is_torch_module(network):
        _told[module_hash(network)] = network
    else:
        _told[folder_hash(network)] = Path(network).absolute()


def _images_of(module):
    """Channels, and height and width in pixels or None, of the images that a module takes."""
    settings: Any = getattr(module, "pretrained_cfg", None) or {}  # timm
    if isinstance(settings, dict) and settings.get("input_size"):
        channels, size, _ = settings["input_size"]
        return channels, size
    settings = getattr(module, "config", None)  # Hugging Face
    first = next((weight for weight in module.parameters() if weight.ndim == 4), None)
    channels = getattr(settings, "num_channels", 3 if first is None else first.shape[1])
    size = getattr(settings, "image_size", None)
    return channels, size if isinstance(size, int) else None


# ---- hashes -----------------------------------------------------------------------------------


def module_hash(module):
    """SHA-256 of a PyTorch module's class and of the names and values of all its weights."""

    def parts():
        yield type(module).__qualname__
        for name, value in module.state_dict().items():
            yield f"\0{name} {value.dtype} {tuple(value.shape)}\0"
            value = value.detach().cpu().contiguous()
            # numpy has no bfloat16, which float32 holds exactly.
            yield (value.float() if value.dtype.itemsize == 2 else value).numpy().tobytes()

    return files.sha256(parts())


def folder_hash(path):
    """SHA-256 of the relative names and the contents of all files of a directory.

    Raises:
        InputError: if it is no SavedModel.
    """
    path = Path(path)
    if not is_saved_model(path):
        raise InputError(f"expected the directory of a SavedModel. Received: {path}")
    names = sorted(file for file in path.rglob("*") if file.is_file())
    return files.sha256(
        f"{file.relative_to(path).as_posix()}\0{files.file_sha256(file)}\n" for file in names
    )
