"""The networks of a run, built once: before the long work, so that what cannot be built is said."""

from typing import NamedTuple

import keras

from keras_mosaickd import networks
from keras_mosaickd.config import is_given, is_saved_model
from keras_mosaickd.errors import InputError
from keras_mosaickd.methods.feature_maps import hint_maps
from keras_mosaickd.networks.logits import student_logits
from keras_mosaickd.runs import checks
from keras_mosaickd.runs.teacher import is_cached, untrained
from keras_mosaickd.teachers import load as given_models
from keras_mosaickd.teachers.scaling import normalization, statistics


class Networks(NamedTuple):
    """Fresh networks.

    Attributes:
        teacher: the teacher, untrained; None where one is given, or found in the cache.
        student: the student.
        generator: the generator; None where the method has none.
        discriminator: the discriminator; None where the method or its regularizer has none.
    """

    teacher: keras.Model | None
    student: keras.Model
    generator: keras.Model | None = None
    discriminator: keras.Model | None = None


def build(inputs):
    """Builds the networks that are trained, in the run's distribution scope.

    Args:
        inputs: `Inputs`.

    Returns:
        `Networks`.

    Raises:
        InputError: if one of them does not exist or cannot take the images.
    """
    if inputs.teacher is not None:
        return _build(inputs, None, normalization(inputs.teacher.model))
    # One that is still to be trained will normalise by its images.
    teacher = None if is_cached(inputs) else untrained(inputs)
    return _build(inputs, teacher, statistics(inputs.domain.images))


def build_untrained(inputs):
    """As `build`, for looking at them: of images that are not decoded there are no statistics."""
    if inputs.teacher is not None:
        return build(inputs)
    with inputs.distribution.scope():
        teacher = inputs.network("teacher", 0.5, 0.5)
    return _build(inputs, teacher, (0.5, 0.5))


def _build(inputs, teacher, scaling):
    # What a seed gives must not depend on whether the teacher was built.
    keras.utils.set_random_seed(inputs.config.seed)
    with inputs.distribution.scope():
        student = _student(inputs, *scaling)
        given = None if inputs.teacher is None else inputs.teacher.model
        checks.check_compiler(inputs.config, given, student)
        if inputs.config.method == "fitnet":
            try:
                hint_maps(given or teacher or untrained(inputs), student)
            except InputError as error:
                raise InputError(f"--method=fitnet: {error}") from error
        adversaries = _adversaries(inputs, *scaling) if inputs.config.is_game else ()
    return Networks(teacher, student, *adversaries)


def _student(inputs, mean, std):
    config = inputs.config
    if not is_given(config.student):
        return inputs.network("student", mean, std)
    if is_saved_model(config.student):
        raise InputError(
            "--student must be a network's name, a .keras file or module:function: a "
            f"SavedModel cannot be trained. Received: {config.student}"
        )
    shape, units = inputs.input_shape, inputs.units
    student = given_models.load(config.student, "--student", input_shape=shape, classes=units)
    checks.check_student(config, student, shape, units, inputs.head)
    return student_logits(student, shape, copies=True)


def _adversaries(inputs, mean, std):
    config = inputs.config
    synchronized = inputs.distribution.is_per_replica
    generator = networks.generator(
        inputs.input_shape,
        latent_dim=config.latent_dim,
        preset=config.preset,
        synchronized_batch_norm=synchronized,
    )
    if config.regularizer == "none" or config.method == "data_free":
        return generator, None
    return generator, networks.discriminator(
        inputs.input_shape,
        preset=config.preset,
        regularizer=config.regularizer,
        overlap_stride=config.overlap_stride,
        mean=mean,
        std=std,
        synchronized_batch_norm=synchronized,
    )
