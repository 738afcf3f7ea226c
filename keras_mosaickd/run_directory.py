"""The directory of one run: whose it is, what it holds, and where it came from."""

import contextlib
import json
import keyword
import os
import platform
import re
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

from keras_mosaickd import __version__, files
from keras_mosaickd.backend import processes
from keras_mosaickd.config import ExperimentConfig
from keras_mosaickd.errors import InputError

FLAGS, METRICS, HISTORY, ENVIRONMENT = (
    "flags.txt",
    "metrics.json",
    "history.csv",
    "environment.json",
)
STUDENT, SAVED_MODEL, SAMPLES = "student.keras", "saved_model", "samples.png"
SELECTION, UNREADABLE, MODEL_CARD = "selection.json", "unreadable.txt", "model_card.md"
# What the flags name by paths, and the teacher that was trained for the run, by their content.
INPUTS, TEACHER = "inputs.json", "teacher.json"
CHECKPOINT, TENSORBOARD = Path("checkpoints") / "last.keras", "tensorboard"
BEST_STUDENT = Path("checkpoints") / "best_student.keras"
# Beside the checkpoints.
CHECKSUMS = "sha256.json"

# Where a run lies, where it finds things and which devices carry it do not make it another run.
PLACES = ("run_dir", "data_dir", "cache_dir", "import_", "unsafe_load", "strategy")
_PUBLISHED = re.compile(r"^# Published: ([0-9]+(?:\.[0-9]+)?) %", re.MULTILINE)


