"""What a command sets for its own process before a backend is loaded."""

import ctypes
import os
import platform
from importlib import metadata
from pathlib import Path

from keras_mosaickd.files import sha256

# Parameters of glibc's mallopt, and what takes their place in the environment.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
_LARGEST_TRIM, _LARGEST_MMAP = 2**31 - 1, 32 * 2**20


def keep_freed_memory() -> bool:
    """Lets glibc keep what training frees in each step and needs again in the next.

    By default it is given back to the kernel and fetched again, page by page; the peak is the same.

    Returns:
        Whether it was done: not on another C library, nor where the user's variables say otherwise.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in _VARIABLES):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(
        mallopt(_M_TRIM_THRESHOLD, _LARGEST_TRIM) and mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP)
    )


def use_onednn() -> None:
    """Lets TensorFlow use oneDNN's kernels on every x86 processor; the user's variable wins.

    By itself it does so only where there are AVX-512's instructions for neural networks. With AVX2
    alone a training step takes 2.9 times as long without them (docs/speed.md).
    """
    if platform.machine().lower() in ("x86_64", "amd64"):
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def keep_compiled_programs(cache_dir: str | Path) -> None:
    """Lets JAX keep what it compiles under `cache_dir`, so that the next run need not.

    JAX's own variables win. Programs are for one jaxlib and one kind of processor, which are part
    of the directory's name.

    Args:
        cache_dir: The command's `--cache_dir`.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    kind = f"{metadata.version('jaxlib')}-{_processor()}"
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(cache_dir).absolute() / "jax" / kind)
    # What takes less time to compile takes no less to read.
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")


def _processor() -> str:
    """A short name of the processor and what it can do."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    told = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    return sha256("\n".join([platform.machine(), platform.processor(), *told]))[:8]
