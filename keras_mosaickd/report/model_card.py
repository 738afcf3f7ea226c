"""The model card of a run: what its student is, where it came from, how good it is, what for.

After Mitchell et al., "Model Cards for Model Reporting" (2019, arXiv 1810.03993), with what a run
directory knows; what only the user can know is asked for in a sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_mosaickd.errors import program
from keras_mosaickd.export.of_run import cells
from keras_mosaickd.files import file_sha256, write_file
from keras_mosaickd.report.content import Table
from keras_mosaickd.run_directory import (
    ENVIRONMENT,
    FLAGS,
    METRICS,
    MODEL_CARD,
    SELECTION,
    STUDENT,
    RunDirectory,
)

# Of metrics.json, by the images that they are about.
_TESTED = (
    ("student_accuracy", "accuracy of the student"),
    ("student_mean_iou", "mean IoU of the student"),
    ("student_agreement", "agreement of the student with the teacher"),
    ("teacher_accuracy", "accuracy of the teacher"),
    ("teacher_mean_iou", "mean IoU of the teacher"),
)
_WITHOUT_LABELS = (
    ("held_out_agreement", "agreement on the held-out out-of-domain images"),
    ("held_out_agreement_lowest", "there, the lowest of a class seen ten times or more"),
    ("synthetic_agreement", "agreement on fresh synthetic images"),
    ("synthetic_agreement_lowest", "there, the lowest of a class seen ten times or more"),
    ("label_free_agreement", "mean of the two agreements"),
)
_LABELLED = tuple((f"eval_{name}", title) for name, title in _TESTED)
_SIZES = (("parameters", "{:,}"), ("bytes", "{:,}"), ("latency_ms", "{:.2f}"))


def write(run: RunDirectory, metrics: Mapping[str, Any] | None = None) -> Path:
    """Writes ``model_card.md`` of a run, whole or not at all.

    Args:
        run: Its directory, with flags.txt and environment.json.
        metrics: Those of metrics.json, which is read by default.

    Returns:
        The file.

    Raises:
        InputError: metrics.json cannot be read.
    """
    path = run / MODEL_CARD
    write_file(path, text(run, metrics))
    return path


def text(run: RunDirectory, metrics: Mapping[str, Any] | None = None) -> str:
    """The card as Markdown; arguments and errors are those of `write`."""
    metrics = run.read_json(METRICS) if metrics is None else metrics
    environment = run.read_json(ENVIRONMENT) if (run / ENVIRONMENT).is_file() else {}
    sections = [
        _summary(metrics),
        _numbers(metrics),
        _exports(metrics),
        _use(metrics),
        _provenance(run, metrics, environment),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def by_class(per_class: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Rows of a table, the header first, of `per_class` of `keras_mosaickd.evaluation.scores`."""
    rows = [
        (name, f"{of['pictures']:,}", f"{of['teacher']:.4f}", f"{of['student']:.4f}")
        for name, of in per_class.items()
    ]
    return [("accuracy by class", "images", "teacher", "student"), *rows]


def _summary(metrics: Mapping[str, Any]) -> str:
    names = metrics.get("class_names") or []
    lines = [
        f"# {_name(metrics.get('student'))}, distilled from {_name(metrics.get('teacher'))}",
        "",
        f"A network that was trained by `{metrics.get('method')}` "
        f"({metrics.get('student_updates', 0):,} updates) to answer as its teacher does. "
        "It takes images in [0, 1] and gives logits.",
    ]
    if names:
        lines += ["", f"{len(names)} classes: {', '.join(map(str, names))}."]
    return "\n".join(lines)


def _numbers(metrics: Mapping[str, Any]) -> str:
    data, epoch = metrics.get("dataset"), metrics.get("exported_epoch")
    blocks = ["## How good it is"]
    if metrics.get("verdict"):
        blocks.append(str(metrics["verdict"]))
    if epoch is not None:
        blocks.append(f"The student after epoch {epoch + 1}, one run, fractions of 1.")
    held_out = metrics.get("held_out_pictures")
    groups = (
        # Without a data set the validation images are the held-out ones, which follow.
        (f"On the test images of `{data}`:", _TESTED if data else ()),
        (
            "Without labels"
            + (f", {held_out:,} images held out:" if held_out is not None else ":"),
            _WITHOUT_LABELS,
        ),
        (
            f"On the {metrics.get('eval_pictures', 0):,} labelled images of "
            f"`{metrics.get('eval')}`, which chose nothing:",
            _LABELLED,
        ),
    )
    for title, names in groups:
        rows = [
            (text, f"{metrics[key]:.4f}")
            for key, text in names
            if isinstance(metrics.get(key), int | float)
        ]
        if rows:
            blocks += [title, _table(("", "value"), rows)]
    if per_class := metrics.get("eval_per_class"):
        header, *of_classes = by_class(per_class)
        blocks.append(_table(header, of_classes))
    sizes = []
    for part in ("teacher", "student"):
        known = [(metrics.get(f"{part}_{name}"), form) for name, form in _SIZES]
        cells = ["-" if value is None else form.format(value) for value, form in known]
        sizes.append((part, _name(metrics.get(part)), *cells))
    header = ("", "network", "parameters", "bytes as .keras", "ms per image in Keras")
    blocks.append(_table(header, sizes))
    if metrics.get("student_latency_ms") is None:
        blocks.append(f"`{program('evaluate')}` measures what is missing here.")
    else:
        blocks.append(
            "Milliseconds: Keras's `predict_on_batch` of one image, median of 20, with the "
            f"threads that the backend takes by itself, on the machine where "
            f"`{program('evaluate')}` was last run."
        )
    return "\n\n".join(blocks)


