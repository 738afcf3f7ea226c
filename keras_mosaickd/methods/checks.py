"""What must hold of networks and options before they can train together."""

import numbers

import keras

from keras_mosaickd.errors import InputError

BATCH_NORM_POLICIES = ("training", "inference")


def one_of(name, value, known):
    """Raises InputError unless an option has one of its known values."""
    if value not in known:
        raise InputError(f"{name} must be one of {', '.join(known)}. Received: {value!r}")


def at_least_0(name, value):
    """Raises InputError for a negative number or NaN."""
    if not value >= 0:
        raise InputError(f"{name} must be at least 0. Received: {value}")


def positive(name, value):
    """Raises InputError unless a number is positive."""
    if not value > 0:
        raise InputError(f"{name} must be positive. Received: {value}")


def check_fit(teacher, student, head):
    """Raises InputError unless two models of logits can be teacher and student."""
    for what in ("input shape", "output shape"):
        shapes = [getattr(model, what.replace(" ", "_")) for model in (teacher, student)]
        fits = len(shapes[0]) == len(shapes[1]) and all(
            a == b or None in (a, b) for a, b in zip(*shapes, strict=True)
        )
        if what == "output shape":
            # A binary classifier has one unit or two.
            fits = len(shapes[0]) == len(shapes[1]) and head.fits(shapes[1][-1])
        if not fits:
            raise InputError(
                f"teacher and student must have the same {what}. Received: {what} {shapes[0]} of "
                f"the teacher {teacher.name!r} and {shapes[1]} of the student {student.name!r}"
            )


def check_plain(**networks):
    """Raises InputError unless networks, by role, have one input of pixels and one output."""
    for role, network in networks.items():
        for what in ("input", "output"):
            shape = getattr(network, f"{what}_shape")
            if not isinstance(shape, tuple) or any(isinstance(size, tuple) for size in shape):
                raise InputError(
                    f"the {role} must have one {what}. Received: {network.name!r} with {what} "
                    f"shapes {shape}"
                )
        if not keras.backend.is_float_dtype(network.inputs[0].dtype):
            raise InputError(
                f"the {role} must take floats in [0, 1]. Received: {network.name!r}, which takes "
                f"{network.inputs[0].dtype} (km.load_teacher with teacher_input makes one of it)"
            )


def check_separate(**networks):
    """Raises InputError where one network, by role, would be trained by another one's updates."""
    owners: dict[int, str] = {}
    for role, network in networks.items():
        trained = network.variables if role == "teacher" else network.trainable_variables
        for variable in trained:
            other = owners.setdefault(id(variable), role)
            if other != role:
                raise InputError(
                    f"{other} and {role} must be separate networks (keras.models.clone_model and "
                    f"set_weights make one). Received: both with the variable {variable.path}"
                )


def check_options(student_steps, generator_multiple, batch_norm_policy):
    """Raises InputError for options of the game that are out of range."""
    counts = {"student_steps": student_steps, "generator_multiple": generator_multiple}
    for name, value in counts.items():
        if not isinstance(value, numbers.Integral) or value < 1:
            raise InputError(f"{name} must be a positive integer. Received: {value}")
    one_of("batch_norm_policy", batch_norm_policy, BATCH_NORM_POLICIES)


def check_game(student, generator, discriminator, latent_dim):
    """Raises InputError unless G maps z to images that S and D take."""
    for role, model in (("generator", generator), ("discriminator", discriminator)):
        if model is None and role == "discriminator":
            continue
        if not isinstance(model, keras.Model) or not model.built:
            raise InputError(f"the {role} must be a built keras.Model. Received: {model!r}")
    if generator.input_shape[-1] != latent_dim:
        raise InputError(
            f"the generator must take z of size latent_dim={latent_dim}. Received: a generator "
            f"with input shape {generator.input_shape}"
        )
    images = generator.output_shape[1:]
    for role, model in (("student", student), ("discriminator", discriminator)):
        expected = getattr(model, "input_shape", None)
        if expected is None:
            continue
        if len(expected) != 4 or any(
            a is not None and a != b for a, b in zip(expected[1:], images, strict=True)
        ):
            raise InputError(
                f"the generator must make images that the {role} takes, {expected[1:]}. "
                f"Received: a generator of {images}"
            )
