"""Teachers from elsewhere, by a server on this machine: keras_mosaickd/teachers/remote.py."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from keras_mosaickd import load_teacher
from keras_mosaickd.errors import InputError
from keras_mosaickd.teachers import remote
from tests import game

ROOT = Path(__file__).resolve().parent.parent
SHA = "0123456789abcdef0123456789abcdef01234567"
NAMES = ("cat", "dog", "fish")
CARD = """---
license: apache-2.0
teacher_input: 0-255
class_names: [cat, dog, fish]
---
# A teacher
"""


class Hub(http.server.BaseHTTPRequestHandler):
    """Plain files, and of the Hub's API what a download asks for. `files` by path; `asked` for."""

    def _answer(self, with_body):
        server = self.server
        server.asked.append(self.path)
        path, _, _ = self.path.partition("?")
        if path.startswith("/api/models/"):
            owner_name = "/".join(path.split("/")[3:5])
            sizes = {
                name.removeprefix(f"{owner_name}/"): len(content)
                for name, content in server.files.items()
                if name.startswith(f"{owner_name}/")
            }
            siblings = [{"rfilename": name} for name in sizes]
            said: object = {"id": owner_name, "sha": SHA, "siblings": siblings}
            if "/tree/" in path:
                said = [
                    {"type": "file", "path": name, "size": size, "oid": SHA}
                    for name, size in sizes.items()
                ]
            body, found = json.dumps(said).encode(), bool(sizes)
        else:
            body = server.files.get(path.lstrip("/").replace(f"/resolve/{SHA}", ""))
            found = body is not None
        self.send_response(200 if found else 404)
        body = body or b""
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", SHA)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def do_GET(self):  # noqa: N802
        self._answer(with_body=True)

    def do_HEAD(self):  # noqa: N802
        self._answer(with_body=False)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The server, with `url`; caches in `tmp_path`."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as made:
        made.files, made.asked = {}, []
        made.url = f"http://127.0.0.1:{made.server_port}"
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def teacher(tmp_path):
    """A teacher's file; images in [0, 1]."""
    game.classifier(1).save(tmp_path / "teacher.keras")
    return tmp_path / "teacher.keras"


def images(folder):
    folder.mkdir()
    for number in range(24):
        pixels = np.random.default_rng(number).integers(0, 256, game.SHAPE[:2], "uint8")
        Image.fromarray(pixels).save(folder / f"{number}.png")


