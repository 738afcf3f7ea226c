"""Data sets that tensorflow-datasets provides."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from keras_mosaickd.data.specs import DatasetSpec
from keras_mosaickd.errors import InputError


def read_tfds(
    spec: DatasetSpec, split: str, data_dir: str | Path | None
) -> tuple[np.ndarray, np.ndarray]:
    """Reads one split, in its stored order; downloads the data set if it is not there yet.

    Args:
        spec: A data set with a `tfds_name`.
        split: The split's name at the source.
        data_dir: Folder of prepared data sets; None for the package's own default.

    Returns:
        uint8 pictures [n, h, w, c] and int64 labels [n].

    Raises:
        InputError: where tensorflow-datasets is not installed or the folder cannot be used.
        RuntimeError: where the data set is not there and cannot be downloaded.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise InputError(
            f"the data set {spec.name} is read with the packages tensorflow and "
            f"tensorflow-datasets: expected them to be installed. Received: {error}"
        ) from error
    folder = None if data_dir is None else str(Path(data_dir).expanduser())
    try:
        builder = tfds.builder(spec.tfds_name, data_dir=folder)
        builder.download_and_prepare()
        dataset = builder.as_dataset(split=split, shuffle_files=False).batch(1024)
        batches = [
            (np.array(batch["image"]), np.array(batch["label"], np.int64))
            for batch in dataset.as_numpy_iterator()
        ]
    except Exception as error:  # Downloads fail in as many ways as networks and servers do.
        detail = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RuntimeError(
            f"could not read {spec.name}: expected it prepared by tensorflow-datasets (run `tfds "
            f"build {spec.tfds_name}` where there is a network, and name its folder with "
            f"--data_dir), or a network to download it. Received: {type(error).__name__}: {detail}"
        ) from error
    images, labels = zip(*batches, strict=True)
    return np.concatenate(images), np.concatenate(labels)
