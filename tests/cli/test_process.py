"""What a command sets for its own process before a backend is loaded."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from keras_mosaickd.cli.process import keep_compiled_programs, keep_freed_memory, use_onednn

COMPILE = """
import sys
from keras_mosaickd.cli.process import keep_compiled_programs
keep_compiled_programs(sys.argv[1])
import jax
jax.jit(lambda x: x @ x + 1.0)(jax.numpy.ones((8, 8))).block_until_ready()
"""


@pytest.mark.slow
def test_jax_keeps_what_it_compiles_under_the_cache(tmp_path):
    environment = {**os.environ, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)  # bin/test's own
    command = [sys.executable, "-c", COMPILE, str(tmp_path)]
    subprocess.run(command, env=environment, check=True)
    (kind,) = (tmp_path / "jax").iterdir()
    programs = {path.name for path in kind.iterdir() if path.name.endswith("-cache")}
    assert programs
    subprocess.run(command, env=environment, check=True)
    assert [*(tmp_path / "jax").iterdir()] == [kind]
    assert {path.name for path in kind.iterdir() if path.name.endswith("-cache")} == programs


def test_a_cache_of_the_users_own_wins(monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "elsewhere")
    keep_compiled_programs(tmp_path)
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "elsewhere"


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_memory_is_left_to_whoever_has_set_it(monkeypatch, name):
    for other in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "1")
    assert not keep_freed_memory()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
def test_freed_memory_stays_with_the_process():
    program = """
import ctypes, sys
from keras_mosaickd.cli.process import keep_freed_memory
if len(sys.argv) > 1:
    assert keep_freed_memory()
malloc, free = ctypes.CDLL(None).malloc, ctypes.CDLL(None).free
malloc.restype, free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
pages = lambda: int(open("/proc/self/statm").read().split()[1])
block = malloc(16 << 20)
ctypes.memset(ctypes.c_void_p(block), 1, 16 << 20)
full = pages()
free(block)
print(full - pages())
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    environment.pop("GLIBC_TUNABLES", None)
    freed = [
        int(
            subprocess.run(
                [sys.executable, "-c", program, *options],
                env=environment,
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        )
        for options in ([], ["keep"])
    ]
    assert freed[0] >= 4000, "without it, 16 MiB go back to the kernel"
    assert freed[1] < 100


@pytest.mark.parametrize(
    ("machine", "given", "expected"),
    [("x86_64", None, "1"), ("AMD64", None, "1"), ("aarch64", None, None), ("x86_64", "0", "0")],
)
def test_onednn_is_used_on_x86_unless_the_user_says_otherwise(
    machine, given, expected, monkeypatch
):
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS")
    if given:
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", given)
    use_onednn()
    assert os.environ.get("TF_ENABLE_ONEDNN_OPTS") == expected
