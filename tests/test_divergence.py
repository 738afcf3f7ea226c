"""A training whose numbers are no numbers is left before anything is written over."""

import numpy as np
import pytest

from keras_mosaickd import mosaic_stream, run_directory
from keras_mosaickd.callbacks import checkpoint as checkpoints
from keras_mosaickd.callbacks import divergence, traces
from keras_mosaickd.callbacks.divergence import CollapseWarning, StopWhenInvalid
from keras_mosaickd.errors import DivergedError
from keras_mosaickd.networks.heads import Bernoulli
from tests import game


def stream(steps=4):
    images = game.images(game.BATCH * steps)
    return mosaic_stream(images, game.BATCH, student_steps=game.STEPS)


def spoil(network, value=np.nan):
    kernel = network.trainable_variables[0]
    kernel.assign(np.full(kernel.shape, value, "float32"))


def fit(model, path, **options):
    callbacks = [StopWhenInvalid(path), checkpoints.Checkpoint(path, **options)]
    model.fit(stream(), verbose=0, callbacks=callbacks)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broken", "phase"),
    [
        ({"discriminator_loss", "local_loss", "generator_loss", "loss"}, "discriminator"),
        ({"align_loss", "generator_loss", "student_loss", "loss"}, "generator"),
        ({"loss", "student_loss"}, "student"),
        ({"loss", "hint_loss"}, "student"),
    ],
)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_first_phase_that_sees_it_is_named(broken, phase, value, tmp_path):
    every = ("local_loss", "align_loss", "student_loss", "discriminator_loss", "generator_loss")
    callback = StopWhenInvalid(tmp_path / "last.keras", seconds=0)
    callback.set_model(game.game())
    callback.on_train_batch_end(0, dict.fromkeys([*every, "loss"], 1.0))
    logs = {name: value if name in broken else 1.0 for name in {*every, *broken}}
    with pytest.raises(DivergedError, match=f"^{phase}: \\w*loss became {value} ") as told:
        callback.on_train_batch_end(0, logs)
    assert str(told.value).split()[1] in broken
    assert "no checkpoint was saved" in str(told.value)


@pytest.mark.slow
def test_the_last_good_checkpoint_stays_and_is_named(tmp_path):
    path = tmp_path / "last.keras"
    model = game.game()
    fit(model, path)
    good = path.read_bytes()
    spoil(model.generator, np.inf)
    with pytest.raises(DivergedError, match="^discriminator: .* in iteration 5 ") as told:
        fit(model, path, every_steps=1)
    assert f"the last good checkpoint is {path}" in str(told.value)
    assert path.read_bytes() == good
    assert run_directory.newest_intact(path) == path


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_are_looked_at_before_they_are_saved(value, tmp_path):
    path = tmp_path / "last.keras"
    model = game.game()
    checkpoints.save_checkpoint(model, path)
    good = path.read_bytes()
    spoil(model.student, value)
    name = model.student.trainable_variables[0].path
    with pytest.raises(DivergedError, match=f"^student: the weight {name} is NaN or infinite"):
        checkpoints.save_checkpoint(model, path)
    assert path.read_bytes() == good
    assert not run_directory.previous(path).exists()
    callback = StopWhenInvalid(path)
    callback.set_model(model)
    with pytest.raises(DivergedError, match="last good checkpoint"):
        callback.on_epoch_end(0)


def test_the_optimizers_numbers_are_looked_at_too(tmp_path):
    model = game.game()
    momentum = next(
        variable
        for variable in model.phase_optimizers["discriminator_optimizer"].variables
        if len(variable.shape) == 4
    )
    momentum.assign(np.full(momentum.shape, np.inf, "float32"))
    with pytest.raises(DivergedError, match="^discriminator: the weight"):
        checkpoints.save_checkpoint(model, tmp_path / "last.keras")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("balance", "speaks"), [(-0.05, True), (-1.5, False)])
def test_collapse_is_told(balance, speaks, capsys):
    CollapseWarning(most_entropy=np.log(4)).on_epoch_end(0, {"balance_loss": balance})
    assert ("the generator collapses" in capsys.readouterr().out) == speaks


def test_a_thousand_labels_have_a_finite_entropy(capsys):
    most = Bernoulli(1100).most_entropy
    CollapseWarning(most).on_epoch_end(0, {"balance_loss": -1050.0})
    assert not capsys.readouterr().out


def test_every_term_of_a_loss_has_its_phase():
    terms = {"feature_loss": "student", "hint_loss": "student", "batch_norm_loss": "generator"}
    for name, phase in terms.items():
        assert divergence._phase(name) == phase and traces._tag(name) == f"{phase}/{name}"
