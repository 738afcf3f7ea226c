"""Runs and studies on one page: tables, curves and images, as HTML, Markdown, PNG and CSV."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from keras_mosaickd.errors import InputError
from keras_mosaickd.evaluation.of_run import class_names_in
from keras_mosaickd.report import drawings, figures, page, summary
from keras_mosaickd.report.content import Figure, Section, Table
from keras_mosaickd.report.groups import Group, groups
from keras_mosaickd.report.runs import Run, Study, read

__all__ = ["write"]

_IMAGES, _COLUMNS = 64, 10


def write(paths: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> Path:
    """Writes the report of runs and studies.

    Args:
        paths: Directories of runs and studies, or directories that hold some.
        out: Directory of the report; made if it is not there.

    Returns:
        The path of ``report.html``, which needs no other file.

    Raises:
        InputError: No path leads to a run or a study, matplotlib is missing, or ``out`` cannot be
            written to.
    """
    if not paths:
        raise InputError("expected directories of runs or studies. Received: none")
    runs, studies, problems = read([Path(path) for path in paths])
    if not runs and not studies:
        raise InputError(
            "expected directories of finished runs or studies. Received: " + "; ".join(problems)
        )
    figures.check()
    found = groups(runs)
    sections = _results(found)
    names = [study.path.resolve().name for study in studies]
    for number, (study, name) in enumerate(zip(studies, names, strict=True), 1):
        is_only = names.count(name) == 1
        sections.append(_study(study, f"study_{name}" if is_only else f"study_{name}_{number}"))
    sections += _selections(found, problems)
    sections += _synthetic(found, runs, problems)
    if problems:
        sections.append(Section("Not in this report", problems))
    return page.write(out, "MosaicKD: runs and studies", sections)


def _results(found: Sequence[Group]) -> list[Section]:
    if not found:
        return []
    tables = [table for table in (summary.results(found), summary.settings(found)) if table]
    sections = [Section("Results", [*tables, *summary.verdicts(found)])]
    curves = figures.curves(found)
    if curves is not None:
        places = " or ".join(dict.fromkeys(group.validated_on for group in found))
        caption = (
            f"After every epoch, on {places} unless the axis says otherwise; one line per run, in "
            "brackets the number of runs."
        )
        table = summary.history([run for group in found for run in group.runs])
        sections.append(Section("Curves", [Figure("curves", caption, curves), table]))
    constraints = _constraints(found)
    if constraints is not None:
        sections.append(constraints)
    for title, table_of in (
        ("Teacher and student", summary.networks),
        ("Quality of the synthetic images", summary.quality),
    ):
        table_found = table_of(found)
        if table_found is not None:
            sections.append(Section(title, [table_found]))
    return sections


def _constraints(found: Sequence[Group]) -> Section | None:
    """Lambda over the runs that let it find itself; None where none does."""
    table = summary.multipliers(found)
    names = summary.MULTIPLIER_CURVES
    png = figures.curves(found, names)
    if table is None or png is None:
        return None
    caption = (
        "The multipliers at the end of every epoch, and the epoch's means of what they hold below "
        "epsilon; one line per run."
    )
    runs = [run for group in found for run in group.runs]
    curves = summary.history(runs, "multiplier_curves", names)
    return Section("Multipliers", [table, Figure("multipliers", caption, png), curves])


def _study(study: Study, name: str) -> Section:
    content = study.content
    is_stride = content["study"] == "stride"
    metrics = {"accuracy (%)": "student_accuracy", "agreement (%)": "student_agreement"}
    curves = {title: summary.points(study, name) for title, name in metrics.items()}
    hyperparameter = summary.HYPERPARAMETERS.get(content["study"], "")
    items: list[Table | Figure | str] = []
    if content.get("finished") is False:
        items.append("This study is not finished; what follows is what it has so far.")
    if not study.trials:
        return Section(f"Study {study.name}", [*items, "It has no finished trial."])
    png = figures.study(curves, hyperparameter, summary.TABLE_4 if is_stride else None)
    table = summary.study_table(study, name)
    if png is not None:
        caption = f"Accuracy and agreement by {hyperparameter}: mean, and standard deviation where "
        caption += "a trial has several runs."
        if is_stride:
            caption += (
                " Grey: the supplement's table 4 (CIFAR-100, other data and longer training)."
            )
        items.append(Figure(table.name, caption, png))
    items.append(table)
    if is_stride:
        items.append(summary.published_strides())
    return Section(f"Study {study.name}: {content['study']}", items)


def _selections(found: Sequence[Group], problems: list[str]) -> list[Section]:
    """The entropy histogram of every selection that differs from the others."""
    items: list[Table | Figure | str] = []
    seen: list[tuple[list[float], list[int], list[int]]] = []
    for run in (run for group in found for run in group.runs if run.selection is not None):
        try:
            content = run.selection or {}
            edges = [float(edge) for edge in content["edges"]]
            pool, kept = ([int(count) for count in content[name]] for name in ("pool", "kept"))
            if not len(edges) - 1 == len(pool) == len(kept) > 0:
                raise ValueError("edges, pool and kept do not fit together")
        except (KeyError, TypeError, ValueError) as error:
            problems.append(f"{run.path}: selection.json cannot be used ({error!r})")
            continue
        if (edges, pool, kept) in seen:
            continue
        seen.append((edges, pool, kept))
        name = f"ood_entropy_{len(seen)}"
        caption = (
            f"Out-of-domain images of {run.metrics.get('ood') or 'the pool'} by the entropy of "
            f"the teacher of {run.name}: {sum(kept):,} kept of {sum(pool):,}."
        )
        png = figures.entropy_histogram({"edges": edges, "pool": pool, "kept": kept})
        rows = [
            [repr(low), repr(high), str(every), str(chosen)]
            for low, high, every, chosen in zip(edges[:-1], edges[1:], pool, kept, strict=True)
        ]
        items.append(Figure(name, caption, png))
        items.append(Table(name, ["from", "to", "pool", "kept"], rows, shown=False))
    return [Section("Selection of the out-of-domain images", items)] if items else []


def _synthetic(found: Sequence[Group], runs: Sequence[Run], problems: list[str]) -> list[Section]:
    """Everything that is drawn from checkpoints: one run of each group, that of the least seed."""
    drawn: dict[Path, drawings.Drawn] = {}
    triples = drawings.regularizer_runs(runs)[:1]
    firsts = {group.label: group.runs[0] for group in found if drawings.is_game(group.runs[0])}
    wanted = [*firsts.values(), *(run for triple in triples for run in triple)]
    for run in {run.path: run for run in wanted}.values():
        try:
            drawn[run.path] = drawings.draw(run)
        except InputError as error:
            problems.append(f"{run.path}: no synthetic images ({error})")
    sections = []
    if triples and all(run.path in drawn for run in triples[0]):
        sections.append(_regularizers(triples[0], drawn))
    shown = {label: run for label, run in firsts.items() if run.path in drawn}
    if shown:
        sections.append(_balance(shown, drawn))
        sections.append(_beside(shown, drawn, problems))
    return sections


def _regularizers(triple: Sequence[Run], drawn: dict[Path, drawings.Drawn]) -> Section:
    rows = {}
    for name, run in zip(drawings.REGULARIZERS, triple, strict=True):
        images, classes = drawn[run.path].sorted(_COLUMNS)
        names = _class_names(run, len(drawn[run.path].counts))
        rows[name] = (images, [names[index] for index in classes])
    caption = (
        "Synthetic images without a discriminator (none), with one that judges whole images, and "
        "with one that judges patches: the same z in all three rows, each row sorted by the class "
        "that the teacher sees, which stands above each image (supplement, figure 1)."
    )
    return Section(
        "Three regularizers", [Figure("regularizers", caption, figures.image_rows(rows))]
    )


def _balance(shown: dict[str, Run], drawn: dict[Path, drawings.Drawn]) -> Section:
    """Class balance by the teacher; runs with as many classes share a figure."""
    items: list[Table | Figure | str] = []
    parts: dict[int, dict[str, list[int]]] = {}
    for label, run in shown.items():
        counts = drawn[run.path].counts
        parts.setdefault(len(counts), {})[f"{label} (seed {run.seed})"] = counts
    for classes, counts_by_label in parts.items():
        run = next(r for r in shown.values() if len(drawn[r.path].counts) == classes)
        names = _class_names(run, classes)
        name = f"class_balance_{classes}"
        caption = (
            f"Classes that the teacher sees in {drawings.COUNT} synthetic images; dotted: all "
            "classes alike."
        )
        rows = [[label, *map(str, counts)] for label, counts in counts_by_label.items()]
        items.append(Figure(name, caption, figures.class_balance(counts_by_label, names)))
        items.append(Table(name, ["runs", *names], rows, shown=False))
    return Section("Class balance of the synthetic images", items)


def _beside(
    shown: dict[str, Run], drawn: dict[Path, drawings.Drawn], problems: list[str]
) -> Section:
    items: list[Table | Figure | str] = []
    for index, (label, run) in enumerate(shown.items(), start=1):
        grids = {}
        real = drawings.out_of_domain_images(run, _IMAGES)
        if real is not None:
            grids["out of domain"] = real
        elif run.metrics.get("ood"):
            problems.append(f"{run.path}: no out-of-domain images (selection.json names no file)")
        grids["synthetic, by the teacher's class"] = drawn[run.path].sorted(_IMAGES)[0]
        caption = f"{label}, seed {run.seed}."
        items.append(Figure(f"pictures_{index}", caption, figures.image_grids(grids)))
    return Section("Out-of-domain and synthetic images", items)


def _class_names(run: Run, classes: int) -> list[str]:
    return list(class_names_in(run.metrics, classes) or map(str, range(classes)))
