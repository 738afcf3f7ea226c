"""The processes' group on PyTorch, and what their tensors have in common."""

import datetime
import os

import numpy as np
import torch
from torch import distributed

from keras_mosaickd.errors import InputError

_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_JOINING = datetime.timedelta(minutes=5)
# Between two reductions the chief may judge and save for long; who dies is noticed otherwise.
_WAITING = datetime.timedelta(days=1)


def start():
    """Joins the group of the launcher's variables; returns `(rank, count)`."""
    if not distributed.is_initialized():
        missing = [name for name in _VARIABLES if not os.environ.get(name)]
        if missing:
            raise InputError(
                "--strategy=processes must be started by a launcher that sets "
                f"{', '.join(_VARIABLES)}, such as torchrun (docs/several_devices.md). "
                f"Received: no {', '.join(missing)}"
            )
        rank, count, port = (_whole(name) for name in ("RANK", "WORLD_SIZE", "MASTER_PORT"))
        if not 0 <= rank < count or not 0 < port < 2**16:
            raise InputError(
                "--strategy=processes expected RANK from 0 to below WORLD_SIZE, and a MASTER_PORT "
                f"below {2**16}. Received: RANK={rank}, WORLD_SIZE={count}, MASTER_PORT={port}"
            )
        backend = "gloo"
        if torch.cuda.is_available():
            backend = "nccl"
            torch.cuda.set_device(
                int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()
            )
        store, rank, count = next(distributed.rendezvous("env://", timeout=_JOINING))
        store.set_timeout(_JOINING)
        distributed.init_process_group(
            backend, store=store, rank=rank, world_size=count, timeout=_WAITING
        )
    return distributed.get_rank(), distributed.get_world_size()


def _whole(name):
    """A launcher's variable as a whole number."""
    try:
        return int(os.environ[name])
    except ValueError:
        raise InputError(
            f"--strategy=processes expected a whole number in {name}. Received: {os.environ[name]}"
        ) from None


def host():
    """The name by which the launcher tells the others where the chief is."""
    return os.environ.get("MASTER_ADDR", "")


def broadcast(array):
    """The chief's uint8 array, to all."""
    tensor = torch.from_numpy(np.array(array)).to(_device())
    distributed.broadcast(tensor, 0)
    return tensor.cpu().numpy()


def average(tensors):
    """The means of tensors over all processes, by one reduction; without a gradient."""
    with torch.no_grad():
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        distributed.all_reduce(flat)
        flat /= distributed.get_world_size()
        parts = flat.split([tensor.numel() for tensor in tensors])
        return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]


class Mean(torch.autograd.Function):
    """The mean of a tensor over all processes.

    Each process's loss is the mean over its own rows, and gradients are averaged afterwards. So the
    gradient with respect to a tensor that all have seen is the mean of what each gives for it.
    """

    @staticmethod
    def forward(context, values):
        """The mean."""
        return average([values])[0]

    @staticmethod
    def backward(context, gradient):
        """The mean, as the backward pass is the forward pass's transpose."""
        return average([gradient])[0]


class BatchNorm(torch.autograd.Function):
    """BatchNorm over the rows of all processes, of inputs `[batch, ..., channels]`.

    Every process has equally many rows. Returns outputs in the inputs' type, mean and biased
    variance in float32; only the outputs have a gradient.
    """

    @staticmethod
    def forward(context, inputs, gamma, beta, epsilon):
        """One exchange of each channel's moments."""
        wide = inputs.float()
        axes = tuple(range(inputs.ndim - 1))
        variance, mean = torch.var_mean(wide, dim=axes, correction=0)
        moments = torch.stack([mean, variance])
        everywhere = [torch.empty_like(moments) for _ in range(distributed.get_world_size())]
        distributed.all_gather(everywhere, moments)
        means, variances = torch.stack(everywhere).unbind(1)
        mean = means.mean(0)
        # Of the deviations from the mean of all: no difference of two large squares.
        variance = (variances + (means - mean).square()).mean(0)
        inverse = torch.rsqrt(variance + epsilon)
        normalized = (wide - mean) * inverse
        context.save_for_backward(normalized.to(inputs.dtype), gamma, inverse)
        context.mark_non_differentiable(mean, variance)
        return (normalized * gamma + beta).to(inputs.dtype), mean, variance

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context, gradient, *_):
        """One exchange of two sums for each channel."""
        normalized, gamma, inverse = context.saved_tensors
        axes = tuple(range(gradient.ndim - 1))
        wide, kept = gradient.float(), normalized.float()
        products = wide * kept
        own = torch.stack([wide.mean(axes), products.mean(axes)])
        mean, slope = average([own])[0]
        inputs = gamma * inverse * (wide - mean - kept * slope)
        return inputs.to(gradient.dtype), products.sum(axes), wide.sum(axes), None


def _device():
    return "cuda" if distributed.get_backend() == "nccl" else "cpu"
