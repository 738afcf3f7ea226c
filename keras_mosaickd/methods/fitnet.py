"""FitNet: distillation with a hint from a middle layer of the teacher."""

import keras

from keras_mosaickd.methods.distillation import KnowledgeDistillation


@keras.saving.register_keras_serializable(package="keras_mosaickd")
class FitNet(KnowledgeDistillation):
    """Distillation with hints (Romero et al. 2015, arXiv 1412.6550), in one stage.

    Both parts of the loss are minimised together, as the tables of Fang et al. (2021) compare it;
    Romero et al. train on the hint first. The hint is half the squared distance there and a mean
    here, so that its weight does not depend on the size of the map.

    Args:
        teacher: as of `KnowledgeDistillation`.
        student: as of `KnowledgeDistillation`.
        temperature: as of `KnowledgeDistillation`.
        hint_weight: weight of the hint, at least 0.
        **kwargs: as of `KnowledgeDistillation`.
    """

    def __init__(self, teacher, student, temperature=1.0, *, hint_weight=1.0, **kwargs):
        super().__init__(teacher, student, temperature, hint_weight=hint_weight, **kwargs)
