"""TensorFlow's step adds gradients two at a time, so that it gives the same bits every time."""

import tensorflow as tf

from keras_mosaickd import MosaicKD, mosaic_stream, networks, recipe
from keras_mosaickd.config import recipe_defaults
from tests.game import BATCH, LATENT, SHAPE, discriminator, generator, images


def test_no_sum_of_gradients_may_begin_with_any_of_three():
    """`AddN` of three begins with whichever it may overwrite when it runs: no fixed order."""
    options = {
        **recipe_defaults({"recipe": "practical"}),
        "generator_multiple": 2,
        "student_steps": 1,
    }
    teacher, student = (networks.build("wrn10_1", SHAPE, 3) for _ in range(2))
    game = MosaicKD(teacher, student, generator(), discriminator(), latent_dim=LATENT, **options)
    game.compile(**recipe(10, game.student_steps))
    element = next(iter(mosaic_stream(images(), BATCH, student_steps=game.student_steps)))
    graph = tf.function(game.train_step).get_concrete_function(element).graph.as_graph_def()
    nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
    summed = [node.attr["N"].i for node in nodes if node.op == "AddN"]
    assert summed
    assert max(summed) == 2
