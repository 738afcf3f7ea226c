"""``bin/train``: from a teacher's data to an exported student."""

from __future__ import annotations

import sys
from pathlib import Path

from keras_mosaickd.cli import flags, runner
from keras_mosaickd.run_directory import FLAGS


def main(parsed: flags.Parsed) -> None:
    """Checks everything, writes flags.txt, trains, and prints the metrics."""
    from keras_mosaickd import experiment

    settings = parsed.settings()
    settings["run_dir"] = settings["run_dir"] or default_run_dir(parsed)
    config = experiment.ExperimentConfig(**settings)
    experiment.check(config)
    if parsed.values["dry_run"]:
        print(experiment.dry_run(config))
        return
    run_dir = Path(config.run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    flags.save(settings, run_dir / FLAGS)
    config_file = parsed.flagfiles[-1] if parsed.flagfiles else None
    runner.print_values(experiment.train(config, config_file))
    print(f"The run is in {run_dir}")


def default_run_dir(parsed: flags.Parsed) -> str:
    """Returns ``runs/NAME``: NAME is that of the last flagfile given, else the method's."""
    name = Path(parsed.flagfiles[-1]).stem if parsed.flagfiles else str(parsed.values["method"])
    return str(Path("runs") / name)


def console() -> None:
    """Entry point of the console script."""
    sys.exit(runner.run(main, "train"))


if __name__ == "__main__":
    console()
