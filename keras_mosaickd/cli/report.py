"""``bin/report``: runs and studies on one page."""

from __future__ import annotations

from keras_mosaickd.cli import flags, runner
from keras_mosaickd.errors import InputError


def main(parsed: flags.Parsed) -> None:
    """Writes the report and prints where it is."""
    out = runner.required(parsed, "out")
    if not parsed.arguments:
        raise InputError("expected directories of runs or studies. Received: none")
    runner.load_backend(parsed)
    from keras_mosaickd import report

    print(report.write(parsed.arguments, out))


console = runner.entry_point(main, "report")

if __name__ == "__main__":
    console()
