"""Predictions, accuracy, mean IoU and agreement of networks on labelled images."""

import keras
import numpy as np

from keras_mosaickd.backend.training import whole_batches
from keras_mosaickd.data import evaluation_arrays
from keras_mosaickd.data.pixels import VOID
from keras_mosaickd.errors import InputError
from keras_mosaickd.networks.heads import head_of

# Images at a time, by task: logits of every pixel take more memory.
_BATCH = {"classification": 256, "segmentation": 16}


def evaluation_batch(task, asked=0):
    """Images at a time where nothing is trained: as many as asked for, or what suits the task."""
    return asked or _BATCH[task]


def predictions(model, image_set, head, batch_size=0):
    """What a model of logits predicts for every image, or for every pixel.

    Args:
        model: Keras model from images in [0, 1] to logits `[..., units]`.
        image_set: `ImageSet`.
        head: the teacher's head.
        batch_size: images at a time; 0 takes what suits the task.

    Returns:
        Array of whole numbers of the shape of the images' labels.
    """
    x, _ = evaluation_arrays(image_set)
    # A few batches at a time: the logits of all pixels of a large set would fill the memory.
    size = evaluation_batch(image_set.task, batch_size)
    chunks = []
    for start in range(0, len(x), 16 * size):
        with whole_batches():
            logits = model.predict(x[start : start + 16 * size], batch_size=size, verbose=0)
        if not np.isfinite(logits).all():
            raise InputError(
                f"the logits of {model.name!r} must be numbers. Received: NaN or infinite"
            )
        chunks.append(keras.ops.convert_to_numpy(head.predictions(logits)))
    return np.concatenate(chunks)


def scores(teacher, images, batch_size=0):
    """How well a teacher does on labelled images.

    Args:
        teacher: Keras model from images in [0, 1] to logits `[..., units]`.
        images: `ImageSet` with labels.
        batch_size: as of `predictions`.

    Returns:
        Dict with `accuracy` and, for segmentation, `mean_iou`, as fractions of 1.
    """
    return scores_of(predictions(teacher, images, head_of(teacher), batch_size), images)


def scores_of(predicted, image_set):
    """As `scores`, from what `predictions` gave."""
    labels = np.asarray(image_set.labels)
    counted = labels != VOID if image_set.task == "segmentation" else np.ones(labels.shape, bool)
    result = {"accuracy": float(np.mean(predicted[counted] == labels[counted]))}
    if image_set.task == "segmentation":
        classes = len(image_set.class_names)
        pairs = labels[counted].astype("int64") * classes + predicted[counted]
        confusion = np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
        union = confusion.sum(axis=0) + confusion.sum(axis=1) - np.diag(confusion)
        # As keras.metrics.MeanIoU: a class that is nowhere does not count.
        present = union > 0
        result["mean_iou"] = float(np.mean(np.diag(confusion)[present] / union[present]))
    return result


def compared(teacher, student, images, batch_size=0):
    """How well a student does beside its teacher.

    Args:
        teacher: Keras model from images in [0, 1] to logits `[..., units]`.
        student: as `teacher`.
        images: `ImageSet` with labels.
        batch_size: as of `predictions`.

    Returns:
        Dict of `pictures`, their number, `teacher_accuracy`, `student_accuracy`, and
        `student_agreement`, as fractions of 1; for segmentation the `..._mean_iou` too, else
        `per_class`: a dict from the name of each class that there are images of to their number
        and the share of them that `teacher` and `student` classify rightly.
    """
    head = head_of(teacher)
    expected, received = (
        predictions(network, images, head, batch_size) for network in (teacher, student)
    )
    per_class, labels = {}, np.asarray(images.labels)
    if labels.ndim == 1:
        right = {"teacher": expected == labels, "student": received == labels}
        for label in np.unique(labels):
            chosen = labels == label
            per_class[str(images.class_names[label])] = {
                "pictures": int(chosen.sum()),
                **{network: float(hits[chosen].mean()) for network, hits in right.items()},
            }
    return {
        "pictures": len(images),
        **{f"teacher_{name}": value for name, value in scores_of(expected, images).items()},
        **{f"student_{name}": value for name, value in scores_of(received, images).items()},
        "student_agreement": float(np.mean(expected == received)),
        **({"per_class": per_class} if per_class else {}),
    }
