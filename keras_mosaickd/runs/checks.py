"""What is checked before any work: everything that would make a run fail later."""

import dataclasses
import os

import keras

from keras_mosaickd import export
from keras_mosaickd.backend.training import unsupported_by_xla
from keras_mosaickd.config import ExperimentConfig, is_saved_model
from keras_mosaickd.errors import InputError
from keras_mosaickd.methods.objectives import Objectives
from keras_mosaickd.runs.flag_table import FLAGS


def check_settings(config):
    """Checks what needs no data: types and ranges, the method and its task, the formats."""
    for field, value in vars(config).items():
        FLAGS[field.removesuffix("_")].check(value)
    if config.method == "balanced" and config.task != "classification":
        raise InputError(
            "--method=balanced balances over classes of images and needs "
            f"--task=classification. Received: --task={config.task}"
        )
    if config.is_game:
        _check_objectives(config)
    formats = export.of_a_run(export.parse(config.export))
    export.check(formats)
    if "saved_model" in formats and "[" in os.path.abspath(config.run_dir):
        raise InputError(
            "--run_dir: expected a path without square brackets, which TensorFlow takes for a "
            f"pattern when it loads a SavedModel, or --export=keras. Received: {config.run_dir}"
        )


def _check_objectives(config):
    """Lets the game check its weights before a teacher is trained for it."""
    names = [field.name for field in dataclasses.fields(Objectives)]
    try:
        Objectives(**{name: getattr(config, name) for name in names})
    except InputError as error:
        raise InputError(f"--{error}") from None


def check_seed(seed):
    """Raises InputError for a seed that the backend cannot draw from."""
    if keras.backend.backend() == "torch" and seed >= 2**31:
        raise InputError(
            f"--seed: expected a number below {2**31} on PyTorch, which has no larger ones. "
            f"Received: {seed}"
        )


def check_teacher(config, teacher, distribution):
    """Checks a given teacher, or that there is a data set for one to be trained on."""
    if teacher is not None:
        rank = 4 if config.task == "segmentation" else 2
        if len(teacher.model.output_shape) != rank:
            what = "one prediction per pixel" if rank == 4 else "one prediction per image"
            raise InputError(
                f"--teacher must give {what}, as --task={config.task} says. Received: "
                f"{config.teacher} with output {teacher.model.output_shape}"
            )
        if distribution.replicas > 1 and is_saved_model(config.teacher):
            raise InputError(
                "--strategy must be none with a SavedModel as --teacher. "
                f"Received: {config.strategy}"
            )
        return
    if not config.dataset:
        raise InputError(
            "--dataset must be given, unless --teacher is your own: a .keras file, a "
            f"SavedModel's directory or module:function. Received: --teacher={config.teacher}"
        )
    usual = ExperimentConfig()
    for name in ("teacher_input", "teacher_output", "head", "unsafe_load"):
        if getattr(config, name) != getattr(usual, name):
            raise InputError(
                f"--{name} describes a --teacher of your own, not a network of this package. "
                f"Received: {getattr(config, name)} with --teacher={config.teacher}"
            )


def check_compiler(config, teacher, student):
    """Checks that XLA can compile the networks, where it is to: before a teacher answers for it."""
    if config.jit_compile != "on":
        return
    shape = student.input_shape[1:]
    for flag, network in (("teacher", teacher), ("student", student)):
        if network is not None and (unsupported := unsupported_by_xla(network, shape)):
            raise InputError(
                f"--jit_compile must be auto or off with --{flag}={getattr(config, flag)}: XLA "
                f"cannot compile its {', '.join(unsupported)}. Received: on"
            )


