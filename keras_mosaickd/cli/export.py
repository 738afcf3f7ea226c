"""``bin/export``: a student as a TensorFlow SavedModel."""

from __future__ import annotations

import sys
from pathlib import Path

from keras_mosaickd.cli import flags, runner
from keras_mosaickd.errors import InputError


def main(parsed: flags.Parsed) -> None:
    """Exports the student of a run or of a .keras file, and prints where it is."""
    source = runner.required(parsed, "run_dir", "student")
    out = parsed.values["out"]
    if parsed.values["run_dir"]:
        student, out = Path(source) / "student.keras", out or str(Path(source) / "saved_model")
    elif out:
        student = Path(source)
    else:
        raise InputError("expected --out with --student. Received: none")
    if not student.is_file():
        flag = "run_dir" if parsed.values["run_dir"] else "student"
        raise InputError(f"expected --{flag} to lead to a .keras file. Received: {student}")
    from keras_mosaickd import export

    print(export.export_file(student, out))


def console() -> None:
    """Entry point of the console script."""
    sys.exit(runner.run(main, "export"))


if __name__ == "__main__":
    console()
