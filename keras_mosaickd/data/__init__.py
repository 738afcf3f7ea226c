"""Data: named data sets, training streams, selection of out-of-domain images.

Names are loaded on first use, so that looking a data set up in the table imports no Keras.
"""

import importlib
import warnings
from typing import Any

_HOMES = {
    "SPECS": "sources.table",
    "parse": "sources.request",
    "load": "sources.load",
    "ImageSet": "image_set",
    "evaluation_arrays": "image_set",
    "VOID": "pixels",
    "stored": "decoded",
    "without_unreadable": "decoded",
    "Selection": "selection",
    "select": "selection",
    "top_entropy": "selection",
    "entropies": "scores",
    "teacher_hash": "scores",
    "mosaic_stream": "streams.training",
    "supervised_stream": "streams.training",
}
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name == "Pictures":
        warnings.warn(
            "keras_mosaickd.data.Pictures is now keras_mosaickd.data.ImageSet",
            DeprecationWarning,
            stacklevel=2,
        )
        name = "ImageSet"
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
