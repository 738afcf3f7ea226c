r"""Agreement with the teacher on the domain's training images, for settings given as flags.

    PYTHONPATH=. python benchmarks/training_agreement.py \
        "--flagfile=configs/fashion_mnist_mosaickd.flags --local_weight=0.01 --temperature=5" \
        "--flagfile=configs/fashion_mnist_kd.flags --method=fitnet --hint_weight=10"

The measure by which settings are chosen here: no test image takes part. Each argument is one run,
of `bin/train`'s flags; they go one after the other, nothing is kept but the teacher and the
selection in the cache, and a line is printed for each.

`--add_hint=W` gives the student of every `mosaickd` among them FitNet's hint too, with weight W.
It answers whether a difference between the two lies in the images or in the teacher's features.
"""

import argparse
import time

import keras
from unwritten import UnwrittenRun

from keras_mosaickd import MosaicKD
from keras_mosaickd.cli import flags
from keras_mosaickd.config import ExperimentConfig
from keras_mosaickd.data import evaluation_arrays


def hinted(game, weight):
    """The same game on the same networks, with a hint; compiled as it was."""
    networks = {name: getattr(game, name) for name in game.networks}
    made = MosaicKD(**{**game.get_config(), **networks, "hint_weight": weight})
    made.compile_from_config(game.get_compile_config())
    return made


def measure(config, change=lambda trainer: trainer, callbacks=()):
    """One run.

    Args:
        config: `ExperimentConfig`.
        change: makes of the compiled trainer the one that is used.
        callbacks: Keras callbacks of the training.

    Returns:
        Agreement and mean KL(T || S) on the domain's training images, at the end.
    """
    keras.utils.clear_session()
    run = UnwrittenRun(config)
    trainer = change(run.trainer())
    run.fit(trainer, callbacks)
    image_set, _ = evaluation_arrays(run.inputs.domain)
    result = trainer.evaluate(image_set, verbose=0, return_dict=True)
    return result["agreement"], result["loss"]


def main():
    """Prints a line for each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("settings", nargs="+", help="flags of bin/train, in quotes")
    parser.add_argument("--add_hint", type=float, help="weight of the hint in mosaickd")
    arguments = parser.parse_args()
    for text in arguments.settings:
        config = ExperimentConfig(**flags.parse("train", text.split()).settings())
        added = arguments.add_hint is not None and config.method == "mosaickd"

        def change(trainer, config=config, added=added):
            return hinted(trainer, arguments.add_hint) if added else trainer

        start = time.perf_counter()
        agreement, divergence = measure(config, change)
        print(
            f"{text}{f', with hint {arguments.add_hint:g}' if added else ''}: agreement "
            f"{agreement:.4f}, KL {divergence:.4f} nats, {time.perf_counter() - start:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
