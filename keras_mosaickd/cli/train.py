"""``bin/train``: from a teacher's data to an exported student."""

from __future__ import annotations

from pathlib import Path

from keras_mosaickd.cli import flags, hub, runner


def main(parsed: flags.Parsed) -> None:
    """Trains, and prints the metrics."""
    runner.refuse_bare_call(
        parsed,
        "--flagfile=FILE (configs/quickstart_mosaickd.flags, which bin/quickstart runs, is one), "
        "or --teacher=PATH.keras with --ood=folder:PATH, or other flags",
    )
    runner.load_backend(parsed)
    from keras_mosaickd.runs import run as experiment

    settings = parsed.settings() | flags.without_domain(parsed) | hub.settings_of(parsed)
    settings["run_dir"] = settings["run_dir"] or default_run_dir(parsed)
    config = experiment.ExperimentConfig(**settings)
    if parsed.values["dry_run"]:
        print(experiment.dry_run(config))
        return
    config_file = parsed.flagfiles[-1] if parsed.flagfiles else None
    metrics = dict(experiment.train(config, config_file))
    verdict = metrics.pop("verdict", None)
    # It counts from 0, as history.csv does; the line above the exports counts as Keras's log.
    metrics.pop("exported_epoch", None)
    runner.print_values(metrics)
    if verdict:
        # Set off, so that it is not lost below thirty numbers.
        print(f"\n{verdict}\n")
    print(f"The run is in {config.run_dir}")


def default_run_dir(parsed: flags.Parsed) -> str:
    """Returns ``runs/NAME``: NAME is that of the last flagfile given, else the method's."""
    name = Path(parsed.flagfiles[-1]).stem if parsed.flagfiles else str(parsed.values["method"])
    return str(Path("runs") / name)


console = runner.entry_point(main, "train")

if __name__ == "__main__":
    console()
