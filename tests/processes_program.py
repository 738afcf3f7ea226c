"""Five iterations of what trains, in one process or in several; run by test_processes.

python -m tests.processes_program OUT.npz none|processes NAME...

NAME=FILE.keras saves there what was trained, or goes on for five more where the file is there.
"""

import sys
from pathlib import Path

import keras
import numpy as np

from keras_mosaickd import methods
from keras_mosaickd.backend import processes
from keras_mosaickd.backend.training import distribution, plain, shared
from keras_mosaickd.data import mosaic_stream, supervised_stream
from keras_mosaickd.networks.loading import load_model
from keras_mosaickd.optimizers import SGD, cosine
from tests import game

BATCH, ITERATIONS = 8, 5
OPTIONS = {
    # With the multipliers of constraints that both bind: one falls, the other rises.
    "mosaickd": {
        "batch_norm_weight": 1.0,
        "regularization": "adaptive",
        "epsilon_local": 0.5,
        "epsilon_align": 0.5,
    },
    "practical": {"batch_norm_weight": 100.0, "feature_weight": 10.0, "temperature": 5.0},
}


def sgd(rate):
    # Adam would make full steps of rounding errors where a gradient is nearly zero.
    return keras.optimizers.SGD(rate, momentum=0.9)


def of_game(options):
    model = game.game(compiled=False, **options)
    # The multipliers take the length of the run from the generator's schedule. Slow: where rounding
    # moves a value across a ReLU's corner, the gradient of a pixel comes or goes.
    model.compile(sgd(0.02), sgd(cosine(1e-3, 2 * ITERATIONS)), sgd(1e-3))
    return model, stream_of_game(0)


def stream_of_game(first_step):
    images = game.images(ITERATIONS * BATCH)
    return mosaic_stream(images, BATCH, student_steps=game.STEPS, first_step=first_step)


def of_student(method):
    model = getattr(methods, method)(game.classifier(1), game.classifier(2), seed=3)
    model.compile(sgd(0.05))
    return model, supervised_stream(game.images(ITERATIONS * BATCH), LABELS, BATCH)


def of_teacher():
    model = shared(game.classifier(1))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(SGD(0.05), loss=loss, metrics=["accuracy"])
    return model, supervised_stream(game.images(ITERATIONS * BATCH), LABELS, BATCH)


LABELS = np.random.default_rng(5).integers(0, game.CLASSES, ITERATIONS * BATCH)
TRAINED = {
    **{name: lambda options=options: of_game(options) for name, options in OPTIONS.items()},
    "kd": lambda: of_student("KnowledgeDistillation"),
    "fitnet": lambda: of_student("FitNet"),
    "supervised": lambda: of_student("Supervised"),
    "teacher": of_teacher,
}


def main(path, strategy, *names):
    place = distribution(strategy)
    values = {}
    for name in names:
        name, _, file = name.partition("=")
        begun = Path(file).is_file()
        with place.scope():
            if begun:
                model = load_model(file, "the model", compile=True)
                stream = stream_of_game(ITERATIONS)
            else:
                model, stream = TRAINED[name]()
        before = game.values(model.trainable_variables)
        options = {}
        if name != "teacher":
            options["validation_data"] = (game.images(11, seed=9), np.arange(11) % game.CLASSES)
            options["validation_batch_size"] = 4
        history = model.fit(stream, epochs=1, verbose=0, shuffle=False, **options).history
        assert int(model.optimizer.iterations) == ITERATIONS * (1 + begun)
        assert game.moved(before, game.values(model.trainable_variables))
        if file and not begun and processes.is_chief():
            model.save(file)
        trained = plain(model) if name == "teacher" else model
        values |= {f"{name}/{i}": value for i, value in enumerate(trained.get_weights())}
        values |= {f"{name}/{log}": value for log, (value,) in history.items()}
    np.savez(path, processes=processes.count(), **values)
    processes.leave()


if __name__ == "__main__":
    main(*sys.argv[1:])
