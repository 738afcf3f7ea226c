"""``bin/evaluate``: accuracy, agreement, size and latency of a finished run."""

from __future__ import annotations

import os

from keras_mosaickd.cli import flags, runner
from keras_mosaickd.cli.table import aligned


def main(parsed: flags.Parsed) -> None:
    """Evaluates the run's student and teacher, prints the figures, and renews the model card."""
    run_dir = runner.required(parsed, "run_dir")
    runner.load_backend(parsed)
    from keras_mosaickd.evaluation import of_run as evaluation
    from keras_mosaickd.report import model_card
    from keras_mosaickd.run_directory import MODEL_CARD, RunDirectory

    names = ("dataset", "data_dir", "teacher", "class_names", "skip_unreadable")
    found = evaluation.evaluate(
        run_dir,
        **{name: parsed.values[name] for name in names},
        labelled=parsed.values["eval"],
        unsafe=parsed.values["unsafe_load"],
        batch_size=parsed.values["evaluation_batch_size"],
    )
    runner.print_values(found)
    per_class = found.get("per_class") or found.get("eval_per_class")
    if per_class:
        print("\n" + aligned(model_card.by_class(per_class)))
    run = RunDirectory(run_dir)
    if (run / MODEL_CARD).is_file() and os.access(run.path, os.W_OK):
        model_card.write(run)


console = runner.entry_point(main, "evaluate")

if __name__ == "__main__":
    console()