def _exports(metrics: Mapping[str, Any]) -> str:
    exports = metrics.get("exports")
    if not exports:
        return ""
    rows = [(kind, f"`{file}`", *numbers) for kind, file, *numbers in map(cells, exports)]
    header = ["format", "file", "bytes", "ms per image in its runtime"]
    header += ["largest difference", "agreement"]
    note = (
        "Each was run after writing and compared with the student: the largest difference of a "
        f"logit, and the share of {_counted(metrics)}. Milliseconds: the file of that row "
        "in the runtime that serves it, one image at a time, median of 20, with the threads that "
        "the runtime takes by itself (ONNX and LiteRT on the CPU), on the machine that wrote the "
        f"file: that of the run, given below, or of a later `{program('export')}`."
    )
    return "\n\n".join(["## Exports", _table(header, rows), note])


def _use(metrics: Mapping[str, Any]) -> str:
    method, pool = metrics.get("method"), metrics.get("ood")
    origin = {
        "supervised": "the labelled images of its domain",
        "data_free": "synthetic images alone, without a label",
        "mosaickd": f"synthetic images and those of `{pool}`, without a label",
    }.get(str(method), f"the images of `{pool}`, without a label")
    is_smaller = metrics.get("student_parameters", 0) < metrics.get("teacher_parameters", 1)
    use = "where the teacher itself is too large or too slow" if is_smaller else "in its place"
    return "\n".join(
        [
            "## Intended use and limits",
            "",
            f"- For the images that the teacher was made for, {use}.",
            f"- It learned from {origin}.",
            "- It inherits the teacher's errors and biases, and adds its own where the two "
            "disagree. The teacher's data and licence bind the student too.",
            f"- {_answers(metrics)}, and its probabilities were not calibrated.",
            "- Before it decides anything, test it on labelled images of where it will be used.",
        ]
    )


def _answers(metrics: Mapping[str, Any]) -> str:
    if metrics.get("head") == "labels":
        return "Of its labels any number may hold for an image, or none"
    each = " for each pixel" if _is_per_pixel(metrics) else ""
    return f"It always answers with one of its classes{each}, also to images of none of them"


def _counted(metrics: Mapping[str, Any]) -> str:
    if metrics.get("head") == "labels":
        return "labels that hold in both or in neither"
    return f"{'pixels' if _is_per_pixel(metrics) else 'images'} with the same class"


def _is_per_pixel(metrics: Mapping[str, Any]) -> bool:
    # Earlier versions did not write the task.
    return metrics.get("task") == "segmentation" or "student_mean_iou" in metrics


def _provenance(
    run: RunDirectory, metrics: Mapping[str, Any], environment: Mapping[str, Any]
) -> str:
    versions = environment.get("versions") or {}
    student = run / STUDENT
    facts = [
        ("student.keras, SHA-256", file_sha256(student) if student.is_file() else None),
        ("teacher", metrics.get("teacher_file") or metrics.get("teacher")),
        ("teacher, SHA-256", metrics.get("teacher_sha256")),
        ("domain", metrics.get("dataset")),
        ("out of domain", metrics.get("ood")),
        ("out-of-domain images kept", _kept(run)),
        ("backend", metrics.get("backend")),
        ("machine", _machine(environment)),
        ("devices", ", ".join(map(str, environment.get("devices") or []))),
        ("versions", ", ".join(f"{name} {number}" for name, number in versions.items() if number)),
        ("commit", environment.get("commit")),
        ("started", environment.get("started")),
    ]
    rows = [(name, f"`{value}`") for name, value in facts if value not in (None, "")]
    blocks = ["## Provenance", _table(("", ""), rows)]
    if (run / FLAGS).is_file():
        flags = (run / FLAGS).read_text(encoding="utf-8").strip()
        command = f"`{program('train')} --flagfile={FLAGS} --run_dir=ANOTHER`"
        blocks.append(f"Flags ({command} in the same directory repeats the run):")
        blocks.append(f"```\n{flags}\n```")
    if off := metrics.get("switched_off"):
        names = ", ".join(f"--{name}" for name in off)
        blocks.append(f"Of these the networks do not allow, and the run left out: {names}.")
    return "\n\n".join(blocks)


def _machine(environment: Mapping[str, Any]) -> str:
    platform, cores = environment.get("platform"), environment.get("cores")
    return f"{platform}, CPU cores: {cores}" if platform and cores else ""


def _name(network: Any) -> str:
    return Path(str(network)).name


def _kept(run: RunDirectory) -> str:
    if not (run / SELECTION).is_file():
        return ""
    selection = run.read_json(SELECTION)
    return f"{sum(selection['kept']):,} of {sum(selection['pool']):,}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return Table("", header, rows).markdown()
