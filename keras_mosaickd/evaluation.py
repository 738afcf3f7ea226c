"""Accuracy of networks, and finished runs looked at again."""

import keras
import numpy as np

from keras_mosaickd import callbacks, pictures
from keras_mosaickd.data import evaluation_arrays, load
from keras_mosaickd.errors import InputError
from keras_mosaickd.mosaic_kd import MosaicKD
from keras_mosaickd.run_directory import CHECKPOINT, METRICS, RunDirectory

EVALUATION_BATCH = 256


def accuracy(model, pictures):
    """Share of pictures that a model of logits puts into the right class."""
    x, y = evaluation_arrays(pictures)
    logits = model.predict(x, batch_size=EVALUATION_BATCH, verbose=0)
    return float(np.mean(np.argmax(logits, axis=-1) == y))


def load_run(run_dir):
    """The trainer of a run, with all its networks, as it was at the last checkpoint.

    Raises:
        InputError: if there is none or it cannot be loaded.
    """
    run = RunDirectory(run_dir)
    if not run.has_checkpoint:
        raise InputError(f"--run_dir must hold a run with a checkpoint. Received: {run_dir}")
    try:
        return keras.saving.load_model(run / CHECKPOINT, compile=False, safe_mode=True)
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise InputError(f"the checkpoint {run / CHECKPOINT} cannot be loaded: {error}") from error


def evaluate(run_dir, dataset="", data_dir=""):
    """Evaluates a finished run's student beside its teacher.

    Args:
        run_dir: directory of the run.
        dataset: data set whose test pictures are used; by default the run's.
        data_dir: directory of data files.

    Returns:
        Dict with accuracies and agreement, as fractions of 1.
    """
    trainer = load_run(run_dir)
    metrics = RunDirectory(run_dir).read_json(METRICS)
    height, _, channels = trainer.student.input_shape[1:]
    tested = load(
        dataset or metrics["dataset"],
        "test",
        image_size=height,
        channels=channels,
        data_dir=data_dir or None,
    )
    if len(tested.class_names) != trainer.student.output_shape[-1]:
        raise InputError(
            f"--dataset must have the {trainer.student.output_shape[-1]} classes of the run. "
            f"Received: {tested.name} with {len(tested.class_names)}"
        )
    x, y = evaluation_arrays(tested)
    teacher, student = (
        np.argmax(network.predict(x, batch_size=EVALUATION_BATCH, verbose=0), axis=-1)
        for network in (trainer.teacher, trainer.student)
    )
    return {
        "dataset": tested.name,
        "pictures": len(tested),
        "teacher_accuracy": float(np.mean(teacher == y)),
        "student_accuracy": float(np.mean(student == y)),
        "student_agreement": float(np.mean(student == teacher)),
    }


def sample(run_dir, count, out, seed=0):
    """Draws a grid of a run's synthetic pictures, sorted by the teacher's class.

    Args:
        run_dir: directory of a mosaickd run.
        count: number of pictures.
        out: PNG file to write.
        seed: seed of z.

    Returns:
        The file's path.
    """
    trainer = load_run(run_dir)
    if not isinstance(trainer, MosaicKD):
        raise InputError(f"--run_dir must hold a run of --method=mosaickd. Received: {run_dir}")
    latents = np.random.default_rng(seed).standard_normal((count, trainer.latent_dim), "float32")
    grid = callbacks.draw_samples(trainer.generator, trainer.teacher, latents)
    return pictures.write_png(out, grid)
