"""Random teachers, input ranges and folders through `bin/teacher`, against plain Keras.

`cases()` is a hypothesis strategy. A case is a model as Keras users make them, how its input is
declared, and a folder of labelled images. Whatever is accepted must report the accuracy that Keras
and Pillow alone find on the same files, and say where the declared range contradicts the model;
what cannot be right must be refused.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import absl.logging
import keras
import numpy as np
from hypothesis import strategies as st
from keras import layers
from PIL import Image

from tests import fuzz

SIDE = 8
# Units of the last layer, its activation, and the classes that it tells apart; None: independent
# labels, which folders of classes cannot measure.
HEADS = {
    "softmax": (3, "softmax", 3),
    "softmax of two": (2, "softmax", 2),
    "logits": (3, None, 3),
    "binary": (1, "sigmoid", 2),
    "binary logit": (1, None, 2),
    "labels": (3, "sigmoid", None),
}
INSIDE = ("nothing", "1/255", "1/127.5 - 1", "normalization")
SHAPES = ("sequential", "functional", "nested", "any size", "two outputs")
ENDINGS = (".keras", ".h5")
# Those for any channels, for three, for none.
RANGES = ("0-1", "0-255", "-1-1", "tf", "0.5/0.25", "torch", "caffe", "0.2,0.4,0.6/0.3", "", "1")
NAMES = (
    ("cat", "dog", "eel"),
    ("cat", "dog"),
    ("0", "1", "2"),
    ("1", "2", "10"),  # read as 1, 10, 2
    ("Zebra", "ant", "bee"),  # capitals come first
    ("one",),
)
FORMATS = ("png", "bmp", "tiff", "webp", "gif", "jpg")
MODES = ("RGB", "L", "RGBA")
EXTRAS = ("stray", "text", "damaged", "empty class")
TEST = ("test", "val", "valid", "validation")


@dataclasses.dataclass(frozen=True)
class Case:
    """A teacher, what is said of it, and labelled images."""

    head: str
    inside: str
    shape: str
    channels: int
    ending: str
    declared: str
    output: str
    names: tuple[str, ...]
    order: tuple[int, ...] | None  # of the file of class names; None without one
    test: str
    file_format: str
    mode: str
    extras: frozenset[str]
    skips: bool
    seed: int

    @property
    def is_contradicted(self) -> bool:
        """Whether pixels reach the first kernel within a hundredth of black."""
        small = ("0-1", "-1-1", "tf", "torch", "0.5/0.25", "0.2,0.4,0.6/0.3")
        return self.inside in ("1/255", "1/127.5 - 1") and self.declared in small


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """All kinds of cases; four of five choices are such that something right can come out."""

    def usually(fitting, others):
        return draw(st.sampled_from(fitting if draw(st.integers(0, 4)) else others))

    head = usually([head for head in HEADS if head != "labels"], list(HEADS))
    classes = HEADS[head][2]
    names = usually([names for names in NAMES if len(names) == classes] or NAMES, NAMES)
    order = draw(st.none() | st.permutations(range(len(names))).map(tuple))
    shape = draw(st.sampled_from(SHAPES))
    channels = draw(st.sampled_from((1, 3)))
    fitting = RANGES[: 8 if channels == 3 else 5]
    return Case(
        head=head,
        inside=draw(st.sampled_from(INSIDE)),
        shape=shape,
        channels=channels,
        ending=draw(st.sampled_from(ENDINGS)),
        declared=usually(fitting, RANGES),
        output=usually(["main"], ["", "none"]) if shape == "two outputs" else "",
        names=names,
        order=order,
        test=draw(st.sampled_from(TEST)),
        file_format=draw(st.sampled_from(FORMATS)),
        mode=draw(st.sampled_from(MODES)),
        extras=frozenset(draw(st.lists(st.sampled_from(EXTRAS), max_size=2))),
        skips=draw(st.booleans()),
        seed=draw(st.integers(0, 9)),
    )


@functools.lru_cache(maxsize=64)
def teacher(head: str, inside: str, shape: str, channels: int) -> keras.Model:
    """The model, made with Keras alone; its answers differ from image to image."""
    keras.utils.set_random_seed(len(head) + 10 * len(inside) + 100 * channels)
    units, activation, _ = HEADS[head]
    side = None if shape == "any size" else SIDE
    random = keras.initializers.RandomNormal(0, 1.0)
    scale = {
        "nothing": [],
        "1/255": [layers.Rescaling(1 / 255)],
        "1/127.5 - 1": [layers.Rescaling(1 / 127.5, -1)],
        "normalization": [layers.Normalization(mean=0.4, variance=0.05)],
    }[inside]
    body = [
        layers.Conv2D(6, 3, kernel_initializer=random),
        layers.LeakyReLU(),
        layers.GlobalAveragePooling2D() if side is None else layers.Flatten(),
        layers.Dense(units, activation=activation, kernel_initializer=random, name="main"),
    ]
    inputs = keras.Input((side, side, channels))
    if shape == "sequential":
        return keras.Sequential([inputs, *scale, *body])
    x = inputs
    for layer in scale:
        x = layer(x)
    if shape == "nested":
        shape_of_x = x.shape[1:]
        return keras.Model(inputs, keras.Sequential([keras.Input(shape_of_x), *body])(x))
    for layer in body[:-1]:
        x = layer(x)
    outputs = body[-1](x)
    if shape == "two outputs":
        return keras.Model(inputs, {"main": outputs, "other": layers.Dense(2, name="other")(x)})
    return keras.Model(inputs, outputs)


def image(case: Case, label: int, index: int, split: str) -> Image.Image:
    """An image of a class: noise around the class's brightness."""
    random = np.random.default_rng([case.seed, label, index, len(split)])
    channels = {"RGB": 3, "L": 1, "RGBA": 4}[case.mode]
    low = 60 * label
    pixels = random.integers(low, low + 130, (SIDE, SIDE, channels), dtype=np.uint8)
    return Image.fromarray(pixels.squeeze(), case.mode)