def check_classes(config, head):
    """Checks that the teacher's classes are some, and of a kind that the flags can use."""
    if head.classes < 2:
        raise InputError(
            f"{'--dataset' if config.dataset else '--teacher'} must have two classes or "
            f"more. Received: {config.dataset or config.teacher}"
        )
    labelled = f"--dataset={config.dataset}" if config.dataset else f"--eval={config.eval}"
    if head.kind == "labels" and (config.dataset or config.eval):
        raise InputError(
            "--dataset and --eval have one class for each image, and --teacher has "
            f"{head.classes} independent labels: leave them away, and measure the student from "
            f"Python with evaluate(images, labels). Received: {labelled}"
        )
    if head.kind == "labels" and config.method == "balanced":
        raise InputError(
            "--method=balanced balances over classes, and --teacher has "
            f"{head.classes} independent labels. Received: --teacher={config.teacher}"
        )


def check_domain(config, domain, domain_test, head, teacher):
    """Checks the domain's images and labels."""
    if domain.labels is None:
        raise InputError(f"--dataset must have labels. Received: {domain.name}")
    if domain.task != config.task:
        raise InputError(
            f"--task={config.task} must be the task of --dataset. Received: "
            f"{domain.name}, which is for {domain.task}"
        )
    if len(domain_test) == 0:
        raise InputError(f"--dataset must have test images. Received: {domain.name}")
    if teacher is not None and len(domain.class_names) != head.classes:
        raise InputError(
            f"--teacher must have {len(domain.class_names)} outputs, the number of classes of "
            f"--dataset. Received: {config.teacher} with {head.classes}"
        )
    if teacher is None and config.teacher_batch_size > len(domain):
        raise InputError(
            "--teacher_batch_size must be at most the number of training images, "
            f"{len(domain)}. Received: {config.teacher_batch_size}"
        )


def check_judging(config):
    """Checks that there is something to judge the student on."""
    if config.judges_without_labels and config.method == "supervised":
        raise InputError(
            "--method=supervised needs --dataset and --select=last: it has no out-of-domain "
            f"or synthetic images to judge the student on. Received: --dataset="
            f"{config.dataset}, --select={config.select}"
        )


def check_pool(config, pool):
    """Checks the out-of-domain images."""
    if config.ood_select == "all" and config.ood_size:
        raise InputError(
            "--ood_select=all keeps the whole pool: leave --ood_size away. Received: "
            f"--ood_size={config.ood_size}"
        )
    if config.ood_size > len(pool):
        raise InputError(
            f"--ood_size must be at most the number of images of --ood, {len(pool)}. "
            f"Received: {config.ood_size}"
        )


def check_labelled(config, labelled):
    """Checks the images of `--eval`."""
    if len(labelled) == 0:
        raise InputError(f"--eval must have images. Received: {config.eval}")


def check_batches(config, epoch_size, replicas):
    """Checks that a batch can be filled, and shared by the devices."""
    if not (epoch_size or config.student_updates):
        raise InputError(
            f"--method={config.method} without --dataset needs --student_updates: it has no images "
            "to count epochs by. Received: none"
        )
    needed = config.batch_size if config.is_game else config.student_batch_size
    if epoch_size and needed > epoch_size:
        raise InputError(
            f"--batch_size {config.batch_size} takes {needed} images in an update of "
            f"--method={config.method}; a smaller one is needed. Received: {epoch_size} images"
        )
    if config.batch_size % replicas:
        raise InputError(
            f"--batch_size must be divisible by the {replicas} devices of "
            f"--strategy={config.strategy}. Received: {config.batch_size}"
        )


def check_student(config, student, input_shape, units, head):
    """Checks a student of the user's own against the teacher."""
    rank = 4 if config.task == "segmentation" else 2
    fits = all(
        received in (None, wanted)
        for received, wanted in zip(student.input_shape[1:], input_shape, strict=True)
    )
    fits = fits and len(student.output_shape) == rank
    if not fits or not head.fits(student.output_shape[-1]):
        raise InputError(
            f"--student must take images of {input_shape} and have {units} "
            f"outputs, as the teacher. Received: {config.student} with input "
            f"{student.input_shape[1:]} and output {student.output_shape[1:]}"
        )
    if not student.trainable_variables:
        raise InputError(
            "--student must have weights that can be trained. "
            f"Received: {config.student}, which is frozen"
        )
