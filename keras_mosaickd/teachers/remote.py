"""Teachers that lie elsewhere: fetched, checked, kept in the usual caches, loaded in safe mode.

A URL carries the SHA-256 of the file that is meant, and a name on the Hugging Face Hub becomes one
with its revision, so that what a run is repeated with is what it was made with.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import keras

from keras_mosaickd.errors import InputError
from keras_mosaickd.extras import require
from keras_mosaickd.files import file_sha256, sha256

_URL = re.compile(r"(?P<url>https?://[^#\s]+)#sha256=(?P<sha256>[0-9a-fA-F]{64})")
_HUB = re.compile(
    r"hf://(?P<repo>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w.-]+))?(?:/(?P<file>.+\.(?:keras|h5)))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
# What `keras.saving.save_model` writes to the Hub: a .keras file that is not zipped.
_UNZIPPED = ("config.json", "metadata.json", "model.weights.h5")
_CARD = "README.md"


class Card(NamedTuple):
    """What the model card on the Hub says of a teacher.

    Attributes:
        class_names: Names of the outputs in their order, or none.
        teacher_input: As `--teacher_input`, or empty.
    """

    class_names: tuple[str, ...] = ()
    teacher_input: str = ""


def is_remote(text: str) -> bool:
    """Whether `--teacher` names something elsewhere."""
    return text.startswith(("https://", "http://", "hf://"))


def pinned(text: str) -> str:
    """The name with what makes it one content for ever: the revision, which is asked for.

    Raises:
        InputError: It is no such name, or the Hub does not answer or know it.
    """
    if not text.startswith("hf://"):
        _matched(_URL, text)
        return text
    parts = _matched(_HUB, text)
    revision = parts["revision"] or ""
    if not _COMMIT.fullmatch(revision):
        hub = _hub(text)
        with _Reported(text):
            revision = hub.HfApi().model_info(parts["repo"], revision=revision or None).sha
    file = f"/{parts['file']}" if parts["file"] else ""
    return f"hf://{parts['repo']}@{revision}{file}"


def fetched(text: str) -> str:
    """Path of the file (of an unzipped one: the directory) that the name stands for.

    A URL's is kept under KERAS_HOME (`~/.keras`), the Hub's where huggingface_hub keeps its files;
    neither is fetched twice.

    Raises:
        InputError: It is no such name, cannot be fetched, has another SHA-256, or holds no one
            Keras model.
    """
    if text.startswith("hf://"):
        return _model_in(_snapshot(text), _matched(_HUB, text)["file"], text)
    parts = _matched(_URL, text)
    name = Path(urlsplit(parts["url"]).path).name
    if not name.lower().endswith((".keras", ".h5", ".hdf5")):
        raise InputError(f"expected the URL of a .keras or .h5 file. Received: {text}")
    with _Reported(text):
        return str(
            keras.utils.get_file(
                fname=f"{parts['sha256'][:16]}-{name}",
                origin=parts["url"],
                file_hash=parts["sha256"].lower(),
                hash_algorithm="sha256",
                cache_subdir="keras_mosaickd",
            )
        )


def content_hash(text: str) -> str:
    """SHA-256 of what was fetched."""
    path = Path(fetched(text))
    if path.is_file():
        return file_sha256(path)
    return sha256(f"{name}\0{file_sha256(path / name)}\n" for name in _UNZIPPED)


def card(text: str) -> Card:
    """What the card says: its `class_names` (or `id2label`) and `teacher_input`.

    Raises:
        InputError: It says something else than texts there.
    """
    if not text.startswith("hf://"):
        return Card()
    path = _snapshot(text) / _CARD
    if not path.is_file():
        return Card()
    with _Reported(text):
        said = _hub(text).ModelCard.load(path).data.to_dict()
    names = said.get("class_names") or said.get("id2label") or ()
    if isinstance(names, dict):
        names = [names[key] for key in sorted(names, key=int)]
    taken = said.get("teacher_input") or ""
    if not all(isinstance(name, str) for name in (*names, taken)):
        raise InputError(
            f"expected texts as class_names and teacher_input of the model card. Received: {text}"
        )
    return Card(tuple(names), taken)


def _snapshot(text: str) -> Path:
    parts = _matched(_HUB, pinned(text))
    patterns = [parts["file"] or "*.keras", *_UNZIPPED, _CARD]
    hub = _hub(text)
    with _Reported(text):
        return Path(
            hub.snapshot_download(
                parts["repo"], revision=parts["revision"], allow_patterns=patterns
            )
        )


def _model_in(folder: Path, file: str | None, text: str) -> str:
    found = [folder / file] if file else sorted(folder.glob("**/*.keras"))
    if len(found) == 1 and found[0].is_file():
        return str(found[0])
    if not found and all((folder / name).is_file() for name in _UNZIPPED):
        return str(folder)
    names = ", ".join(path.relative_to(folder).as_posix() for path in found if path.is_file())
    raise InputError(
        "expected one .keras file there, or hf://OWNER/NAME/FILE.keras. Received: "
        f"{text} with {names or 'none'}"
    )


def _matched(pattern: re.Pattern[str], text: str) -> re.Match[str]:
    match = pattern.fullmatch(text)
    if match is None:
        raise InputError(
            "expected https://.../NAME.keras#sha256=HASH (64 digits: what is loaded is then what "
            "you looked at) or hf://OWNER/NAME, with @REVISION and /FILE.keras where they are "
            f"meant. Received: {text}"
        )
    return match


def _hub(text: str) -> Any:
    require(text, "huggingface_hub")
    import huggingface_hub

    return huggingface_hub


class _Reported:
    """A context in which what a download raises becomes one line with the name in it."""

    def __init__(self, text: str):
        self.text = text

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, InputError):
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise InputError(
                f"expected a teacher that can be fetched. Received: {self.text} ({reason})"
            ) from error
