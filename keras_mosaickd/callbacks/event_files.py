"""TensorBoard's event files without TensorFlow.

``tf.summary`` would start TensorFlow, which takes an accelerator's memory, in a process that trains
on JAX or PyTorch; TensorBoard's own writer needs neither.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy

from keras_mosaickd.data import image_grid
from keras_mosaickd.files import replacing


class EventFile:
    """One event file in a directory, opened by the first entry.

    Where the package tensorboard is not installed, nothing is written.

    Args:
        directory: TensorBoard's run directory; made if it is not there.
    """

    def __init__(self, directory: str | os.PathLike[str]):
        self.directory = os.fspath(directory)
        self._writer: Any = None

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one number per tag."""
        self._write(step, [{"tag": tag, "simple_value": value} for tag, value in values.items()])

    def image(self, step: int, tag: str, one_image: numpy.ndarray) -> None:
        """Writes a uint8 image [h, w, c], c 1 or 3."""
        height, width, channels = one_image.shape
        image = {
            "height": height,
            "width": width,
            "colorspace": channels,
            "encoded_image_string": image_grid.encode_png(one_image),
        }
        self._write(step, [{"tag": tag, "image": image}])

    def histogram(self, step: int, tag: str, counts: Sequence[int]) -> None:
        """Writes how often each of the whole numbers 0, 1, ... occurred, one bucket for each."""
        occurred = [number for number, count in enumerate(counts) if count]
        histogram = {
            "min": min(occurred, default=0) - 0.5,
            "max": max(occurred, default=0) + 0.5,
            "num": sum(counts),
            "sum": sum(number * count for number, count in enumerate(counts)),
            "sum_squares": sum(number**2 * count for number, count in enumerate(counts)),
            "bucket_limit": [number + 0.5 for number in range(len(counts))],
            "bucket": counts,
        }
        self._write(step, [{"tag": tag, "histo": histogram}])

    def close(self) -> None:
        """Closes the file; a later entry opens another one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _write(self, step: int, values: list[dict[str, Any]]) -> None:
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError:
            return
        if self._writer is None:
            self._writer = EventFileWriter(self.directory)
            # Tells TensorBoard to forget what an interrupted run wrote for this step and later.
            restart = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._writer.add_event(
                event_pb2.Event(session_log=restart, step=step, wall_time=time.time())
            )
        summary = summary_pb2.Summary(
            value=[summary_pb2.Summary.Value(**value) for value in values]
        )
        self._writer.add_event(event_pb2.Event(summary=summary, step=step, wall_time=time.time()))
        self._writer.flush()


def write_whole(path: str | os.PathLike[str], values: Sequence[Mapping[str, Any]]) -> None:
    """Writes an event file with one entry that has no step; it appears whole or not at all.

    Needs the package tensorboard.

    Args:
        path: The file, in a directory that exists; "tfevents" in its name makes TensorBoard read
            it. An older one is replaced.
        values: Fields of ``Summary.Value``, for each value of the entry.
    """
    from tensorboard.compat.proto import event_pb2, summary_pb2
    from tensorboard.summary.writer.record_writer import RecordWriter

    summary = summary_pb2.Summary(value=[summary_pb2.Summary.Value(**value) for value in values])
    now = time.time()
    # TensorBoard does not read what is not finished: the new file's name has no "tfevents".
    with replacing(path) as new, new.open("wb") as file:
        records = RecordWriter(file)
        for event in (
            event_pb2.Event(file_version="brain.Event:2", wall_time=now),
            event_pb2.Event(summary=summary, wall_time=now),
        ):
            records.write(event.SerializeToString())
