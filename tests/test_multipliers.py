"""Lambda that finds itself: keras_mosaickd/methods/multipliers.py and the game with it."""

import math

import keras
import numpy as np
import pytest
from keras import ops

from keras_mosaickd import InputError, mosaic_stream, recipe
from keras_mosaickd.backend.training import PhaseTrainer
from keras_mosaickd.methods import data_free, data_free_stream
from keras_mosaickd.methods.game import SaturationNotice
from keras_mosaickd.methods.multipliers import LEAST, MOST, Multipliers, ascended
from keras_mosaickd.methods.objectives import Objectives
from keras_mosaickd.networks.heads import new_head
from tests.game import BATCH, CLASSES, STEPS, classifier, game, generator, images, moved, values

UPDATES = 4
ADAPTIVE = {"regularization": "adaptive", "epsilon_local": 0.02, "epsilon_align": 0.9}


def stream(count=UPDATES * BATCH):
    return mosaic_stream(images(count), BATCH, student_steps=STEPS)


def adaptive(updates=UPDATES, **options):
    regularizer = options.pop("regularizer", "patch")
    model = game(regularizer, compiled=False, **{**ADAPTIVE, **options})
    model.compile(**recipe(updates, STEPS))
    return model


def number(tensor):
    return float(ops.convert_to_numpy(tensor))


def step(log_multiplier, smoothed, violation, rate):
    found = ascended(
        *(ops.convert_to_tensor([x]) for x in (log_multiplier, smoothed)),
        ops.convert_to_tensor([violation]),
        rate,
    )
    return [float(ops.convert_to_numpy(tensor)[0]) for tensor in found]


# ---- the ascent ------------------------------------------------------------------------------


def test_a_step_by_hand():
    # s' = 0.9 * 0.1 + 0.1 * 0.3 = 0.12; the step is 0.5 * (0.12 + 20 * 0.02) = 0.26, at most 0.1.
    assert step(1.0, 0.1, 0.3, 0.5) == pytest.approx([1.1, 0.12])
    assert step(1.0, 0.1, 0.3, 0.125) == pytest.approx([1.065, 0.12])
    # s' = 0.9 * 0.1 - 0.1 * 0.9 = 0: what is left is the fall, 20 * -0.1.
    assert step(0.0, 0.1, -0.9, 0.025) == pytest.approx([-0.05, 0.0], abs=1e-7)
    assert step(0.0, -0.2, -0.2, 1.0) == pytest.approx([-0.1, -0.2])


def test_multipliers_stay_between_their_bounds():
    assert step(math.log(MOST), 1.0, 1.0, 1.0)[0] == pytest.approx(math.log(100))
    assert step(math.log(LEAST), -1.0, -1.0, 1.0)[0] == pytest.approx(math.log(0.001))


@pytest.mark.slow
@pytest.mark.long_on("tensorflow", "jax")
def test_two_decades_in_a_quarter_of_the_run_where_0_2_is_lacking():
    multipliers = Multipliers({"local": 0.3})
    multipliers.follow(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.01, 4000)))
    multipliers.smoothed.assign([0.2])
    for _ in range(1000):
        multipliers.ascend({"local": ops.convert_to_tensor(0.5)}, 0.01)
    assert number(multipliers.values()["local"]) == pytest.approx(100.0, rel=1e-3)
    # A tenth of the learning rate is a tenth of the step: the run's cosine.
    multipliers.log_multipliers.assign([0.0])
    for _ in range(1000):
        multipliers.ascend({"local": ops.convert_to_tensor(0.5)}, 0.001)
    assert number(multipliers.values()["local"]) == pytest.approx(10**0.2, rel=1e-3)


def test_the_length_of_the_run_is_asked_for():
    for optimizer in (keras.optimizers.Adam(0.001), keras.optimizers.SGD(0.1)):
        with pytest.raises(InputError, match="a CosineDecay, as.*Received: learning_rate=0"):
            Multipliers({"align": 0.5}).follow(optimizer)
    warm = keras.optimizers.schedules.CosineDecay(
        0.0, decay_steps=300, warmup_target=0.2, warmup_steps=100
    )
    multipliers = Multipliers({"align": 0.5})
    multipliers.follow(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(warm)))
    assert (multipliers.updates, multipliers.peak) == (400, 0.2)


