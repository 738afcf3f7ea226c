"""MosaicKD in Keras 3: knowledge distillation from out-of-domain images.

The public names are loaded on first use, so that `import keras_mosaickd` imports no Keras.
"""

import importlib
import warnings

_HOMES = {
    "train": "runs.run",
    "ExperimentConfig": "config",
    "MosaicKD": "methods",
    "KnowledgeDistillation": "methods",
    "StudentCheckpoint": "callbacks.checkpoint",
    "load_teacher": "teachers.load",
    "measure_agreement": "evaluation.agreement",
    "InputError": "errors",
    "SGD": "optimizers",
    "recipe": "optimizers",
    "practical_recipe": "methods.practical",
    "mosaic_stream": "data",
    "supervised_stream": "data",
    "select": "data",
    "load": "data",
    "export_saved_model": "export",
    "plot_samples": "report.plots",
    "plot_history": "report.plots",
}
# Names of version 0.1: they warn, and go with version 0.3.
_RENAMED = {"experiment": "runs.run"}
_MODULES = ("data", "losses", "networks", "optimizers", "callbacks", "methods")

__version__ = "0.1.0"
__all__ = ["__version__", *_HOMES, *_MODULES]


def __getattr__(name):
    if name in _RENAMED:
        warnings.warn(
            f"{__name__}.{name} is now {__name__}.{_RENAMED[name]}",
            DeprecationWarning,
            stacklevel=2,
        )
        return importlib.import_module(f"{__name__}.{_RENAMED[name]}")
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
