"""The initial values of variables, without a long wait for the compiler."""

import contextlib
import functools

import keras


def drawn_quickly(build):
    """Makes what builds or loads networks draw initial values by programs that compile quickly.

    On JAX the values of every shape are a program of their own. The random numbers that JAX draws
    by default can be divided among devices, and their programs take three times as long to
    compile, which adds up to a quarter of the time to the end of the first step (docs/speed.md).
    Networks start on one device. A loaded network draws its initial values, too, before those of
    the file take their place. Other backends compile nothing here.
    """

    @functools.wraps(build)
    def quick(*args, **kwargs):
        with _indivisible():
            return build(*args, **kwargs)

    return quick


def _indivisible():
    if keras.backend.backend() != "jax":
        return contextlib.nullcontext()
    import jax

    return jax.threefry_partitionable(False)
