"""Selection of out-of-domain images (supplement, algorithm 1, and alternatives to it).

What is kept is written to disk once, resized, and training reads only that.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np

from keras_mosaickd.backend import processes
from keras_mosaickd.data.cache import cached, read_array, write_array, write_images
from keras_mosaickd.data.image_set import ImageSet
from keras_mosaickd.data.scores import entropies, leading_classes, teacher_hash
from keras_mosaickd.data.sources.folder import ranks
from keras_mosaickd.errors import InputError
from keras_mosaickd.files import sha256
from keras_mosaickd.networks.logits import as_logits

RULES = ("entropy", "random", "confident")

# Part of the key: raise it when scores, ranking or files change their meaning.
_VERSION = 2
_BINS = 12
_BAR = 40


@dataclasses.dataclass(frozen=True)
class Selection:
    """The out-of-domain images that were kept, and how they compare with the rest.

    Attributes:
        name: The data set they come from.
        split: Its split.
        indices: int64 [k], positions in the pool, ascending.
        entropies: float32 [n], the teacher's entropy of every image of the pool, in nats.
        images: uint8 [k, h, w, c], a read-only memory map.
        kept_mean: Mean entropy of the kept images, in nats; NaN where none has a number.
        dropped_mean: Mean entropy of the others; NaN where there are none.
        histogram: Bin edges, counts of the pool, counts of the kept.
        path: The folder in the cache.
        reused: Whether it was found there.
    """

    name: str
    split: str
    indices: np.ndarray
    entropies: np.ndarray
    images: np.ndarray
    kept_mean: float
    dropped_mean: float
    histogram: tuple[np.ndarray, np.ndarray, np.ndarray]
    path: Path
    reused: bool

    def __len__(self) -> int:
        return len(self.indices)

    def summary(self) -> dict[str, Any]:
        """What a report shows of it, for JSON: the histogram, the means, the place of the images.

        Returns:
            `edges` (nats), `pool` and `kept` (counts), `kept_mean`, `dropped_mean` (None where
            there is none) and `images`, a .npy file.
        """
        edges, pool, kept = (values.tolist() for values in self.histogram)
        return {
            "edges": edges,
            "pool": pool,
            "kept": kept,
            **_for_json({"kept_mean": self.kept_mean, "dropped_mean": self.dropped_mean}),
            "images": str(Path(_file_of(self.images) or self.path / "images.npy").absolute()),
        }

    def describe(self) -> str:
        """What was kept, as text: counts, mean entropies, histogram."""
        size = len(self.entropies)
        edges, pool, kept = self.histogram
        # Three decimals, or as many as tell the bins of a teacher apart that is sure of everything.
        decimals = max(3, 1 + math.ceil(-math.log10(edges[1] - edges[0])))
        mean = f".{decimals + 1}f"
        lines = [
            f"out-of-domain images: {len(self)} of {size} kept from {self.name} "
            f"({self.split}){', as selected before' if self.reused else ''}",
            f"mean entropy of the teacher, in nats: kept {self.kept_mean:{mean}}, dropped "
            + ("none" if len(self) == size else f"{self.dropped_mean:{mean}}"),
        ]
        invalid = int(np.isnan(self.entropies).sum())
        if invalid:
            lines.append(f"images whose entropy is not a number: {invalid}")
        largest = max(1, int(pool.max()))
        width = decimals + 3
        lines.append(f"{'entropy':>{2 * width + 1}}  {'pool':>8} {'kept':>8}  (# kept, . dropped)")
        for low, high, every, chosen in zip(edges[:-1], edges[1:], pool, kept, strict=True):
            length = round(_BAR * every / largest)
            marks = round(_BAR * chosen / largest)
            bar = "#" * marks + "." * (length - marks)
            span = f"{low:{width}.{decimals}f}-{high:{width}.{decimals}f}"
            lines.append(f"{span}  {every:8d} {chosen:8d}  {bar}".rstrip())
        return "\n".join(lines)


def top_entropy(entropies: np.ndarray, count: int) -> np.ndarray:
    """Positions of the `count` highest entropies.

    Of equal entropies the earlier image is taken; NaN is never chosen.

    Args:
        entropies: [n].
        count: How many; 0 keeps all n, those with NaN too.

    Returns:
        int64 [count], ascending.

    Raises:
        InputError: where `count` is negative, above n, or above the number of valid entropies.
    """
    entropies = np.asarray(entropies)
    size = len(entropies)
    check_count(count, size)
    if count == 0:
        return np.arange(size)
    valid = size - int(np.isnan(entropies).sum())
    if count > valid:
        raise InputError(
            f"--ood_size: expected at most the {valid} images whose entropy is a number (of "
            f"{size}). Received: {count}"
        )
    # NaN goes last. No sorting of positions: those of a large pool are many times its entropies.
    least = -np.partition(-entropies, count - 1)[count - 1]
    above, equal = np.flatnonzero(entropies > least), np.flatnonzero(entropies == least)
    return np.sort(np.concatenate([above, equal[: count - len(above)]]))


def most_confident(
    entropies: np.ndarray, classes: np.ndarray, count: int, seed: int = 0
) -> np.ndarray:
    """Positions of images that the teacher is sure of, of all classes, and as many of the others.

    Half are those of the lowest entropy, the predicted classes taking turns; half are drawn from
    the rest, so that the discriminator sees what the pool looks like.

    Args:
        entropies: [n]; NaN is never chosen.
        classes: [n], the predicted classes.
        count: How many, from 0 to the number of valid entropies.
        seed: Seed of what is drawn.

    Returns:
        int64 [count], ascending.
    """
    valid = np.flatnonzero(~np.isnan(entropies))
    order = valid[np.argsort(entropies[valid], kind="stable")]
    # By the place of each image among those of its class.
    order = order[np.argsort(ranks(classes[order]), kind="stable")]
    sure, rest = np.split(order, [count - count // 2])
    drawn = np.random.default_rng(seed).permutation(rest)[: count // 2]
    return np.sort(np.concatenate([sure, drawn]))


def check_count(count: int, size: int) -> None:
    """Refuses a number of images to keep that the pool cannot give."""
    if int(count) != count or not 0 <= count <= size:
        raise InputError(
            f"--ood_size: expected 0 (the whole pool) or at most the pool's {size} images. "
            f"Received: {count}"
        )


def select(
    teacher: Any,
    image_set: ImageSet,
    count: int = 0,
    batch_size: int = 256,
    cache_dir: str | Path = "cache",
    teacher_outputs: str = "auto",
    verbose: Any = 0,
    by: str = "entropy",
    seed: int = 0,
) -> Selection:
    """Keeps the images with the highest teacher entropy (supplement, algorithm 1), or others.

    The result is kept under `cache_dir`/ood, under a key of the teacher's layers and weights,
    the images, their size, `count` and the rule; the same call reads it from there. Each of several
    processes scores its part of the pool, and writes what is kept of that.

    Args:
        teacher: Keras model from images in [0, 1] to logits or probabilities.
        image_set: The pool. It is read to its end, so a broken file is found here.
        count: How many to keep (the paper's k); 0 keeps the whole pool.
        batch_size: Images at a time.
        cache_dir: Where the selection is kept.
        teacher_outputs: "logits" or "probabilities" declares what the teacher gives; "auto" looks.
        verbose: As in `keras.Model.predict`.
        by: "entropy" keeps the highest; "random" draws; "confident" keeps `most_confident`.
        seed: Seed of what is drawn.

    Returns:
        The selection.

    Raises:
        InputError: where `count` is larger than the pool, an image is broken, or the cache
            cannot be written.
    """
    if not isinstance(image_set, ImageSet):
        raise InputError(
            f"expected an ImageSet, as km.load gives. Received: {type(image_set).__name__}"
        )
    check_count(count, len(image_set))
    if by not in RULES:
        raise InputError(f"by: expected one of {', '.join(RULES)}. Received: {by!r}")
    if image_set.images.dtype != np.uint8:
        raise InputError(f"expected images as uint8. Received: type {image_set.images.dtype}")
    teacher = as_logits(teacher, teacher_outputs)
    inputs = {
        "version": _VERSION,
        "teacher": teacher_hash(teacher),
        **image_set.origin,
        "content": image_set.fingerprint(),
        "shape": [int(size) for size in image_set.images.shape],
        "count": int(count),
    }
    if by != "entropy" and count:
        inputs |= {"by": by, "seed": int(seed)}
    key = sha256(repr(sorted(inputs.items())))[:32]
    folder = Path(cache_dir) / "ood" / key

    # The whole of a pool that is one file already is kept there.
    is_kept = count == 0 and _file_of(image_set.images) is not None
    # In whole batches, so that each image is scored among the same ones, however many take part.
    part = processes.share(len(image_set), batch_size)

    def score(function: Any, images: Any, dtype: Any) -> np.ndarray:
        own = np.zeros(0, dtype)
        if part.start < part.stop:
            own = function(teacher, _Part(images, part), batch_size, verbose)
        return np.concatenate(processes.gather(own))

    def build(directory: Path) -> dict[str, Any]:
        images = image_set.images
        if count == 0 and not is_kept:
            # Written first and scored from there: images in a folder are decoded once.
            write_images(directory / "images.npy", images, part=part)
            images = read_array(directory / "images.npy")
        scores = score(entropies, images, np.float32)
        if np.isnan(scores).all():
            raise InputError(
                "--teacher: expected answers that are numbers. Received: NaN for each of the "
                f"{len(scores)} images of {image_set.name}; see what it takes (--teacher_input)"
            )
        # Refuses what the valid entropies cannot give, whatever the rule.
        indices = top_entropy(scores, count)
        if count and by == "random":
            valid = np.flatnonzero(~np.isnan(scores))
            indices = np.sort(np.random.default_rng(seed).permutation(valid)[:count])
        elif count and by == "confident":
            classes = score(leading_classes, images, np.int64)
            indices = most_confident(scores, classes, count, seed)
        if count:
            own = slice(*np.searchsorted(indices, (part.start, part.stop)).tolist())
            write_images(directory / "images.npy", images, indices, own)
        if processes.is_chief():
            write_array(directory / "indices.npy", indices.shape, np.int64, [indices])
            write_array(directory / "entropies.npy", scores.shape, np.float32, [scores])
        means = _for_json(_means(scores, indices))
        return {"name": image_set.name, "split": image_set.split, **inputs, **means}

    _, fresh = cached(folder, "selection.json", build, is_joint=True)
    file = folder / "images.npy"
    images = image_set.images if is_kept and not file.exists() else read_array(file)
    indices = np.array(read_array(folder / "indices.npy"))
    scores = np.array(read_array(folder / "entropies.npy"))
    return Selection(
        name=image_set.name,
        split=image_set.split,
        indices=indices,
        entropies=scores,
        images=images,
        **_means(scores, indices),
        histogram=_histogram(scores, indices),
        path=folder,
        reused=not fresh,
    )


class _Part:
    """A slice of a pool that is read when it is asked for.

    Args:
        images: The pool, [n, h, w, c].
        part: Of its first axis.
    """

    def __init__(self, images: Any, part: slice):
        self.images, self.part = images, part
        self.shape = (part.stop - part.start, *images.shape[1:])
        self.dtype = images.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: slice) -> Any:
        start, stop, _ = index.indices(len(self))
        return self.images[self.part.start + start : self.part.start + stop]


def _file_of(images: Any) -> str | None:
    """The .npy file of which these images are the whole; None where there is none."""
    if not isinstance(images, np.memmap) or images.filename is None:
        return None
    path = str(images.filename)
    # A part of a file, as held-out images are, is a memory map too.
    whole = path.endswith(".npy") and read_array(Path(path)).shape == images.shape
    return path if whole else None


def _means(scores: np.ndarray, indices: np.ndarray) -> dict[str, float]:
    """Mean of the kept and of the dropped; NaN where a group has no valid score."""
    kept = np.zeros(len(scores), bool)
    kept[indices] = True
    means = {}
    for name, mask in (("kept_mean", kept), ("dropped_mean", ~kept)):
        group = scores[mask & ~np.isnan(scores)]
        means[name] = float(np.mean(group, dtype=np.float64)) if len(group) else math.nan
    return means


def _for_json(numbers: dict[str, float]) -> dict[str, float | None]:
    """None in the place of NaN, which JSON does not have."""
    return {name: None if np.isnan(value) else value for name, value in numbers.items()}


def _histogram(
    scores: np.ndarray, indices: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bin edges from 0 to the highest entropy, counts of the pool, counts of the kept."""
    valid = scores[~np.isnan(scores)]
    highest = max(float(valid.max()), 1e-3) if len(valid) else 1.0
    edges = np.linspace(0, highest, _BINS + 1)
    # Rounding may put an entropy a little below zero.
    pool, kept = (
        np.histogram(np.clip(group[~np.isnan(group)], 0, None), bins=edges)[0]
        for group in (scores, scores[indices])
    )
    return edges, pool, kept
