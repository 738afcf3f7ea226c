"""The methods by name: how each is put together, and the data that it trains on."""

import keras
import numpy as np

from keras_mosaickd.data import mosaic_stream, supervised_stream
from keras_mosaickd.data.balance import balanced_indices, predicted_classes
from keras_mosaickd.methods import (
    FitNet,
    KnowledgeDistillation,
    Supervised,
    data_free,
    data_free_stream,
)
from keras_mosaickd.methods.mosaic_kd import MosaicKD
from keras_mosaickd.methods.practical import possible
from keras_mosaickd.optimizers import recipe, student_recipe
from keras_mosaickd.teachers.scaling import normalization

# What `--jit_compile` is to Keras.
_JIT_COMPILE = {"auto": "auto", "on": True, "off": False}


def trainer(prepared, teacher, schedule):
    """The compiled trainer of `--method` on fresh networks.

    Args:
        prepared: `Preparation`.
        teacher: Keras model from images to logits.
        schedule: `Schedule`.

    Returns:
        `MosaicKD` or a baseline, made and compiled in the experiment's distribution scope.
    """
    config = prepared.config
    statistics = normalization(teacher)
    keras.utils.set_random_seed(config.seed)
    with prepared.distribution.scope():
        student = prepared.student(*statistics)
        options = _options(config, teacher, student)
        if config.is_game:
            return _game(prepared, teacher, student, schedule, statistics, options)
        if config.method == "supervised":
            made = Supervised(teacher, student, seed=config.seed)
        elif config.method == "fitnet":
            made = FitNet(teacher, student, hint_weight=config.hint_weight, **options)
        else:
            made = KnowledgeDistillation(teacher, student, **options)
        made.compile(
            student_recipe(
                schedule.student_updates, config.student_learning_rate, config.weight_decay
            ),
            jit_compile=_JIT_COMPILE[config.jit_compile],
        )
        return made


def _options(config, teacher, student):
    """How the student imitates the teacher: what every method but `supervised` takes."""
    options = {
        "temperature": config.temperature,
        "feature_weight": config.feature_weight,
        "mixup": config.mixup,
        "student_start": config.student_start,
        "seed": config.seed,
    }
    if config.is_game:
        options["batch_norm_weight"] = config.batch_norm_weight
    return possible(options, teacher, student) if config.recipe == "practical" else options


def _game(prepared, teacher, student, schedule, statistics, options):
    config = prepared.config
    generator, discriminator = prepared.adversaries(*statistics)
    common = {
        "latent_dim": config.latent_dim,
        "student_steps": config.student_steps,
        "regularization_weight": config.regularization_weight,
        "align_weight": config.align_weight,
        "adversarial_weight": config.adversarial_weight,
        "balance_weight": config.balance_weight,
        "batch_norm_policy": config.batch_norm_policy,
        **options,
    }
    if config.method == "data_free":
        made = data_free(teacher, student, generator, **common)
    else:
        made = MosaicKD(
            teacher,
            student,
            generator,
            discriminator,
            local_weight=config.local_weight,
            local_reduction=config.local_reduction,
            synthetic_only=config.synthetic_only,
            **common,
        )
    made.compile(
        **recipe(
            schedule.steps,
            config.student_steps,
            config.student_learning_rate,
            config.generator_learning_rate,
            config.weight_decay,
        ),
        jit_compile=_JIT_COMPILE[config.jit_compile],
    )
    return made


def training_images(prepared, teacher, selected):
    """Images and labels that `--method` trains on, out of the selected out-of-domain ones.

    Args:
        prepared: `Preparation`.
        teacher: Keras model from images to logits.
        selected: out-of-domain images, uint8 `[n, h, w, c]`; None where the method takes none.

    Returns:
        `(images, labels)`, either of which may be None.
    """
    config = prepared.config
    if config.method == "data_free":
        return None, None
    if config.method == "supervised":
        return prepared.domain.images, prepared.domain.labels
    if config.method == "balanced":
        classes = predicted_classes(teacher, selected)
        indices, missing = balanced_indices(classes, prepared.classes, seed=config.seed)
        if missing:
            names = ", ".join(prepared.class_names[index] for index in missing)
            print(f"Balanced over the other classes: the teacher predicts no image as {names}")
        return np.asarray(selected[indices]), None
    return selected, None


def stream(prepared, images, labels, schedule, first_step):
    """The training data: what the trainer's `fit` takes, from global step `first_step` on."""
    config = prepared.config
    if config.method == "data_free":
        return data_free_stream(config.batch_size, schedule.steps_per_round)
    common = {
        "seed": config.seed,
        "first_step": first_step,
        "steps_per_epoch": schedule.steps_per_round,
        "flip": (prepared.domain if config.method == "supervised" else prepared.pool).flip,
    }
    if config.is_game:
        return mosaic_stream(
            images, config.batch_size, student_steps=config.student_steps, **common
        )
    return supervised_stream(images, labels, config.student_batch_size, **common)
