"""The mathematics of MosaicKD: free functions on logits.

Every function takes logits, computes in float32 or wider whatever the dtype policy, and works on
`[batch, classes]` as on `[batch, height, width, classes]` (one prediction per pixel). What is
defined per prediction is returned per prediction; the caller takes the mean.

Equation numbers refer to the supplement of Fang et al., "Mosaicking to Distill: Knowledge
Distillation from Out-of-Domain Data", NeurIPS 2021.
"""

import math

import keras
from keras import ops

LOCAL_REDUCTIONS = ("mean", "sum")

# The published weight of the local loss is 1 on a loss summed over the 8 x 8 map of a 32 x 32
# image. Sixty-four times the mean is the same number there, and unlike the sum it stays the same
# weight when the overlap stride, the image size or the regularizer change the map.
PUBLISHED_MAP_CELLS = 64.0


def kl_divergence(teacher_logits, student_logits, temperature=1.0):
    """Divergence KL(T || S) of the softened predictions, times temperature squared.

    The factor keeps the size of the gradient independent of the temperature (Hinton et al., 2015).
    Computed from differences of log-softmax, so it is exact where `keras.losses` clips.

    Args:
        teacher_logits: tensor of shape `[..., classes]`.
        student_logits: tensor of the same shape.
        temperature: positive number that both are divided by.

    Returns:
        Tensor of shape `[...]`, in nats, at least 0.
    """
    teacher = ops.log_softmax(_wide(teacher_logits) / temperature, axis=-1)
    student = ops.log_softmax(_wide(student_logits) / temperature, axis=-1)
    return ops.sum(ops.exp(teacher) * (teacher - student), axis=-1) * temperature**2


def entropy(logits):
    """Entropy H(p(y | x)) of each prediction: L_align and the score of algorithm 1.

    Args:
        logits: tensor of shape `[..., classes]`.

    Returns:
        Tensor of shape `[...]`, in nats, from 0 to ln(classes).
    """
    log_probabilities = ops.log_softmax(_wide(logits), axis=-1)
    return -ops.sum(ops.exp(log_probabilities) * log_probabilities, axis=-1)


def mean_probabilities(logits, event_axes=1):
    """Mean prediction over the batch, and over the pixels where there are pixels.

    Args:
        logits: tensor of shape `[..., classes]`.
        event_axes: number of last axes that are one prediction: 2 where it is of several variables.

    Returns:
        Tensor of shape `[classes]` that sums to 1, or `[variables, classes]` of such rows.
    """
    probabilities = ops.softmax(_wide(logits), axis=-1)
    return ops.mean(probabilities, axis=tuple(range(len(logits.shape) - event_axes)))


def negative_entropy(probabilities, base=2.0):
    """Negative entropy sum(p log p): of the mean prediction it is L_balance (equation 1).

    Args:
        probabilities: tensor of shape `[classes]` that sums to 1, zeros allowed; or `[variables,
            classes]` of independent variables, whose entropies add up.
        base: base of the logarithm. The published balance weight of 10 belongs to base 2.

    Returns:
        Scalar from -log(classes) (all classes equally likely) to 0 (a single class), for each
        variable.
    """
    # The limit p log p -> 0 is reached long before the floor, which keeps the gradient finite.
    logarithm = ops.log(ops.maximum(probabilities, 1e-30))
    return ops.sum(probabilities * logarithm) / math.log(base)


def statistics_distance(mean, variance, moving_mean, moving_variance):
    """Distance of a batch's statistics from those that a BatchNorm layer remembers.

    ||mean - moving_mean|| / ||moving_deviation|| + ||variance - moving_variance|| /
    ||moving_variance||, Euclidean norms over the channels. The differences are those of Yin et al.
    2020, "Dreaming to Distill", arXiv 1912.08795, equation 4; they are relative here, because the
    variances that layers remember differ by four orders of magnitude within one teacher, and
    whoever has the largest would be all that counts.

    Args:
        mean: tensor of shape `[channels]`.
        variance: tensor of the same shape.
        moving_mean: tensor of the same shape.
        moving_variance: tensor of the same shape, at least 0.

    Returns:
        Scalar, at least 0; 0 where the statistics are the same.
    """

    def norm(values):
        # The constant keeps the gradient finite where nothing differs, and the ratio where a layer
        # remembers nothing but zeros.
        return ops.sqrt(ops.sum(ops.square(_wide(values))) + 1e-12)

    deviation = ops.sqrt(_wide(moving_variance))
    return norm(mean - moving_mean) / norm(deviation) + norm(variance - moving_variance) / norm(
        moving_variance
    )


def patch_adversarial(patch_logits, real, reduction="mean"):
    """Cross-entropy of the discriminator's map against "all patches are real" (or synthetic).

    With `real=True` on generated images it is the generator's non-saturating L_local; the
    discriminator's loss is `discriminator_loss`.

    Args:
        patch_logits: tensor of shape `[batch, ...]`, one logit per patch.
        real: which answer is right for all of them.
        reduction: "mean" is 64 times the mean over the map, "sum" the sum over it. They are equal
            on the 8 x 8 map of the published recipe.

    Returns:
        Tensor of shape `[batch]`, at least 0.

    Raises:
        ValueError: if `reduction` is neither "mean" nor "sum".
    """
    if reduction not in LOCAL_REDUCTIONS:
        raise ValueError(
            f"reduction must be one of {', '.join(LOCAL_REDUCTIONS)}. Received: {reduction!r}"
        )
    patch_logits = _wide(patch_logits)
    loss = ops.softplus(-patch_logits if real else patch_logits)
    loss = ops.reshape(loss, (ops.shape(loss)[0], -1))
    if reduction == "sum":
        return ops.sum(loss, axis=-1)
    return PUBLISHED_MAP_CELLS * ops.mean(loss, axis=-1)


def discriminator_loss(real_logits, synthetic_logits, reduction="mean"):
    """Discriminator's half of equation 5: mean of the losses on real and on synthetic patches.

    Args:
        real_logits: tensor of shape `[batch, ...]` for patches of out-of-domain images.
        synthetic_logits: tensor of shape `[n, ...]` for patches of generated images.
        reduction: see `patch_adversarial`.

    Returns:
        Scalar, at least 0: a mean over the images of each kind.
    """
    real = patch_adversarial(real_logits, real=True, reduction=reduction)
    synthetic = patch_adversarial(synthetic_logits, real=False, reduction=reduction)
    return (ops.mean(real) + ops.mean(synthetic)) / 2.0


def divergence_share(cross_entropy):
    """Jensen-Shannon divergence of real and generated patches, as a share of its largest value.

    At the best discriminator equation 7's value is V = -ln 4 + 2 JSD, and V is minus twice the mean
    l of the discriminator's cross-entropies on real and on generated patches: JSD = ln 2 - l. Any
    other discriminator gives a lower bound. ln 2 is the divergence of what never looks alike.

    Args:
        cross_entropy: l in nats per patch, at least 0; ln 2 is that of guessing.

    Returns:
        Tensor of the same shape, from 0 (indistinguishable) to 1.
    """
    return ops.clip(1.0 - _wide(cross_entropy) / math.log(2), 0.0, 1.0)


def _wide(values):
    """Float32 for anything narrower, else the dtype that came."""
    values = ops.convert_to_tensor(values)
    dtype = keras.backend.standardize_dtype(values.dtype)
    return values if dtype in ("float32", "float64") else ops.cast(values, "float32")
