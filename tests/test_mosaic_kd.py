"""The game through the public API."""

import keras
import numpy as np
import pytest

from keras_mosaickd import InputError, KnowledgeDistillation, StudentCheckpoint, mosaic_stream
from keras_mosaickd.backend import keras_graph
from keras_mosaickd.optimizers import student_recipe
from tests.game import BATCH, CLASSES, STEPS, classifier, game, images, moved, values

LOSSES = {
    "loss",
    "student_loss",
    "generator_loss",
    "discriminator_loss",
    "adversarial_loss",
    "align_loss",
    "balance_loss",
    "local_loss",
}
RATES = {"student_learning_rate", "generator_learning_rate", "discriminator_learning_rate"}


def stream(seed=0, count=16):
    return mosaic_stream(images(count), BATCH, student_steps=STEPS, seed=seed)


def statistics(network):
    """BatchNorm's moving statistics."""
    return [v for v in network.non_trainable_variables if "moving" in v.path]


@pytest.mark.slow
@pytest.mark.long_on("tensorflow", "jax")
def test_fit_logs_every_loss_rate_and_validation_metric():
    model = game()
    labels = np.arange(16) % CLASSES
    history = model.fit(stream(), epochs=2, validation_data=(images(), labels), verbose=0).history
    expected = LOSSES | RATES | {"val_loss", "val_accuracy", "val_agreement"}
    assert set(history) == expected
    assert all(np.isfinite(history[name]).all() for name in expected)
    assert history["loss"] == history["student_loss"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "given", ["uint8", pytest.param("float", marks=pytest.mark.long_on("tensorflow", "jax"))]
)
def test_fit_takes_plain_images(given):
    model = game()
    data = images() if given == "float" else (images() * 255).astype("uint8")
    history = model.fit(data, batch_size=BATCH, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert int(keras.ops.convert_to_numpy(model.optimizer.iterations)) == 16 // BATCH


def test_fit_refuses_what_it_cannot_use():
    model = game()
    with pytest.raises(InputError, match=r"images \[n, 8, 8, 1\], as.*\(16, 8, 8\)$"):
        model.fit(images()[..., 0], verbose=0)
    with pytest.raises(InputError, match="takes no labels"):
        model.fit(images(), np.zeros(16), verbose=0)
    other_steps = mosaic_stream(images(), BATCH, student_steps=STEPS + 1)
    with pytest.raises(InputError, match="mosaic_stream makes it.*Received: shapes"):
        model.fit(other_steps, verbose=0)


def test_predict_is_the_students():
    model = game()
    expected = model.student.predict(images(), verbose=0)
    np.testing.assert_array_equal(model.predict(images(), verbose=0), expected)


@pytest.mark.long_on("tensorflow", "jax")
def test_evaluation_by_hand():
    model = game()
    student = model.student.predict(images(), verbose=0).argmax(axis=-1)
    teacher = model.teacher.predict(images(), verbose=0).argmax(axis=-1)
    labels = np.where(np.arange(16) < 12, student, (student + 1) % CLASSES)
    result = model.evaluate(images(), labels, batch_size=5, verbose=0, return_dict=True)
    assert result["accuracy"] == pytest.approx(0.75)
    assert result["agreement"] == pytest.approx(np.mean(student == teacher))
    one_hot = np.eye(CLASSES, dtype="float32")[labels]
    again = model.evaluate(images(), one_hot, batch_size=16, verbose=0, return_dict=True)
    assert again["accuracy"] == pytest.approx(0.75)
    assert again["loss"] == pytest.approx(result["loss"], rel=1e-4)
    without = model.evaluate(images(), verbose=0, return_dict=True)
    assert set(without) == {"loss", "agreement"}


@pytest.mark.long_on("tensorflow", "jax")
@pytest.mark.parametrize("trainer", ["mosaickd", "kd"])
def test_uint8_images_are_the_same_images(trainer):
    model = game() if trainer == "mosaickd" else KnowledgeDistillation(classifier(1), classifier(2))
    if trainer == "kd":
        model.compile(student_recipe(10))
    pixels = (images() * 255).astype("uint8")
    scaled = pixels.astype("float32") * np.float32(1 / 255)
    expected = model.evaluate(scaled, verbose=0)
    assert model.evaluate(pixels, verbose=0) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(
        model.predict(pixels, verbose=0), model.predict(scaled, verbose=0), rtol=1e-5, atol=1e-6
    )
    history = model.fit(pixels, batch_size=BATCH, validation_data=(pixels,), verbose=0).history
    after = model.evaluate(scaled, verbose=0, return_dict=True)
    assert history["val_loss"][-1] == pytest.approx(after["loss"], rel=1e-5)
    assert history["student_loss"][-1] < 10


@pytest.mark.parametrize("wrong", [images() * 255, images().astype("int64")])
def test_images_of_another_range_are_refused_before_training(wrong):
    model = game()
    for call in (
        lambda: model.fit(stream(), validation_data=(wrong,), verbose=0),
        lambda: model.evaluate(wrong, verbose=0),
    ):
        with pytest.raises(InputError, match=r"uint8 or as floats in \[0, 1\]. Received: "):
            call()
    assert int(keras.ops.convert_to_numpy(model.optimizer.iterations)) == 0


@pytest.mark.slow
@pytest.mark.long_on("tensorflow")
def test_teacher_never_moves():
    model = game()
    before = values(model.teacher.variables)
    model.fit(stream(), epochs=2, verbose=0)
    assert not moved(before, values(model.teacher.variables))
    assert model.teacher.trainable  # the caller's object is as it was


NETWORKS = ("teacher", "student", "generator", "discriminator")


def changes(model, update):
    """Which networks' weights, and which networks' statistics, an update moves.

    The update runs as the training step of `fit`, which is how it runs on every backend.
    """
    model.alternate = update
    before = {
        n: (getattr(model, n).trainable_variables, statistics(getattr(model, n))) for n in NETWORKS
    }
    snapshot = {n: (values(w), values(s)) for n, (w, s) in before.items()}
    model.fit(stream(count=BATCH), verbose=0)
    weights = {n for n, (w, _) in before.items() if moved(snapshot[n][0], values(w))}
    stats = {n for n, (_, s) in before.items() if moved(snapshot[n][1], values(s))}
    return weights, stats


def generator_phase(model):
    def update(data):
        generated = model.record(
            lambda: model.generate(data[0], training=True), model.generator.trainable_variables
        )
        model.update("generator", model.generator_objective, through=generated)

    return update


def student_phase(model):
    return lambda data: model.student_step(0, *data)


def discriminator_phase(model):
    return lambda data: model.update(
        "discriminator", lambda: model.discriminator_objective(data[0], data[1][:, 0])
    )


# The table of docs/algorithm.md: phase, policy, whose weights move, whose statistics move.
@pytest.mark.parametrize(
    ("phase", "policy", "weights", "moved_statistics"),
    [
        (discriminator_phase, "inference", {"discriminator"}, {"discriminator"}),
        (generator_phase, "inference", {"generator"}, {"generator", "discriminator"}),
        (generator_phase, "training", {"generator"}, {"generator", "discriminator", "student"}),
        (student_phase, "inference", {"student"}, {"student"}),
        (student_phase, "training", {"student"}, {"student", "generator"}),
    ],
)
def test_who_moves_what(phase, policy, weights, moved_statistics):
    model = game(batch_norm_policy=policy)
    assert changes(model, phase(model)) == (weights, moved_statistics)


def test_generators_statistics_move_once_for_both_players():
    # One move of momentum 0.9 towards the batch's mean; a second would leave 0.81 of the old.
    model = game(batch_norm_policy="inference")
    before = values(statistics(model.generator))
    layer = next(
        layer
        for layer in model.generator.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    )
    features = keras.Model(model.generator.inputs[0], layer.input)
    latents = np.random.default_rng(0).standard_normal((BATCH, model.latent_dim), dtype="float32")
    model.latents = lambda batch: keras.ops.convert_to_tensor(latents)
    seen = keras.ops.convert_to_numpy(features(latents))
    changes(model, model.alternate)
    expected = 0.9 * before[0] + 0.1 * seen.mean(axis=(0, 1, 2))
    np.testing.assert_allclose(values(statistics(model.generator))[0], expected, atol=1e-5)


@pytest.mark.long_on("tensorflow", "jax")
def test_discriminator_learns_before_the_generator_is_judged():
    # With a discriminator that cannot learn, the generator meets the untrained one.
    losses = []
    for rate in (0.0, 0.5):
        model = game(compiled=False)
        model.compile(
            keras.optimizers.SGD(0.0), keras.optimizers.SGD(0.0), keras.optimizers.SGD(rate)
        )
        losses.append(model.fit(stream(count=BATCH), verbose=0).history["local_loss"][0])
    assert losses[0] != losses[1]


@pytest.mark.long_on("tensorflow", "jax")
@pytest.mark.parametrize("regularizer", ["patch", "image", "none"])
def test_regularizers(regularizer):
    model = game(regularizer)
    logs = model.fit(stream(), verbose=0).history
    assert ("local_loss" in logs) == (regularizer != "none")
    assert ("discriminator_loss" in logs) == (regularizer != "none")


@pytest.mark.long_on("tensorflow", "jax")
def test_regularization_weight_scales_local_and_align():
    logs = (
        game(regularization_weight=3.0, local_weight=2.0, align_weight=0.5, balance_weight=4.0)
        .fit(stream(count=BATCH), verbose=0)
        .history
    )
    expected = (
        logs["adversarial_loss"][0]
        + 3.0 * (2.0 * logs["local_loss"][0] + 0.5 * logs["align_loss"][0])
        + 4.0 * logs["balance_loss"][0]
    )
    assert logs["generator_loss"][0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.long_on("tensorflow", "jax")
def test_synthetic_only_leaves_the_ood_images_out():
    results = []
    for seed in (0, 1):
        model = game(synthetic_only=True, regularizer="none")
        data = mosaic_stream(images(seed=seed), BATCH, student_steps=STEPS)
        model.fit(data, verbose=0)
        results.append(values(model.student.trainable_variables))
    assert not moved(*results)


@pytest.mark.long_on("tensorflow", "jax")
@pytest.mark.parametrize("synthetic_only", [False, True])
def test_how_many_images_each_player_sees(synthetic_only):
    model = game(synthetic_only=synthetic_only, generator_multiple=3)
    model.run_eagerly, seen = True, {"student": [], "discriminator": []}
    for role, sizes in seen.items():
        run = getattr(model, f"run_{role}")

        def noted(images, run=run, sizes=sizes, **options):
            sizes.append(images.shape[0])
            return run(images, **options)

        object.__setattr__(model, f"run_{role}", noted)
    model.fit(stream(count=BATCH), verbose=0)
    of_student = BATCH if synthetic_only else 2 * BATCH
    assert seen["discriminator"] == [3 * BATCH, BATCH, 3 * BATCH]  # D's update, then G's
    assert seen["student"] == [3 * BATCH] + STEPS * [of_student]
    assert model.get_config()["generator_multiple"] == 3
    with pytest.raises(InputError, match="generator_multiple must be a positive.*Received: 0"):
        game(generator_multiple=0)


@pytest.mark.slow
def test_seed_makes_the_run():
    runs = []
    for seed in (5, 5, 6):
        model = game(seed=seed)
        model.fit(stream(), verbose=0)
        runs.append(values(model.student.trainable_variables))
    assert not moved(runs[0], runs[1])
    assert moved(runs[0], runs[2])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mosaickd", "kd"])
def test_saved_in_mid_training_and_continued_bit_for_bit(tmp_path, kind):
    if kind == "mosaickd":
        model, data = game(batch_norm_policy="training"), stream
    else:
        model = KnowledgeDistillation(classifier(1), classifier(2), temperature=4.0)
        model.compile(student_recipe(12))

        def data():
            return images()

    def go_on(trainer):
        trainer.fit(
            data(), batch_size=None if kind == "mosaickd" else BATCH, verbose=0, shuffle=False
        )
        state = [*trainer.weights, *trainer.optimizer.variables]
        return values(state + ([trainer.seed_generator.state] if kind == "mosaickd" else []))

    go_on(model)
    model.save(tmp_path / "half.keras")
    restored = keras.models.load_model(tmp_path / "half.keras")
    assert not moved(go_on(model), go_on(restored))


@pytest.mark.long_on("tensorflow", "jax")
def test_seeds_of_dropout_layers_are_saved(tmp_path):
    model = game(compiled=False)
    inputs = keras.Input(model.student.input_shape[1:])
    student = keras.Model(inputs, model.student(keras.layers.Dropout(0.5)(inputs)))
    model = type(model)(
        model.teacher, student, model.generator, model.discriminator, latent_dim=6, student_steps=2
    )
    model.compile(*[keras.optimizers.SGD(0.01) for _ in range(3)])
    model.fit(stream(), verbose=0)
    model.save(tmp_path / "m.keras")
    restored = keras.models.load_model(tmp_path / "m.keras")
    seeds, again = (values(keras_graph.seed_states(each)) for each in (model, restored))
    assert len(seeds) == 2
    assert not moved(seeds, again)


@pytest.mark.long_on("tensorflow", "jax")
def test_bytes_are_judged_as_the_images_that_they_are():
    model = game()
    given = np.round(images() * 255).astype("uint8")
    scaled = given.astype("float32") / 255
    history = model.fit(stream(), validation_data=(given,), verbose=0).history
    expected = model.evaluate(scaled, verbose=0, return_dict=True)
    assert history["val_loss"] == pytest.approx([expected["loss"]], rel=1e-4)
    np.testing.assert_allclose(
        model.predict(given, verbose=0), model.predict(scaled, verbose=0), rtol=1e-4, atol=1e-4
    )


@pytest.mark.long_on("tensorflow", "jax")
def test_callbacks_work_on_the_student(tmp_path):
    model = game()
    path = tmp_path / "student.keras"
    model.fit(
        stream(),
        epochs=3,
        verbose=0,
        validation_data=(images(),),
        callbacks=[
            StudentCheckpoint(path, monitor="val_agreement", mode="max"),
            keras.callbacks.EarlyStopping(monitor="val_agreement", mode="max", patience=5),
            keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        ],
    )
    student = keras.models.load_model(path)
    np.testing.assert_array_equal(
        student.predict(images(), verbose=0), model.predict(images(), verbose=0)
    )


@pytest.mark.backend("tensorflow")
def test_keras_tensorboard_callback_logs_the_three_rates(tmp_path):
    game().fit(stream(), verbose=0, callbacks=[keras.callbacks.TensorBoard(tmp_path)])
    assert list((tmp_path / "train").glob("events*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"regularization_weight": -1}, "regularization_weight must be at least 0. Received: -1"),
        ({"balance_weight": float("nan")}, "balance_weight must be at least 0. Received: nan"),
        ({"temperature": 0}, "temperature must be positive. Received: 0"),
        ({"student_steps": 0}, "student_steps must be a positive integer. Received: 0"),
        ({"local_reduction": "max"}, "local_reduction must be one of mean, sum"),
        ({"batch_norm_policy": "x"}, "batch_norm_policy must be one of training, inference"),
        ({"latent_dim": 7}, "z of size latent_dim=7"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(InputError, match=message):
        game(**options)


def test_networks_that_do_not_fit():
    model = game(compiled=False)
    rest = {"latent_dim": model.latent_dim}
    with pytest.raises(InputError, match="same output shape"):
        type(model)(model.teacher, classifier(classes=4), model.generator, None, **rest)
    larger = classifier(shape=(16, 16, 1))
    with pytest.raises(InputError, match="same input shape"):
        type(model)(larger, model.student, model.generator, None, **rest)
    with pytest.raises(InputError, match="images that the student takes"):
        type(model)(larger, larger, model.generator, None, **rest)
    with pytest.raises(InputError, match="must be a keras.Model. Received: str"):
        type(model)("teacher", model.student, model.generator, None, **rest)


def test_compile_refuses_what_is_not_its_own():
    model = game(compiled=False)
    shared = keras.optimizers.SGD(0.1)
    with pytest.raises(InputError, match="separate optimizer"):
        model.compile(shared, shared, keras.optimizers.SGD(0.1))
    with pytest.raises(InputError, match="needs a discriminator_optimizer"):
        model.compile(keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.1))
    with pytest.raises(InputError, match="losses and metrics are the method's own"):
        model.compile(*[keras.optimizers.SGD(0.1) for _ in range(3)], loss="mse")


@pytest.mark.long_on("tensorflow", "jax")
def test_teacher_that_ends_in_softmax():
    teacher = classifier(1)
    inputs = keras.Input(teacher.input_shape[1:])
    softmax = keras.Model(inputs, keras.layers.Softmax()(teacher(inputs)))
    plain = game(compiled=False)
    model = type(plain)(
        softmax, plain.student, plain.generator, plain.discriminator, latent_dim=6, student_steps=2
    )
    expected = teacher.predict(images(), verbose=0)
    np.testing.assert_allclose(model.teacher.predict(images(), verbose=0), expected, atol=1e-6)


@pytest.mark.long_on("tensorflow", "jax")
def test_knowledge_distillation_imitates():
    model = KnowledgeDistillation(classifier(1), classifier(2), temperature=2.0)
    model.compile(keras.optimizers.Adam(1e-2, name="student_optimizer"))
    logs = model.fit(images(), batch_size=8, epochs=8, verbose=0).history
    assert set(logs) == {"loss", "student_loss", "student_learning_rate"}
    assert logs["loss"][-1] < logs["loss"][0]
    with pytest.raises(InputError, match="temperature must be positive"):
        KnowledgeDistillation(classifier(1), classifier(2), temperature=-1.0)


# PyTorch has bfloat16 convolutions on some processors only.
@pytest.mark.long_on("jax")
@pytest.mark.backend("tensorflow", "jax")
def test_mixed_bfloat16():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        logs = game().fit(stream(), verbose=0).history
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.isfinite(logs["loss"]).all()
