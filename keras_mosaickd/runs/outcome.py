"""The end of a run: which student it exports, and what is written down about it."""

import keras

from keras_mosaickd import export
from keras_mosaickd.callbacks.traces import read_history
from keras_mosaickd.errors import program
from keras_mosaickd.evaluation.label_free import SCORE, score
from keras_mosaickd.evaluation.scores import compared
from keras_mosaickd.evaluation.verdict import verdict
from keras_mosaickd.export import of_run as shipping
from keras_mosaickd.methods.practical import SWITCHED
from keras_mosaickd.networks import count_parameters
from keras_mosaickd.networks.loading import load_model
from keras_mosaickd.report import model_card
from keras_mosaickd.run_directory import BEST_STUDENT, HISTORY, METRICS


def finish(run, inputs, trainer, schedule, judge, origin):
    """Exports the chosen student and writes `metrics.json`.

    Args:
        run: `RunDirectory`.
        inputs: `Inputs`.
        trainer: the trained method.
        schedule: its `Schedule`.
        judge: `LabelFreeJudge`, or None where the student is judged on labels alone.
        origin: dict of what is known of the teacher and the settings.

    Returns:
        The metrics.
    """
    config = inputs.config
    history = read_history(run / HISTORY)
    chosen, student = _chosen(config, run, trainer, history, judge)
    formats = export.parse(config.export)
    exports, failure = _exported(run, trainer, student, formats, inputs)
    print(f"Exported: the student of epoch {int(chosen['epoch']) + 1} of {len(history)}")
    print(shipping.table(exports))
    seconds = sum(row["seconds"] for row in history)
    synthetic = schedule.student_updates * config.batch_size if config.is_game else 0
    teacher_parameters, student_parameters = (
        count_parameters(model) for model in (trainer.teacher, student)
    )
    metrics = {
        "method": config.method,
        "dataset": None if inputs.domain is None else inputs.domain.name,
        "ood": None if inputs.pool is None else inputs.pool.name,
        "task": config.task,
        "backend": keras.backend.backend(),
        "seed": config.seed,
        "teacher": config.teacher,
        "student": config.student,
        "class_names": list(inputs.class_names),
        "head": trainer.head.kind,
        **origin,
        **_validated(chosen, history),
        "select": config.select,
        "exported_epoch": int(chosen["epoch"]),
        "teacher_parameters": teacher_parameters,
        "student_parameters": student_parameters,
        "compression": teacher_parameters / student_parameters,
        "student_updates": schedule.student_updates,
        **({"generator_multiple": trainer.generator_multiple} if config.is_game else {}),
        "train_seconds": seconds,
        **({"synthetic_images_per_second": synthetic / seconds} if synthetic else {}),
        "exports": exports,
    }
    off = [name for name in SWITCHED if _is_off(name, config, trainer)]
    if off:
        metrics["switched_off"] = off
    if judge is not None:
        metrics |= _judged(inputs, judge.judge(trainer, student))
    if inputs.labelled is not None:
        # Nothing was chosen by these labels.
        tested = compared(trainer.teacher, student, inputs.labelled, config.evaluation_batch_size)
        metrics |= {"eval": inputs.labelled.name, **{f"eval_{k}": v for k, v in tested.items()}}
    if judge is not None:
        metrics["verdict"] = verdict(metrics)
    # The metrics last: they are what says that a run is finished.
    model_card.write(run, metrics)
    run.write_json(METRICS, metrics)
    if failure is not None:
        failed = ",".join(name for name in formats if name not in _formats(exports))
        raise export.ExportError(
            f"{failure}. Everything else of the run is written; once that is mended: "
            f"{program('export')} --run_dir={run.path} --export={failed}"
        ) from failure
    return metrics


def _exported(run, trainer, student, formats, inputs):
    """What was exported, and the `ExportError` of what could not be, or None."""
    try:
        return shipping.export_run(
            run, trainer, student, formats, inputs.class_names, lambda: inputs.domain.images
        ), None
    except export.ExportError as error:
        if "keras" not in _formats(error.written):
            raise  # Without the student nothing is finished.
        return error.written, error


def _formats(exports):
    return [written["format"] for written in exports]


def _is_off(name, config, trainer):
    """Whether the networks did not allow a part of the practical recipe, which was left out."""
    return bool(getattr(config, name)) and trainer.get_config().get(name) == 0


def _chosen(config, run, trainer, history, judge):
    """The row of the history whose student is exported, and that student."""
    last = history[-1], trainer.student
    if config.select == "last":
        return last
    # The first of equals, as the checkpoint keeps it.
    row = max(history, key=lambda row: row[SCORE])
    best = row, load_model(run / BEST_STUDENT, "the best student")
    # It was the best on the images of its epoch. The generator has learned since.
    return max(best, last, key=lambda pair: score(judge.judge(trainer, pair[1])))


def _validated(chosen, history):
    """The student's scores on validation images, those of labels where there are any."""
    found = {"student_agreement": chosen["val_agreement"]}
    if "val_accuracy" in chosen:
        found["student_accuracy"] = chosen["val_accuracy"]
        found["student_accuracy_best"] = max(row["val_accuracy"] for row in history)
    if "val_mean_iou" in chosen:
        found["student_mean_iou"] = chosen["val_mean_iou"]
    return found


def _judged(inputs, judged):
    """What was found without labels, by the names of `metrics.json`."""
    found = {SCORE: score(judged)}
    for kind, agreement in judged.items():
        found |= {f"{kind}_{k}": v for k, v in agreement.summary(inputs.class_names).items()}
    if inputs.held_out is not None:
        found["held_out_pictures"] = len(inputs.held_out)
    return found
