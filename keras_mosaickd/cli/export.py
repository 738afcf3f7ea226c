"""``bin/export``: a student in the formats that it is shipped in."""

from __future__ import annotations

from pathlib import Path

from keras_mosaickd.cli import flags, runner
from keras_mosaickd.errors import InputError
from keras_mosaickd.run_directory import STUDENT, RunDirectory


def main(parsed: flags.Parsed) -> None:
    """Exports the student of a run or of a .keras file, and prints what was written."""
    source = runner.required(parsed, "run_dir", "student")
    values = parsed.values
    student = Path(source) / STUDENT if values["run_dir"] else Path(source)
    if values["student"] and not values["out"]:
        raise InputError("expected --out with --student. Received: none")
    if values["out"] and Path(values["out"]).name in ("", ".."):
        raise InputError(
            "--out: expected a path that ends in a name, to which the formats add theirs. "
            f"Received: {values['out']}"
        )
    for flag in ("ood", "class_names"):
        if values["run_dir"] and values[flag]:
            raise InputError(
                f"expected --{flag} with --student only, because a run has its own. Received: "
                f"--{flag}={values[flag]}"
            )
    if not student.is_file():
        flag = "run_dir" if values["run_dir"] else "student"
        raise InputError(f"expected --{flag} to lead to a .keras file. Received: {student}")
    runner.load_backend(parsed)
    from keras_mosaickd import export
    from keras_mosaickd.export import of_run as shipping
    from keras_mosaickd.report import model_card

    formats = export.parse(values["export"])
    failure = None
    try:
        if values["run_dir"]:
            exports = shipping.export_again(source, formats, values["out"], values["data_dir"])
        else:
            exports = shipping.export_file(
                student,
                formats,
                values["out"],
                values["ood"],
                values["class_names"],
                values["data_dir"],
                values["head"],
            )
    except export.ExportError as error:
        exports, failure = error.written, error
    if values["run_dir"] and not values["out"] and RunDirectory(source).is_finished:
        model_card.write(RunDirectory(source))
    if exports:
        print(shipping.table(exports))
    if failure is not None:
        raise failure


console = runner.entry_point(main, "export")

if __name__ == "__main__":
    console()
