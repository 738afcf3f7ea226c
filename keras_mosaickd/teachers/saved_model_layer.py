"""A SavedModel as a frozen Keras layer, of which a saved model keeps only path and hash."""

from pathlib import Path

import keras

from keras_mosaickd.backend import keras_graph
from keras_mosaickd.errors import InputError
from keras_mosaickd.files import file_sha256, sha256

# SHA-256 of the SavedModels that this process was told to run. Loading one runs what is written in
# it, so a `.keras` file that names one must not be enough.
_allowed: set[str] = set()


@keras.saving.register_keras_serializable(package="keras_mosaickd")
class SavedModelLayer(keras.layers.Layer):
    """The default signature of a SavedModel: one batch of floats in, one tensor out (TensorFlow).

    Its variables never change. `keras.layers.TFSMLayer`, which it is made of, cannot be loaded in
    Keras's safe mode; this one can, where `saved_model` was given the same SavedModel before.

    Args:
        folder: directory of the SavedModel.
        sha256: hash that `folder_hash` must give for it.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        InputError: if it is not there, is another one, or has not one input and one output.
    """

    # Its weights belong to layers that nobody can see.
    is_whole_network = True

    def __init__(self, folder, sha256, **kwargs):
        # The signature takes float32, whatever the policy of the networks around it.
        super().__init__(**{"dtype": "float32", **kwargs, "trainable": False})
        self.folder = str(folder)
        self.sha256 = sha256
        if folder_hash(folder) != sha256:
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
        outputs = signature.structured_outputs
        if len(inputs) != 1 or len(outputs) != 1 or not inputs[0].dtype.is_floating:
            raise InputError(
                "expected a SavedModel that takes one batch of floats and gives one tensor. "
                f"Received: {folder} with inputs {inputs} and outputs {sorted(outputs)}"
            )
        if inputs[0].shape.rank is None or inputs[0].shape[0] is not None:
            raise InputError(
                "expected a SavedModel that takes batches of any size. "
                f"Received: {folder} with input {inputs[0].shape}"
            )
        self.image_shape = tuple(inputs[0].shape[1:])

    def call(self, images):
        """What the SavedModel makes of a batch."""
        (output,) = self.network(images).values()
        return output

    def get_config(self):
        """Path and hash, not the layer inside."""
        return {**super().get_config(), "folder": self.folder, "sha256": self.sha256}

    @classmethod
    def from_config(cls, config):
        """Loads the SavedModel again, if this process was told to run it.

        Raises:
            InputError: if it was not, besides those of the class.
        """
        if config["sha256"] not in _allowed:
            raise InputError(
                f"expected --teacher={config['folder']}, the SavedModel that is the run's teacher: "
                "loading it runs what is written in it, and so it must be named. "
                "Received: none"
            )
        return cls(**config)


def saved_model(path):
    """A Keras model around a SavedModel that the user named.

    Args:
        path: its directory.

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
    layer = SavedModelLayer(path, sha256, name="saved_model")
    _allowed.add(sha256)
    images = keras.Input(layer.image_shape)
    return keras.Model(images, layer(images), name="saved_model_teacher")


def is_saved_model(path):
    """Whether a directory holds a SavedModel."""
    return (Path(path) / "saved_model.pb").is_file()


def folder_hash(path):
    """SHA-256 of the relative names and the contents of all files of a directory.

    Raises:
        InputError: if it is no SavedModel.
    """
    path = Path(path)
    if not is_saved_model(path):
        raise InputError(f"expected the directory of a SavedModel. Received: {path}")
    return sha256(
        f"{file.relative_to(path).as_posix()}\0{file_sha256(file)}\n"
        for file in sorted(file for file in path.rglob("*") if file.is_file())
    )
