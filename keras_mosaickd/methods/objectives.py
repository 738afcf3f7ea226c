"""What the players of the game minimise: weighted sums of the terms in `keras_mosaickd.losses`."""

import dataclasses

from keras import ops

from keras_mosaickd import losses
from keras_mosaickd.methods.checks import at_least_0, one_of


@dataclasses.dataclass(frozen=True)
class Objectives:
    """The objectives of D and G as functions of logits, with their options.

    Each gives `(loss, terms)`: a scalar, and the dict of scalars that it consists of, to be logged.

    Args:
        regularization_weight: lambda, at least 0: weight of `local` and `align` together.
        local_weight: weight of `local` inside of lambda, at least 0.
        align_weight: weight of `align` inside of lambda, at least 0.
        adversarial_weight: weight of KL(T || S), at least 0.
        balance_weight: weight of `balance`, at least 0.
        local_reduction: how D's map becomes a number (see `losses.patch_adversarial`).
        batch_norm_weight: weight of the distance from the teacher's BatchNorm statistics, at least
            0 (see `losses.statistics_distance`; the mean over the layers).

    Raises:
        InputError: if an option is out of range.
    """

    regularization_weight: float = 1.0
    local_weight: float = 1.0
    align_weight: float = 1.0
    adversarial_weight: float = 1.0
    balance_weight: float = 10.0
    local_reduction: str = "mean"
    batch_norm_weight: float = 0.0

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            if name.endswith("_weight"):
                at_least_0(name, value)
        one_of("local_reduction", self.local_reduction, losses.LOCAL_REDUCTIONS)

    def discriminator(self, real_logits, synthetic_logits):
        """Tells patches of real images from patches of synthetic ones (equation 5)."""
        loss = ops.mean(
            losses.discriminator_loss(real_logits, synthetic_logits, self.local_reduction)
        )
        return loss, {"discriminator_loss": loss}

    def generator(
        self,
        head,
        teacher_logits,
        student_logits,
        mean_distribution,
        patch_logits=None,
        batch_norm_distance=None,
    ):
        """Seeks what S does not know yet, made of real patches, as T knows it, of all classes.

        Args:
            head: the networks' `heads.Head`: what their logits mean.
            teacher_logits: T's for the generated images.
            student_logits: S's for the same.
            mean_distribution: T's mean prediction, over all replicas.
            patch_logits: D's for the same; None where there is no discriminator.
            batch_norm_distance: mean distance from T's BatchNorm statistics, or None.
        """
        terms = {
            "adversarial_loss": -ops.mean(head.kl_divergence(teacher_logits, student_logits)),
            "align_loss": ops.mean(head.entropy(teacher_logits)),
            "balance_loss": losses.negative_entropy(mean_distribution),
        }
        regularization = self.align_weight * terms["align_loss"]
        if patch_logits is not None:
            terms["local_loss"] = ops.mean(
                losses.patch_adversarial(patch_logits, real=True, reduction=self.local_reduction)
            )
            regularization += self.local_weight * terms["local_loss"]
        loss = (
            self.adversarial_weight * terms["adversarial_loss"]
            + self.regularization_weight * regularization
            + self.balance_weight * terms["balance_loss"]
        )
        if batch_norm_distance is not None:
            terms["batch_norm_loss"] = batch_norm_distance
            loss = loss + self.batch_norm_weight * batch_norm_distance
        return loss, {"generator_loss": loss, **terms}
