"""The methods by name: how each is put together, and the data that it trains on."""

from typing import NamedTuple

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
from keras_mosaickd.methods.practical import generator_multiple, possible
from keras_mosaickd.optimizers import recipe, student_recipe

# What `--jit_compile` is to Keras.
_JIT_COMPILE = {"auto": "auto", "on": True, "off": False}


def trainer(config, teacher, networks, schedule):
    """The compiled trainer of `--method`; to be called in the run's distribution scope.

    Args:
        config: `ExperimentConfig`.
        teacher: Keras model from images to logits.
        networks: fresh networks, with the attributes `student`, `generator` and `discriminator`.
        schedule: `Schedule`.

    Returns:
        `MosaicKD` or a baseline.
    """
    # Layers that a method adds draw their weights here, however long ago the student was built.
    keras.utils.set_random_seed(config.seed)
    student = networks.student
    options = _options(config, teacher, student)
    if config.is_game:
        return _game(config, teacher, networks, schedule, options)
    if config.method == "supervised":
        made = Supervised(teacher, student, teacher_outputs="logits", seed=config.seed)
    elif config.method == "fitnet":
        made = FitNet(teacher, student, hint_weight=config.hint_weight, **options)
    else:
        made = KnowledgeDistillation(teacher, student, **options)
    made.compile(
        student_recipe(schedule.student_updates, config.student_learning_rate, config.weight_decay),
        jit_compile=_JIT_COMPILE[config.jit_compile],
    )
    return made


def _options(config, teacher, student):
    """How the student imitates the teacher: what every method but `supervised` takes."""
    names = ("temperature", "feature_weight", "mixup", "student_start", "seed")
    options = {**_settings(config, *names), "teacher_outputs": "logits"}
    if config.is_game:
        options["batch_norm_weight"] = config.batch_norm_weight
        options["synthetic_only"] = config.method == "data_free" or config.synthetic_only
    return possible(options, teacher, student) if config.recipe == "practical" else options


def _game(config, teacher, networks, schedule, options):
    names = (
        *("latent_dim", "student_steps", "regularization", "epsilon_local", "epsilon_align"),
        *("regularization_weight", "align_weight", "adversarial_weight", "balance_weight"),
        "batch_norm_policy",
    )
    common = {
        **_settings(config, *names),
        "generator_multiple": config.generator_multiple
        or generator_multiple(config.batch_size, networks.generator.output_shape),
        **options,
    }
    if config.method == "data_free":
        del common["synthetic_only"]  # It has nothing else.
        made = data_free(teacher, networks.student, networks.generator, **common)
    else:
        made = MosaicKD(
            teacher,
            networks.student,
            networks.generator,
            networks.discriminator,
            local_weight=config.local_weight,
            local_reduction=config.local_reduction,
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


def _settings(config, *names):
    """Arguments of a method that are called as the fields of `ExperimentConfig` that set them."""
    return {name: getattr(config, name) for name in names}


class TrainingImages(NamedTuple):
    """What a method trains on.

    Attributes:
        images: uint8 `[n, h, w, c]`; None where the method needs none.
        labels: their labels; None where it needs none.
        flip: whether they are flipped at random.
    """

    images: np.ndarray | None
    labels: np.ndarray | None = None
    flip: bool = False


def training_images(config, teacher, domain, selected, flip, class_names):
    """What `--method` trains on.

    Args:
        config: `ExperimentConfig`.
        teacher: Keras model from images to logits.
        domain: `ImageSet` of the domain; None without.
        selected: out-of-domain images, uint8 `[n, h, w, c]`; None where the method takes none.
        flip: whether those are flipped at random.
        class_names: of the teacher's classes.

    Returns:
        `TrainingImages`.
    """
    if config.method == "data_free":
        return TrainingImages(None)
    if config.method == "supervised":
        return TrainingImages(domain.images, domain.labels, domain.flip)
    if config.method == "balanced":
        classes = predicted_classes(teacher, selected)
        indices, missing = balanced_indices(classes, len(class_names), seed=config.seed)
        if missing:
            names = ", ".join(class_names[index] for index in missing)
            print(f"Balanced over the other classes: the teacher predicts no image as {names}")
        selected = np.asarray(selected[indices])
    return TrainingImages(selected, None, flip)


def stream(config, data, schedule, first_step):
    """What the trainer's `fit` takes, of `TrainingImages`, from global step `first_step` on."""
    if config.method == "data_free":
        return data_free_stream(config.batch_size, schedule.steps_per_round)
    common = {
        "seed": config.seed,
        "first_step": first_step,
        "steps_per_epoch": schedule.steps_per_round,
        "flip": data.flip,
    }
    if config.is_game:
        return mosaic_stream(
            data.images, config.batch_size, student_steps=config.student_steps, **common
        )
    return supervised_stream(data.images, data.labels, config.student_batch_size, **common)
