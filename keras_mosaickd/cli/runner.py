"""What all commands share: flags in, errors on one line, exit status out."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import textwrap
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from keras_mosaickd import __version__
from keras_mosaickd.cli import flags
from keras_mosaickd.cli.help import help_text
from keras_mosaickd.cli.process import (
    keep_compiled_programs,
    keep_freed_memory,
    use_onednn,
)
from keras_mosaickd.config import CACHE_DIR
from keras_mosaickd.errors import InputError, StoppedError, program
from keras_mosaickd.extras import is_installed, require, without_noise
from keras_mosaickd.run_directory import PLACES

BACKENDS = ("tensorflow", "jax", "torch")


def run(
    main: Callable[[flags.Parsed], None], command: str, arguments: Sequence[str] | None = None
) -> int:
    """Runs one command and returns its exit status.

    Args:
        main: Does the work with the parsed flags: checks what it can, then calls `load_backend`.
        command: Key of `flags.COMMANDS`.
        arguments: Defaults to those of this process.

    Returns:
        0 when done (``--help`` and ``--version`` included), 1 when something failed, 2 when the
        flags or the input cannot be used, 128 and the signal's number when one stopped it (130:
        interrupted). Every error is one line on stderr, unless ``--traceback`` asks for the whole
        story.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    show_traceback = False
    _make_printing_safe()
    try:
        parsed = flags.parse(command, arguments)
        if parsed.values["version"]:
            print(f"keras-mosaickd {__version__}")
            return 0
        if parsed.values["help"] or parsed.values["helpfull"]:
            width = max(60, min(100, shutil.get_terminal_size().columns))
            sys.stdout.write(help_text(command, width, parsed.values["helpfull"]))
            return 0
        show_traceback = parsed.values["traceback"]
        with _plain_warnings():
            _choose_backend(parsed)
            main(parsed)
        sys.stdout.flush()
        _leave_group(0)
        return 0
    except InputError as error:
        return _report(command, " ".join(str(error).split()), show_traceback, 2)
    except StoppedError as error:
        name = signal.Signals(error.signal_number).name
        line = f"{name}: saved; repeat the command to resume"
        return _report(command, line, show_traceback, 128 + error.signal_number)
    except KeyboardInterrupt:
        return _report(command, "interrupted", show_traceback, 130)
    except BrokenPipeError:
        # The reader of our output (such as head) has gone; nothing more can be said there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        first_line = (str(error).strip().splitlines() or [""])[0]
        story = f"failed: {type(error).__name__}: {first_line}"
        if not show_traceback:
            story += " (rerun with --traceback for the whole story)"
        return _report(command, story, show_traceback, 1)


def entry_point(main: Callable[[flags.Parsed], None], command: str) -> Callable[[], None]:
    """What a command's console script calls: `run`, whose status becomes that of the process."""
    return lambda: sys.exit(run(main, command))


