"""Streams that people bring along, of which each process takes its own rows."""

import keras

from keras_mosaickd.backend import processes
from keras_mosaickd.errors import InputError


class OwnRows(keras.utils.PyDataset):
    """This process's rows of every element of a stream, all of whose leading axes are the batch."""

    def __init__(self, stream):
        if not isinstance(stream, keras.utils.PyDataset):
            raise InputError(
                "expected a keras.utils.PyDataset, as mosaic_stream makes, for training in several "
                f"processes. Received: {type(stream).__name__}"
            )
        super().__init__(workers=stream.workers, max_queue_size=stream.max_queue_size)
        self.stream = stream

    def __len__(self):
        return len(self.stream)

    def __getitem__(self, index):
        return keras.tree.map_structure(
            lambda values: values[processes.rows(len(values))], self.stream[index]
        )

    def on_epoch_begin(self):
        """Passes it on."""
        self.stream.on_epoch_begin()

    def on_epoch_end(self):
        """Passes it on: the stream draws a new order."""
        self.stream.on_epoch_end()
