"""The tables of a report: mean and standard deviation over seeds, beside the published number."""

from __future__ import annotations

import dataclasses
import math
import re
import statistics
from collections.abc import Sequence
from typing import Any

from keras_mosaickd.report.content import Table
from keras_mosaickd.report.groups import IN_COLUMNS, Group, numbers
from keras_mosaickd.report.runs import Run, Study, metrics_of

# Supplement, table 4: CIFAR-100 from CIFAR-10's images, teacher wrn40_2, accuracy in per cent by
# student for the strides 1 to 4.
TABLE_4 = {
    "wrn16_1": (61.01, 59.56, 42.35, 46.07),
    "wrn16_2": (69.41, 63.46, 57.36, 54.82),
    "wrn40_1": (69.14, 60.26, 54.32, 55.12),
}
HYPERPARAMETERS = {
    "stride": "overlap_stride",
    "lambda": "regularization_weight",
    "local": "local_weight",
    "align": "align_weight",
    "epsilon": "epsilon_local",
}
CURVES = ("val_accuracy", "val_agreement", "synthetic_agreement")
MULTIPLIER_CURVES = ("lambda_local", "lambda_align", "r_local", "r_align")
_SCORES = {
    "last accuracy": "student_accuracy",
    "best accuracy": "student_accuracy_best",
    "agreement": "student_agreement",
    "mean IoU": "student_mean_iou",
}
# What is known without labels, and from those of --eval.
_WITHOUT_DATA_SET = {
    "held-out agreement": "held_out_agreement",
    "synthetic agreement": "synthetic_agreement",
    "label-free agreement": "label_free_agreement",
    "accuracy (--eval)": "eval_student_accuracy",
    "agreement (--eval)": "eval_student_agreement",
    "teacher's accuracy (--eval)": "eval_teacher_accuracy",
}
# Of runs whose lambda finds itself, by the constraint's name.
CONSTRAINTS = ("local", "align")
_QUALITY = {
    "class entropy (nats)": "synthetic_class_entropy",
    "of ln classes": "synthetic_class_entropy_share",
    "teacher's confidence": "synthetic_confidence",
    "Fréchet distance": "synthetic_frechet_distance",
    "near-duplicates": "synthetic_near_duplicates",
}


def mean_and_sd(
    values: Sequence[float], factor: float = 1.0, digits: int = 2, of: int | None = None
) -> str:
    """Mean ± standard deviation (with n - 1) as text; the mean alone of one value; - of none.

    Args:
        values: The values.
        factor: What they are multiplied by.
        digits: Decimals.
        of: How many there should be; fewer are said.
    """
    if not values:
        return "-"
    text = f"{factor * statistics.fmean(values):,.{digits}f}"
    if len(values) > 1:
        text += f" ± {factor * standard_deviation(values):,.{digits}f}"
    return text if of in (None, len(values)) else f"{text} ({len(values)} of {of})"


def standard_deviation(values: Sequence[float]) -> float:
    """With n - 1; of values that are no numbers it is none either."""
    return statistics.stdev(values) if all(map(math.isfinite, values)) else math.nan


def _unless_equal(values: Sequence[float]) -> Sequence[float]:
    """One value where all are the same: runs that share a teacher say nothing of its spread."""
    return values[:1] if len(set(values)) == 1 else values


def results(found: Sequence[Group]) -> Table:
    """A row per group: method, student, data, scores in per cent, published number."""
    rows = []
    for group in found:
        metrics = group.runs[0].metrics
        published = next((r.published for r in group.runs if r.published is not None), None)
        shown = [str(metrics.get(name) or "-") for name in IN_COLUMNS]
        shown[-1] = _count(shown[-1])
        tested = [str(run.metrics["eval"]) for run in group.runs if run.metrics.get("eval")]
        cells = [
            # Numbers of different images have no mean.
            "-"
            if name.startswith("eval_") and len(set(tested)) > 1
            else mean_and_sd(group.values(name), 100, of=len(group.runs))
            for name in (*_SCORES.values(), *_WITHOUT_DATA_SET.values())
        ]
        cells.append(" or ".join(dict.fromkeys(tested)) or "-")
        if not metrics.get("dataset"):
            # Without test images it is one of the others, which say of what.
            cells[list(_SCORES).index("agreement")] = "-"
        teacher = mean_and_sd(_unless_equal(group.values("teacher_accuracy")), 100)
        seeds = ", ".join(str(run.seed) for run in group.runs)
        number = "-" if published is None else f"{100 * published:.2f}"
        rows.append([*shown, group.short, seeds, teacher, *cells, number])
    note = "Per cent; mean ± standard deviation (with n - 1) over the seeds."
    columns = ["method", "student", "domain", "out of domain", "updates", "settings", "seeds"]
    columns += ["teacher's accuracy", *_SCORES, *_WITHOUT_DATA_SET, "images of --eval", "published"]
    if any(group.values("label_free_agreement") for group in found):
        note += (
            " Held-out agreement is that on out-of-domain images that took no part in training; "
            "label-free agreement is its mean with the synthetic one, where there are both."
        )
    if any(re.search(r" \(\d+ of \d+\)$", cell) for row in rows for cell in row):
        note += " In brackets, of how many of the runs a number is known."
    return _without_empty(Table("results", columns, rows, note))


