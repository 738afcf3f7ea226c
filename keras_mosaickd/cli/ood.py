"""``bin/ood``: select the out-of-domain images alone."""

from __future__ import annotations

from keras_mosaickd.cli import flags, hub, runner
from keras_mosaickd.errors import InputError


def main(parsed: flags.Parsed) -> None:
    """Selects the images and prints what was kept."""
    runner.refuse_bare_call(
        parsed,
        "--flagfile=FILE, or --ood with --dataset and --teacher, such as --ood=svhn "
        "--ood_size=10000 --dataset=cifar100 --teacher=wrn40_2",
    )
    domain = flags.without_domain(parsed)
    if "dataset" not in parsed.given and not domain:
        raise InputError(
            "expected --dataset, which the teacher is trained on, or --teacher=PATH.keras, one of "
            "your own. Received: neither"
        )
    runner.load_backend(parsed)
    from keras_mosaickd.runs import run as experiment

    settings = parsed.settings() | domain | hub.settings_of(parsed)
    print(experiment.select_ood(experiment.ExperimentConfig(**settings)))


console = runner.entry_point(main, "ood")

if __name__ == "__main__":
    console()
