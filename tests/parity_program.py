"""Ten iterations of the game from given weights, on the backend of this process.

    python tests/parity_program.py OUT.npz BATCH_NORM_POLICY [STRATEGY [paper|practical|adaptive]]

z comes from a table, the images from `mosaic_stream`, the weights from numpy: what is left is the
backend's own arithmetic. The networks are small and the student's learning rate is a tenth of the
recipe's, because a larger game is chaotic: it turns the last bit of a sum into digits that can be
seen within ten iterations. Writes every variable of S, G, D and T, and of the
multipliers where they find themselves.
"""

import sys

import keras
import numpy as np

from keras_mosaickd import MosaicKD, mosaic_stream, recipe
from keras_mosaickd.backend.training import distribution
from tests import game

ITERATIONS = 10


class TabledLatents(MosaicKD):
    """Takes z from a table, whose row is the number of updates that G and S have made before."""

    def latents(self, batch):
        """The next z of the table."""
        generators, students = (
            self.phase_optimizers[f"{role}_optimizer"].iterations
            for role in ("generator", "student")
        )
        return keras.ops.take(self.table, generators + students, axis=0)


def networks_with_known_weights():
    """Teacher, student, generator and discriminator with weights drawn by numpy."""
    drawn = np.random.default_rng(0)
    networks = game.classifier(), game.classifier(), game.generator(), game.discriminator()
    for network in networks:
        for variable in network.trainable_variables:
            if variable.path.endswith("kernel"):
                scale = np.sqrt(2 / np.prod(variable.shape[:-1]))
                variable.assign((drawn.normal(size=variable.shape) * scale).astype("float32"))
    return networks


def played(iterations, optimizers, **options):
    """Every variable of S, G, D and T after so many iterations, by network and number.

    Args:
        iterations: number of iterations.
        optimizers: keywords of `MosaicKD.compile`.
        **options: of `MosaicKD`.
    """
    model = TabledLatents(
        *networks_with_known_weights(),
        latent_dim=game.LATENT,
        student_steps=game.STEPS,
        **options,
    )
    draws = np.random.default_rng(1).standard_normal(
        (iterations * (game.STEPS + 1), game.BATCH, game.LATENT)
    )
    model.table = keras.ops.convert_to_tensor(draws.astype("float32"))
    model.compile(**optimizers)
    images = game.images(game.BATCH * iterations)
    model.fit(mosaic_stream(images, game.BATCH, student_steps=game.STEPS), verbose=0)
    assert int(keras.ops.convert_to_numpy(model.optimizer.iterations)) == iterations
    names = ("student", "generator", "discriminator", "teacher", "multipliers")
    return {
        f"{name}/{index}": keras.ops.convert_to_numpy(variable)
        for name in names[: None if model.multipliers else -1]
        for index, variable in enumerate(getattr(model, name).weights)
    }


OPTIONS: dict = {
    "paper": {},
    "practical": {
        "feature_weight": 2.0,
        "batch_norm_weight": 0.1,
        "synthetic_only": True,
        "generator_multiple": 2,
    },
    "adaptive": {"regularization": "adaptive", "epsilon_local": 0.1, "epsilon_align": 0.9},
}


def main(out, policy, strategy="none", losses="paper"):
    """Runs and writes."""
    distribution(strategy)
    optimizers = recipe(ITERATIONS, game.STEPS, student_learning_rate=0.01)
    options = {"batch_norm_policy": policy, **OPTIONS[losses]}
    np.savez(out, **played(ITERATIONS, optimizers, **options))


if __name__ == "__main__":
    main(*sys.argv[1:])