def settings(found: Sequence[Group]) -> Table | None:
    """What the numbers of groups stand for: a row per flag; None where none are numbered."""
    numbered = [group for group in found if group.number is not None]
    if not numbered:
        return None
    names = dict.fromkeys(name for group in numbered for name in group.settings)
    rows = [[name, *(group.settings.get(name, "-") for group in numbered)] for name in names]
    columns = ["settings", *(f"#{group.number}" for group in numbered)]
    return Table("settings", columns, rows, "The flags in which the runs above differ.")


def verdicts(found: Sequence[Group]) -> list[str]:
    """A paragraph for every run that ended with a verdict, which those judged without labels do."""
    return [
        f"{run.name}: {run.metrics['verdict']}"
        for group in found
        for run in group.runs
        if isinstance(run.metrics.get("verdict"), str)
    ]


def networks(found: Sequence[Group]) -> Table | None:
    """Parameters, size on disk and latency of teacher and student; None where nothing is known."""
    titles = {"parameters": ("parameters", 1.0, 0), "MB on disk": ("bytes", 1e-6, 2)}
    titles["latency (ms)"] = ("latency_ms", 1.0, 2)
    rows: dict[tuple[str, ...], None] = {}
    for group in found:
        for part in ("teacher", "student"):
            cells = [
                mean_and_sd(_unless_equal(group.values(f"{part}_{name}")), factor, digits)
                for name, factor, digits in titles.values()
            ]
            if set(cells) != {"-"}:
                name = str(group.runs[0].metrics.get(part) or "-").rpartition("/")[2]
                rows[(part, name, *cells)] = None
    if not rows:
        return None
    table = Table("networks", ["", "network", *titles], [list(row) for row in rows])
    table = _without_empty(table)
    if "latency (ms)" not in table.columns:
        return table
    note = "Latency: median of one prediction of one image, as evaluate measured it."
    return dataclasses.replace(table, note=note)


def quality(found: Sequence[Group]) -> Table | None:
    """Numbers of the synthetic images after the last epoch; None where no run has any."""
    rows = []
    for group in found:
        last = [run.history[-1] for run in group.runs if run.history]
        cells = [mean_and_sd(numbers(last, name), digits=3) for name in _QUALITY.values()]
        if set(cells) != {"-"}:
            rows.append([group.label, *cells])
    note = (
        "Fréchet distance and near-duplicates are measured in the teacher's own features against "
        "out-of-domain images; distances under different teachers cannot be compared."
    )
    return Table("quality", ["runs", *_QUALITY], rows, note) if rows else None


def multipliers(found: Sequence[Group]) -> Table | None:
    """Lambda and what it holds below epsilon, after the last epoch; None where it is fixed."""
    rows = []
    for group in found:
        last = [run.history[-1] for run in group.runs if run.history]
        epsilons = group.runs[0].settings
        cells = []
        for name in CONSTRAINTS:
            measured = [numbers(last, f"{key}_{name}") for key in ("lambda", "r")]
            epsilon = epsilons.get(f"epsilon_{name}", "-") if measured[1] else "-"
            cells += [*(mean_and_sd(values, digits=3) for values in measured), epsilon]
        if set(cells) != {"-"}:
            rows.append([group.label, *cells])
    columns = [f"{key}_{name}" for name in CONSTRAINTS for key in ("lambda", "r", "epsilon")]
    note = (
        "Of the last epoch, lambda at its end and r its mean. Lambda settles where r is epsilon; "
        "at 0.001 the constraint holds by itself, at 100 it cannot be met."
    )
    table = Table("multipliers", ["runs", *columns], rows, note)
    return _without_empty(table) if rows else None


