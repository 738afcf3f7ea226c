"""PhaseTrainer on PyTorch: autograd with respect to one phase's variables only.

In several processes each sees its own rows of a batch: gradients are averaged here, and what a
batch has in common goes through `mean_over_replicas` and the operations' BatchNorm.
"""

import contextlib

import keras
import torch

from keras_mosaickd.backend import processes
from keras_mosaickd.backend.fused import Fused, check_shared_statistics
from keras_mosaickd.backend.training.callback_lists import with_first
from keras_mosaickd.backend.training.single_device import (
    ONE_DEVICE,
    Distribution,
    GlobalLogs,
    Recorded,
    SingleProgramTrainer,
)
from keras_mosaickd.errors import InputError

__all__ = ["PhaseTrainer", "SharedModel", "devices", "distribution"]


class PhaseTrainer(SingleProgramTrainer):
    """See `keras_mosaickd.backend.training`."""

    _draws = None

    def minimize(self, objective, optimizer, variables, through=None):
        """Makes one update of `variables` and returns the objective's terms."""
        if through:
            outputs = through.outputs.detach().requires_grad_()
            loss, terms = objective(outputs)
            (gradient,) = torch.autograd.grad(optimizer.scale_loss(loss), [outputs])
            gradients = through.pullback(gradient)
        else:
            loss, terms = objective()
            gradients = _gradients(optimizer.scale_loss(loss), variables)
        # A variable that the loss does not reach stays as it is, as on the other backends.
        reached = [pair for pair in zip(gradients, variables, strict=True) if pair[0] is not None]
        if reached:
            gradients, variables = zip(*reached, strict=True)
            with torch.no_grad():
                optimizer.apply(_averaged(gradients), list(variables))
        return {name: term.detach() for name, term in terms.items()}

    def record(self, function, variables):
        """Runs a function once, to be differentiated later."""
        outputs = function()
        return Recorded(outputs.detach(), lambda gradient: _gradients(outputs, variables, gradient))

    def train_step(self, data):
        """One step of `fit`."""
        self.alternate(data)
        return self.training_logs()

    def without_gradient(self):
        """A context that builds no graph: `stop_gradient` alone would build it and drop it."""
        return torch.no_grad()

    def global_normal(self, batch, size, seed_generator):
        """This process's rows of one normal draw for the global batch."""
        shape = batch * processes.count(), size
        if self._draws is None:
            rows = keras.random.normal(shape, seed=seed_generator)
        else:
            rows = self._draws.normal(shape, seed_generator)
        return rows[batch * processes.rank() :][:batch]

    def mean_over_replicas(self, values):
        """Mean over the processes; gradients flow through it."""
        if processes.count() == 1:
            return values
        from keras_mosaickd.backend.processes.torch import Mean

        return Mean.apply(values)

    def fit(self, x=None, *args, **kwargs):
        """As `keras.Model.fit`; of several processes each takes its own rows of every batch."""
        if processes.count() > 1:
            for optimizer in self.phase_optimizers:
                check_shared_statistics(self.trained_network(optimizer.removesuffix("_optimizer")))
            x, kwargs = _together(self, x, kwargs)
        self._draws = _Draws()
        try:
            return super().fit(x, *args, **kwargs)
        finally:
            self._draws = None


class _Draws:
    """Draws of `keras.random.normal` that do not ask the device for the seed each time.

    Nobody else moves the seeds of a trainer while it is fitted.
    """

    def __init__(self):
        self.seeds = {}

    def normal(self, shape, seed_generator):
        """The next draw of a `SeedGenerator`."""
        known = self.seeds.get(id(seed_generator))
        seed, draws = known or keras.ops.convert_to_numpy(seed_generator.state).tolist()
        self.seeds[id(seed_generator)] = seed, draws + 1
        seed_generator.next()
        device = seed_generator.state.value.device
        generator = torch.Generator(device)
        generator.manual_seed((seed + draws) & 0xFFFFFFFF)
        return torch.normal(0.0, 1.0, shape, generator=generator, device=device)


@keras.saving.register_keras_serializable(package="keras_mosaickd")
class SharedModel(keras.Model):
    """A functional model that `fit` trains in several processes on a loss of `compile`."""

    def train_step(self, data):
        """As Keras's, with gradients and BatchNorm's statistics of all processes."""
        x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
        outputs = Fused(self)(x, training=True)
        loss = self.compute_loss(x, y, outputs, weights, training=True)
        trained = self.trainable_variables
        gradients = torch.autograd.grad(
            self.optimizer.scale_loss(loss), [variable.value for variable in trained]
        )
        with torch.no_grad():
            self.optimizer.apply(_averaged(gradients), trained)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss.detach(), sample_weight=len(x))
        return self.compute_metrics(x, y, outputs.detach(), weights)

    def fit(self, x=None, *args, **kwargs):
        """As `keras.Model.fit`; each process takes its own rows of every batch."""
        if processes.count() > 1:
            check_shared_statistics(self)
            x, kwargs = _together(self, x, kwargs)
        return super().fit(x, *args, **kwargs)


def devices():
    """Names of the devices that PyTorch computes on."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(count)] or ["cpu"]


def has_bfloat16():
    """Whether the devices compute in bfloat16 faster than in float32: GPUs from Ampere on."""
    return torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)


def distribution(name):
    """The `Distribution` over this process's device, or over all processes.

    Args:
        name: "auto" or "none" for one device; "processes" for all of the launcher's.

    Raises:
        InputError: if several devices of one process are asked for, or there is no launcher.
    """
    if name == "mirrored":
        raise InputError(
            "--strategy=mirrored needs the TensorFlow or the JAX backend; on PyTorch start a "
            "process for each GPU, with --strategy=processes. Received: KERAS_BACKEND=torch"
        )
    if name != "processes":
        return ONE_DEVICE
    processes.join()
    return Distribution(contextlib.nullcontext, processes.count(), is_joint=True)


def _gradients(outputs, variables, gradient=None):
    """Gradients by `variables`, None where the outputs do not depend on one."""
    tensors = [variable.value for variable in variables]
    if not (tensors and outputs.requires_grad):
        return [None] * len(tensors)
    return torch.autograd.grad(outputs, tensors, gradient, allow_unused=True)


def _averaged(gradients):
    if processes.count() == 1:
        return list(gradients)
    from keras_mosaickd.backend.processes.torch import average

    return average(gradients)


def _together(model, x, options):
    """What `fit` takes in several processes: own rows, equal weights, logs of all."""
    processes.copy_from_chief([*model.variables, *model.optimizer.variables])
    callbacks = with_first(GlobalLogs(), options.get("callbacks"))
    return processes.own_rows(x), {**options, "callbacks": callbacks}
