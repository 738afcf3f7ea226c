"""PhaseTrainer on TensorFlow: gradient tapes, and replicas of a distribution strategy."""

import contextlib
import os
import re

import keras
import tensorflow as tf

from keras_mosaickd.backend.training.single_device import ONE_DEVICE, Distribution, Recorded
from keras_mosaickd.errors import InputError


class PhaseTrainer(keras.Model):
    """See `keras_mosaickd.backend.training`."""

    def minimize(self, objective, optimizer, variables, through=None):
        """Makes one update of `variables` and returns the objective's terms."""
        tensors = through.outputs if through else [variable.value for variable in variables]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(tensors)
            loss, terms = objective(tensors) if through else objective()
            # The optimizer sums gradients over replicas; each holds the mean over its own rows.
            loss = optimizer.scale_loss(self.part_of_replica(loss))
        gradients = tape.gradient(loss, tensors)
        optimizer.apply(through.pullback(gradients) if through else gradients, variables)
        return terms

    def record(self, function, variables):
        """Runs a function once, to be differentiated later."""
        tensors = [variable.value for variable in variables]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(tensors)
            outputs = function()
        return Recorded(
            tf.stop_gradient(outputs), lambda gradient: tape.gradient(outputs, tensors, gradient)
        )

    def repeat(self, times, update, *tensors):
        """Calls `update(step, *tensors)` for each step."""
        context = tf.distribute.get_replica_context()
        is_alone = context is not None and context.num_replicas_in_sync == 1
        # A loop traces and optimises one update, where writing them out does it `times` times. An
        # optimizer cannot merge the replicas' calls inside of one, and XLA's convolutions are slow
        # there (docs/speed.md).
        if times == 1 or not is_alone or self.jit_compile or tf.executing_eagerly():
            for step in range(times):
                update(step, *tensors)
            return

        def body(step):
            update(step, *tensors)
            return step + 1

        tf.while_loop(lambda step: step < times, body, [0], parallel_iterations=1)

    def train_step(self, data):
        """One step of `fit`."""
        self.alternate(data)
        return self.training_logs()

    def without_gradient(self):
        """A context that records nothing: outside `minimize` no tape is open anyway."""
        return contextlib.nullcontext()

    def global_normal(self, batch, size, seed_generator):
        """This replica's rows of one normal draw for the global batch.

        Every replica draws all rows from the same seed and keeps its own, so that replicas see
        different rows, and together what a single device would see.
        """
        context = tf.distribute.get_replica_context()
        if context is None or context.num_replicas_in_sync == 1:
            return keras.random.normal((batch, size), seed=seed_generator)
        rows = keras.random.normal(
            (batch * context.num_replicas_in_sync, size), seed=seed_generator
        )
        first = context.replica_id_in_sync_group * batch
        return tf.reshape(tf.slice(rows, [first, 0], [batch, size]), (batch, size))

    def part_of_replica(self, mean):
        """What a replica's mean adds to the mean over all of them."""
        return mean / tf.distribute.get_strategy().num_replicas_in_sync

    def mean_over_replicas(self, values):
        """Mean over the replicas of the strategy; gradients flow through it."""
        context = tf.distribute.get_replica_context()
        if context is None or context.num_replicas_in_sync == 1:
            return values
        return context.all_reduce(tf.distribute.ReduceOp.MEAN, values)

    def check_scope(self, variables):
        """Raises unless the variables were made under the current distribution strategy.

        Raises:
            RuntimeError: if they were not. Training on would double iterations and let replicas
                drift apart without a message.
        """
        current = tf.distribute.get_strategy()
        for variable in variables:
            home = getattr(variable.value, "distribute_strategy", None)
            if (home or _NO_STRATEGY) is not current:
                raise RuntimeError(
                    "Build the networks, the optimizers and MosaicKD, and call compile(), all "
                    "inside the same `with strategy.scope():`. Received: variable "
                    f"{variable.path!r} made under {type(home or _NO_STRATEGY).__name__}, "
                    f"used under {type(current).__name__}"
                )


# What `tf.distribute.get_strategy()` gives outside every scope; plain variables know no strategy.
_NO_STRATEGY = tf.distribute.get_strategy()


def devices():
    """Names of the devices that TensorFlow computes on."""
    gpus = tf.config.list_physical_devices("GPU")
    kinds = [tf.config.experimental.get_device_details(gpu).get("device_name", "") for gpu in gpus]
    names = [device.name for device in tf.config.list_logical_devices("GPU")]
    found = [f"{name} {kind}".strip() for name, kind in zip(names, kinds, strict=False)]
    return found or [device.name for device in tf.config.list_logical_devices()]


def has_bfloat16():
    """Whether the devices compute in bfloat16 faster than in float32: GPUs from Ampere on."""
    gpus = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    return bool(gpus) and all(d.get("compute_capability", (0, 0)) >= (8, 0) for d in details)


def unsupported_by_xla(network, shape):
    """What of a network, or of its gradient, XLA cannot compile.

    Operations are found by lowering them, which takes a second or two, not by compiling. Under
    several replicas Keras compiles one program around all of them, and in XLA a program has the
    variables of one device.

    Args:
        network: built Keras model of one input.
        shape: shape of what it takes, without the batch.

    Returns:
        Sorted list of "Operation (layer)", or of one reason; empty where XLA compiles all.
    """
    if tf.distribute.get_strategy().num_replicas_in_sync > 1:
        return ["variables on several devices"]

    def differentiated(inputs):
        watched = [inputs, *(variable.value for variable in network.trainable_variables)]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(watched)
            outputs = network(inputs, training=network.trainable)
        return tape.gradient(outputs, watched)

    lowered = tf.function(differentiated, jit_compile=True)
    try:
        lowered.experimental_get_compiler_ir(tf.TensorSpec((2, *shape)))(stage="hlo")
    except ValueError as error:
        text = str(error)
        found = re.findall(r"(\w+) \(No registered .*?node (\S+?)}}", text)
        # A node is named by the path of the layers around it.
        named = sorted({f"{name} ({node.rpartition('/')[0]})" for name, node in found})
        return named or [text.strip().partition("\n")[0]]
    return []


def distribution(name):
    """The `Distribution` over the local devices.

    Args:
        name: "mirrored" for all local devices (GPUs, or logical CPUs where there are none),
            "none" for one, "auto" for mirrored where there are several GPUs.

    Raises:
        InputError: where TF_CONFIG asks for several machines.
    """
    if "TF_CONFIG" in os.environ:
        raise InputError(
            "TF_CONFIG asks for MultiWorkerMirroredStrategy, under which fit fails in Keras 3.15: "
            "unset it, or train on several machines with KERAS_BACKEND=jax "
            f"(docs/several_devices.md). Received: TF_CONFIG={os.environ['TF_CONFIG']!r}"
        )
    gpus = tf.config.list_logical_devices("GPU")
    if name == "none" or (name == "auto" and len(gpus) < 2):
        return ONE_DEVICE
    local = gpus or tf.config.list_logical_devices("CPU")
    strategy = tf.distribute.MirroredStrategy([device.name for device in local])
    return Distribution(strategy.scope, strategy.num_replicas_in_sync, is_per_replica=True)
