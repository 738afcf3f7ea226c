"""What the fuzzer puts into folders: broken images, odd links, models and runs with damage."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from PIL import Image

# Lines of flagfiles that are no flags, or not good ones.
LINES = (
    "text", "--", "-", "--=", "--seed", "--flagfile", "--flagfile=", "--flagfile=a.flags",
    "--flagfile=b.flags", "--flagfile=../none", "# words", "// words", "--seed=1 # 2", "\ufeff",
    "--seed=\0", "--ood=folder:/\0", "--" + "x" * 5000, "--undefok=seed", "--nohelp=1", "--seed= 3",
)  # fmt: skip


def _encoded(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def _image(mode: str = "RGB", size: tuple[int, int] = (9, 7)) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def _png(width: int, height: int) -> bytes:
    """A PNG whose header promises a size that its data do not have."""
    header = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    chunks = b""
    for name, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 9)), (b"IEND", b"")):
        chunks += struct.pack(">I", len(data)) + name + data
        chunks += struct.pack(">I", zlib.crc32(name + data))
    return b"\x89PNG\r\n\x1a\n" + chunks


def _sixteen_bits() -> Image.Image:
    return Image.fromarray(np.arange(63, dtype=np.uint16).reshape(7, 9) * 1000)


IMAGES: dict[str, Callable[[], bytes]] = {
    "png": lambda: _encoded(_image(), "PNG"),
    "jpeg": lambda: _encoded(_image(), "JPEG"),
    "truncated jpeg": lambda: _encoded(_image(size=(64, 64)), "JPEG")[:700],
    "animated gif": lambda: _encoded(
        _image("P"), "GIF", save_all=True, append_images=[_image("L")]
    ),
    "16-bit png": lambda: _encoded(_sixteen_bits(), "PNG"),
    "cmyk jpeg": lambda: _encoded(_image("CMYK"), "JPEG"),
    "transparent png": lambda: _encoded(_image("RGBA"), "PNG"),
    "1-bit png": lambda: _encoded(_image("1"), "PNG"),
    "webp": lambda: _encoded(_image(), "WEBP"),
    "one pixel": lambda: _encoded(_image(size=(1, 1)), "PNG"),
    "one row": lambda: _encoded(_image(size=(3000, 1)), "PNG"),
    "huge header": lambda: _png(2**31 - 1, 2**31 - 1),
    "large header": lambda: _png(12_000, 12_000),
    "no width": lambda: _png(0, 5),
    "empty": lambda: b"",
    "text": lambda: b"not an image\n",
    "noise": lambda: np.random.default_rng(1).bytes(300),
}
_ODD = ("circle", "dangling link", "folder", "unreadable", "pipe")
_NAMES = (
    "a.png", "b.jpg", "c.jpeg", "d.gif", "e.webp", "f.bmp", "g.PNG", "h.txt", ".hidden.png",
    "i j.png", "é.png", "\udcff.png", "line\nbreak.png", "x" * 200 + ".png", "classes.txt",
)  # fmt: skip
_FOLDERS = (
    "", "cat/", "dog/", "train/cat/", "train/dog/", "test/cat/", "test/dog/", "nyuv2/",
    "train/images/", "train/labels/", "test/images/", "test/labels/", "/".join("deep" * 12) + "/",
)  # fmt: skip


@st.composite
def folders(draw: st.DrawFn) -> list[tuple[str, str]]:
    """Some files, as pairs of kind and place, under `in`."""
    kinds = st.sampled_from([*IMAGES, *_ODD])
    # Half of the folders hold images alone that can be read.
    good = st.sampled_from(["png", "jpeg", "animated gif", "16-bit png", "cmyk jpeg", "webp"])
    chosen = draw(st.sampled_from([kinds, good | good | good | kinds, good]))
    places = draw(st.lists(st.sampled_from(_FOLDERS), min_size=1, max_size=4, unique=True))
    names = draw(st.lists(st.sampled_from(_NAMES), max_size=7, unique=True))
    files = [("folder", "in/.")]
    for place in places:
        files += [(draw(chosen), f"in/{place}{name}") for name in names]
        if draw(st.booleans()):
            files += [(draw(chosen), f"in/{place}{index}.png") for index in range(6)]
    return files


@st.composite
def idx_files(draw: st.DrawFn) -> list[tuple[str, str]]:
    """Fashion-MNIST's files, broken in one way or another."""
    names = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
    names += ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    # Without any file there the data set would be downloaded.
    kinds = st.sampled_from(["idx", "idx3", "empty", "text", "noise", "gzip"])
    ending = draw(st.sampled_from(["", ".gz"]))
    return [(draw(kinds), f"in/{name}{ending}") for name in names]


