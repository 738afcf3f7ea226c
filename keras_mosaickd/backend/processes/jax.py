"""The processes' group on JAX, and programs over the rows of all of them.

Between training steps every process's arrays are its own, so that networks can be run, saved and
judged in one process as in several. For a step they are seen as what they are, copies of one
replicated array and parts of one batch; nothing is copied for that.
"""

import os

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from keras_mosaickd.errors import InputError

_VARIABLES = tuple(
    f"KERAS_DISTRIBUTION_{name}" for name in ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID")
)
_JOINING = 300


def start():
    """Joins the group of the launcher's variables; returns `(rank, count)`."""
    if not jax.distributed.is_initialized():
        # Without an effect where JAX computes on accelerators, which bring their own.
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        try:
            jax.distributed.initialize(**_by_hand(), initialization_timeout=_JOINING)
        except ValueError as error:
            raise InputError(
                f"--strategy=processes must be started with {', '.join(_VARIABLES)}, or by a "
                "launcher that JAX knows: SLURM, Open MPI, Kubernetes (docs/several_devices.md). "
                f"Received: none that is whole ({error})"
            ) from error
    return jax.process_index(), jax.process_count()


def host():
    """The name by which the launcher tells the others where the chief is."""
    address = os.environ.get(_VARIABLES[0], "").split(",")[0]
    return address.rpartition(":")[0] or address


def broadcast(array):
    """The chief's uint8 array, to all."""
    if jax.process_count() == 1:
        return np.asarray(array)
    return np.asarray(multihost_utils.broadcast_one_to_all(np.asarray(array)))


def _by_hand():
    given = {name: os.environ[name] for name in _VARIABLES if os.environ.get(name)}
    if not given:
        return {}
    if len(given) < len(_VARIABLES):
        missing = [name for name in _VARIABLES if name not in given]
        raise InputError(f"expected {', '.join(_VARIABLES)}. Received: no {', '.join(missing)}")
    addresses, *numbers = given.values()
    if not all(number.isdecimal() for number in numbers):
        raise InputError(
            f"expected whole numbers in {', '.join(_VARIABLES[1:])}. Received: {given}"
        )
    count, number = map(int, numbers)
    return {
        "coordinator_address": addresses.split(",")[0],
        "num_processes": count,
        "process_id": number,
    }


class Together:
    """A training step's function as one program over all processes.

    Args:
        function: `(state, *others) -> (logs, state, ...)`, a pure function; the state is donated.
        more: number of results that follow logs and state and are, unlike them, parts of the batch.
    """

    def __init__(self, function, more=0):
        mesh = Mesh(np.array(jax.devices()), ("batch",))
        self.replicated = NamedSharding(mesh, PartitionSpec())
        self.split = NamedSharding(mesh, PartitionSpec("batch"))
        shardings = (self.replicated,) * 2 + (self.split,) * more
        self.program = jax.jit(function, donate_argnums=0, out_shardings=shardings)

    def __call__(self, *arguments):
        """Runs the program on arrays that `replicate` and `divide` made."""
        return self.program(*arguments)

    def replicate(self, values):
        """This process's copies as the arrays of all."""
        return jax.tree.map(self._replicated, values)

    def divide(self, values):
        """This process's rows as parts of the arrays of all."""
        return jax.tree.map(self._divided, values)

    def own(self, values):
        """This process's copies of what is the same in all."""
        return jax.tree.map(lambda value: value.addressable_data(0), values)

    def _divided(self, rows):
        if isinstance(rows, jax.Array) and jax.local_device_count() == 1:
            # On its device already.
            shape = (len(rows) * jax.process_count(), *rows.shape[1:])
            return jax.make_array_from_single_device_arrays(shape, self.split, [rows])
        return jax.make_array_from_process_local_data(self.split, np.asarray(rows))

    def _replicated(self, value):
        value = jax.numpy.asarray(value)
        copies = [jax.device_put(value, device) for device in jax.local_devices()]
        return jax.make_array_from_single_device_arrays(value.shape, self.replicated, copies)
