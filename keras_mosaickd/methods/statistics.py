"""What a teacher's BatchNorms remember of its training data, beside what generated images give."""

import itertools

import keras
from keras import ops

from keras_mosaickd import losses
from keras_mosaickd.backend.keras_graph import graph
from keras_mosaickd.backend.operations import moments, uses
from keras_mosaickd.errors import InputError


class TeacherStatistics:
    """A teacher in inference mode that says how far its BatchNorms' inputs are from their memory.

    BatchNorms inside nested models count; those inside layers of the user's own are not seen.

    Args:
        teacher: built Keras model from images to logits.

    Attributes:
        layers: number of BatchNorms that are seen.
    """

    def __init__(self, teacher):
        self.teacher = teacher
        self._graphs = {}
        self.layers = self._add(teacher)

    def __call__(self, images, mean_over_replicas):
        """Runs the teacher.

        Args:
            images: tensor `[batch, height, width, channels]` in [0, 1].
            mean_over_replicas: as of `PhaseTrainer`.

        Returns:
            Logits, and the mean over the layers of the global batch's
            `losses.statistics_distance`.
        """
        seen: list[tuple] = []
        logits = self._run(self.teacher, images, seen)
        # One reduction for all layers.
        found = mean_over_replicas(ops.concatenate([_moments(*call) for call in seen]))
        sizes = [layer.moving_mean.shape[0] for layer, _ in seen for _ in range(2)]
        parts = iter(ops.split(found, list(itertools.accumulate(sizes[:-1]))))
        distance = 0.0
        for (layer, _), mean, square in zip(seen, parts, parts, strict=True):
            distance += losses.statistics_distance(
                mean,
                square - ops.square(mean),
                ops.cast(layer.moving_mean, "float32"),
                ops.cast(layer.moving_variance, "float32"),
            )
        return logits, distance / len(seen)

    def _add(self, model):
        """Notes a model's graph and those of the models inside; returns their BatchNorms."""
        seen = self._graphs[id(model)] = graph(model)
        layers = 0
        for call in seen.calls if seen else ():
            if isinstance(call.layer, keras.layers.BatchNormalization):
                layers += 1
            elif isinstance(call.layer, keras.Model):
                layers += self._add(call.layer)
        return layers

    def _run(self, model, inputs, seen):
        known = self._graphs[id(model)]
        if known is None:
            return model(inputs, training=False)

        def call_layer(call, *args, **kwargs):
            if isinstance(call.layer, keras.layers.BatchNormalization):
                looked_at, passed_on = uses(args[0], 2)
                seen.append((call.layer, looked_at))
                args = (passed_on, *args[1:])
            if id(call.layer) in self._graphs:
                return self._run(call.layer, args[0], seen)
            return call(False, *args, **kwargs)

        values = [
            ops.convert_to_tensor(value, dtype=symbolic.dtype)
            for value, symbolic in zip(keras.tree.flatten(inputs), known.inputs, strict=True)
        ]
        outputs = known.run(values, call_layer)
        return outputs if len(outputs) > 1 else outputs[0]


def statistics_of(teacher, weight):
    """`TeacherStatistics` of a teacher; None where they have no weight.

    Raises:
        InputError: if they have, and the teacher shows no BatchNorm layers.
    """
    if not weight:
        return None
    statistics = TeacherStatistics(teacher)
    if not statistics.layers:
        raise InputError(
            "batch_norm_weight needs a teacher with BatchNorm layers that can be seen; for any "
            f"other give 0. Received: {weight}"
        )
    return statistics


def _moments(layer, inputs):
    """Mean and mean square of each channel, one after the other, in float32."""
    inputs = ops.cast(inputs, "float32")
    rank = len(inputs.shape)
    axes = [axis for axis in range(rank) if axis != layer.axis % rank]
    return ops.concatenate(moments(inputs, axes))
