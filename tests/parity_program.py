"""Ten iterations of the game from given weights, on the backend of this process.

    python tests/parity_program.py OUT.npz PRESET

z comes from a table, the pictures from `mosaic_stream`, the weights from numpy: what is left is the
backend's own arithmetic. Writes every variable of S, G, D, T, and of the optimizers.
"""

import sys

import keras
import numpy as np

from keras_mosaickd import MosaicKD, mosaic_stream, networks, recipe

SHAPE, CLASSES, LATENT, BATCH, STEPS, ITERATIONS = (8, 8, 1), 3, 6, 4, 2, 10


class TabledLatents(MosaicKD):
    """Takes z from a table: row = number of the draw since the beginning."""

    def alternate(self, data):
        """Counts the draws of this iteration."""
        self.drawn = 0
        return super().alternate(data)

    def latents(self, batch):
        """The next z of the table."""
        row = self.phase_optimizers["generator_optimizer"].iterations * (STEPS + 1) + self.drawn
        if self.drawn:  # G's own update has been counted by then
            row = row - (STEPS + 1)
        self.drawn += 1
        return keras.ops.take(self.table, row, axis=0)


def networks_with_known_weights(preset):
    """Teacher, student, generator and discriminator with weights drawn by numpy."""
    generator = np.random.default_rng(0)
    built = (
        networks.build("wrn10_1", SHAPE, CLASSES, mean=0.5, std=0.3),
        networks.build("wrn10_1", SHAPE, CLASSES, mean=0.5, std=0.3),
        networks.generator(SHAPE, latent_dim=LATENT, preset=preset),
        networks.discriminator(SHAPE, preset=preset, mean=0.5, std=0.3),
    )
    for network in built:
        for variable in network.trainable_variables:
            name = variable.path.rpartition("/")[2]
            if name in ("kernel", "bias"):
                # He's initialisation, and biases as PyTorch's default has them.
                scale = np.sqrt(2 / np.prod(variable.shape[:-1])) if name == "kernel" else 0.1
                drawn = generator.normal(size=variable.shape) * scale
                variable.assign(drawn.astype("float32"))
    return built


def main(out, preset):
    """Runs and writes."""
    model = TabledLatents(
        *networks_with_known_weights(preset),
        latent_dim=LATENT,
        student_steps=STEPS,
        batch_norm_policy="official" if preset == "official" else "inference",
    )
    draws = np.random.default_rng(1).standard_normal((ITERATIONS * (STEPS + 1), BATCH, LATENT))
    model.table = keras.ops.convert_to_tensor(draws.astype("float32"))
    model.compile(**recipe(ITERATIONS, STEPS))
    pictures = np.random.default_rng(2).random((BATCH * ITERATIONS, *SHAPE), dtype="float32")
    model.fit(mosaic_stream(pictures, BATCH, student_steps=STEPS), verbose=0)
    assert int(keras.ops.convert_to_numpy(model.optimizer.iterations)) == ITERATIONS
    values = {}
    for name in ("student", "generator", "discriminator", "teacher"):
        for index, variable in enumerate(getattr(model, name).weights):
            values[f"{name}/{index}/{variable.path}"] = keras.ops.convert_to_numpy(variable)
    np.savez(out, **values)


if __name__ == "__main__":
    main(*sys.argv[1:])
