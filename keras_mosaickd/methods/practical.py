"""The practical recipe: what makes better students than the paper's within thousands of updates."""

from keras_mosaickd.config import BATCH_SIZE, recipe_defaults
from keras_mosaickd.errors import InputError
from keras_mosaickd.methods.feature_maps import last_features
from keras_mosaickd.methods.statistics import TeacherStatistics
from keras_mosaickd.networks.logits import with_shapes

# What some networks do not allow: it is left out then.
SWITCHED = ("batch_norm_weight", "feature_weight")
# G's statistics are estimated well enough from so many images (docs/measured.md); more than so many
# times the batch, or of larger images, would cost more than they are worth.
_ENOUGH, _MOST_TIMES, _LARGEST = 128, 4, 64


def practical_recipe(teacher, student, regularization="fixed", batch_size=BATCH_SIZE):
    """The arguments of `MosaicKD` that `--recipe=practical` stands for.

    ```python
    game = km.MosaicKD(teacher, student, generator, discriminator,
                       **km.practical_recipe(teacher, student, batch_size=32))
    ```

    What the networks do not allow is left out, and said: BatchNorm statistics of a teacher without
    BatchNorm layers, features of networks whose layers are hidden (subclassed, a SavedModel).

    Args:
        teacher: built Keras classifier.
        student: built Keras classifier.
        regularization: as of `MosaicKD`; "adaptive" weighs the patches itself.
        batch_size: out-of-domain images in an update, from which `generator_multiple` follows.

    Returns:
        Dict of keyword arguments.
    """
    chosen = {} if regularization == "fixed" else {"regularization": regularization}
    options = recipe_defaults({"recipe": "practical", **chosen}) | chosen
    teacher, student = with_shapes(teacher), with_shapes(student)
    options["generator_multiple"] = generator_multiple(batch_size, student.input_shape)
    return possible(options, teacher, student)


def generator_multiple(batch_size, shape):
    """How many times the batch D's and G's updates see: 128 images, but at most four times.

    Once, where the images are larger than 64 pixels or of any size.

    Args:
        batch_size: out-of-domain images in an update, at least 1.
        shape: `[batch, height, width, channels]` of the images.
    """
    if any(side is None or side > _LARGEST for side in shape[1:3]):
        return 1
    return max(1, min(_MOST_TIMES, _ENOUGH // batch_size))


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
