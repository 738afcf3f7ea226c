"""The runs of a report in groups that differ in the seed only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras_mosaickd.report.runs import Run

# What has a column of its own in the results, and so no place in a group's label.
IN_COLUMNS = ("method", "student", "dataset", "ood", "student_updates")


class Group:
    """Runs that differ in the seed only.

    Args:
        runs: At least one, in the order of their seeds.
        label: What sets them apart from the report's other groups.
    """

    def __init__(self, runs: Sequence[Run], label: str):
        self.runs = list(runs)
        self.label = label

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
    found = []
    for key, members in parts.items():
        settings = dict(key)
        # What a method has no use for still differs; a flag says more than nothing.
        words = [f"{n}={settings[n]}" for n in sorted(varying & set(settings) - set(IN_COLUMNS))]
        label = f"{settings['method']}, {settings['student']}"
        for name in ("dataset", "ood", "student_updates"):
            if name in varying and name in settings:
                words.insert(0, f"{name}={settings[name]}")
        label = ", ".join([label, *words])
        found.append(Group(sorted(members, key=lambda run: run.seed), label))
    return found


def numbers(rows: Sequence[dict[str, Any]], name: str) -> list[float]:
    """The numbers of that name in the rows that have one."""
    return [float(row[name]) for row in rows if isinstance(row.get(name), int | float)]
