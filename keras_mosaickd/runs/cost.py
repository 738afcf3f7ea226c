"""What a run will cost, counted and estimated before it starts."""

import math

import keras

from keras_mosaickd.backend.training import device_lines, has_bfloat16
from keras_mosaickd.callbacks.progress import duration
from keras_mosaickd.data.class_matching import shortened
from keras_mosaickd.data.sources.folder import FolderImages
from keras_mosaickd.evaluation.image_quality import latency_milliseconds
from keras_mosaickd.networks import count_parameters, flops, traffic
from keras_mosaickd.run_directory import flag_line

# In units of one forward pass: differentiating with respect to the weights and the input costs two
# more, with respect to the input alone one more.
_UPDATE, _INPUT_GRADIENT = 3, 2


def floating_point_operations(trainer, batch_size):
    """Floating-point operations of one training step by phase (a multiply-add counts as two).

    Args:
        trainer: `MosaicKD` or `KnowledgeDistillation`.
        batch_size: B; the methods without a generator see 2 B images in an update.

    Returns:
        Dict from phase to operations.
    """
    return _by_phase(trainer, batch_size, flops)


def memory_traffic(trainer, batch_size):
    """Bytes that one training step moves, by phase, where every layer is a pass of its own.

    Arguments as for `floating_point_operations`. Weights and optimizers are not counted: they are
    a few hundred times smaller at the paper's batch.
    """
    itemsize = 2 if keras.config.dtype_policy().compute_dtype in ("bfloat16", "float16") else 4
    return _by_phase(trainer, batch_size, lambda network: traffic(network, itemsize))


def _by_phase(trainer, batch_size, cost):
    """Phase -> what one training step costs, from what a forward pass of an image costs."""
    teacher, student = cost(trainer.teacher), cost(trainer.student)
    # One that learns from labels asks no teacher.
    imitation = (0 if trainer.learns_labels else teacher) + _UPDATE * student
    if not hasattr(trainer, "generator"):
        return {"student": 2 * batch_size * imitation}
    generator = cost(trainer.generator)
    synthetic = batch_size * trainer.generator_multiple
    seen = batch_size * (1 if trainer.synthetic_only else 2)
    phases = {
        "generator": synthetic
        * (_UPDATE * generator + _INPUT_GRADIENT * teacher + _INPUT_GRADIENT * student),
        "student": trainer.student_steps * (seen * imitation + batch_size * generator),
    }
    if trainer.discriminator is not None:
        discriminator = cost(trainer.discriminator)
        phases["generator"] += synthetic * _INPUT_GRADIENT * discriminator
        phases["discriminator"] = (synthetic + batch_size) * _UPDATE * discriminator
    return phases


def describe(trainer, config, schedule):
    """The cost of a run as text: shapes, parameters, operations, estimated time.

    Args:
        trainer: the compiled `MosaicKD` or baseline.
        config: `ExperimentConfig`.
        schedule: its `Schedule`.

    Returns:
        Lines of text. The estimate supposes the rate that the teacher's forward pass reaches.
    """
    lines = [
        f"backend            {keras.backend.backend()}",
        *device_lines(),
        *_precision_advice(config),
        "",
        "network        parameters  shapes",
    ]
    for name in trainer.networks:
        network = getattr(trainer, name)
        if network is not None:
            shapes = f"{network.input_shape[1:]} -> {network.output_shape[1:]}"
            lines.append(f"{name:<14} {count_parameters(network):>10,}  {shapes}")
    asked = config.student_updates
    steps = (
        f"training steps     {schedule.steps} ({schedule.rounds} rounds of "
        f"{schedule.steps_per_round}), {schedule.student_updates} student updates"
        + (f" ({asked} asked for)" if asked not in (0, schedule.student_updates) else "")
    )
    if not all(_is_countable(getattr(trainer, name)) for name in trainer.networks):
        lines += ["", "operations         not known: the layers of a network cannot be seen", steps]
        return "\n".join(lines)
    phases = floating_point_operations(trainer, config.batch_size)
    moved = memory_traffic(trainer, config.batch_size)
    total = sum(phases.values())
    lines += ["", "phase                GFLOP per step  GB read, written"]
    # The student is updated several times in a step of the game; its row holds all of them.
    updates = getattr(trainer, "student_steps", 1)
    titles = {"student": f"student, {updates} updates"} if updates > 1 else {}
    rows = [(titles.get(name, name), phases[name], moved[name]) for name in phases]
    rows.append(("in all", total, sum(moved.values())))
    lines += [f"{name:<20} {a / 1e9:>14.2f} {b / 1e9:>17.2f}" for name, a, b in rows]
    lines.append("")
    milliseconds = latency_milliseconds(trainer.teacher, config.batch_size, repetitions=3)
    rate = 1000 * flops(trainer.teacher, config.batch_size) / milliseconds
    lines += [
        steps,
        f"estimated time     {duration(total * schedule.steps / rate)} for the distillation, at "
        f"the {rate / 1e9:.1f} GFLOP/s that the teacher's forward pass reaches here; compiling and "
        "evaluations not included",
    ]
    return "\n".join(lines)


def describe_flags(config):
    """The settings of a run, as a flagfile that repeats it."""
    return "\n".join(flag_line(name, value) for name, value in sorted(vars(config).items()))


def describe_images(inputs):
    """The images of a run as text: how many, of what, and the disk that their cache takes.

    Args:
        inputs: `Inputs`; nothing of them needs to be decoded.
    """
    domain, pool, config = inputs.domain, inputs.pool, inputs.config
    classes = len(inputs.class_names)
    if domain is None:
        lines = [f"domain             no images and no labels; {classes} classes"]
    else:
        lines = [
            f"domain             {len(domain)} training and {len(inputs.domain_test)} test "
            f"images of {domain.name}, {classes} classes: {shortened(inputs.class_names)}"
        ]
    kept = None
    if pool is not None:
        lines.append(f"out-of-domain      {inputs.epoch_size} of {len(pool)} images of {pool.name}")
        if inputs.held_out is not None:
            lines.append(f"                   {len(inputs.held_out)} more images held out")
        # The whole of a folder is kept once, decoded.
        if config.ood_size or not isinstance(pool.images, FolderImages):
            kept = (inputs.epoch_size, *pool.images.shape[1:])
    read = [domain, inputs.domain_test, pool, inputs.held_out, inputs.labelled]
    size = cache_bytes([images for images in read if images is not None], kept)
    lines.append(f"disk               {size / 1e6:,.1f} MB of images in {inputs.cache_dir}")
    return "\n".join(lines)


def cache_bytes(image_sets, selected):
    """Bytes that the images of a run take in its cache.

    Args:
        image_sets: those that are read; those of folders are kept decoded, the others are not.
        selected: shape of the out-of-domain images that are kept; None without any.
    """
    shapes = [s.images.shape for s in image_sets if isinstance(s.images, FolderImages)]
    return sum(math.prod(shape) for shape in [*shapes, *filter(None, [selected])])


def _precision_advice(config):
    """A line where the device is faster in bfloat16 than in what the flags say."""
    if config.precision == "float32" and has_bfloat16():
        yield "precision          float32; this device is faster with --precision=mixed_bfloat16"


def _is_countable(network):
    """Whether the operations of a network can be counted from its layers."""
    try:
        return network is None or (flops(network) > 0 and traffic(network) > 0)
    except ValueError:
        return False
