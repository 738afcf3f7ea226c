"""Settings that a teacher from elsewhere brings with it: its revision, and what its card says."""

from __future__ import annotations

from pathlib import Path

from keras_mosaickd.cli import flags
from keras_mosaickd.config import CACHE_DIR
from keras_mosaickd.files import sha256, write_file


def settings_of(parsed: flags.Parsed) -> dict[str, str]:
    """Returns what ``--teacher`` settles besides itself, so that flags.txt repeats the run.

    A flag that was given wins over the model card.

    Args:
        parsed: The flags of a command that takes ``--teacher``; Keras has been loaded.

    Raises:
        InputError: The teacher is not to be had.
    """
    from keras_mosaickd.teachers import remote

    teacher = str(parsed.values["teacher"])
    if not remote.is_remote(teacher):
        return {}
    found = {"teacher": remote.pinned(teacher)}
    card = remote.card(found["teacher"])
    if card.teacher_input and "teacher_input" not in parsed.given:
        found["teacher_input"] = card.teacher_input
    if card.class_names and "class_names" not in parsed.given:
        text = "".join(f"{name}\n" for name in card.class_names)
        folder = Path(parsed.values["cache_dir"] or CACHE_DIR) / "class_names"
        path = folder / f"{sha256(text)[:16]}.txt"
        # A dry run writes nothing, and can do without names.
        if not parsed.values.get("dry_run"):
            write_file(path, text)
            found["class_names"] = str(path)
    said = [f"--{name}={value}" for name, value in found.items()]
    print(f"From the teacher's source: {' '.join(said)}")
    return found
