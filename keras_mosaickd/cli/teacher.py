"""``bin/teacher``: train the teacher alone."""

from __future__ import annotations

from keras_mosaickd.cli import flags, hub, runner
from keras_mosaickd.config import is_given
from keras_mosaickd.errors import InputError


def main(parsed: flags.Parsed) -> None:
    """Trains the teacher or finds it in the cache, and prints its metrics."""
    runner.refuse_bare_call(
        parsed,
        "--flagfile=FILE, or --dataset with --teacher, such as --dataset=cifar100 "
        "--teacher=wrn40_2",
    )
    if "dataset" not in parsed.given and is_given(parsed.values["teacher"]):
        raise InputError(
            "expected --dataset, labelled images to test a --teacher of your own on. Received: none"
        )
    runner.load_backend(parsed)
    from keras_mosaickd.runs import run as experiment

    settings = parsed.settings() | hub.settings_of(parsed)
    runner.print_values(experiment.train_teacher(experiment.ExperimentConfig(**settings)))


console = runner.entry_point(main, "teacher")

if __name__ == "__main__":
    console()