@contextlib.contextmanager
def built(case: Case) -> Iterator[Path]:
    """A folder with the case's files."""
    root = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        model = teacher(case.head, case.inside, case.shape, case.channels)
        absl.logging.set_verbosity(absl.logging.ERROR)  # of .h5, that it is a legacy format
        model.save(root / f"teacher{case.ending}")
        suffix = case.file_format
        for split, count in (("train", 2), (case.test, 5)):
            for label, name in enumerate(case.names):
                folder = root / "in" / split / name
                folder.mkdir(parents=True)
                for index in range(count):
                    made = image(case, label, index, split)
                    if suffix in ("jpg", "bmp", "gif"):
                        made = made.convert("RGB" if made.mode != "L" else "L")
                    options = {"lossless": True} if suffix == "webp" else {}
                    made.save(folder / f"{index}.{suffix}", **options)
            if "stray" in case.extras:
                Image.new("RGB", (SIDE, SIDE)).save(root / "in" / split / "stray.png")
            if "text" in case.extras:
                (root / "in" / split / case.names[0] / "notes.txt").write_text("no image")
            if "empty class" in case.extras:
                (root / "in" / split / "nothing").mkdir()
        if "damaged" in case.extras:
            (root / "in" / case.test / case.names[0] / f"1.{suffix}").write_bytes(b"GIF89a damaged")
        if case.order is not None:
            text = "\n".join(case.names[place] for place in case.order)
            (root / "names.txt").write_text(text + "\n")
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


def line(case: Case, root: Path) -> list[str]:
    """The arguments of `bin/teacher`."""
    words = [
        f"--teacher={root}/teacher{case.ending}",
        f"--teacher_input={case.declared}",
        f"--dataset=folder:{root}/in",
        f"--cache_dir={root}/cache",
        f"--image_size={SIDE}",
    ]
    if case.output:
        words.append(f"--teacher_output={case.output}")
    if case.order is not None:
        words.append(f"--class_names={root}/names.txt")
    if case.skips:
        words.append("--skip_unreadable")
    return words


