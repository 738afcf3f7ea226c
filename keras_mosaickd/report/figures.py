"""The figures of a report as PNG files, drawn by matplotlib on a light ground of their own."""

from __future__ import annotations

import functools
import io
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_mosaickd.data import image_grid
from keras_mosaickd.extras import require
from keras_mosaickd.report.groups import Group
from keras_mosaickd.report.summary import CURVES, standard_deviation

_GROUND, _INK, _LINES = "#f7f7f4", "#26262a", "#d0d0cc"
# Okabe & Ito, 2008: told apart by colour-blind readers as well. Dashes tell more than seven apart.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#a06a00", "#444444")
_DASHES = ("-", "--", ":", "-.")
_TITLES = {
    "val_accuracy": "accuracy (%)",
    "val_agreement": "agreement with the teacher (%)",
    "synthetic_agreement": "agreement on synthetic images (%)",
}


def check() -> None:
    """Raises InputError where matplotlib is not installed."""
    require("the report's figures", "matplotlib")


def curves(groups: Sequence[Group], names: Sequence[str] = CURVES) -> bytes | None:
    """Logs by epoch: a line per run, a colour per group; None where no run has any of them."""
    rows_of = [(group, [row for run in group.runs for row in run.history]) for group in groups]
    # A run without labels has no accuracy, and only one without labels is judged on synthetic ones.
    names = [name for name in names if any(name in row for _, rows in rows_of for row in rows)]
    if not names:
        return None
    drawn = [group for group, rows in rows_of if any(n in row for row in rows for n in names)]
    figure, axes = _axes(len(names), legend=len(drawn))
    for axis, name in zip(axes, names, strict=True):
        is_share = name in _TITLES
        for index, group in enumerate(drawn):
            label: str | None = f"{group.label} ({len(group.runs)})"
            for run in group.runs:
                rows = [row for row in run.history if name in row]
                x = [row["epoch"] + 1 for row in rows]
                y = [100 * row[name] if is_share else row[name] for row in rows]
                # A run of one epoch is a point.
                axis.plot(x, y, label=label, alpha=0.85, lw=1.4, marker=".", **_line(index))
                label = None
        axis.set(xlabel="epoch", ylabel=_TITLES.get(name, name))
        if name.startswith("lambda_"):
            axis.set_yscale("log")
        axis.xaxis.get_major_locator().set_params(integer=True)
    return _finished(figure, axes)


def study(
    metric_points: Mapping[str, Mapping[str, Sequence[tuple[float, Sequence[float]]]]],
    hyperparameter: str,
    published: Mapping[str, Sequence[float]] | None = None,
) -> bytes | None:
    """A metric by one hyperparameter, mean and standard deviation; None without points.

    Args:
        metric_points: By the axis' title the curves of `keras_mosaickd.report.summary.points`.
        hyperparameter: The other axis' title.
        published: Per cent by student for the values 1, 2, ..., drawn beside in grey.
    """
    shown = {title: series for title, series in metric_points.items() if series}
    if not shown:
        return None
    count = max(map(len, shown.values())) + len(published or ())
    figure, axes = _axes(len(shown), legend=count)
    for axis, (title, series) in zip(axes, shown.items(), strict=True):
        values = sorted({value for curve in series.values() for value, _ in curve})
        # Evenly spaced: a grid such as 0, 0.1, 0.3, 1, 3, 10 fits neither a linear nor a log axis.
        place = {value: index for index, value in enumerate(values)}
        for index, (label, curve) in enumerate(series.items()):
            mean = [100 * statistics.fmean(found) for _, found in curve]
            sd = [100 * standard_deviation(v) if len(v) > 1 else 0.0 for _, v in curve]
            x = [place[value] for value, _ in curve]
            axis.errorbar(x, mean, sd, label=label, marker="o", capsize=3, **_line(index))
        if "accuracy" in title:
            for index, (label, row) in enumerate((published or {}).items()):
                known = [(place[s + 1], v) for s, v in enumerate(row) if s + 1 in place]
                line = {"color": "#8a8a8a", "ls": _DASHES[1 + index % 3]}
                axis.plot(*zip(*known, strict=True), label=f"published, {label}", lw=1, **line)
        axis.set_xticks(range(len(values)), [f"{value:g}" for value in values])
        axis.set(xlabel=hyperparameter, ylabel=title)
    return _finished(figure, axes)


def lines_by_epoch(panels: Mapping[str, Mapping[str, Sequence[float]]]) -> Any:
    """A figure with a panel for each title: lines of values by epoch, under their names.

    Two panels beside each other are what a page or a notebook's cell shows without making them
    small.
    """
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = _figure(4.9 * columns if columns > 1 else 7.0, 3.8 * rows)
    for index, (title, lines) in enumerate(panels.items()):
        axis = figure.add_subplot(rows, columns, index + 1)
        _dressed(axis)
        for number, (name, values) in enumerate(lines.items()):
            epochs = range(1, len(values) + 1)
            axis.plot(epochs, values, label=name, lw=1.4, marker=".", **_line(number))
        axis.set(xlabel="epoch", ylabel=title)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend(fontsize=7, framealpha=0.7, edgecolor="none")
    return figure


