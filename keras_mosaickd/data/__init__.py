"""Data: named data sets, training streams, selection of out-of-domain images.

Names are loaded on first use, so that looking a data set up in the table imports no Keras.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_mosaickd.data.labels import VOID
    from keras_mosaickd.data.ood import Selection, entropies, select, teacher_hash, top_entropy
    from keras_mosaickd.data.sources import ImageSet, evaluation_arrays, load
    from keras_mosaickd.data.specs import SPECS, parse
    from keras_mosaickd.data.store import stored
    from keras_mosaickd.data.streams import mosaic_stream, supervised_stream

_HOMES = {
    "SPECS": "specs",
    "VOID": "labels",
    "parse": "specs",
    "ImageSet": "sources",
    "load": "sources",
    "evaluation_arrays": "sources",
    "stored": "store",
    "mosaic_stream": "streams",
    "supervised_stream": "streams",
    "Selection": "ood",
    "entropies": "ood",
    "select": "ood",
    "top_entropy": "ood",
    "teacher_hash": "ood",
}

__all__ = [
    "SPECS",
    "VOID",
    "ImageSet",
    "Selection",
    "entropies",
    "evaluation_arrays",
    "load",
    "mosaic_stream",
    "parse",
    "select",
    "stored",
    "supervised_stream",
    "top_entropy",
    "teacher_hash",
]


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
