"""PhaseTrainer on PyTorch: autograd with respect to one phase's variables only."""

import keras
import torch

from keras_mosaickd.training.single_device import SingleProgramTrainer, distribution

__all__ = ["PhaseTrainer", "batch_norm", "convolution", "devices", "distribution"]


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


def convolution(inputs, kernel, bias, strides, padding, dilation_rate):
    """See `keras_mosaickd.training`: without the two copies that Keras makes of the inputs.

    A permuted view of a channels-last array is what PyTorch calls channels_last, and its fastest
    layout.
    """
    if padding == "same" and tuple(strides) != (1, 1):
        outputs = keras.ops.conv(inputs, kernel, strides, padding, "channels_last", dilation_rate)
        return outputs if bias is None else outputs + bias
    kernel = kernel.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
    outputs = torch.nn.functional.conv2d(
        inputs.permute(0, 3, 1, 2),
        kernel,
        None if bias is None else keras.ops.convert_to_tensor(bias),
        stride=strides,
        padding=padding,
        dilation=dilation_rate,
        groups=inputs.shape[3] // kernel.shape[1],
    )
    return outputs.permute(0, 2, 3, 1)


def batch_norm(inputs, gamma, beta, epsilon):
    """See `keras_mosaickd.training`: one operation."""
    outputs, mean, inverse_deviation = torch.native_batch_norm(
        inputs.permute(0, 3, 1, 2), gamma, beta, None, None, True, 0.0, epsilon
    )
    return outputs.permute(0, 2, 3, 1), mean, inverse_deviation.detach() ** -2 - epsilon


def devices():
    """Names of the devices that PyTorch computes on."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [torch.cuda.get_device_name(index) for index in range(count)] or ["cpu"]
