"""The runs of a report in groups that differ in the seed only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras_mosaickd.report.runs import Run

# What has a column of its own in the results, and so no place in a group's label.
IN_COLUMNS = ("method", "student", "dataset", "ood", "student_updates")
# Settings that take more characters than this are called #1, #2 ..., which a table explains.
_LONGEST = 48


class Group:
    """Runs that differ in the seed only.

    Args:
        runs: At least one, in the order of their seeds.
        settings: The flags in which the report's groups differ, with this one's values.
        number: From 1 on, where the settings are too long to be read in a label; else None.
    """

    def __init__(self, runs: Sequence[Run], settings: dict[str, str], number: int | None):
        self.runs = list(runs)
        self.settings = settings
        self.number = number

    @property
    def label(self) -> str:
        """What sets them apart from the report's other groups, with method and student."""
        found = self.runs[0].experiment
        words = [found["method"], found["student"]]
        others = [name for name in self.settings if name in IN_COLUMNS]
        words += [_word(name, self.settings[name]) for name in others if self.number is None]
        return ", ".join([*words, *filter(None, [self.short])])

    @property
    def short(self) -> str:
        """The settings that have no column of their own, or the number that stands for them."""
        if self.number is not None:
            return f"#{self.number}"
        return ", ".join(
            _word(*item) for item in self.settings.items() if item[0] not in IN_COLUMNS
        )

    def values(self, name: str) -> list[float]:
        """A metric of the runs that have it."""
        return numbers([run.metrics for run in self.runs], name)

    @property
    def validated_on(self) -> str:
        """The images on which the runs were validated after every epoch."""
        metrics = self.runs[0].metrics
        if metrics.get("dataset"):
            return "the test images"
        if "held_out_agreement" in metrics:
            return "out-of-domain images that were held out"
        return "synthetic images"


def groups(runs: Sequence[Run]) -> list[Group]:
    """Puts runs together that differ in the seed only, in order of first appearance."""
    parts: dict[tuple[tuple[str, str], ...], list[Run]] = {}
    for run in runs:
        parts.setdefault(tuple(sorted(run.experiment.items())), []).append(run)
    varying = {
        name
        for key in parts
        for name, _ in key
        if len({dict(other).get(name) for other in parts}) > 1
    }
    # What a method has no use for still differs; a flag says more than nothing. Method and student
    # stand in every label.
    first = [name for name in ("student_updates", "ood", "dataset") if name in varying]
    order = [*first, *sorted(varying - set(IN_COLUMNS))]
    settings = [{name: dict(key)[name] for name in order if name in dict(key)} for key in parts]
    longest = max((sum(map(len, map(_word, s, s.values()))) for s in settings), default=0)
    return [
        Group(
            sorted(members, key=lambda run: run.seed),
            settings[index],
            index + 1 if longest > _LONGEST else None,
        )
        for index, members in enumerate(parts.values())
    ]


def _word(name: str, value: str) -> str:
    return f"{name}={value}"


def numbers(rows: Sequence[dict[str, Any]], name: str) -> list[float]:
    """The numbers of that name in the rows that have one."""
    return [float(row[name]) for row in rows if isinstance(row.get(name), int | float)]
