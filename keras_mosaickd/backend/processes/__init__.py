"""Several processes that train together: all that knows how many there are.

A launcher starts the same command several times (docs/several_devices.md), and `join` makes one
group of the processes. Until then, and where nobody joins, there is one process, and everything
here does what is right for one.

The first process is the chief. It alone writes files and prints; what the others need to know of it
they get by `from_chief`. Every function that talks to the others has to be called by all of them,
in the same order, except inside of `alone`.

A command's flags are checked with what stands in a run directory before numpy is imported; so it is
imported in functions here.
"""

import contextlib
import json
import uuid
from importlib import import_module
from pathlib import Path
from typing import Any

from keras_mosaickd.errors import InputError


class _State:
    """What this process is part of."""

    group: Any = None  # a `Group`
    is_alone = False


def join(prefix=None):
    """Makes this process one of a group, by the launcher's variables; once.

    PyTorch takes RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, as torchrun sets them; JAX
    KERAS_DISTRIBUTION_JOB_ADDRESSES, KERAS_DISTRIBUTION_NUM_PROCESSES and
    KERAS_DISTRIBUTION_PROCESS_ID, or what `jax.distributed.initialize` finds by itself.

    Args:
        prefix: what a line about another process's end begins with.

    Raises:
        InputError: on another backend, or where the variables are missing or wrong.
        RuntimeError: where the others do not come.
    """
    if _State.group is not None:
        return
    import keras

    backend = keras.backend.backend()
    if backend not in ("torch", "jax"):
        raise InputError(
            "--strategy=processes needs the PyTorch or the JAX backend. "
            f"Received: KERAS_BACKEND={backend}"
        )
    from keras_mosaickd.backend.processes.group import connect

    engine = import_module(f"{__name__}.{backend}")
    rank, count = engine.start()
    _State.group = connect(rank, count, engine.host(), engine.broadcast, prefix)


def leave(status=0, line=""):
    """Ends this process's part: with status 0 all wait for each other, else all end at once.

    Args:
        status: exit status of this process.
        line: what went wrong; the chief says it, or what went wrong before it elsewhere, and all
            processes end here.
    """
    if _State.group is not None and _State.group.count > 1:
        _State.group.leave(status, line)


def rank():
    """This process's number, from 0; 0 is the chief."""
    return 0 if _is_one() else _State.group.rank


def count():
    """Number of processes."""
    return 1 if _is_one() else _State.group.count


def is_chief():
    """Whether this is the process that writes and prints."""
    return rank() == 0


def of_chief(values):
    """The list itself at the chief, an empty one elsewhere."""
    return list(values) if is_chief() else []


@contextlib.contextmanager
def alone():
    """A context in which this process is one, so that nobody waits for it to take part."""
    before, _State.is_alone = _State.is_alone, True
    try:
        yield
    finally:
        _State.is_alone = before


def from_chief(function):
    """What a function gives at the chief, where alone it is called, as JSON to the others."""
    if _is_one():
        return function()
    if not is_chief():
        return json.loads(_State.group.receive())
    with alone():
        value = function()
    _State.group.send(json.dumps(value).encode())
    return value


def gather(array):
    """The arrays of all processes, in the order of their ranks; they may differ in shape."""
    import numpy as np

    return [np.asarray(array)] if _is_one() else _State.group.gather(np.asarray(array))


def barrier():
    """Waits until all processes are here."""
    gather([])


def rows(batch):
    """This process's rows of a global batch, a slice.

    Raises:
        InputError: if the batch cannot be divided evenly.
    """
    if batch % count():
        raise InputError(
            f"--batch_size must be divisible by the {count()} processes. Received: a batch of "
            f"{batch} images"
        )
    size = batch // count()
    return slice(rank() * size, (rank() + 1) * size)


def share(size, multiple=1):
    """This process's part of `size` things, a slice; parts begin at multiples of `multiple`."""
    units = -(-size // multiple)
    ends = [units * number // count() * multiple for number in (rank(), rank() + 1)]
    return slice(*(min(end, size) for end in ends))


def stop_now(signal_number):
    """The signal after which all processes stop here, or None.

    To be called at the end of every training step. One process's signal stops all of them after
    the same step.

    Args:
        signal_number: what this process has received, or None.
    """
    return signal_number if _is_one() else _State.group.stop_now(signal_number)


def copy_from_chief(variables):
    """Gives Keras variables the chief's values, where processes may have begun with others."""
    if _is_one():
        return
    import keras

    from keras_mosaickd.backend.processes.links import as_array, as_bytes

    for variable in variables:
        if is_chief():
            _State.group.send(as_bytes(keras.ops.convert_to_numpy(variable)))
        else:
            variable.assign(as_array(_State.group.receive()))


def own_rows(stream):
    """A stream's elements cut to this process's rows, unless it was made with those alone.

    Args:
        stream: `keras.utils.PyDataset`, all of whose leading axes are the global batch.

    Raises:
        InputError: if it is something else, which Keras would give whole to every process.
    """
    if _is_one() or getattr(stream, "has_own_rows", False):
        return stream
    from keras_mosaickd.backend.processes.stream import OwnRows

    return OwnRows(stream)


def check_equal(settings):
    """Raises unless all processes were started with the same settings.

    Args:
        settings: dict of a command's flags.

    Raises:
        InputError: in all of them, naming the flag and the process that has another value.
    """
    if _is_one():
        return
    import numpy as np

    texts = {name: json.dumps(value) for name, value in settings.items()}
    everyone = gather(np.frombuffer(json.dumps(texts).encode(), np.uint8))
    first, *others = (json.loads(bytes(found)) for found in everyone)
    for number, other in enumerate(others, 1):
        for name in sorted(set(first) | set(other)):
            if first.get(name) != other.get(name):
                raise InputError(
                    f"--{name} must be the same for all processes. Received: {first.get(name)} of "
                    f"process 0 and {other.get(name)} of process {number}"
                )


def check_shared(**directories):
    """Raises unless directories are the same place for all processes.

    Args:
        **directories: from the flag's name to the path; each is made if it is not there.

    Raises:
        InputError: naming the flag and the process that sees another place.
    """
    if _is_one():
        return
    name = from_chief(lambda: f".together-{uuid.uuid4().hex}")
    for flag, path in directories.items():
        token = Path(path) / name
        # What cannot be written is said by whoever writes there first.
        with contextlib.suppress(OSError) if is_chief() else contextlib.nullcontext():
            if is_chief():
                token.parent.mkdir(parents=True, exist_ok=True)
                token.touch()
        barrier()
        seen = [bool(found[0]) for found in gather([token.exists()])]
        if is_chief():
            token.unlink(missing_ok=True)
        if seen[0] and not all(seen):
            raise InputError(
                f"--{flag} must be the same place for all processes. Received: {path}, in which "
                f"process {seen.index(False)} of {count()} does not see what process 0 writes"
            )


def _is_one():
    return _State.group is None or _State.is_alone or _State.group.count == 1
