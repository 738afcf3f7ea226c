"""MosaicKD: the game between teacher, student, generator and patch discriminator."""

import dataclasses

import keras
from keras import ops

from keras_mosaickd.backend.fused import Fused
from keras_mosaickd.backend.operations import uses
from keras_mosaickd.config import EPSILON_ALIGN, EPSILON_LOCAL
from keras_mosaickd.methods.checks import check_game, check_options, check_separate
from keras_mosaickd.methods.game import Game
from keras_mosaickd.methods.objectives import Objectives
from keras_mosaickd.methods.statistics import statistics_of
from keras_mosaickd.networks.logits import with_shapes


@keras.saving.register_keras_serializable(package="keras_mosaickd")
class MosaicKD(Game):
    """Distils a teacher into a student with out-of-domain images (supplement, eq. 2-4).

        min_S max_G  E_z KL(T(G(z)) || S(G(z))) - lambda R(G, D, T),  R = L_local + L_align

    One training step, on an element `(patches, ood)` of the data:

    1. D learns to tell patches of `patches` from patches of x = G(z).
    2. G, on the same x, learns to pass D (`local`), to be classified with confidence by T
       (`align`), with all classes equally often (`balance`), where S disagrees most with T
       (`adversarial`).
    3. S learns to imitate T, `student_steps` times, each time on fresh generated images and a
       fresh batch of `ood`.

    `fit` takes elements `(patches [B, h, w, c], ood [B, student_steps, h, w, c])`, as
    `keras_mosaickd.mosaic_stream` makes them, or plain images (an array `[n, h, w, c]`, uint8 or
    in [0, 1], or a `tf.data.Dataset` of images), which it hands to `mosaic_stream` itself.

    The regularizer follows from the discriminator: a map of logits is the paper's patch
    regularizer, a single logit judges the whole image, None is no regularizer (supplement,
    figure 1).

    Args:
        teacher: built Keras classifier from images in [0, 1] to `[batch, classes]` or
            `[batch, height, width, classes]`.
        student: built Keras classifier, same shapes, logits out.
        generator: built Keras model from `[batch, latent_dim]` to images in [0, 1].
        discriminator: built Keras model from images to logits `[batch, ..., 1]`, or None.
        latent_dim: size of z.
        student_steps: student updates in one training step (K).
        regularization_weight: lambda, at least 0; where the multipliers start with
            `regularization="adaptive"`.
        local_weight: weight of L_local inside R, at least 0.
        align_weight: weight of L_align inside R, at least 0.
        adversarial_weight: weight of KL(T || S) in the generator's objective, at least 0.
        balance_weight: weight of L_balance (eq. 1, log base 2), at least 0.
        temperature: as of `Imitation`.
        local_reduction: "mean" (64 times the mean over D's map) or "sum" (the authors' code).
        synthetic_only: train S on generated images alone.
        generator_multiple: how many times as many generated images D's and G's updates see as
            there are out-of-domain ones: n B, where the paper has B.
        teacher_outputs: as of `StudentTrainer`.
        batch_norm_policy: "training": S in the generator's step and G when it samples for S run
            in training mode, as in the authors' code, and so their BatchNorm statistics move in
            each other's phases too; "inference": in inference mode (docs/algorithm.md measures
            them).
        seed: seed of z, and as of `Imitation`.
        batch_norm_weight: weight of the distance between the statistics of generated images and
            those in T's BatchNorms (`losses.statistics_distance`), at least 0. It tells G how the
            domain looks inside of T; no part of the paper.
        regularization: "fixed": lambda is a constant; "adaptive": it solves eq. 2, a multiplier
            each for L_local and L_align, whose own weights are 1 then (docs/algorithm.md).
        epsilon_local: how far apart patches may be there: Jensen-Shannon divergence over ln 2, 0
            to 1.
        epsilon_align: how uncertain T may be there: mean entropy over its largest value, 0 to 1.
        **kwargs: how S imitates T: `feature_weight`, `mixup` and the like, as of `Imitation`.

    Raises:
        InputError: if an argument is out of range or the networks do not fit together.

    References:
        Fang et al., "Mosaicking to Distill: Knowledge Distillation from Out-of-Domain Data",
        NeurIPS 2021 (supplement: sections A and B).
    """

    networks: tuple[str, ...] = ("teacher", "student", "generator", "discriminator")

    def __init__(
        self,
        teacher,
        student,
        generator,
        discriminator,
        latent_dim=100,
        student_steps=5,
        regularization_weight=1.0,
        local_weight=1.0,
        align_weight=1.0,
        adversarial_weight=1.0,
        balance_weight=10.0,
        temperature=1.0,
        local_reduction="mean",
        synthetic_only=False,
        teacher_outputs="auto",
        batch_norm_policy="training",
        seed=None,
        *,
        batch_norm_weight=0.0,
        generator_multiple=1,
        regularization="fixed",
        epsilon_local=EPSILON_LOCAL,
        epsilon_align=EPSILON_ALIGN,
        **kwargs,
    ):
        objectives = Objectives(
            regularization_weight,
            local_weight,
            align_weight,
            adversarial_weight,
            balance_weight,
            local_reduction,
            batch_norm_weight,
            regularization,
            epsilon_local,
            epsilon_align,
        )
        generator, discriminator = with_shapes(generator), with_shapes(discriminator)
        check_game(student, generator, discriminator, latent_dim)
        check_options(student_steps, generator_multiple, batch_norm_policy)
        super().__init__(
            teacher, student, temperature, teacher_outputs=teacher_outputs, seed=seed, **kwargs
        )
        players = {"generator": generator, "discriminator": discriminator}
        players = {role: player for role, player in players.items() if player is not None}
        check_separate(teacher=self.teacher, student=self.student, **players)
        self.generator = generator
        self.discriminator = discriminator
        self.run_generator = Fused(generator)
        if discriminator is not None:
            self.run_discriminator = Fused(discriminator)
        self.latent_dim = latent_dim
        self.student_steps = student_steps
        self.objectives = objectives
        self.synthetic_only = synthetic_only
        self.generator_multiple = generator_multiple
        self.batch_norm_policy = batch_norm_policy
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.teacher_statistics = statistics_of(self.teacher, batch_norm_weight)
        self.multipliers = objectives.multipliers(has_patches=discriminator is not None)
        terms = objectives.terms(discriminator is not None, self.teacher_statistics is not None)
        terms += self.constraint_terms
        means = {name: keras.metrics.Mean(name=name) for name in terms}
        self.loss_terms = {**means, **self.loss_terms}

    # ---- the algorithm -------------------------------------------------------------------

    def alternate(self, data):
        """One iteration: D, then G on the same images, then `student_steps` times S."""
        patches, ood = self._unpack(data)

        # G runs once for both players, and so its BatchNorm statistics move once.
        generated = self.record(
            lambda: self.generate(patches, training=True, times=self.generator_multiple),
            self.generator.trainable_variables,
        )
        terms: dict = {}
        if self.discriminator is not None:
            terms |= self.update(
                "discriminator", lambda: self.discriminator_objective(patches, generated.outputs)
            )
        terms |= self.update("generator", self.generator_objective, through=generated)
        self.update_multipliers(terms)
        self.repeat(self.student_steps, self.student_step, patches, ood)

    def discriminator_objective(self, patches, synthetic):
        """D's loss on real and on synthetic images."""
        synthetic_logits = self.run_discriminator(synthetic, training=True)
        real_logits = self.run_discriminator(patches, training=True)
        return self.objectives.discriminator(real_logits, synthetic_logits)

    def generator_objective(self, images):
        """G's loss on images that it made, from which D has learned before."""
        patch_logits = None
        for_discriminator, for_teacher, for_student = uses(images, 3)
        if self.discriminator is not None:
            patch_logits = self.run_discriminator(for_discriminator, training=True)
        distance = None
        if self.teacher_statistics is None:
            teacher_logits = self.run_teacher(for_teacher, training=False)
        else:
            teacher_logits, distance = self.teacher_statistics(for_teacher, self.mean_over_replicas)
        student_logits = self.run_student(
            for_student, training=self.batch_norm_policy == "training"
        )
        teacher_logits, for_balance = uses(teacher_logits, 2)
        mean_distribution = self.mean_over_replicas(self.head.mean_distribution(for_balance))
        return self.objectives.generator(
            self.head,
            teacher_logits,
            student_logits,
            mean_distribution,
            patch_logits,
            distance,
            self.multipliers and self.multipliers.values(),
        )

    def student_step(self, step, patches, ood):
        """S imitates T on fresh synthetic images and on the `step`-th batch of `ood`."""
        with self.without_gradient():
            images = ops.stop_gradient(
                self.generate(patches, training=self.batch_norm_policy == "training")
            )
        partners = None
        if not self.synthetic_only:
            real = ood[:, step]
            if self.mixup:
                partners = ops.concatenate([real, images], axis=0)
            images = ops.concatenate([images, real], axis=0)
        self.update_student(images, partners)

    def generate(self, patches, training, times=1):
        """`times` as many images as there are patches, from fresh z ~ N(0, I)."""
        z = self.latents(times * ops.shape(patches)[0])
        return self.run_generator(z, training=training)

    def get_config(self):
        """Everything that makes the same game again."""
        return {
            **super().get_config(),
            "latent_dim": self.latent_dim,
            "student_steps": self.student_steps,
            **dataclasses.asdict(self.objectives),
            "synthetic_only": self.synthetic_only,
            "generator_multiple": self.generator_multiple,
            "batch_norm_policy": self.batch_norm_policy,
        }