class RunDirectory:
    """One run's directory; of several processes the chief alone holds it and writes.

    Args:
        path: the directory; it need not exist.
    """

    def __init__(self, path):
        self.path = Path(path)

    def __truediv__(self, name):
        return self.path / name

    @property
    def is_finished(self):
        """Whether the run in it came to its end."""
        return (self / METRICS).is_file()

    def check(self, settings):
        """Raises unless the run of `settings` may be written here, or continued.

        Args:
            settings: dict of the run's flags.

        Raises:
            InputError: if the directory cannot be written to, holds a finished run, another
                run, or something that is no run.
        """
        processes.from_chief(lambda: self._check(settings))

    def _check(self, settings):
        try:
            is_there = self.path.exists()
        except OSError as error:  # such as a name that is too long
            raise InputError(
                f"--run_dir must be a directory that can be made. Received: {self.path} "
                f"({error.strerror})"
            ) from error
        if is_there and not self.path.is_dir():
            raise InputError(f"--run_dir must be a directory. Received: the file {self.path}")
        parent = next(p for p in (self.path, *self.path.absolute().parents) if p.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            raise InputError(f"--run_dir must be writable. Received: {self.path}")
        # A kill in the first moments leaves hidden files at most: a lock, a temporary file.
        if not self.path.is_dir() or all(path.name[0] == "." for path in self.path.iterdir()):
            return
        if not (self / FLAGS).is_file():
            raise InputError(
                "--run_dir must be new, empty, or hold an interrupted run with the same flags. "
                f"Received: {self.path}, which holds other files"
            )
        # What was named by a path is known by its content (`check_inputs`), and may have moved.
        skipped = {*PLACES, *self._inputs()}
        written = self.settings()
        mine = {name: flag_value(value) for name, value in settings.items()}
        different = sorted(
            name
            for name in set(written) | set(mine)
            if name not in skipped and written.get(name) != mine.get(name)
        )
        if different:
            name = different[0]
            raise InputError(
                f"--run_dir {self.path} holds another run. Expected: the same flags, or another "
                f"directory. Received: {flag_line(name, mine.get(name))}, there "
                f"{written.get(name) or 'none'}"
            )
        if self.is_finished:
            raise InputError(
                f"--run_dir {self.path} holds this run, finished already: its results are in "
                f"{self / METRICS}"
            )
        self._check_backend()

    def _check_backend(self):
        """Raises where another backend would resume: from there on it would be another run."""
        import keras

        saved = (self / CHECKPOINT, previous(self / CHECKPOINT))
        if not (self / ENVIRONMENT).is_file() or not any(path.is_file() for path in saved):
            return
        begun, backend = self.read_json(ENVIRONMENT).get("backend"), keras.backend.backend()
        if begun != backend:
            raise InputError(
                f"--run_dir {self.path} holds a run that began on another backend. Expected: "
                f"KERAS_BACKEND={begun}, or another directory. Received: {backend}"
            )

    def check_inputs(self, inputs):
        """Raises unless what a run's flags name by paths is what the run here began with.

        Args:
            inputs: dict from the flag to the SHA-256 of what it names.

        Raises:
            InputError: if anything of it has changed; where it lies does not matter.
        """
        processes.from_chief(lambda: self._check_inputs(inputs))

    def _check_inputs(self, inputs):
        known = self._inputs()
        changed = sorted(name for name in known if known[name] != inputs.get(name))
        if changed:
            raise InputError(
                f"--run_dir {self.path} holds another run. Expected: what --{changed[0]} named "
                "when it began, wherever it lies now, or another directory. Received: other content"
            )

    def _inputs(self):
        return self.read_json(INPUTS) if (self / INPUTS).is_file() else {}

    @contextlib.contextmanager
    def claimed(self, settings):
        """Holds the directory for a run, and writes its flags.

        Args:
            settings: dict of the run's flags.

        Raises:
            InputError: as of `check` and `alone`; nothing is written then.
        """
        self.check(settings)
        with contextlib.ExitStack() as stack:

            def claim():
                try:
                    self.path.mkdir(parents=True, exist_ok=True)
                except OSError as error:
                    raise InputError(
                        f"--run_dir must be a directory that can be made. Received: {self.path} "
                        f"({error.strerror})"
                    ) from error
                stack.enter_context(self.alone())
                # Another run may have begun here meanwhile.
                self.check(settings)
                self.write_flags(settings)

            processes.from_chief(claim)
            processes.check_shared(run_dir=self.path)
            yield

    def write_flags(self, settings):
        """Writes settings as a flagfile that repeats the run, sorted by name."""
        lines = [flag_line(name, settings[name]) for name in sorted(settings)]
        files.write_file(self / FLAGS, "".join(f"{line}\n" for line in lines))

    @contextlib.contextmanager
    def alone(self):
        """Holds the directory for this process; the system frees it when that ends in any way.

        Raises:
            InputError: if another process is writing there.
        """
        with contextlib.ExitStack() as stack:
            try:
                lock = stack.enter_context(files.locked(self / ".lock"))
            except BlockingIOError:
                raise InputError(
                    "--run_dir must not be in use by another process. "
                    f"Received: {self.path}, which one is writing to"
                ) from None
            if lock is not None:
                for folder in (self.path, (self / CHECKPOINT).parent):
                    files.remove_abandoned(folder, older_than=0)
            yield

    def settings(self):
        """What `flags.txt` says, as text by the names of `ExperimentConfig`.

        A run of an earlier version had what later flags are by default.
        """
        lines = (self / FLAGS).read_text(encoding="utf-8", errors="replace").splitlines()
        pairs = (line.removeprefix("--").partition("=") for line in lines if line.startswith("--"))
        defaults = {name: flag_value(value) for name, value in vars(ExperimentConfig()).items()}
        return defaults | {field_name(name): value for name, _, value in pairs}

    def write_json(self, name, values):
        """Writes a dict as JSON, whole or not at all."""
        if processes.is_chief():
            files.write_file(self / name, json.dumps(values, indent=2) + "\n")

    def write_unreadable(self, paths):
        """Lists the images that were left out, one path in each line, where there are any."""
        if paths and processes.is_chief():
            files.write_file(self / UNREADABLE, os.fsencode("\n".join(paths) + "\n"))

    def read_json(self, name):
        """Reads what `write_json` wrote.

        Raises:
            InputError: if it is missing or no JSON object.
        """
        try:
            values = json.loads((self / name).read_text(encoding="utf-8"))
            if not isinstance(values, dict):
                raise ValueError(f"a JSON {type(values).__name__}")
            return values
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(
                f"--run_dir must hold a finished run with a readable {name}. "
                f"Received: {self.path} ({error})"
            ) from error


def previous(path):
    """Where the checkpoint before that at `path` is kept."""
    return Path(path).with_name("previous.keras")


def newest_intact(path):
    """The newest checkpoint whose content is what was saved.

    Args:
        path: the newest one's place.

    Returns:
        Its path, or None where none was saved. A damaged one is named on standard output.

    Raises:
        InputError: if all that were saved are damaged.
    """
    found = processes.from_chief(lambda: _newest_intact(Path(path)))
    return None if found is None else Path(found)


def _newest_intact(path):
    found = [file for file in (path, previous(path)) if file.is_file()]
    for file in found:
        if files.file_sha256(file) in known_checksums(path.parent):
            return str(file)
        print(f"The checkpoint {file} is damaged: its SHA-256 is not the one recorded")
    if found:
        raise InputError(
            f"expected an intact checkpoint; remove {path.parent} to start again. Received: "
            f"{', '.join(str(file) for file in found)}, damaged"
        )
    return None


def known_checksums(folder):
    """SHA-256 of the checkpoints that were saved in a directory, the newest last."""
    try:
        known = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return known if isinstance(known, list) else []


def flag_value(value):
    """A setting as a flagfile writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def flag_line(name, value):
    """A setting as a flagfile's line; its name is the flag's or that of `ExperimentConfig`."""
    return f"--{name.removesuffix('_')}={flag_value(value)}"


def field_name(flag):
    """The name in `ExperimentConfig` of a flag, which Python's own words cannot be: `import_`."""
    return f"{flag}_" if keyword.iskeyword(flag) else flag


def published_accuracy(config_file):
    """The number in a flagfile's comment ``# Published: 61.01 %.`` as a fraction of 1.

    Args:
        config_file: path, or None.

    Returns:
        None where there is no file, or none that can be read, or it names no number.
    """
    try:
        text = files.read_text(config_file or "")
    except (OSError, UnicodeDecodeError):
        return None
    found = _PUBLISHED.search(text)
    return float(found[1]) / 100 if found else None


def environment(config):
    """Where a run came from: versions, backend, devices, commit, seed and command line.

    Args:
        config: `ExperimentConfig`.
    """
    import keras

    from keras_mosaickd.backend.training import devices

    backend = keras.backend.backend()
    packages = ("keras", backend, "numpy", "scikit-learn", "pillow")
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": sys.argv,
        "seed": config.seed,
        "unsafe_load": config.unsafe_load,
        "backend": backend,
        "devices": devices(),
        "processes": processes.count(),
        "commit": commit(),
        "versions": versions(*packages),
        "platform": platform.platform(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
    }


def commit():
    """The commit of this package's source, with `+changes` if it was edited; None outside git."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None

    def git(*arguments):
        command = ["git", "-C", str(root), *arguments]
        finished = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return finished.stdout.strip()

    try:
        head = git("rev-parse", "HEAD")
        changes = git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+changes" if changes else "")


def versions(*packages):
    """Versions of Python, of this package and of others; None of one that is not installed."""
    found: dict[str, str | None] = {
        "python": platform.python_version(),
        # Of the code that runs, installed or not.
        "keras-mosaickd": __version__,
    }
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found
