"""What leaves a run: its student in the formats asked for, compared on images of the run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_mosaickd.config import GAMES
from keras_mosaickd.data import load, parse
from keras_mosaickd.data.class_matching import class_names_of
from keras_mosaickd.data.image_set import spread
from keras_mosaickd.errors import InputError
from keras_mosaickd.evaluation.of_run import load_run
from keras_mosaickd.export import (
    FORMATS,
    ExportError,
    check,
    export_student,
    load_student,
    of_a_run,
    target,
)
from keras_mosaickd.export.saved_model import is_classifier
from keras_mosaickd.networks.heads import new_head
from keras_mosaickd.networks.logits import student_head
from keras_mosaickd.run_directory import (
    CHECKPOINT,
    METRICS,
    SAVED_MODEL,
    SELECTION,
    STUDENT,
    RunDirectory,
    newest_intact,
)
from keras_mosaickd.teachers.features import generate

# Images for calibration and comparison together, half for each, by the student's task: one class
# for an image or one for each of its pixels.
_IMAGES = {"classification": 512, "segmentation": 32}
_SEED = 0


def export_run(
    run: RunDirectory,
    trainer: Any,
    student: Any,
    formats: Sequence[str],
    class_names: Sequence[str],
    domain: Callable[[], Any],
) -> list[dict[str, Any]]:
    """Writes the student of a run that has just been trained, always as ``.keras`` too.

    Args:
        run: Where to.
        trainer: The method with its networks.
        student: The one to export: the last, or the chosen one.
        formats: Of `keras_mosaickd.export.parse`.
        class_names: One per output of the student.
        domain: Gives images to compare on where the run has neither synthetic nor out-of-domain
            ones.

    Returns:
        As `keras_mosaickd.export.export_student`, each ``file`` relative to the run directory.

    Raises:
        ExportError: As there; what was ``written`` likewise.
    """
    wanted = [name for name in FORMATS if name in ("keras", *of_a_run(formats))]
    images = _images(run, trainer, student, domain)
    return _export(run, student, wanted, class_names, trainer.head.kind, images)


def export_again(
    run_dir: str | os.PathLike[str], formats: Sequence[str], out: str = "", data_dir: str = ""
) -> list[dict[str, Any]]:
    """Writes the student of a finished run in further formats.

    Into the run directory, where `metrics.json` then tells of them, or beside ``out``.

    Args:
        run_dir: Directory of the run.
        formats: Of `keras_mosaickd.export.parse`.
        out: Path of the SavedModel; the other formats are called likewise with their suffixes.
            Empty writes into the run directory.
        data_dir: Directory of data files.

    Returns:
        As `export_run`; with ``out``, each ``file`` as it was given.

    Raises:
        InputError: There is no student, or no images for ``litert_int8``.
        ExportError: As of `export_run`; `metrics.json` tells of what was written.
    """
    check(formats)
    run = RunDirectory(run_dir)
    student = load_student(run / STUDENT)
    metrics = run.read_json(METRICS) if run.is_finished else {}
    names, head = metrics.get("class_names"), metrics.get("head", "classes")

    def domain() -> Any:
        name = metrics.get("dataset")
        return _load(name, "--dataset", student, data_dir) if name else None

    trainer = None
    if metrics.get("method") in GAMES and newest_intact(run / CHECKPOINT) is not None:
        try:
            trainer = load_run(run_dir)
        except InputError as error:  # The student is enough: other images serve as well.
            print(f"Compared on other than synthetic images: {error}")
    images = _images(run, trainer, student, domain)
    if out:
        return _write(student, _beside(out, formats), names, head, images, run / STUDENT)
    failure = None
    try:
        exports = _export(run, student, formats, names, head, images)
    except ExportError as error:
        exports, failure = error.written, error
    if metrics:
        written = [export["format"] for export in exports]
        kept = [old for old in metrics.get("exports", []) if old["format"] not in written]
        run.write_json(METRICS, {**metrics, "exports": kept + exports})
    if failure is not None:
        raise failure
    return exports


def export_file(
    keras_path: str | os.PathLike[str],
    formats: Sequence[str],
    out: str,
    ood: str = "",
    class_names: str = "",
    data_dir: str = "",
    head: str = "auto",
) -> list[dict[str, Any]]:
    """Writes any student in a ``.keras`` file.

    Args:
        keras_path: The file.
        formats: Of `keras_mosaickd.export.parse`.
        out: As for `export_again`.
        ood: Data set to compare on and to calibrate ``litert_int8`` with; random images are
            compared where it is empty.
        class_names: File with one class name per line; numbers where it is empty.
        data_dir: Directory of data files.
        head: As for `keras_mosaickd.export.export_saved_model`.

    Returns:
        As `keras_mosaickd.export.export_student`.

    Raises:
        InputError: A file that is no student, or no images for ``litert_int8``.
    """
    check(formats)
    if "litert_int8" in formats and not ood:
        raise InputError(
            "--export=litert_int8 with --student expected --ood, images to calibrate with. "
            "Received: none"
        )
    student = load_student(keras_path)
    answers = new_head(student_head(student, head), student.output_shape[-1])
    names = class_names_of(class_names, answers.classes) if class_names else None
    if "saved_model" in formats and is_classifier(student):
        how = "of independent labels" if answers.kind == "labels" else "of one class each"
        print(f"classify: {answers.classes} probabilities {how}")
    images = _load(ood, "--ood", student, data_dir) if ood else None
    image_set = None if images is None else _spread(images, _count(student))
    return _write(student, _beside(out, formats), names, head, image_set, Path(keras_path))


def cells(export: dict[str, Any]) -> tuple[str, ...]:
    """An export as a row of a table: format, file, bytes, latency, difference, agreement."""
    return (
        export["format"],
        export["file"],
        f"{export['bytes']:,}",
        f"{export['latency_ms']:.2f}",
        f"{export['max_difference']:.1e}",
        f"{export['agreement']:.4f}",
    )


def table(exports: Sequence[dict[str, Any]]) -> str:
    """The exports as lines of text."""
    header = ("format", "file", "bytes", "ms per image", "max difference", "agreement")
    rows = [header, *map(cells, exports)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        names = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
        numbers = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        lines.append("  ".join(names + numbers))
    return "\n".join(lines)


def _export(
    run: RunDirectory,
    student: Any,
    formats: Sequence[str],
    class_names: Sequence[str] | None,
    head: str,
    images: np.ndarray | None,
) -> list[dict[str, Any]]:
    base = (run / STUDENT).with_suffix("")
    targets = {
        name: run / SAVED_MODEL if name == "saved_model" else target(base, name) for name in formats
    }
    source = None if "keras" in targets else run / STUDENT

    def relative(exports: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**export, "file": Path(export["file"]).name} for export in exports]

    try:
        return relative(_write(student, targets, class_names, head, images, source))
    except ExportError as error:
        raise ExportError(str(error), relative(error.written)) from error


def _write(
    student: Any,
    targets: dict[str, Path],
    class_names: Sequence[str] | None,
    head: str,
    images: np.ndarray | None,
    keras_path: Path | None,
) -> list[dict[str, Any]]:
    halves: dict[str, Any] = {}
    if images is not None:
        # What is compared took no part in the calibration.
        halves = {"calibration": images[0::2], "images": images[1::2]}
    return export_student(
        student, targets, class_names=class_names, keras_path=keras_path, head=head, **halves
    )


def _beside(out: str, formats: Sequence[str]) -> dict[str, Path]:
    return {name: target(Path(out), name) for name in formats}


def _images(
    run: RunDirectory, trainer: Any, student: Any, domain: Callable[[], Any]
) -> np.ndarray | None:
    """Images like those that the student learned from: out-of-domain and synthetic ones.

    The former up to half, the latter for the rest. Where there is one kind only, of that kind;
    where there is none, the domain's.

    Returns:
        float32 [n, h, w, c] in [0, 1], or None where the run has none.
    """
    count, generator = _count(student), getattr(trainer, "generator", None)
    kinds = []
    if (run / SELECTION).is_file():
        file = Path(run.read_json(SELECTION)["images"])
        if file.is_file():
            pool = np.load(file, mmap_mode="r", allow_pickle=False)
            kinds.append(_spread(pool, count if generator is None else count // 2))
        else:
            which = "random" if generator is None else "synthetic"
            print(f"Compared on {which} images: {file}, of {run / SELECTION}, is gone")
    elif generator is None and (images := domain()) is not None:
        kinds.append(_spread(images, count))
    if generator is not None:
        missing = count - sum(map(len, kinds))
        random = np.random.default_rng(_SEED)
        latents = random.standard_normal((missing, trainer.latent_dim), "float32")
        kinds.append(generate(generator, latents))
    # `_write` takes every second image for either purpose: of an even number half of each kind.
    return np.concatenate(kinds) if kinds else None


def _spread(images: Any, count: int) -> np.ndarray:
    """Evenly spaced ones of uint8 images [n, h, w, c], an even number up to `count`, in [0, 1]."""
    return spread(images, max(2, min(len(images), count) // 2 * 2)).astype("float32") / 255.0


def _count(student: Any) -> int:
    return _IMAGES["classification" if len(student.output_shape) == 2 else "segmentation"]


def _load(name: str, flag: str, student: Any, data_dir: str) -> Any:
    height, width, channels = student.input_shape[1:]
    if height != width:
        raise InputError(
            f"{flag} expected a student of square images. Received: one of {height}x{width}; "
            "without it random images are compared"
        )
    split = "all" if flag == "--ood" and parse(name, flag).path else "train"
    return load(
        name,
        split,
        image_size=height,
        channels=channels,
        data_dir=data_dir or None,
        flag=flag,
        with_labels=False,
    ).images
