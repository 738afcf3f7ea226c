"""Keras files that others wrote: nothing in them is run unless the user says so."""

import contextlib
import importlib
import os
import sys
import zipfile
from pathlib import Path

import keras

from keras_mosaickd.backend.initial_values import drawn_quickly
from keras_mosaickd.errors import InputError

# Where libraries keep what they download, and what browsers note on a file's origin.
_DOWNLOADS = ("~/.keras", "~/.cache", "~/Library/Caches", "~/Downloads")
_ORIGINS = ("user.xdg.origin.url", "user.xdg.referrer.url", "com.apple.quarantine")

# Rooms above this one whose classes saved files name: imported by name when a file is loaded, so
# that a process that has only been asked to load knows them.
_REGISTERING = ("methods", "teachers.foreign")


@drawn_quickly
def load_model(path, what, compile=False, unsafe=False):
    """Loads a `.keras` or `.h5` file in Keras's safe mode.

    Layers and functions of Keras and of this package are known, those of others only where the
    calling process registered them by name (`keras.saving.register_keras_serializable`; `--import`
    imports a module that does). Lambda layers, which are code, are refused.

    Args:
        path: the file.
        what: how a message names the file, such as "--teacher".
        compile: whether the optimizers are loaded too.
        unsafe: whether Lambda layers are run all the same: `--unsafe_load`.

    Returns:
        The model.

    Raises:
        InputError: if it cannot be loaded (one line, with Keras's reason), or if it is downloaded
            and `unsafe`.
    """
    if unsafe and (origin := _download(path)):
        raise InputError(
            f"--unsafe_load is for files that you made yourself. Received: {path}, which is "
            f"downloaded ({origin})"
        )
    if os.path.isfile(path) and (reason := _no_model(path)):
        raise InputError(
            f"{what} must be a .keras or .h5 file that Keras loads in its safe mode. Received: "
            f"{path}, {reason}"
        )
    for room in _REGISTERING:
        importlib.import_module(f"keras_mosaickd.{room}")
    try:
        return keras.saving.load_model(path, compile=compile, safe_mode=not unsafe)
    except InputError:  # of a layer of this package, which says what it lacks
        raise
    except Exception as error:  # Keras lets many kinds through, down to those of zip and HDF5.
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        if len(reason) > 300:
            reason = f"{reason[:300]}..."
        raise InputError(
            f"{what} must be a .keras or .h5 file that Keras loads in its safe mode: layers of "
            "your own need --import=MODULE, a module that registers them; Lambda layers need "
            f"--unsafe_load, if you trust the file. Received: {path} ({reason})"
        ) from error


def _no_model(path):
    """Why a file is no model at first sight; nothing where it may be one."""
    suffix = Path(path).suffix.lower()
    if suffix == ".keras":
        return "" if zipfile.is_zipfile(path) else "which is no zip archive, as a .keras file is"
    if suffix not in (".h5", ".hdf5"):
        return "whose name ends otherwise"
    with open(path, "rb") as file:
        return "" if file.read(8) == b"\x89HDF\r\n\x1a\n" else "which is no HDF5 file"


def import_modules(names):
    """Imports modules of the user's own, from the working directory too, which register layers.

    Args:
        names: names of modules, with commas between them; may be empty.

    Raises:
        InputError: if one cannot be imported.
    """
    for name in filter(None, names.split(",")):
        with working_directory_first():
            try:
                importlib.import_module(name)
            except Exception as error:
                raise InputError(
                    "--import must name modules that can be imported from the working directory. "
                    f"Received: {name} ({type(error).__name__}: {error})"
                ) from error


@contextlib.contextmanager
def working_directory_first():
    """A context in which modules that lie in the working directory can be imported."""
    sys.path.insert(0, os.getcwd())
    try:
        yield
    finally:
        sys.path.remove(os.getcwd())


def _download(path):
    """What says that a file was downloaded; empty where nothing does."""
    path = Path(path).absolute()
    for folder in _DOWNLOADS:
        # (`Path.expanduser` fails where there is no home directory.)
        if path.resolve().is_relative_to(Path(os.path.expanduser(folder)).resolve()):
            return f"it lies in {folder}"
    names = os.listxattr(path) if hasattr(os, "listxattr") and path.exists() else []
    return next((f"it is marked {name}" for name in names if name in _ORIGINS), "")