def grids(drawn: Mapping[str, np.ndarray]) -> Any:
    """A figure of images uint8 [h, w, c] side by side, each under its title."""
    figure = _figure(5.0 * len(drawn), 5.4)
    for index, (title, image) in enumerate(drawn.items()):
        axis = figure.add_subplot(1, len(drawn), index + 1)
        _show(axis, image)
        axis.spines[:].set_visible(False)
        axis.set_title(title, fontsize=10, color=_INK)
    return figure


def entropy_histogram(selection: Mapping[str, Any]) -> bytes:
    """How the teacher's entropy is spread over the pool and over the images that were kept.

    Args:
        selection: ``edges`` (n + 1 numbers, nats), ``pool`` and ``kept`` (n counts each).
    """
    edges = np.asarray(selection["edges"], float)
    figure, axes = _axes(1, legend=2)
    for name, label, colour in (("pool", "pool", "#b5b5b0"), ("kept", "kept", _COLOURS[0])):
        counts = np.asarray(selection[name], float)
        axes[0].bar(edges[:-1], counts, np.diff(edges), align="edge", color=colour, label=label)
    axes[0].set(xlabel="entropy of the teacher's prediction (nats)", ylabel="images")
    return _finished(figure, axes)


def class_balance(counts: Mapping[str, Sequence[int]], names: Sequence[str]) -> bytes:
    """The share of synthetic images that the teacher puts into each class, by runs."""
    figure, axes = _axes(1, legend=len(counts))
    width = 0.8 / len(counts)
    for index, (label, row) in enumerate(counts.items()):
        x = np.arange(len(row)) + (index - (len(counts) - 1) / 2) * width
        share = 100 * np.asarray(row) / max(1, sum(row))
        axes[0].bar(x, share, width, label=label, color=_line(index)["color"])
    axes[0].axhline(100 / len(names), color=_INK, lw=0.8, ls=":")
    if len(names) <= 20:
        axes[0].set_xticks(range(len(names)), names, rotation=30 if max(map(len, names)) > 4 else 0)
    axes[0].set(xlabel="class seen by the teacher", ylabel="synthetic images (%)")
    return _finished(figure, axes)


def image_rows(rows: Mapping[str, tuple[np.ndarray, Sequence[str]]]) -> bytes:
    """Rows of images with a word above each.

    Args:
        rows: By the row's title images [n, h, w, c] and n words; n is the same in all.
    """
    count = max(len(words) for _, words in rows.values())
    figure = _figure(min(14.0, 0.75 * count + 0.9), 1.05 * len(rows) + 0.15)
    for index, (title, (images, words)) in enumerate(rows.items()):
        for column, (image, word) in enumerate(zip(images, words, strict=True)):
            axis = figure.add_subplot(len(rows), count, index * count + column + 1)
            _show(axis, image)
            axis.set_title(word, fontsize=7, pad=2, color=_INK)
            if column == 0:
                axis.set_ylabel(title, fontsize=9, color=_INK)
    return _png(figure)


def image_grids(given: Mapping[str, np.ndarray]) -> bytes:
    """Grids of images [n, h, w, c] side by side, each under its title."""
    return _png(grids({title: image_grid.grid(images) for title, images in given.items()}))


def _show(axis: Any, image: np.ndarray) -> None:
    image = image[..., 0] if image.shape[-1] == 1 else image
    highest = 255 if image.dtype == np.uint8 else 1.0
    axis.imshow(image, cmap="gray", vmin=0, vmax=highest, interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])


def _line(index: int) -> dict[str, str]:
    return {
        "color": _COLOURS[index % len(_COLOURS)],
        "ls": _DASHES[index // len(_COLOURS) % len(_DASHES)],
    }


@functools.cache
def _figure_class() -> Any:
    from matplotlib.figure import Figure

    class ShownFigure(Figure):
        """A figure that a notebook shows without pyplot."""

        def _repr_png_(self) -> bytes:
            return _png(self)

    return ShownFigure


def _figure(width: float, height: float) -> Any:
    # Not pyplot: it would choose a window system and keep every figure for ever.
    return _figure_class()(
        figsize=(width, height), dpi=120, facecolor=_GROUND, layout="constrained"
    )


def _axes(count: int, legend: int) -> tuple[Any, list[Any]]:
    # The legend stands below the axes, a line for each of its entries.
    figure = _figure(4.9 * count if count > 1 else 7.0, 3.6 + 0.19 * legend)
    axes = [figure.add_subplot(1, count, index + 1) for index in range(count)]
    for axis in axes:
        _dressed(axis)
    return figure, axes


def _dressed(axis: Any) -> None:
    axis.set_facecolor(_GROUND)
    axis.grid(color=_LINES, lw=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(colors=_INK, labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def _finished(figure: Any, axes: Sequence[Any]) -> bytes:
    # matplotlib lists lines before error bars; what is measured comes before what is published.
    entries = sorted(
        zip(*axes[0].get_legend_handles_labels(), strict=True),
        key=lambda entry: entry[1].startswith("published"),
    )
    handles, labels = zip(*entries, strict=True)
    figure.legend(handles, labels, loc="outside lower center", fontsize=8, frameon=False)
    return _png(figure)


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor=_GROUND)
    return buffer.getvalue()
