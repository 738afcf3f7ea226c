"""PhaseTrainer on PyTorch: autograd with respect to one phase's variables only."""

import torch

from keras_mosaickd.training.single_device import SingleProgramTrainer


class PhaseTrainer(SingleProgramTrainer):
    """See `keras_mosaickd.training`."""

    def minimize(self, objective, optimizer, variables):
        """Makes one update of `variables` and returns the objective's terms."""
        loss, terms = objective()
        gradients = torch.autograd.grad(
            optimizer.scale_loss(loss), [variable.value for variable in variables]
        )
        with torch.no_grad():
            optimizer.apply(list(gradients), variables)
        return {name: term.detach() for name, term in terms.items()}

    def train_step(self, data):
        """One step of `fit`."""
        return self.alternate(data)

    def without_gradient(self):
        """A context that builds no graph: `stop_gradient` alone would build it and drop it."""
        return torch.no_grad()
