"""The commands behind ``bin/``: flags in, one call of the library, one exit status out."""

import importlib.util
import sys

_missing = [name for name in ("absl", "keras", "numpy") if importlib.util.find_spec(name) is None]
if _missing:
    sys.exit(
        f"keras_mosaickd: expected {', '.join(_missing)} to be installed: run bin/quickstart once, "
        "or pip install -r requirements.txt. "
        f"Received: {sys.executable} without"
    )
