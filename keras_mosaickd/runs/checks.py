"""What is checked before any work: everything that would make a run fail later."""

from keras_mosaickd import export
from keras_mosaickd.config import METHODS, OUT_OF_DOMAIN, ExperimentConfig
from keras_mosaickd.errors import InputError
from keras_mosaickd.run_directory import INPUTS, RunDirectory
from keras_mosaickd.teachers import load as given_models


def check(prepared):
    """Raises InputError for everything that would make the run fail later."""
    config = prepared.config
    if config.method not in METHODS:
        raise InputError(f"--method must be one of {', '.join(METHODS)}. Received: {config.method}")
    if config.method == "balanced" and config.task != "classification":
        raise InputError(
            "--method=balanced balances over classes of images and needs "
            f"--task=classification. Received: --task={config.task}"
        )
    export.check(export.parse(config.export))
    RunDirectory(config.run_dir or "runs").check(vars(config))
    check_domain(prepared)
    if config.judges_without_labels and config.method == "supervised":
        raise InputError(
            "--method=supervised needs --dataset and --select=last: it has no out-of-domain "
            f"or synthetic images to judge the student on. Received: --dataset="
            f"{config.dataset}, --select={config.select}"
        )
    if config.method in OUT_OF_DOMAIN:
        check_pool(prepared)
    if prepared.labelled is not None and len(prepared.labelled) == 0:
        raise InputError(f"--eval must have images. Received: {config.eval}")
    with prepared.distribution.scope():
        prepared.student(None, None)
        if config.is_game:
            prepared.adversaries(None, None)
    run = RunDirectory(config.run_dir or "runs")
    if (run / INPUTS).is_file() and not prepared.is_dry:
        run.check_inputs(prepared.inputs)
    needed = config.batch_size if config.is_game else config.student_batch_size
    if needed > prepared.images:
        raise InputError(
            f"--batch_size {config.batch_size} takes {needed} images in an update of "
            f"--method={config.method}. Received: {prepared.images} images"
        )
    if config.batch_size % prepared.distribution.replicas:
        raise InputError(
            f"--batch_size must be divisible by the {prepared.distribution.replicas} devices of "
            f"--strategy={config.strategy}. Received: {config.batch_size}"
        )


def check_domain(prepared):
    """Checks teacher and data set."""
    config = prepared.config
    if prepared.given_teacher is not None:
        _check_given_teacher(prepared)
    elif not prepared.has_domain:
        raise InputError(
            "--dataset must be given, unless --teacher is your own: a .keras file, a "
            f"SavedModel's directory or module:function. Received: --teacher={config.teacher}"
        )
    else:
        usual = ExperimentConfig()
        for name in ("teacher_input", "teacher_output", "head", "unsafe_load"):
            if getattr(config, name) != getattr(usual, name):
                raise InputError(
                    f"--{name} describes a --teacher of your own, not a network of this package. "
                    f"Received: {getattr(config, name)} with --teacher={config.teacher}"
                )
    if prepared.classes < 2:
        raise InputError(
            f"{'--dataset' if prepared.has_domain else '--teacher'} must have two classes or "
            f"more. Received: {config.dataset or config.teacher}"
        )
    labelled = f"--dataset={config.dataset}" if config.dataset else f"--eval={config.eval}"
    if prepared.head.kind == "labels" and (config.dataset or config.eval):
        raise InputError(
            "--dataset and --eval have one class for each image, and --teacher has "
            f"{prepared.classes} independent labels: leave them away, and measure the student from "
            f"Python with evaluate(images, labels). Received: {labelled}"
        )
    if prepared.head.kind == "labels" and config.method == "balanced":
        raise InputError(
            "--method=balanced balances over classes, and --teacher has "
            f"{prepared.classes} independent labels. Received: --teacher={config.teacher}"
        )
    if prepared.has_domain:
        _check_dataset(prepared)
    # Reads them.
    _ = prepared.class_names


def _check_given_teacher(prepared):
    config, teacher = prepared.config, prepared.given_teacher
    rank = 4 if config.task == "segmentation" else 2
    if len(teacher.model.output_shape) != rank:
        what = "one prediction per pixel" if rank == 4 else "one prediction per image"
        raise InputError(
            f"--teacher must give {what}, as --task={config.task} says. Received: "
            f"{config.teacher} with output {teacher.model.output_shape}"
        )
    if prepared.distribution.replicas > 1 and given_models.is_saved_model(config.teacher):
        raise InputError(
            f"--strategy must be none with a SavedModel as --teacher. Received: {config.strategy}"
        )


def _check_dataset(prepared):
    config = prepared.config
    if prepared.domain.labels is None:
        raise InputError(f"--dataset must have labels. Received: {prepared.domain.name}")
    if prepared.domain.task != config.task:
        raise InputError(
            f"--task={config.task} must be the task of --dataset. Received: "
            f"{prepared.domain.name}, which is for {prepared.domain.task}"
        )
    if len(prepared.domain_test) == 0:
        raise InputError(f"--dataset must have test images. Received: {prepared.domain.name}")
    if prepared.given_teacher is not None:
        expected, received = len(prepared.domain.class_names), prepared.classes
        if expected != received:
            raise InputError(
                f"--teacher must have {expected} outputs, the number of classes of --dataset. "
                f"Received: {config.teacher} with {received}"
            )
        return
    with prepared.distribution.scope():
        prepared.network(config.teacher)
    if config.teacher_batch_size > len(prepared.domain):
        raise InputError(
            "--teacher_batch_size must be at most the number of training images, "
            f"{len(prepared.domain)}. Received: {config.teacher_batch_size}"
        )


def check_pool(prepared):
    """Checks the out-of-domain images."""
    config = prepared.config
    if config.ood_select == "all" and config.ood_size:
        raise InputError(
            "--ood_select=all keeps the whole pool: leave --ood_size away. Received: "
            f"--ood_size={config.ood_size}"
        )
    if prepared.config.ood_size > len(prepared.pool):
        raise InputError(
            f"--ood_size must be at most the number of images of --ood, {len(prepared.pool)}. "
            f"Received: {prepared.config.ood_size}"
        )
