r"""Updates and seconds until the students are as good as those of a plain loop in PyTorch.

    PYTHONPATH=. python benchmarks/time_to_agreement.py [--settings fashion_mnist colour] \
        [--reference_updates 6000] [--updates 500 1000 2000] [--recipes paper practical] \
        [--seed 0] [--teacher teacher.keras]

The plain loop is reference_torch.py's: the published recipe, eager, on the same out-of-domain
images, in the same order and as augmented, with the same teacher's weights, and its whole schedule
in --reference_updates. Ours is `bin/train`'s trainer on the PyTorch backend with each recipe, its
whole schedule in each of --updates. Both are judged by the agreement with the teacher on the
domain's training images. Seconds are those of training, the first step included, evaluation
excluded. The table goes to standard output.

The teacher is trained first, unless --teacher is one: a file of the setting's architecture.

`colour` needs the folders that benchmarks/colour_domain.py makes in runs/colour.
"""

import argparse
import os
import time
from types import SimpleNamespace

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import torch
from reference_torch import ReferenceLoop
from unwritten import UnwrittenRun

from keras_mosaickd.cli import flags
from keras_mosaickd.config import ExperimentConfig
from keras_mosaickd.data import evaluation_arrays, mosaic_stream
from keras_mosaickd.teachers.scaling import normalization

SETTINGS = {
    "fashion_mnist": ["--flagfile=configs/fashion_mnist_mosaickd.flags", "--precision=float32"],
    "colour": ["--flagfile=configs/colour.flags", "--precision=float32"],
}


def load_weights(module, network):
    """Gives a `reference_torch.WideResNet` the weights of a Keras one."""

    def convolution(target, name):
        kernel = keras.ops.convert_to_numpy(network.get_layer(name).kernel)
        target.weight.copy_(torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()))

    def batch_norm(target, name):
        layer = network.get_layer(name)
        for own, value in (
            (target.weight, layer.gamma),
            (target.bias, layer.beta),
            (target.running_mean, layer.moving_mean),
            (target.running_var, layer.moving_variance),
        ):
            own.copy_(torch.from_numpy(keras.ops.convert_to_numpy(value).copy()))
        target.eps = layer.epsilon

    with torch.no_grad():
        convolution(module.stem, "stem_conv")
        per_group = len(module.blocks) // 3
        for index, block in enumerate(module.blocks):
            prefix = f"group{index // per_group + 1}_block{index % per_group + 1}"
            batch_norm(block.bn1, f"{prefix}_bn1")
            convolution(block.conv1, f"{prefix}_conv1")
            batch_norm(block.bn2, f"{prefix}_bn2")
            convolution(block.conv2, f"{prefix}_conv2")
            if block.shortcut is not None:
                convolution(block.shortcut, f"{prefix}_shortcut")
        batch_norm(module.bn, "final_bn")
        kernel, bias = network.layers[-1].get_weights()
        module.logits.weight.copy_(torch.from_numpy(kernel.T.copy()))
        module.logits.bias.copy_(torch.from_numpy(bias))


def settings_of(name, **changes):
    """`ExperimentConfig` of a setting of `SETTINGS`, with flags changed."""
    added = [f"--{key}={value}" for key, value in changes.items()]
    return ExperimentConfig(**flags.parse("train", [*SETTINGS[name], *added]).settings())


def reference(config, architecture):
    """The plain loop on one setting: agreement, seconds of training.

    Args:
        config: `ExperimentConfig`.
        architecture: the teacher's, as `wrn16_1`.
    """
    run = UnwrittenRun(config)
    teacher, images = run.teacher, run.images
    _, size, _, channels = images.shape
    iterations = config.student_updates // config.student_steps
    device = "cuda" if torch.cuda.is_available() else "cpu"
    stream = mosaic_stream(
        images,
        config.batch_size,
        student_steps=config.student_steps,
        seed=config.seed,
        steps_per_epoch=iterations,
        flip=run.inputs.pool.flip,
    )

    def batches():
        for index in range(iterations):
            patches, ood = (_unit_range(part) for part in stream[index])
            yield [patches, *ood.unbind(1)]

    loop = ReferenceLoop(
        SimpleNamespace(
            teacher=architecture,
            student=config.student,
            classes=run.inputs.head.classes,
            size=size,
            batch=config.batch_size,
            student_steps=config.student_steps,
            precision="float32",
            device=device,
        ),
        channels_last=False,
        data=batches(),
        channels=channels,
        scaling=[
            torch.tensor(default if values is None else values, device=device).reshape(-1, 1, 1)
            for values, default in zip(normalization(teacher), ([0.0], [1.0]), strict=True)
        ],
        iterations=iterations,
        seed=config.seed,
    )
    load_weights(loop.teacher, teacher)
    known, _ = evaluation_arrays(run.inputs.domain)
    ours = teacher.predict(known, batch_size=500, verbose=0)
    taught = _logits(loop, loop.teacher, known)
    difference = float(np.abs(taught - ours).max())
    if difference > 1e-2:
        raise SystemExit(f"the teacher's logits differ by {difference:.2g} between the two loops")
    seconds = loop.run(iterations)
    loop.student.eval()
    answers = _logits(loop, loop.student, known).argmax(axis=1)
    return float(np.mean(answers == ours.argmax(axis=1))), seconds


def _unit_range(part):
    values = torch.as_tensor(np.asarray(part)).movedim(-1, -3)
    return values.float() / 255 if values.dtype == torch.uint8 else values


def _logits(loop, module, images):
    device = next(module.parameters()).device
    with torch.no_grad():
        parts = [
            module(loop.normalize(_unit_range(images[start : start + 500]).to(device))).cpu()
            for start in range(0, len(images), 500)
        ]
    return torch.cat(parts).numpy()


def ours(config):
    """The product on one setting: agreement, seconds of training."""
    keras.utils.clear_session()
    run = UnwrittenRun(config)
    trainer = run.trainer()
    start = time.perf_counter()
    run.fit(trainer)
    seconds = time.perf_counter() - start
    known, _ = evaluation_arrays(run.inputs.domain)
    return trainer.evaluate(known, verbose=0, return_dict=True)["agreement"], seconds


def main():
    """Prints the table of each setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--reference_updates", type=int, default=6000)
    parser.add_argument("--updates", type=int, nargs="+", default=[500, 1000, 2000])
    parser.add_argument("--recipes", nargs="+", default=["paper", "practical"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--teacher", help="a .keras file")
    arguments = parser.parse_args()
    for name in arguments.settings:
        print(f"{name}, seed {arguments.seed}\n", flush=True)
        print(
            "| loop | updates | of its | seconds | of its | agreement |\n|---|---|---|---|---|---|"
        )
        whole = arguments.reference_updates
        architecture = settings_of(name).teacher
        common = {"seed": arguments.seed, "teacher": arguments.teacher or architecture}
        config = settings_of(name, student_updates=whole, preset="official", **common)
        agreement, whole_seconds = reference(config, architecture)
        print(
            f"| reference | {whole} | 1 | {whole_seconds:.0f} | 1 | {agreement:.3f} |", flush=True
        )
        for recipe in arguments.recipes:
            for updates in arguments.updates:
                config = settings_of(name, student_updates=updates, recipe=recipe, **common)
                reached, seconds = ours(config)
                print(
                    f"| {recipe} | {updates} | {updates / whole:.2f} | {seconds:.0f} | "
                    f"{seconds / whole_seconds:.2f} | {reached:.3f} |",
                    flush=True,
                )
        print()


if __name__ == "__main__":
    main()
