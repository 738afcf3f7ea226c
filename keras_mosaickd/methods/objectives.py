"""What the players of the game minimise: weighted sums of the terms in `keras_mosaickd.losses`."""

import dataclasses

from keras import ops

from keras_mosaickd import config, losses
from keras_mosaickd.errors import InputError
from keras_mosaickd.methods.checks import at_least_0, one_of
from keras_mosaickd.methods.multipliers import LEAST, MOST, REGULARIZATIONS, Multipliers


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
        regularization: "fixed": lambda is a constant; "adaptive": `local` and `align` have a
            multiplier each, which start from `regularization_weight` and keep `constraints` below
            their epsilons; `local_weight` and `align_weight` are 1 then.
        epsilon_local: greatest share of the largest Jensen-Shannon divergence between patches of
            real and of generated images, 0 to 1: 0 allows no difference, 1 any.
        epsilon_align: greatest share of the largest entropy of T's predictions, 0 to 1.

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
    regularization: str = "fixed"
    epsilon_local: float = config.EPSILON_LOCAL
    epsilon_align: float = config.EPSILON_ALIGN

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            if name.endswith("_weight"):
                at_least_0(name, value)
        one_of("local_reduction", self.local_reduction, losses.LOCAL_REDUCTIONS)
        one_of("regularization", self.regularization, REGULARIZATIONS)
        for name in ("epsilon_local", "epsilon_align"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must be from 0 to 1. Received: {getattr(self, name)}")
        if self.is_adaptive:
            self._check_adaptive()

    @property
    def is_adaptive(self):
        """Whether lambda finds itself."""
        return self.regularization == "adaptive"

    def _check_adaptive(self):
        mode = 'regularization="adaptive"'
        for name in ("local_weight", "align_weight"):
            if getattr(self, name) != 1:
                raise InputError(
                    f"{name} must be 1 with {mode}, whose multipliers are the weights. Received: "
                    f"{getattr(self, name)}"
                )
        if not LEAST <= self.regularization_weight <= MOST:
            raise InputError(
                f"regularization_weight must be from {LEAST:g} to {MOST:g} with {mode}, whose "
                f"multipliers start there. Received: {self.regularization_weight}"
            )

    def multipliers(self, has_patches):
        """The `Multipliers` of a game with a discriminator or without; None where lambda is fixed.

        Without a discriminator there is one of `align` alone.
        """
        if not self.is_adaptive:
            return None
        epsilons = {"local": self.epsilon_local} if has_patches else {}
        return Multipliers(
            {**epsilons, "align": self.epsilon_align}, float(self.regularization_weight)
        )

    def constraints(self, head, terms, map_cells=None):
        """How far a game is from what its constraints ask for, from the terms of its losses.

        Args:
            head: the networks' `heads.Head`.
            terms: dict with "align_loss", and "discriminator_loss" where there is a discriminator:
                means over all replicas.
            map_cells: number of logits in D's map; needed with `local_reduction="sum"`.

        Returns:
            Dict from "align", and "local" where there is a discriminator, to r from 0 to 1.
        """
        found = {"align": terms["align_loss"] / head.most_entropy}
        if "discriminator_loss" in terms:
            cells = losses.PUBLISHED_MAP_CELLS if self.local_reduction == "mean" else map_cells
            found["local"] = losses.divergence_share(terms["discriminator_loss"] / cells)
        return found

    def terms(self, has_patches, has_statistics):
        """Names of the terms that `discriminator` and `generator` give."""
        names = ["generator_loss", "adversarial_loss", "align_loss", "balance_loss"]
        names = ["discriminator_loss", *names, "local_loss"] if has_patches else names
        return [*names, "batch_norm_loss"] if has_statistics else names

    def discriminator(self, real_logits, synthetic_logits):
        """Tells patches of real images from patches of synthetic ones (equation 5)."""
        loss = losses.discriminator_loss(real_logits, synthetic_logits, self.local_reduction)
        return loss, {"discriminator_loss": loss}

    def generator(
        self,
        head,
        teacher_logits,
        student_logits,
        mean_distribution,
        patch_logits=None,
        batch_norm_distance=None,
        multipliers=None,
    ):
        """Seeks what S does not know yet, made of real patches, as T knows it, of all classes.

        Args:
            head: the networks' `heads.Head`: what their logits mean.
            teacher_logits: T's for the generated images.
            student_logits: S's for the same.
            mean_distribution: T's mean prediction, over all replicas.
            patch_logits: D's for the same; None where there is no discriminator.
            batch_norm_distance: mean distance from T's BatchNorm statistics, or None.
            multipliers: dict of scalars by "local" and "align", which stand for lambda and both
                weights; None where lambda is fixed.
        """
        terms = {
            "adversarial_loss": -ops.mean(head.kl_divergence(teacher_logits, student_logits)),
            "align_loss": ops.mean(head.entropy(teacher_logits)),
            "balance_loss": losses.negative_entropy(mean_distribution),
        }
        if patch_logits is not None:
            terms["local_loss"] = ops.mean(
                losses.patch_adversarial(patch_logits, real=True, reduction=self.local_reduction)
            )
        loss = (
            self.adversarial_weight * terms["adversarial_loss"]
            + self._regularization(terms, multipliers)
            + self.balance_weight * terms["balance_loss"]
        )
        if batch_norm_distance is not None:
            terms["batch_norm_loss"] = batch_norm_distance
            loss = loss + self.batch_norm_weight * batch_norm_distance
        return loss, {"generator_loss": loss, **terms}

    def _regularization(self, terms, multipliers):
        """R times lambda, or part by part times its multiplier."""
        if multipliers is not None:
            return sum(value * terms[f"{name}_loss"] for name, value in multipliers.items())
        regularizer = self.align_weight * terms["align_loss"]
        if "local_loss" in terms:
            regularizer += self.local_weight * terms["local_loss"]
        return self.regularization_weight * regularizer