def _make_printing_safe() -> None:
    """Lets nothing that is printed fail: names that are no UTF-8, streams that are closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed when the process began
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def required(parsed: flags.Parsed, *names: str) -> str:
    """Returns the one value given among flags of which exactly one is needed.

    Raises:
        InputError: None of them was given, or more than one.
    """
    given = [name for name in names if parsed.values[name]]
    if len(given) != 1:
        wanted = " or ".join(f"--{name}" for name in names)
        received = ", ".join(f"--{name}={parsed.values[name]}" for name in given) or "none"
        one = "exactly one of " if len(names) > 1 else ""
        raise InputError(f"expected {one}{wanted}. Received: {received}")
    return str(parsed.values[given[0]])


def refuse_bare_call(parsed: flags.Parsed, expected: str) -> None:
    """Lets a command that would begin hours of defaults say what it is told by instead.

    Args:
        parsed: The flags.
        expected: Which flags to give, with an example.

    Raises:
        InputError: None was given.
    """
    if not parsed.given:
        raise InputError(
            f"expected {expected}; usage: {program(parsed.command)} [--flagfile=FILE] "
            "[--name=value ...], see --help. Received: no flags"
        )


def load_backend(parsed: flags.Parsed) -> None:
    """Loads the backend and Keras quietly, which takes seconds, and what ``--import`` names.

    A command calls it when the flags that can be judged without Keras have been.

    Raises:
        InputError: The backend is not installed, or a module cannot be imported.
    """
    backend = os.environ["KERAS_BACKEND"]
    require(f"KERAS_BACKEND={backend}", backend)
    keep_freed_memory()
    if backend == "jax" and "cache_dir" in parsed.values:
        keep_compiled_programs(parsed.values["cache_dir"] or CACHE_DIR)
    if backend == "tensorflow":
        use_onednn()
    with without_noise():
        import keras

        if backend == "tensorflow":
            import tensorflow

            tensorflow.config.list_physical_devices()
        # Under every backend this loads TensorFlow, where it is installed, to seed it, too.
        keras.utils.set_random_seed(0)
    # Whatever a file in the home directory says.
    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    if parsed.values.get("strategy") == "processes":
        _join_group(parsed)
    if parsed.values.get("import"):
        from keras_mosaickd.networks.loading import import_modules

        import_modules(parsed.values["import"])


def print_values(values: dict[str, object]) -> None:
    """Prints one ``name value`` pair per line, numbers with up to six significant digits.

    What is not known (None) has no line, nor have dicts, which stand in the files that commands
    write, and lists of dicts: tables, which whoever made them has printed.
    """
    shown = {name: text for name, value in values.items() if (text := _shown(value))}
    width = max((len(name) for name in shown), default=0)
    for name, text in shown.items():
        print(f"{name:<{width}}  {text}")


def _shown(value: object) -> str:
    """A value on one line; nothing where it is no single value."""
    if value is None or isinstance(value, dict):
        return ""
    if isinstance(value, list):
        nested = any(isinstance(item, dict) for item in value)
        return (
            "" if nested else textwrap.shorten(", ".join(map(str, value)), 80, placeholder=" ...")
        )
    return f"{value:.6g}" if isinstance(value, float) else str(value)


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Prints a warning as one line on stdout: stderr is for errors."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        print(f"Warning: {' '.join(str(message).split())}", flush=True)

    with warnings.catch_warnings():
        # Pillow's, on images that are merely large; it refuses those twice as large.
        warnings.filterwarnings("ignore", "Image size .* could be decompression bomb")
        warnings.showwarning = show
        yield


def _report(command: str, message: str, with_traceback: bool, status: int) -> int:
    sys.stdout.flush()
    if with_traceback:
        traceback.print_exc()
    _leave_group(status, message)
    print(f"{program(command)}: {message}", file=sys.stderr, flush=True)
    return status


def _join_group(parsed: flags.Parsed) -> None:
    """Makes this process one of a group, of which the chief alone prints.

    Raises:
        InputError: Another process was started with other flags.
    """
    from keras_mosaickd.backend import processes

    with without_noise():
        processes.join(f"{program(parsed.command)}: ")
    # Paths may differ from machine to machine; `check_shared` looks at where they lead.
    mine = {name: value for name, value in parsed.values.items() if name not in (*PLACES, "import")}
    processes.check_equal({"command": parsed.command, **mine})
    if not processes.is_chief():
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if processes.count() > 1:

        def stop(number: int, _: object) -> None:
            raise StoppedError(number)

        # Whoever is told to end, by the launcher of one that died perhaps, can still say why.
        for name in ("SIGTERM", "SIGUSR1"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), stop)


def _leave_group(status: int, message: str = "") -> None:
    """Ends a group's process, which with a status other than 0 does not return."""
    processes = sys.modules.get("keras_mosaickd.backend.processes")
    if processes is not None:
        processes.leave(status, message)


def _choose_backend(parsed: flags.Parsed) -> None:
    """Checks KERAS_BACKEND; without it takes the first of `BACKENDS` that is installed.

    Only a command's process does this: the library changes no environment variable. Without
    KERAS_BACKEND a file in the home directory could choose another backend; a command does not
    depend on it.
    """
    if "KERAS_BACKEND" not in os.environ:
        installed = next(filter(is_installed, BACKENDS), None)
        if installed is None:
            raise InputError(
                "expected a backend: pip install '.[tensorflow]', '.[jax]' or '.[torch]' in the "
                "checkout. Received: none is installed"
            )
        os.environ["KERAS_BACKEND"] = installed
    backend = os.environ["KERAS_BACKEND"]
    if backend not in BACKENDS:
        raise InputError(
            f"expected KERAS_BACKEND to be one of {', '.join(BACKENDS)}. Received: {backend}"
        )
    several = "KERAS_DISTRIBUTION_JOB_ADDRESSES"
    if several in os.environ and parsed.values.get("strategy") != "processes":
        raise InputError(
            "expected one process, unless --strategy=processes says that there are several "
            f"(docs/several_devices.md). Received: {several}={os.environ[several]}"
        )
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
