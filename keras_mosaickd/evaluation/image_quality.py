"""How good synthetic images are, as numbers: balance, confidence, distance, duplicates; latency.

All of them see the images through the teacher, as the paper's losses do: no other network is
needed, and none that was trained on natural images would fit digits or clothes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_mosaickd import losses
from keras_mosaickd.data.image_set import spread
from keras_mosaickd.errors import InputError
from keras_mosaickd.teachers.features import Features, generate

# A synthetic image closer to another one than this share of the usual distance between
# neighbours among real images counts as a near-duplicate.
DUPLICATE_SHARE = 0.25


def frechet_distance(first: Any, second: Any) -> float:
    """Fréchet distance between normal distributions fitted to two sets of features.

    ``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))`` with means m and covariances C (Dowson & Landau,
    1982, for normal distributions; Heusel et al., 2017, arXiv 1706.08500, eq. 6, for images).
    Heusel's FID takes the features of one Inception network; here they are whatever is given, so
    distances in the features of different teachers cannot be compared. Like FID it grows as the
    sets shrink: compare sets of equal size.

    The trace of the square root is that of ``(S C2 S)^(1/2)``, S the symmetric root of C1, which is
    symmetric and positive too, so that two eigendecompositions suffice.

    Args:
        first: [n, d], n at least 1.
        second: [m, d], m at least 1.

    Returns:
        At least 0, in squared units of the features; NaN where a feature is not finite.
    """
    sets = [np.asarray(features, np.float64) for features in (first, second)]
    for features in sets:
        if features.ndim != 2 or not len(features) or features.shape[1] != sets[0].shape[1]:
            raise InputError(
                "expected two sets of features [n, d] with one d and n at least 1. Received: "
                f"{list(sets[0].shape)} and {list(sets[1].shape)}"
            )
    if not all(np.isfinite(features).all() for features in sets):
        return math.nan
    means = [features.mean(axis=0) for features in sets]
    # Covariances over n, not n - 1: one image has one too (zero), and equal sets give 0 exactly.
    covariances = [
        (features - mean).T @ (features - mean) / len(features)
        for features, mean in zip(sets, means, strict=True)
    ]
    values, vectors = np.linalg.eigh(covariances[0])
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    product = root @ covariances[1] @ root
    shared = np.sqrt(np.clip(np.linalg.eigvalsh((product + product.T) / 2), 0, None)).sum()
    distance = ((means[0] - means[1]) ** 2).sum() + sum(map(np.trace, covariances)) - 2 * shared
    return float(max(0.0, distance))


def nearest_distances(points: Any) -> np.ndarray:
    """Euclidean distance of every row of [n, d], n at least 2, to the nearest other row: [n]."""
    points = np.asarray(points, np.float64)
    if points.ndim != 2 or len(points) < 2:
        raise InputError(f"expected at least 2 points [n, d]. Received: {list(points.shape)}")
    # Around their mean the difference of squares below loses fewest digits.
    points = points - points.mean(axis=0)
    squares = (points**2).sum(axis=1)
    distances = squares[:, None] + squares[None, :] - 2 * points @ points.T
    np.fill_diagonal(distances, np.inf)
    nearest = distances.argmin(axis=1)
    # Found by the fast formula, measured by the exact one: equal rows are 0 apart.
    return np.sqrt(((points - points[nearest]) ** 2).sum(axis=1))


def near_duplicate_rate(points: Any, reference: Any, share: float = DUPLICATE_SHARE) -> float:
    """Share of points that nearly repeat another point: a sign of mode collapse.

    A point counts where its nearest other point is closer than ``share`` times the median distance
    between nearest neighbours in ``reference``. Neighbours come closer as a set grows, so of the
    larger set as many evenly spaced rows count as the smaller one has.

    Args:
        points: [n, d], n at least 2.
        reference: [m, d], m at least 2, what real images look like in the same space.
        share: Positive.

    Returns:
        From 0 to 1; NaN where a coordinate is not finite.
    """
    points, reference = np.asarray(points), np.asarray(reference)
    count = min(len(points), len(reference))
    points, reference = spread(points, count), spread(reference, count)
    if not (np.isfinite(points).all() and np.isfinite(reference).all()):
        return math.nan
    limit = share * float(np.median(nearest_distances(reference)))
    return float((nearest_distances(points) < limit).mean())


def summarize(head: Any, synthetic: Any, out_of_domain: Any = None) -> dict[str, float]:
    """The numbers of two sets that a teacher has seen.

    Args:
        head: The teacher's head.
        synthetic: What `keras_mosaickd.teachers.features.Features.see` gives for the synthetic
            images, at least 2.
        out_of_domain: Likewise for the out-of-domain ones; None where there are none.

    Returns:
        `class_entropy`, the entropy of the mean prediction: how evenly the images cover the
        classes, in nats; `class_entropy_share` (of the most that is possible); `confidence`, the
        mean probability of what is predicted; and where there are out-of-domain images to measure
        against `frechet_distance` and `near_duplicates`, in the teacher's features.
    """
    points, logits = synthetic
    mean = head.mean_distribution(logits)
    entropy = max(0.0, -float(losses.negative_entropy(mean, math.e)))
    numbers = {
        "class_entropy": entropy,
        "class_entropy_share": entropy / head.most_entropy,
        "confidence": float(keras.ops.mean(head.confidence(logits))),
    }
    if out_of_domain is None:
        return numbers
    return numbers | {
        "frechet_distance": frechet_distance(points, out_of_domain[0]),
        "near_duplicates": near_duplicate_rate(points, out_of_domain[0]),
    }


def image_quality(generator: Any, teacher: Any, latents: Any, ood_images: Any) -> dict[str, float]:
    """The numbers of `summarize` for a generator.

    Args:
        generator: Model from [n, latent_dim] to images [n, h, w, c] in [0, 1].
        teacher: Built model from such images to logits.
        latents: [n, latent_dim], n at least 2.
        ood_images: [m, h, w, c], m at least 2: uint8, or floats in [0, 1].
    """
    features = Features(teacher)
    synthetic = features.see(generate(generator, latents))
    return summarize(features.head, synthetic, features.see(ood_images))


def latency_milliseconds(model: Any, batch_size: int = 1, repetitions: int = 20) -> float:
    """Median milliseconds of one prediction on random images, compiled as ``predict`` does it.

    Args:
        model: Built Keras model with a fixed input shape.
        batch_size: Images in a prediction.
        repetitions: Predictions counted, at least 1.
    """
    shape = (batch_size, *model.input_shape[1:])
    if repetitions < 1 or batch_size < 1 or None in shape:
        raise InputError(
            "expected batch_size and repetitions of at least 1 and a fixed input shape. Received: "
            f"{batch_size}, {repetitions} and {shape[1:]}"
        )
    images = np.random.default_rng(0).random(shape, dtype="float32")
    return median_milliseconds(lambda: model.predict_on_batch(images), repetitions)


def median_milliseconds(call: Callable[[], Any], repetitions: int = 20) -> float:
    """Median milliseconds of a call.

    Two calls are made first and not counted: they compile.

    Args:
        call: Returns when its work is done.
        repetitions: Calls counted, at least 1.
    """
    seconds = []
    for _ in range(2 + repetitions):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return 1000 * float(np.median(seconds[2:]))
