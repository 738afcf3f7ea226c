"""The practical recipe: what makes better students than the paper's within thousands of updates."""

from keras_mosaickd.config import recipe_defaults
from keras_mosaickd.errors import InputError
from keras_mosaickd.methods.feature_maps import last_features
from keras_mosaickd.methods.statistics import TeacherStatistics
from keras_mosaickd.networks.logits import with_shapes

# What some networks do not allow: it is left out then.
SWITCHED = ("batch_norm_weight", "feature_weight")


def practical_recipe(teacher, student, regularization="fixed"):
    """The arguments of `MosaicKD` that `--recipe=practical` stands for.

    ```python
    game = km.MosaicKD(teacher, student, generator, discriminator,
                       **km.practical_recipe(teacher, student))
    ```

    What the networks do not allow is left out, and said: BatchNorm statistics of a teacher without
    BatchNorm layers, features of networks whose layers are hidden (subclassed, a SavedModel).

    Args:
        teacher: built Keras classifier.
        student: built Keras classifier.
        regularization: as of `MosaicKD`; "adaptive" weighs the patches itself.

    Returns:
        Dict of keyword arguments.
    """
    chosen = {} if regularization == "fixed" else {"regularization": regularization}
    options = recipe_defaults({"recipe": "practical", **chosen}) | chosen
    return possible(options, with_shapes(teacher), with_shapes(student))


def possible(options, teacher, student):
    """Options of `MosaicKD` with those switched off, in print, that the networks do not allow."""
    options = dict(options)
    if options.get("batch_norm_weight") and not TeacherStatistics(teacher).layers:
        _switch_off(options, "batch_norm_weight", "the teacher shows no BatchNorm layers")
    if options.get("feature_weight"):
        try:
            last_features(teacher, student)
        except InputError as error:
            _switch_off(options, "feature_weight", str(error).partition(": ")[2])
    return options


def _switch_off(options, name, reason):
    options[name] = 0.0
    print(f"Practical recipe without {name}: {reason}")