MODELS = (
    "empty", "text", "noise", "folder", "zip", "zip without weights", "zip of a list",
    "zip of a deep list", "zip of lambda", "zip of a custom layer", "zip of os.system", "truncated",
    "dangling link", "pipe",
)  # fmt: skip
_RUN_FILES = (
    "flags.txt", "metrics.json", "history.csv", "student.keras", "checkpoints/last.keras",
    "checkpoints/sha256.json", "selection.json", "teacher.json",
)  # fmt: skip


@st.composite
def damages(draw: st.DrawFn) -> list[tuple[str, str]]:
    """Damage to the files of a run."""
    kinds = ("empty", "text", "noise", "json list", "json null", "json nan", "gone", "flipped")
    kinds += ("folder", "truncated", "zip of lambda", "dangling link")
    names = draw(st.lists(st.sampled_from(_RUN_FILES), max_size=2, unique=True))
    return [(draw(st.sampled_from(kinds)), f"run/{name}") for name in names]


def _zip(config: object, weights: bytes | None = b"") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.1"}))
        archive.writestr("config.json", config if isinstance(config, str) else json.dumps(config))
        if weights is not None:
            archive.writestr("model.weights.h5", weights)
    return file.getvalue()


def sequential(layer: dict[str, object]) -> dict[str, object]:
    """The configuration of a model with one layer, as a `.keras` file holds it."""
    return {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": "model", "layers": [layer]},
        "registered_name": None,
        "build_config": {"input_shape": [None, 8, 8, 1]},
    }


# `lambda x: x`, as Keras serialises it; what it does must never matter.
LAMBDA = {
    "module": "keras.layers",
    "class_name": "Lambda",
    "config": {"function": {"class_name": "__lambda__", "config": {"value": "4wE=", "closure": 0}}},
    "registered_name": None,
}
CUSTOM = {
    "module": "strangers.package",
    "class_name": "Theirs",
    "config": {},
    "registered_name": "strangers>Theirs",
}
SYSTEM = {
    "module": "os",
    "class_name": "function",
    "config": "system",
    "registered_name": "system",
}
_CONTENT: dict[str, Callable[[], bytes]] = IMAGES | {
    "idx": lambda: struct.pack(">4I", 2051, 20, 28, 28) + bytes(20 * 784),
    "idx3": lambda: struct.pack(">4I", 2051, 2**31, 28, 28) + bytes(9),
    "gzip": lambda: b"\x1f\x8b\x08\0junk",
    "zip": lambda: _zip({}),
    "zip without weights": lambda: _zip(sequential(CUSTOM), None),
    "zip of a list": lambda: _zip([1, 2]),
    "zip of a deep list": lambda: _zip("[" * 100_000),
    "zip of lambda": lambda: _zip(sequential(LAMBDA)),
    "zip of a custom layer": lambda: _zip(sequential(CUSTOM)),
    "zip of os.system": lambda: _zip(sequential(SYSTEM)),
    "json list": lambda: b"[1]",
    "json null": lambda: b"null",
    "json nan": lambda: b'{"method": NaN, "dataset": 3, "edges": "x"}',
}


def make(kind: str, path: Path) -> None:
    """Makes one file of a kind, in place of what is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    old = path.read_bytes() if path.is_file() else b"PK" * 500
    if path.is_file() or path.is_symlink():
        path.unlink()
    if kind == "folder":
        path.mkdir(exist_ok=True)
    elif kind == "circle":
        path.symlink_to(path.parent)
    elif kind == "dangling link":
        path.symlink_to(path.parent / "nowhere")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "truncated":
        path.write_bytes(old[: len(old) // 2])
    elif kind == "flipped":
        middle = len(old) // 2
        path.write_bytes(old[:middle] + bytes([old[middle] ^ 1]) + old[middle + 1 :])
    elif kind == "unreadable":
        path.write_bytes(IMAGES["png"]())
        path.chmod(0)
    elif kind.startswith("text:"):
        path.write_bytes(kind.removeprefix("text:").encode(errors="surrogateescape"))
    elif kind != "gone":
        path.write_bytes(_CONTENT[kind]())
