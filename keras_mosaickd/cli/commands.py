"""The commands: what each does, the flags it uses, and where a flag means something else there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from keras_mosaickd.runs.flag_table import FLAGS, Flag

_ALWAYS = ("help", "helpfull", "version", "traceback")
# What --help shows of the commands that take them all.
_COMMON = (
    *("dataset", "ood", "ood_size", "teacher", "teacher_input", "student", "class_names"),
    *("method", "recipe", "batch_size", "epochs", "student_updates", "select", "eval"),
    *("precision", "seed", "run_dir", "export", "dry_run", "help", "helpfull"),
)
# What loading a run again may need; a report shows without images what it cannot load.
_LOADING = ("import", "unsafe_load")
_STUDY = ("study", "students", "grid", "tuner", "max_trials", "executions_per_trial")
_IMPORT = ("weights", "network", "layer_map", "normalization")
_TEACHER = (
    "task",
    "dataset",
    "teacher",
    "teacher_input",
    "teacher_output",
    "head",
    "import",
    "unsafe_load",
    "class_names",
    "image_size",
    "teacher_epochs",
    "teacher_batch_size",
    "teacher_learning_rate",
    "weight_decay",
    "strategy",
    "precision",
    "evaluation_batch_size",
    "skip_unreadable",
    "data_dir",
    "cache_dir",
    "seed",
)


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        summary: What it does, one sentence.
        flags: Names of the flags it accepts.
        changes: Fields of `Flag` that differ for this command, by flag name.
        arguments: What its arguments that are no flags are called, or empty: it takes none.
        common: Names of the flags that ``--help`` shows; ``--helpfull`` shows all, as ``--help``
            does where this is empty.
    """

    summary: str
    flags: tuple[str, ...]
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    arguments: str = ""
    common: tuple[str, ...] = ()

    def flag(self, name: str) -> Flag:
        """Returns the flag as this command understands it."""
        return replace(FLAGS[name], **self.changes.get(name, {}))


_RUN_DIR = {"help": "Directory of a finished run."}
_RUN_TEACHER = {
    "default": "",
    "help": "The run's --teacher again, where it is a SavedModel or module:function, which are run "
    "only when they are named. Empty is right for any other.",
}

