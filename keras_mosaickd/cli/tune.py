"""``bin/tune``: a study of many runs that differ in some flags."""

from __future__ import annotations

import dataclasses
import signal
from pathlib import Path

from keras_mosaickd.cli import flags, hub, runner
from keras_mosaickd.cli.train import default_run_dir
from keras_mosaickd.errors import STOPPING, StoppedError
from keras_mosaickd.extras import require
from keras_mosaickd.run_directory import RunDirectory


def main(parsed: flags.Parsed) -> None:
    """Checks everything, writes flags.txt, runs the trials that are left, and prints the table."""
    runner.refuse_bare_call(
        parsed,
        "--flagfile=FILE with --study, such as "
        "--flagfile=configs/quickstart_mosaickd.flags --study=lambda",
    )
    require("a study", "keras_tuner")
    runner.load_backend(parsed)
    from keras_mosaickd import tuning

    settings = parsed.settings() | flags.without_domain(parsed) | hub.settings_of(parsed)
    settings["run_dir"] = settings["run_dir"] or f"{default_run_dir(parsed)}-{settings['study']}"
    names = {field.name for field in dataclasses.fields(tuning.Study)}
    study = tuning.Study(**{name: settings[name] for name in names})
    config = tuning.ExperimentConfig(
        **{name: value for name, value in settings.items() if name not in names}
    )
    tuning.check(config, study)
    if parsed.values["dry_run"]:
        print(tuning.dry_run(config, study, tuning.train_command))
        return
    run_dir = Path(config.run_dir)
    if tuning.role() != "worker":
        run_dir.mkdir(parents=True, exist_ok=True)
        RunDirectory(run_dir).write_flags(settings)
    received: list[int] = []

    def stop(number: int, frame: object) -> None:
        received.append(number)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in STOPPING}
    try:
        results = tuning.tune(config, study, tuning.train_command)
    except KeyboardInterrupt:
        raise StoppedError(received[0] if received else signal.SIGINT) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if results is not None:
        print(tuning.table(results))
    print(f"The study is in {run_dir}")


console = runner.entry_point(main, "tune")

if __name__ == "__main__":
    console()
