"""``bin/sample``: a grid of synthetic pictures."""

from __future__ import annotations

import sys
from pathlib import Path

from keras_mosaickd.cli import flags, runner


def main(parsed: flags.Parsed) -> None:
    """Draws the grid and prints where it is."""
    run_dir = runner.required(parsed, "run_dir")
    out = parsed.values["out"] or str(Path(run_dir) / "samples.png")
    from keras_mosaickd import evaluation

    print(evaluation.sample(run_dir, parsed.values["count"], out))


def console() -> None:
    """Entry point of the console script."""
    sys.exit(runner.run(main, "sample"))


if __name__ == "__main__":
    console()