def train(folder, teacher, *arguments):
    """bin/train in a process of its own, in which the Hub's client reads its settings anew."""
    command = [sys.executable, "-m", "keras_mosaickd.cli.train", f"--teacher={teacher}"]
    command += ["--ood=folder:images", "--student=wrn10_1", "--batch_size=8", "--export=keras"]
    command += ["--student_updates=2", "--student_steps=2", "--evaluations=1", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def with_hash(server, name, content):
    server.files[name] = content
    return f"{server.url}/{name}#sha256={hashlib.sha256(content).hexdigest()}"


def test_a_url_is_fetched_once_and_gives_the_same_teacher(server, teacher):
    name = with_hash(server, "a/teacher.keras", teacher.read_bytes())
    loaded, again = load_teacher(name), load_teacher(name)
    assert server.asked == ["/a/teacher.keras"]
    x = game.images(5)
    expected = keras.models.load_model(teacher).predict(x, verbose=0)
    for network in (loaded, again):
        np.testing.assert_allclose(network.predict(x, verbose=0), expected, atol=1e-6)
    assert remote.pinned(name) == name and remote.card(name) == remote.Card()
    assert remote.content_hash(name) == hashlib.sha256(teacher.read_bytes()).hexdigest()


def test_another_content_is_refused_and_not_kept(server, teacher):
    name = with_hash(server, "teacher.keras", teacher.read_bytes())
    server.files["teacher.keras"] = teacher.read_bytes() + b"!"
    for _ in range(2):
        with pytest.raises(InputError, match="expected a teacher that can be fetched") as caught:
            load_teacher(name)
        assert "\n" not in str(caught.value) and name in str(caught.value)
    server.files["teacher.keras"] = teacher.read_bytes()
    assert load_teacher(name).output_shape == (None, game.CLASSES)


@pytest.mark.parametrize(
    "name",
    [
        "https://host/teacher.keras",
        "https://host/teacher.keras#sha256=12",
        "hf://owner",
        "hf://owner/name/file.txt",
        "hf://owner/name@",
    ],
)
def test_what_names_no_content_is_refused_before_anything_is_fetched(name):
    with pytest.raises(InputError, match="expected https://.*64 digits.*Received: ") as caught:
        load_teacher(name)
    assert str(caught.value).endswith(name)


def test_other_files_and_servers_are_one_line(server):
    with pytest.raises(InputError, match=r"URL of a \.keras or \.h5 file"):
        load_teacher(with_hash(server, "teacher.zip", b"zip"))
    for name in (f"{server.url}/none.keras", "http://127.0.0.1:9/teacher.keras"):
        with pytest.raises(InputError, match="can be fetched") as caught:
            load_teacher(f"{name}#sha256={'0' * 64}")
        assert "\n" not in str(caught.value)


def test_code_in_what_was_fetched_is_never_run(server, tmp_path):
    network = keras.Sequential(
        [keras.Input(game.SHAPE), keras.layers.Lambda(lambda x: x), keras.layers.Flatten()]
    )
    network.save(tmp_path / "lambda.keras")
    name = with_hash(server, "lambda.keras", (tmp_path / "lambda.keras").read_bytes())
    with pytest.raises(InputError, match="safe mode"):
        load_teacher(name)
    with pytest.raises(InputError, match="for files that you made yourself"):
        load_teacher(name, unsafe=True)


@pytest.mark.long
def test_a_run_from_the_hub_records_the_revision_and_what_the_card_says(server, teacher, tmp_path):
    server.files["owner/name/teacher.keras"] = teacher.read_bytes()
    server.files["owner/name/README.md"] = CARD.encode()
    images(tmp_path / "images")
    finished = train(tmp_path, "hf://owner/name", "--run_dir=run")
    assert finished.returncode == 0, finished.stderr + finished.stdout
    flags = (tmp_path / "run" / "flags.txt").read_text()
    assert f"--teacher=hf://owner/name@{SHA}\n" in flags and "--teacher_input=0-255\n" in flags
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["teacher_file"] == f"hf://owner/name@{SHA}"
    assert metrics["teacher_sha256"] == hashlib.sha256(teacher.read_bytes()).hexdigest()
    assert all(name in (tmp_path / "run" / "model_card.md").read_text() for name in NAMES)
    # What was given on the command line wins; a dry run writes nothing.
    before = sorted(tmp_path.rglob("*"))
    finished = train(tmp_path, "hf://owner/name", "--teacher_input=0-1", "--dry_run")
    assert finished.returncode == 0 and "teacher_input=0-1" in finished.stdout
    assert sorted(path for path in tmp_path.rglob("*") if "hub" not in path.parts) == [
        path for path in before if "hub" not in path.parts
    ]


@pytest.mark.slow
@pytest.mark.long
def test_the_hub_has_unzipped_models_too(server, teacher, tmp_path):
    with zipfile.ZipFile(teacher) as archive:
        for name in archive.namelist():
            server.files[f"owner/unzipped/{name}"] = archive.read(name)
    images(tmp_path / "images")
    finished = train(tmp_path, "hf://owner/unzipped", "--dry_run")
    assert finished.returncode == 0, finished.stderr + finished.stdout


@pytest.mark.long
def test_what_is_missing_on_the_hub_is_said(server, teacher, tmp_path):
    for name in ("one.keras", "two.keras"):
        server.files[f"owner/two/{name}"] = teacher.read_bytes()
    images(tmp_path / "images")
    finished = train(tmp_path, "hf://owner/two/two.keras", "--dry_run")
    assert finished.returncode == 0, finished.stderr + finished.stdout
    for name, message in (
        ("hf://owner/two", "with one.keras, two.keras"),
        ("hf://owner/nobody", "can be fetched"),
    ):
        finished = train(tmp_path, name, "--run_dir=other")
        assert finished.returncode == 2 and message in finished.stderr, finished.stderr
        assert finished.stderr.count("bin/train: ") == 1
        assert not (tmp_path / "other").exists()


def test_the_hubs_client_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match="huggingface_hub, which the extra hub installs"):
        load_teacher("hf://owner/name")