def must_be_refused(case: Case) -> str:
    """Why nothing right can come out of a case; empty where something can."""
    classes = HEADS[case.head][2]
    if classes is None:
        return "independent labels and folders of classes"
    if len(case.names) != classes:
        return "another number of classes"
    if case.declared in ("", "1"):
        return "no range"
    if case.channels == 1 and case.declared in ("torch", "caffe", "0.2,0.4,0.6/0.3"):
        return "a range of three channels"
    if case.shape == "two outputs" and case.output != "main":
        return "which output"
    if case.order is None and sorted(case.names) != sorted(case.names, key=_as_number):
        return "numbers in two orders"
    if "damaged" in case.extras and not case.skips:
        return "a damaged image"
    return ""


def _as_number(name: str) -> float:
    return float(name) if name.isdigit() else 0.0


def expected_accuracy(case: Case, root: Path) -> float:
    """What Keras and Pillow alone find."""
    ordered = sorted(case.names)
    if case.order is not None:
        ordered = [case.names[place] for place in case.order]
    pixels, labels = [], []
    for name in case.names:
        for path in sorted((root / "in" / case.test / name).glob(f"*.{case.file_format}")):
            if "damaged" in case.extras and name == case.names[0] and path.stem == "1":
                continue
            with Image.open(path) as file:
                opened = file.convert("RGBA") if "A" in file.mode else file.convert("RGB")
                if opened.mode == "RGBA":
                    white = Image.new("RGBA", opened.size, "white")
                    opened = Image.alpha_composite(white, opened)
                grey = file.mode == "L"
                opened = opened.convert("L" if case.channels == 1 else "RGB")
                if grey and case.channels == 1:
                    opened = file.convert("L")
            pixels.append(np.asarray(opened, "float32").reshape(SIDE, SIDE, case.channels))
            labels.append(ordered.index(name))
    given = _as_declared(np.stack(pixels), case.declared)
    answers = teacher(case.head, case.inside, case.shape, case.channels)(given, training=False)
    if isinstance(answers, dict):
        answers = answers["main"]
    answers = keras.ops.convert_to_numpy(answers)
    if answers.shape[-1] > 1:
        predicted = answers.argmax(axis=-1)
    else:
        threshold = 0.5 if HEADS[case.head][1] == "sigmoid" else 0.0
        predicted = (answers[:, 0] > threshold).astype(int)
    return float(np.mean(predicted == labels))


def _as_declared(pixels: np.ndarray, declared: str) -> np.ndarray:
    if declared in ("caffe", "tf", "torch"):
        preprocess = keras.applications.imagenet_utils.preprocess_input
        return preprocess(pixels.copy(), data_format="channels_last", mode=declared)
    if declared == "0-255":
        return pixels
    if declared == "-1-1":
        return pixels / 127.5 - 1
    if declared == "0-1":
        return pixels / 255
    mean, std = (np.array(part.split(","), "float32") for part in declared.split("/"))
    return (pixels / 255 - mean) / std


def complaint(case: Case) -> str | None:
    """Runs a case in this process; returns what came out wrong, or None."""
    with built(case) as root:
        status, out, err = fuzz._in_process("teacher", line(case, root), root)
        err = fuzz._without_noise(err)
        reason = must_be_refused(case)
        if status == 2 and len(err.splitlines()) == 1 and "Traceback" not in out + err:
            return None if reason else f"refused without need: {err.strip()}"
        if status != 0 or err.strip():
            return f"exit status {status}: {err.strip()}"
        if reason:
            return f"accepted with {reason}: {out}"
        found = re.search(r"^teacher_accuracy +(\S+)$", out, re.MULTILINE)
        if found is None:
            return f"no accuracy: {out}"
        expected = expected_accuracy(case, root)
        if abs(float(found[1]) - expected) > 1e-5:
            return f"accuracy {found[1]}, plain Keras {expected:.6g}: {out}"
        if case.is_contradicted and "give --teacher_input=" not in out:
            return f"nothing said of a range that contradicts the model: {out}"
        return None
