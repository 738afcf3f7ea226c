"""Every distinct experiment of configs/, built at full size and trained for one step.

    PYTHONPATH=. python benchmarks/check_configs.py [--only SUBSTRING] [--one_per_task]

For each combination of method, networks, size, channels, classes and design that the flagfiles
name, this builds teacher, student, generator and discriminator as the experiment does and makes one
training step of 2 images per batch on random images: no data set is read. It prints one line
per combination, with seconds, and exits with status 1 if one failed. KERAS_BACKEND chooses the
backend; `--one_per_task` takes one combination of each task, for the other backends.
"""

import argparse
import dataclasses
import os
import re
import sys
import time
from pathlib import Path

import keras
import numpy as np

from keras_mosaickd.backend.training import distribution
from keras_mosaickd.cli import flags
from keras_mosaickd.config import ExperimentConfig
from keras_mosaickd.data import ImageSet, parse
from keras_mosaickd.methods import registry as methods
from keras_mosaickd.networks.heads import new_head
from keras_mosaickd.runs import building
from keras_mosaickd.runs.inputs import Inputs

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs"
ONE_PER_TASK = (
    "configs/paper/table1_main/cifar10/mosaickd_wrn40_2_wrn16_1.flags",
    "configs/paper/segmentation/nyuv2_imagenet2012/mosaickd.flags",
)
_COMMAND = re.compile(r"^# bin/(\w+) --flagfile=(\S+)$", re.MULTILINE)
_BATCH = 2
_IMAGES = 4 * _BATCH


def random_inputs(config):
    """The inputs of a run on random images of the size and number of classes of its data sets."""
    names, shape = class_names(config), image_shape(config)
    labels_shape = shape[:2] if config.task == "segmentation" else ()
    random = np.random.default_rng(0)
    domain = ImageSet(
        images=random.integers(0, 256, (_IMAGES, *shape), "uint8"),
        labels=random.integers(0, len(names), (_IMAGES, *labels_shape)),
        class_names=names,
        name=config.dataset,
        split="train",
        flip=parse(config.dataset).spec.flip,
    )
    return Inputs(
        config=config,
        distribution=distribution(config.strategy),
        teacher=None,
        domain=domain,
        domain_test=dataclasses.replace(domain, split="test"),
        pool=dataclasses.replace(domain, labels=None, class_names=(), name=config.ood),
        held_out=None,
        labelled=None,
        input_shape=shape,
        head=new_head("classes", len(names)),
        units=len(names),
        class_names=names,
    )


def runnable():
    """Flagfiles that a person runs, sorted: those whose comments give their command."""
    return [file for file in sorted(CONFIGS.rglob("*.flags")) if commands(file)]


def commands(file):
    """The commands in a flagfile's comments, as pairs of `train` or `teacher` and the path."""
    return _COMMAND.findall(file.read_text())


def relative(file):
    """A flagfile's path as the comments write it."""
    return file.relative_to(ROOT).as_posix()


def experiment_config(file):
    """The settings of a flagfile for `bin/train`."""
    return ExperimentConfig(**flags.parse("train", [f"--flagfile={file}"]).settings())


def image_shape(config):
    """`(height, width, channels)` of an experiment's images."""
    spec = parse(config.dataset).spec
    size = config.image_size or spec.image_size
    return size, size, spec.channels


def class_names(config):
    """Names of the classes that an experiment's teacher knows."""
    request = parse(config.dataset)
    indices, names = request.class_indices(), request.spec.class_names
    return names if indices is None else tuple(names[index] for index in indices)


def describe(config):
    """What is built for a config; two configs with the same description build the same."""
    height, width, channels = image_shape(config)
    text = (
        f"{config.task}: {config.method} {config.teacher} -> {config.student}, "
        f"{height}x{width}x{channels}, {len(class_names(config))} classes"
    )
    if config.is_game:
        text += f", {config.preset}, {config.regularizer}, stride {config.overlap_stride}"
    return text


def combinations(only=""):
    """Distinct combinations.

    Args:
        only: part of the path or of the description of those that are wanted.

    Returns:
        Dict from description to `(config, path)` of the first flagfile that has it.
    """
    found = {}
    for file in runnable():
        if commands(file)[0][0] == "train":
            config, path = experiment_config(file), relative(file)
            text = describe(config)
            if only in path or only in text:
                found.setdefault(text, (config, path))
    return found


def step(config):
    """Builds the experiment's networks at full size and makes one training step.

    Args:
        config: `ExperimentConfig`.

    Raises:
        RuntimeError: if a loss is not finite, the teacher changed, or a network that should have
            learned did not.
    """
    config = dataclasses.replace(
        config,
        batch_size=_BATCH,
        student_steps=1,
        student_updates=1,
        evaluations=1,
        strategy="none",
        precision="float32",
    )
    inputs = random_inputs(config)
    networks = building.build_untrained(inputs)
    schedule = config.schedule(_IMAGES)
    with inputs.distribution.scope():
        trainer = methods.trainer(config, networks.teacher, networks, schedule)
    data = methods.training_images(
        config, networks.teacher, inputs.domain, inputs.pool.images, inputs.pool.flip, ()
    )
    before = _trainable(trainer)
    history = trainer.fit(
        methods.stream(config, data, schedule, first_step=0),
        steps_per_epoch=schedule.steps_per_round,
        shuffle=False,
        verbose=0,
    ).history
    after = _trainable(trainer)
    if not all(np.isfinite(values).all() for values in history.values()):
        raise RuntimeError(f"a loss is not finite: {history}")
    for name, weights in before.items():
        is_same = all(np.array_equal(a, b) for a, b in zip(weights, after[name], strict=True))
        if is_same != (name == "teacher"):
            raise RuntimeError(f"the {name} {'did not learn' if is_same else 'changed'}")


def _trainable(trainer):
    """Values of the trainable variables of each of the trainer's networks, by its name."""
    made = {name: getattr(trainer, name) for name in trainer.networks}
    return {
        name: [np.array(keras.ops.convert_to_numpy(v)) for v in network.trainable_variables]
        for name, network in made.items()
        if network is not None
    }


def main():
    """Checks the combinations; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="part of a flagfile's path or of a line")
    parser.add_argument("--one_per_task", action="store_true")
    arguments = parser.parse_args()
    wanted = ONE_PER_TASK if arguments.one_per_task else (arguments.only,)
    chosen = {text: found for only in wanted for text, found in combinations(only).items()}
    if not chosen:
        parser.error(f"no flagfile or combination has {' or '.join(wanted)}")
    failed = 0
    for text, (config, path) in chosen.items():
        keras.utils.clear_session()
        start = time.perf_counter()
        try:
            step(config)
            outcome = "ok"
        except Exception as error:
            failed += 1
            outcome = f"FAILED, {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        seconds = time.perf_counter() - start
        print(f"{seconds:6.1f} s  {text}  ({path})  {outcome}", flush=True)
    print(f"{len(chosen) - failed} of {len(chosen)} combinations, {keras.backend.backend()}")
    return 1 if failed else 0


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.exit(main())
