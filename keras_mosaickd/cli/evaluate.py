"""``bin/evaluate``: accuracy and agreement of a finished run."""

from __future__ import annotations

import sys

from keras_mosaickd.cli import flags, runner


def main(parsed: flags.Parsed) -> None:
    """Evaluates the run's student and teacher and prints the figures."""
    run_dir = runner.required(parsed, "run_dir")
    from keras_mosaickd import evaluation

    runner.print_values(
        evaluation.evaluate(
            run_dir, dataset=parsed.values["dataset"], data_dir=parsed.values["data_dir"]
        )
    )


def console() -> None:
    """Entry point of the console script."""
    sys.exit(runner.run(main, "evaluate"))


if __name__ == "__main__":
    console()