class Quadratic(PhaseTrainer):
    """A game of one: (x - 2)^2 + (y - 1)^2 is to be least, subject to r = (x + y) / 4 <= 1/4.

    At the optimum x + y = 1 and the gradients cancel: 2 (x - 2) + lambda / 4 = 0 = 2 (y - 1) +
    lambda / 4, so that x = 1, y = 0 and lambda = 8.
    """

    def __init__(self, updates, start):
        super().__init__()
        self.point = self.add_weight(shape=(2,), initializer="zeros", name="point")
        self.multipliers = Multipliers({"sum": 0.25}, start)
        self.phase = keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.05, updates))
        self.phase.build([self.point])
        self.multipliers.follow(self.phase)
        self.built = True
        super().compile(optimizer=self.phase, loss=None, auto_scale_loss=False)

    def alternate(self, data):
        def objective():
            x, y = ops.unstack(self.point.value)
            r = (x + y) / 4
            loss = (x - 2) ** 2 + (y - 1) ** 2 + self.multipliers.values()["sum"] * r
            return loss, {"r": r}

        constraint = self.minimize(objective, self.phase, [self.point])["r"]
        self.multipliers.ascend({"sum": constraint}, self.phase.learning_rate)

    def training_logs(self):
        return {"loss": ops.sum(self.point.value), **self.multipliers.logs()}


@pytest.mark.slow
@pytest.mark.parametrize("start", [0.01, pytest.param(1.0, marks=pytest.mark.long), 90.0])
def test_the_multiplier_of_karush_kuhn_and_tucker_is_found(start):
    updates = 1500
    model = Quadratic(updates, start)
    model.fit(np.zeros((updates, 1), "float32"), batch_size=1, verbose=0)
    assert number(model.multipliers.values()["sum"]) == pytest.approx(8.0, rel=0.02)
    np.testing.assert_allclose(values([model.point])[0], [1.0, 0.0], atol=0.02)


# ---- the game --------------------------------------------------------------------------------


