"""Checkpoints that survive damage, and what stops a training."""

import os
import signal

import keras
import pytest

from keras_mosaickd import mosaic_stream, run_directory
from keras_mosaickd.callbacks import checkpoint as checkpoints
from keras_mosaickd.errors import InputError, StoppedError
from tests import game


@pytest.fixture
def model():
    """A compiled game."""
    return game.game()


def stream(steps=4):
    images = game.images(game.BATCH * steps)
    return mosaic_stream(images, game.BATCH, student_steps=game.STEPS)


def flip_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_nothing_saved_is_none(tmp_path):
    assert run_directory.newest_intact(tmp_path / "last.keras") is None


def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(model, tmp_path, capsys):
    path = tmp_path / "last.keras"
    for _ in range(3):
        checkpoints.save_checkpoint(model, path)
    assert run_directory.newest_intact(path) == path
    assert capsys.readouterr().out == ""
    flip_byte(path)
    assert run_directory.newest_intact(path) == run_directory.previous(path)
    assert "last.keras is damaged" in capsys.readouterr().out
    flip_byte(run_directory.previous(path))
    with pytest.raises(InputError, match="expected an intact checkpoint"):
        run_directory.newest_intact(path)


def test_a_crash_between_the_two_renames_leaves_the_previous_one(model, tmp_path):
    path = tmp_path / "last.keras"
    checkpoints.save_checkpoint(model, path)
    os.replace(path, run_directory.previous(path))
    assert run_directory.newest_intact(path) == run_directory.previous(path)


def test_a_failed_save_keeps_what_was_there(model, tmp_path, monkeypatch):
    path = tmp_path / "last.keras"
    checkpoints.save_checkpoint(model, path)
    before = path.read_bytes()

    def full_disk(self, file, *_, **__):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(model), "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save_checkpoint(model, path)
    assert path.read_bytes() == before
    assert run_directory.newest_intact(path) == path
    assert sorted(file.name for file in tmp_path.iterdir()) == ["last.keras", "sha256.json"]


@pytest.mark.slow
def test_a_signal_saves_and_leaves(model, tmp_path):
    path = tmp_path / "last.keras"
    before = signal.getsignal(signal.SIGTERM)
    with checkpoints.StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(StoppedError) as raised:
            model.fit(stream(), verbose=0, callbacks=[checkpoints.Checkpoint(path, stop=stop)])
    assert raised.value.signal_number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before
    saved = keras.models.load_model(path)
    assert int(keras.ops.convert_to_numpy(saved.optimizer.iterations)) == 1


def test_saves_every_so_many_steps_and_the_best_student(model, tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(checkpoints, "save_checkpoint", lambda model, path: saved.append("all"))
    callback = checkpoints.Checkpoint(
        tmp_path / "last.keras", every_steps=2, best=tmp_path / "best.keras"
    )
    callback.set_model(model)
    callback.set_params({"steps": 6})
    for batch in range(6):  # The last one is saved when its epoch has been judged.
        callback.on_train_batch_end(batch)
    callback.on_epoch_end(0, {"val_agreement": 0.5})
    best = (tmp_path / "best.keras").read_bytes()
    callback.on_epoch_end(1, {"val_agreement": 0.4})
    assert saved == ["all"] * 4
    assert (tmp_path / "best.keras").read_bytes() == best
