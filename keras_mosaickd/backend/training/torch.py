"""PhaseTrainer on PyTorch: autograd with respect to one phase's variables only."""

import torch

from keras_mosaickd.backend.training.single_device import (
    Recorded,
    SingleProgramTrainer,
    distribution,
)

__all__ = ["PhaseTrainer", "devices", "distribution"]


class PhaseTrainer(SingleProgramTrainer):
    """See `keras_mosaickd.backend.training`."""

    def minimize(self, objective, optimizer, variables, through=None):
        """Makes one update of `variables` and returns the objective's terms."""
        if through:
            outputs = through.outputs.detach().requires_grad_()
            loss, terms = objective(outputs)
            (gradient,) = torch.autograd.grad(optimizer.scale_loss(loss), [outputs])
            gradients = through.pullback(gradient)
        else:
            loss, terms = objective()
            gradients = torch.autograd.grad(
                optimizer.scale_loss(loss), [variable.value for variable in variables]
            )
        with torch.no_grad():
            optimizer.apply(list(gradients), variables)
        return {name: term.detach() for name, term in terms.items()}

    def record(self, function, variables):
        """Runs a function once, to be differentiated later."""
        outputs, tensors = function(), [variable.value for variable in variables]
        return Recorded(
            outputs.detach(), lambda gradient: torch.autograd.grad(outputs, tensors, gradient)
        )

    def train_step(self, data):
        """One step of `fit`."""
        self.alternate(data)
        return self.training_logs()

    def without_gradient(self):
        """A context that builds no graph: `stop_gradient` alone would build it and drop it."""
        return torch.no_grad()


def devices():
    """Names of the devices that PyTorch computes on."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(count)] or ["cpu"]
