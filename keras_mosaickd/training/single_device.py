"""What JAX and PyTorch share: every leading axis is the global batch already."""

import keras


class SingleProgramTrainer(keras.Model):
    """Replica helpers for backends on which one program sees the whole batch."""

    def global_normal(self, batch, size, seed_generator):
        """Normal draw of shape `[batch, size]`."""
        return keras.random.normal((batch, size), seed=seed_generator)

    def mean_over_replicas(self, values):
        """The values themselves: there is one replica."""
        return values

    def check_scope(self, variables):
        """Nothing to check: these backends have no distribution scope."""