@pytest.mark.long_on("tensorflow", "jax")
def test_one_iteration_by_hand():
    model = adaptive(regularization_weight=3.0, balance_weight=4.0)
    logs = model.fit(stream(BATCH), verbose=0).history
    expected = (
        logs["adversarial_loss"][0]
        + 3.0 * (logs["local_loss"][0] + logs["align_loss"][0])
        + 4.0 * logs["balance_loss"][0]
    )
    assert logs["generator_loss"][0] == pytest.approx(expected, rel=1e-4)
    r_local = 1 - logs["discriminator_loss"][0] / 64 / math.log(2)
    r_align = logs["align_loss"][0] / math.log(CLASSES)
    assert logs["r_local"][0] == pytest.approx(max(r_local, 0.0), abs=1e-5)
    assert logs["r_align"][0] == pytest.approx(r_align, rel=1e-5)
    # After one of four updates the cosine stands at (1 + cos(pi / 4)) / 2.
    rate = 4 * math.log(100) / 0.2 / 4 * (1 + math.cos(math.pi / 4)) / 2
    for name, r, epsilon in (("local", max(r_local, 0.0), 0.02), ("align", r_align, 0.9)):
        smoothed = 0.1 * (r - epsilon)
        expected = 3.0 * math.exp(np.clip(rate * 21 * smoothed, -0.1, 0.1))
        assert logs[f"lambda_{name}"][0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.backend("torch")
def test_the_sum_over_the_map_is_the_same_constraint():
    found = [
        adaptive(local_reduction=reduction).fit(stream(BATCH), verbose=0).history["r_local"][0]
        for reduction in ("mean", "sum")
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-5, abs=1e-6)


@pytest.mark.backend("torch")
def test_without_a_discriminator_there_is_one_constraint():
    model = data_free(classifier(1), classifier(2), generator(), latent_dim=6, **ADAPTIVE)
    model.compile(**recipe(UPDATES, 5))
    logs = model.fit(data_free_stream(BATCH, 2), verbose=0).history
    assert {name for name in logs if name.startswith(("lambda_", "r_"))} == {
        "lambda_align",
        "r_align",
    }


@pytest.mark.parametrize("kind", ["classes", "labels"])
def test_entropy_is_a_share_of_the_largest(kind):
    head = new_head(kind, 3)
    largest = {"classes": math.log(3), "labels": 3 * math.log(2)}[kind]
    known_nothing = ops.mean(head.entropy(ops.zeros((2, 3))))
    r = Objectives(**ADAPTIVE).constraints(head, {"align_loss": known_nothing / 2})
    assert number(known_nothing) == pytest.approx(largest, rel=1e-6)
    assert number(r["align"]) == pytest.approx(0.5, rel=1e-6)


@pytest.mark.backend("torch")
def test_fixed_is_the_default_and_has_no_state():
    model = game()
    assert model.multipliers is None and Objectives().regularization == "fixed"
    assert not [name for name in model.fit(stream(), verbose=0).history if "lambda" in name]


@pytest.mark.slow
@pytest.mark.long_on("tensorflow")
def test_saved_in_mid_training_and_continued_bit_for_bit(tmp_path):
    def go_on(trainer):
        trainer.fit(stream(), verbose=0)
        return values([*trainer.weights, *trainer.optimizer.variables])

    model = adaptive(2 * UPDATES)
    start = values(model.multipliers.weights)
    go_on(model)
    model.save(tmp_path / "half.keras")
    restored = keras.models.load_model(tmp_path / "half.keras")
    assert not moved(values(model.multipliers.weights), values(restored.multipliers.weights))
    assert moved(start, values(restored.multipliers.weights))
    assert not moved(go_on(model), go_on(restored))
    assert not moved(values(model.multipliers.weights), values(restored.multipliers.weights))


# PyTorch has bfloat16 convolutions on some processors only.
@pytest.mark.slow
@pytest.mark.backend("tensorflow")
def test_multipliers_are_float32_whatever_the_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = adaptive()
        logs = model.fit(stream(), verbose=0).history
    finally:
        keras.config.set_dtype_policy("float32")
    assert {variable.dtype for variable in model.multipliers.weights} == {"float32"}
    assert np.isfinite([logs["lambda_local"], logs["lambda_align"]]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"local_weight": 0.01}, 'local_weight must be 1 with regularization="adaptive"'),
        ({"align_weight": 0}, "align_weight must be 1 with"),
        ({"regularization_weight": 0}, "regularization_weight must be from 0.001 to 100 with"),
        ({"epsilon_local": 1.5}, "epsilon_local must be from 0 to 1. Received: 1.5"),
        ({"epsilon_align": float("nan")}, "epsilon_align must be from 0 to 1. Received: nan"),
        ({"regularization": "free"}, "regularization must be one of fixed, adaptive"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(InputError, match=message):
        adaptive(**options)


# ---- what is said ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "r", "said"),
    [
        (100.0, 0.9, "Warning: lambda_local is at its upper bound 100 and its constraint is not"),
        (0.001, 0.2, "lambda_local is at its lower bound 0.001: its constraint holds by itself"),
        (100.0, 0.2, ""),
        (0.001, 0.9, ""),
        (1.0, 0.9, ""),
    ],
)
def test_a_bound_is_told_once(value, r, said, capsys):
    notice = SaturationNotice(Multipliers({"local": 0.5}))
    for epoch in range(3):
        notice.on_epoch_end(epoch, {"lambda_local": value, "r_local": r})
    printed = capsys.readouterr().out
    assert printed.startswith(said) and printed.count("\n") == bool(said)
    if said:
        assert f"(epoch 1: r_local {r:.3f}, epsilon_local 0.5)" in printed


@pytest.mark.backend("torch")
def test_fit_tells_of_a_bound(capsys):
    adaptive(regularization_weight=100.0, epsilon_align=0.0).fit(stream(), verbose=0)
    assert "lambda_align is at its upper bound 100" in capsys.readouterr().out
