"""Data sets that tensorflow-datasets provides."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_mosaickd.data.sources.forward import ForwardImages
from keras_mosaickd.data.sources.request import DatasetSpec
from keras_mosaickd.data.streams.tensorflow import keep_off_gpu
from keras_mosaickd.errors import InputError
from keras_mosaickd.extras import require

# Images decoded at a time: a thousand of ImageNet's would take half a gigabyte.
_CHUNK = 128


@dataclass(frozen=True)
class TfdsSource:
    """A data set that is there, before its images are read.

    Attributes:
        images: Its images.
        class_names: Names in label order.
        labels: Reads the labels, int64 [n]: a pass over the files, without their images.
    """

    images: ForwardImages
    class_names: tuple[str, ...]
    labels: Callable[[], np.ndarray]


def open_tfds(
    spec: DatasetSpec,
    splits: Sequence[str],
    image_size: int,
    channels: int,
    data_dir: str | Path | None,
) -> TfdsSource:
    """Opens splits one after another, in their stored order; downloads what is not there yet.

    Args:
        spec: A data set with a `tfds_name`.
        splits: The splits' names at the source.
        image_size: Height and width in pixels.
        channels: 1 (grey) or 3 (RGB).
        data_dir: Folder of prepared data sets; None for the package's own default.

    Raises:
        InputError: where tensorflow-datasets is not installed, the files have to be fetched by
            hand, or a split has not as many images as the data set is known to have.
        RuntimeError: where the data set is not there and cannot be downloaded.
    """
    require(f"the data set {spec.name}", "tensorflow", "tensorflow_datasets")
    import tensorflow_datasets as tfds

    keep_off_gpu()
    folder = None if data_dir is None else str(Path(data_dir).expanduser())
    with _reported(spec, preparing=True):
        builder = tfds.builder(spec.tfds_name, data_dir=folder)
        builder.download_and_prepare()
        count = sum(_count(spec, builder, split) for split in splits)
        names = _class_names(spec, builder)
    images = ForwardImages(
        functools.partial(_images, spec, builder, tuple(splits)),
        count,
        image_size,
        channels,
        f"{builder.info.full_name} {'+'.join(splits)}",
    )
    return TfdsSource(images, names, functools.partial(_labels, spec, builder, tuple(splits)))


@contextlib.contextmanager
def _reported(spec: DatasetSpec, preparing: bool = False) -> Iterator[None]:
    """Says what to do about an error of tensorflow-datasets."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # Downloads fail in as many ways as networks and servers do.
        detail = (str(error).strip() or type(error).__name__).splitlines()[0]
        received = f"Received: {type(error).__name__}: {detail}"
        if preparing and spec.by_hand:
            raise InputError(
                f"{spec.name} has to be fetched by hand: expected {spec.by_hand}, unchanged, in "
                "DIR/downloads/manual, where DIR is the folder that --data_dir names "
                f"(~/tensorflow_datasets without it). {received}"
            ) from error
        raise RuntimeError(
            f"could not read {spec.name}: expected it prepared by tensorflow-datasets (run `tfds "
            f"build {spec.tfds_name}` where there is a network, and name its folder with "
            f"--data_dir), or a network to download it. {received}"
        ) from error


def _count(spec: DatasetSpec, builder: Any, split: str) -> int:
    """Number of images of a split, checked against the table."""
    # Without metadata of its own (stand-in data in tests) only the data set itself can tell.
    if split not in builder.info.splits:
        return len(builder.as_dataset(split=split, shuffle_files=False))
    received, expected = int(builder.info.splits[split].num_examples), spec.size(split)
    if expected is not None and received != expected:
        raise InputError(
            f"{spec.name}: expected {expected} images in the split {split}. Received: {received}"
        )
    return received


def _class_names(spec: DatasetSpec, builder: Any) -> tuple[str, ...]:
    """The table's names, or the source's where the table has numbers only."""
    names = tuple(builder.info.features["label"].names)
    if len(names) != len(spec.class_names):
        raise InputError(
            f"{spec.name}: expected {len(spec.class_names)} classes. Received: {len(names)}"
        )
    return names if all(name.isdecimal() for name in spec.class_names) else spec.class_names


def _dataset(builder: Any, split: str, feature: str) -> Any:
    """One feature of a split, alone decoded, in the stored order, as a tf.data.Dataset."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    dataset = builder.as_dataset(
        split=split,
        shuffle_files=False,
        decoders=tfds.decode.PartialDecoding({feature: True}),
        # A cache of decoded images would be what this is to avoid.
        read_config=tfds.ReadConfig(try_autocache=False),
    )
    options = tf.data.Options()
    options.autotune.enabled = False  # see pipelines.untuned
    # Threads of its own: read inside another tf.data pipeline it would wait for that one's.
    options.threading.private_threadpool_size = os.cpu_count() or 1
    return dataset.map(lambda example: example[feature]).with_options(options)


def _images(
    spec: DatasetSpec, builder: Any, splits: tuple[str, ...]
) -> Iterator[Sequence[np.ndarray]]:
    with _reported(spec):
        for split in splits:
            dataset = _dataset(builder, split, "image")
            if dataset.element_spec.shape.is_fully_defined():
                yield from dataset.batch(_CHUNK).as_numpy_iterator()
            else:
                single = dataset.as_numpy_iterator()
                while chunk := list(itertools.islice(single, _CHUNK)):
                    yield chunk


def _labels(spec: DatasetSpec, builder: Any, splits: tuple[str, ...]) -> np.ndarray:
    with _reported(spec):
        parts = [
            np.array(batch, np.int64)
            for split in splits
            for batch in _dataset(builder, split, "label").batch(4096).as_numpy_iterator()
        ]
        return np.concatenate(parts)