def history(runs: Sequence[Run], name: str = "curves", curves: Sequence[str] = CURVES) -> Table:
    """What there is of some logs of every epoch of every run, as its history has it."""
    rows = [
        [run.name, f"{row['epoch']:.0f}", *(_exact(row.get(log)) for log in curves)]
        for run in runs
        for row in run.history
        if any(log in row for log in curves)
    ]
    return _without_empty(Table(name, ["run", "epoch", *curves], rows, shown=False))


def points(study: Study, metric: str) -> dict[str, list[tuple[float, list[float]]]]:
    """The curves of a study over one hyperparameter.

    Returns:
        By student and, in a stride study, reduction of the patch loss: the hyperparameter's value
        and the metric of the trial's executions, in ascending order. Empty for a search.
    """
    name = HYPERPARAMETERS.get(study.content["study"])
    curves: dict[str, list[tuple[float, list[float]]]] = {}
    for trial in study.trials:
        chosen = trial["hyperparameters"]
        values = numbers(metrics_of(trial), metric)
        if name not in chosen or not values:
            continue
        curves.setdefault(_series(study, trial), []).append((float(chosen[name]), values))
    return {series: sorted(curve) for series, curve in curves.items()}


def study_table(study: Study, name: str) -> Table:
    """A row per trial; beside a stride study the numbers of the supplement's table 4.

    Args:
        study: The study.
        name: The table's name.
    """
    is_stride = study.content["study"] == "stride"
    names = list(dict.fromkeys(name for t in study.trials for name in t["hyperparameters"]))
    rows = []
    for trial in study.trials:
        metrics, chosen = metrics_of(trial), trial["hyperparameters"]
        cells = [str(chosen.get(name, "-")) for name in names]
        cells += [_count(metrics[0].get("student_updates", "-")), str(len(metrics))]
        cells += [mean_and_sd(numbers(metrics, name), 100) for name in _SCORES.values()]
        if is_stride:
            cells.append(_table_4(metrics[0]["student"], chosen.get("overlap_stride")))
        rows.append(cells)
    columns = [*names, "updates", "runs", *_SCORES] + ["table 4"] * is_stride
    note = "Per cent; mean ± standard deviation (with n - 1) over the runs of a trial."
    if is_stride:
        note += (
            " Table 4: the supplement's numbers on CIFAR-100 from CIFAR-10's images with teacher "
            "wrn40_2, for students of the same name; compare the order of the strides, not the "
            "numbers, unless these are the data."
        )
    return _without_empty(Table(name, columns, rows, note), kept=("table 4",))


def published_strides() -> Table:
    """The supplement's table 4."""
    rows = [[student, *(f"{value:.2f}" for value in row)] for student, row in TABLE_4.items()]
    columns = ["student", *(f"stride {stride}" for stride in range(1, 5))]
    return Table("table_4", columns, rows, "Published (supplement, table 4), per cent.")


def _series(study: Study, trial: dict[str, Any]) -> str:
    words = [str(metrics_of(trial)[0]["student"])]
    reduction = trial["hyperparameters"].get("local_reduction") or trial.get("local_reduction")
    if study.content["study"] == "stride" and reduction:
        words.append(f"local_reduction={reduction}")
    return ", ".join(words)


def _table_4(student: str, stride: Any) -> str:
    row = TABLE_4.get(student)
    return f"{row[int(stride) - 1]:.2f}" if row and str(stride) in "1234" else "-"


def _count(value: Any) -> str:
    """A whole number with separators; anything else as it is."""
    return f"{int(value):,}" if str(value).isdecimal() else str(value)


def _exact(value: float | None) -> str:
    return "" if value is None else repr(value)


def _without_empty(table: Table, kept: Sequence[str] = ()) -> Table:
    """The table without columns in which no row says anything."""
    used = [
        index
        for index, column in enumerate(table.columns)
        if column in kept or any(row[index] not in ("", "-") for row in table.rows)
    ]
    columns = [table.columns[index] for index in used]
    rows = [[row[index] for index in used] for row in table.rows]
    return dataclasses.replace(table, columns=columns, rows=rows)
