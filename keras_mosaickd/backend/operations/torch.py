"""Operations on PyTorch; see `keras_mosaickd.backend.operations`.

A permuted view of a channels-last array is what PyTorch calls channels_last, its fastest layout.
Keras copies the array instead, before and after.
"""

import keras
import torch
from torch.nn import functional

from keras_mosaickd.backend import processes


def without_gradient(function):
    """PyTorch would keep every layer's outputs until the results go."""
    return torch.no_grad()(function)


def splits_batches():
    """In several processes, each of which has its own rows."""
    return processes.count() > 1


def placing():
    """Copied to a GPU from pinned memory and beside its work, which pageable memory waits for."""
    if not torch.cuda.is_available():
        return lambda arrays: tuple(map(torch.from_numpy, arrays))
    device = torch.device("cuda", torch.cuda.current_device())
    user, stream = torch.cuda.current_stream(device), torch.cuda.Stream(device)

    def place(arrays):
        pinned = [torch.from_numpy(array).pin_memory() for array in arrays]
        with torch.cuda.stream(stream):
            tensors = tuple(tensor.to(device, non_blocking=True) for tensor in pinned)
        # This thread alone waits.
        stream.synchronize()
        for tensor in tensors:
            # Its memory is not given to the next copy before the user's work on it is done.
            tensor.record_stream(user)
        return tensors

    return place


def uses(value, count):
    """The order is fixed here."""
    return (value,) * count


def moments(inputs, axes):
    """As Keras's."""
    return keras.ops.mean(inputs, axis=axes), keras.ops.mean(keras.ops.square(inputs), axis=axes)


def convolution(inputs, kernel, bias, strides, padding, dilation_rate):
    """On the array as it lies."""
    if padding == "same" and tuple(strides) != (1, 1):
        inputs, padding = _padded(inputs, kernel, strides, dilation_rate), "valid"
    outputs = functional.conv2d(
        inputs.permute(0, 3, 1, 2),
        _laid_out(kernel.permute(3, 2, 0, 1)),
        None if bias is None else keras.ops.convert_to_tensor(bias),
        stride=strides,
        padding=padding,
        dilation=dilation_rate,
        groups=inputs.shape[3] // kernel.shape[2],
    )
    return outputs.permute(0, 2, 3, 1)


def doubling_convolution(inputs, kernel):
    """One operation."""
    mirrored = _laid_out(kernel.flip((0, 1)).permute(2, 3, 0, 1))
    outputs = functional.conv_transpose2d(inputs.permute(0, 3, 1, 2), mirrored, stride=2, padding=1)
    return outputs.permute(0, 2, 3, 1)


def batch_norm(inputs, gamma, beta, epsilon):
    """One operation; in several processes one exchange of moments."""
    if splits_batches():
        from keras_mosaickd.backend.processes.torch import BatchNorm

        return BatchNorm.apply(inputs, gamma, beta, epsilon)
    outputs, mean, inverse_deviation = torch.native_batch_norm(
        inputs.permute(0, 3, 1, 2), gamma, beta, None, None, True, 0.0, epsilon
    )
    return outputs.permute(0, 2, 3, 1), mean, inverse_deviation.detach() ** -2 - epsilon


def fixed_batch_norm(inputs, mean, variance, gamma, beta, epsilon):
    """One operation."""
    scale = gamma * torch.rsqrt(variance + epsilon)
    shift = beta - mean * scale
    return torch.addcmul(shift.to(inputs.dtype), inputs, scale.to(inputs.dtype))


def relu(inputs, may_overwrite):
    """In place where nothing is differentiated: a view would cost more in the gradient."""
    return functional.relu(inputs, inplace=may_overwrite and not torch.is_grad_enabled())


def leaky_relu(inputs, negative_slope, may_overwrite):
    """In place as `relu`."""
    in_place = may_overwrite and not torch.is_grad_enabled()
    return functional.leaky_relu(inputs, negative_slope, inplace=in_place)


def _laid_out(kernel):
    if not kernel.is_cuda and kernel.dtype not in (torch.float32, torch.float64):
        # On a CPU without instructions for 16 bits PyTorch takes a gradient that wants this layout.
        return kernel.contiguous()
    return kernel.contiguous(memory_format=torch.channels_last)


def _padded(inputs, kernel, strides, dilation_rate):
    """Padded as "same" means it for strides: what is odd comes after."""
    amounts = []
    for size, taps, stride, rate in zip(
        inputs.shape[1:3], kernel.shape[:2], strides, dilation_rate, strict=True
    ):
        extent = (taps - 1) * rate + 1
        amount = max(0, (-(-size // stride) - 1) * stride + extent - size)
        amounts.append((amount // 2, amount - amount // 2))
    (top, bottom), (left, right) = amounts
    return functional.pad(inputs, (0, 0, left, right, top, bottom))
