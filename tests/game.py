"""The game with networks of two or three layers, and images for it.

Small in the number of layers, because tracing and compiling them is what the tests' time goes to;
the real networks have tests of their own.
"""

import keras
import numpy as np
from keras import layers

from keras_mosaickd import MosaicKD, recipe

SHAPE = (8, 8, 1)
CLASSES = 3
LATENT = 6
BATCH = 4
STEPS = 2


def _normalized(x):
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)


def classifier(seed=0, shape=SHAPE, classes=CLASSES):
    """A classifier with one convolution: images to logits."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input(shape)
    x = layers.Rescaling(2.0, offset=-1.0)(inputs)
    x = layers.ReLU()(_normalized(layers.Conv2D(5, 3, strides=2, use_bias=False)(x)))
    x = layers.Dense(classes, dtype="float32")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, x)


def generator(shape=SHAPE, latent_dim=LATENT):
    """Latent vectors to images in [0, 1]."""
    z = keras.Input((latent_dim,))
    x = layers.Dense(shape[0] * shape[1] // 4 * 3, use_bias=False)(z)
    x = layers.Reshape((shape[0] // 2, shape[1] // 2, 3))(x)
    x = layers.UpSampling2D()(layers.LeakyReLU(negative_slope=0.2)(_normalized(x)))
    x = layers.Conv2D(shape[2], 3, padding="same")(x)
    return keras.Model(z, layers.Activation("sigmoid", dtype="float32")(x))


def discriminator(regularizer="patch", shape=SHAPE):
    """Images to a map of logits, or to one."""
    inputs = keras.Input(shape)
    x = _normalized(layers.Conv2D(4, 3, strides=2, use_bias=False)(inputs))
    x = layers.Conv2D(1, 2)(layers.LeakyReLU(negative_slope=0.2)(x))
    if regularizer == "image":
        x = layers.GlobalAveragePooling2D(keepdims=True)(x)
    return keras.Model(inputs, layers.Activation("linear", dtype="float32")(x))


def game(regularizer="patch", compiled=True, **options):
    """A `MosaicKD` with STEPS student steps on 8 x 8 images."""
    teacher, student = classifier(1), classifier(2)
    model = MosaicKD(
        teacher,
        student,
        generator(),
        None if regularizer == "none" else discriminator(regularizer),
        **{"latent_dim": LATENT, "student_steps": STEPS, "seed": 3, **options},
    )
    if compiled:
        model.compile(**recipe(10, STEPS))
    return model


def images(count=16, seed=0):
    return np.random.default_rng(seed).random((count, *SHAPE), dtype="float32")


def values(variables):
    """Copies of the values of variables."""
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def moved(before, after):
    """Whether any value changed."""
    return any((a != b).any() for a, b in zip(before, after, strict=True))
