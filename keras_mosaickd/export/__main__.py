"""``python -m keras_mosaickd.export FOLDER``: the process of `process.in_tensorflow_process`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from keras_mosaickd.errors import InputError
from keras_mosaickd.export import ExportError, load_student
from keras_mosaickd.export.process import RESULT, read_request
from keras_mosaickd.export.writing import write


def main(folder: Path) -> None:
    """Does what the folder's request says and leaves the result there."""
    source, request = read_request(folder)
    result: dict[str, Any]
    try:
        result = {"exports": write(load_student(source), request)}
    except InputError as error:
        result = {"error": str(error), "exports": []}
    except ExportError as error:
        result = {"error": str(error), "exports": error.written}
    (folder / RESULT).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