COMMANDS: dict[str, Command] = {
    "train": Command(
        "The whole job: train or reuse the teacher, select the out-of-domain images, distil, "
        "evaluate, export.",
        tuple(name for name in FLAGS if name not in ("out", "count", *_STUDY, *_IMPORT)),
        common=_COMMON,
    ),
    "tune": Command(
        "Many runs that differ in some flags, each in a directory of its own, and their table; "
        "repeated, it continues where it was stopped.",
        tuple(name for name in FLAGS if name not in ("out", "count", *_IMPORT)),
        {
            "run_dir": {
                "help": "Directory of the study. Empty takes runs/NAME-STUDY, after the flagfile's "
                "name or the method."
            },
            # Trials are divided among processes, docs/workers.md; not one trial.
            "strategy": {
                "choices": ("auto", "none", "mirrored"),
                "help": "mirrored: all devices (TensorFlow, JAX); none: one; auto: mirrored where "
                "there are several GPUs.",
            },
        },
        common=tuple(name for name in (*_STUDY, *_COMMON) if name != "eval"),
    ),
    "teacher": Command(
        "Train the teacher by the paper's recipe, or find it in the cache, and evaluate it.",
        (*_TEACHER, *_ALWAYS),
        common=("dataset", "teacher", "teacher_epochs", "seed", "cache_dir", "help", "helpfull"),
    ),
    "ood": Command(
        "Select the out-of-domain images on which the teacher is least certain (supplement, "
        "algorithm 1).",
        (*_TEACHER, "ood", "ood_size", "ood_select", *_ALWAYS),
        common=(
            *("dataset", "ood", "ood_size", "ood_select", "teacher", "teacher_input"),
            *("image_size", "seed", "cache_dir", "help", "helpfull"),
        ),
    ),
    "evaluate": Command(
        "Evaluate a run's student and teacher: accuracy and agreement on labelled images, as "
        "fractions of 1; size on disk and latency. The run's metrics.json keeps them.",
        (
            "run_dir",
            "dataset",
            "eval",
            "class_names",
            "evaluation_batch_size",
            "skip_unreadable",
            "data_dir",
            "teacher",
            *_LOADING,
            *_ALWAYS,
        ),
        {
            "run_dir": _RUN_DIR,
            "teacher": _RUN_TEACHER,
            "dataset": {
                "default": "",
                "help": "Test on the test split of this data set (of folder:PATH every fifth "
                "image, or its sub-folder test), whose classes must have the names of the "
                "run's. Empty takes the run's own; a run without one gets size and latency alone.",
            },
            "skip_unreadable": {
                "help": "Leave out images of folders that cannot be read, instead of stopping: "
                "their number is printed."
            },
            "class_names": {
                "help": "File with the names of the teacher's classes, one per line, in the order "
                "of its outputs, where the run knows none. Empty takes the run's."
            },
            "eval": {
                "help": "Labelled images to test on instead, as with --eval of train: of "
                "folder:PATH every image, one sub-folder for each class, called as "
                "--class_names of the run calls it."
            },
        },
    ),
    "export": Command(
        "Write a student in the formats that it is shipped in, run each and compare it with the "
        "student.",
        (
            "run_dir",
            "student",
            "head",
            "class_names",
            "export",
            "ood",
            "data_dir",
            "out",
            "import",
            *_ALWAYS,
        ),
        {
            "run_dir": {"help": "Directory of a finished run, whose student is exported."},
            "student": {
                "default": "",
                "help": "A .keras file to export, instead of a run's student.",
            },
            "out": {
                "help": "Path of the SavedModel; of the other formats too, with .keras, .onnx, "
                ".tflite or _int8.tflite after it. An older export there is replaced. Empty writes "
                "into --run_dir and its metrics.json."
            },
            "head": {
                "help": "What --student says; a run knows it. auto: by its softmax or sigmoid, "
                "classes of logits."
            },
            "class_names": {
                "help": "File with one class name per line, for --student; a run has its own. "
                "Empty takes numbers."
            },
            "ood": {
                "default": "",
                "help": "Images to compare on, and to calibrate litert_int8 with, for --student "
                "(see --ood of train). Empty takes random ones. A run has its own.",
            },
        },
    ),
    "sample": Command(
        "Draw a grid of a run's synthetic images, sorted by the teacher's class, which stands "
        "below each; or write a transfer set of them, with the teacher's soft labels, for others "
        "to train on.",
        ("run_dir", "count", "out", "seed", "teacher", *_LOADING, *_ALWAYS),
        {
            "run_dir": _RUN_DIR,
            "teacher": _RUN_TEACHER,
            "count": {"help": "Number of images; at most 4096 in a grid."},
            "out": {
                "help": "PNG file of a grid; or the directory of a transfer set, new or empty: PNG "
                "files in folders by the teacher's class and soft_labels.npz (files, "
                "probabilities, class_names, temperature). Empty takes samples.png in --run_dir."
            },
            "seed": {"help": "Seed of the latent vectors."},
        },
    ),
    "report": Command(
        "Runs and studies on one page: tables, curves and images, as HTML, Markdown, PNG and "
        "CSV. A directory that holds runs or studies stands for all of them.",
        ("out", "import", *_ALWAYS),
        {"out": {"help": "Directory of the report."}},
        "RUN_OR_STUDY...",
    ),
    "import_weights": Command(
        "Write a PyTorch network's weights as a teacher: a .keras file of the same network here.",
        (*_IMPORT, "image_size", "out", *_ALWAYS),
        {
            "image_size": {
                "default": 32,
                "lower": 1,
                "help": "Height and width of the network's images in pixels.",
            },
            "out": {"help": "The .keras file to write; it must not exist yet."},
        },
    ),
}
