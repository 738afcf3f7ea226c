"""What user code does that made a wrong number without a word, or an error that said nothing."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import keras_mosaickd as km
from keras_mosaickd import InputError, KnowledgeDistillation, MosaicKD
from keras_mosaickd.export import export_student
from keras_mosaickd.methods import FitNet, Supervised
from keras_mosaickd.networks.logits import as_logits, recognized
from tests import game
from tests.game import CLASSES, LATENT, SHAPE, STEPS, classifier, images, moved, values

LABELS = np.random.default_rng(1).integers(0, CLASSES, 16)


def distillation(teacher=None, student=None, optimizer=None, kind=KnowledgeDistillation, **options):
    model = kind(teacher or classifier(1), student or classifier(2), seed=0, **options)
    model.compile(optimizer or keras.optimizers.SGD(0.1))
    return model


def dense(bias, activation=None):
    """A classifier of one unit that answers the same whatever it sees."""
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.GlobalAveragePooling2D(),
            layers.Dense(1, activation, bias_initializer=keras.initializers.Constant(bias)),
        ]
    )


# ---- evaluation ------------------------------------------------------------------------------


def test_evaluate_lists_as_keras_does():
    model = distillation()
    named = model.evaluate(images(), LABELS, verbose=0, return_dict=True)
    listed = model.evaluate(images(), LABELS, verbose=0)
    assert listed == [named["loss"], named["accuracy"], named["agreement"]]
    assert model.evaluate(images(), verbose=0) == [named["loss"], named["agreement"]]
    assert model.test_on_batch(images(), LABELS) == pytest.approx(listed, rel=1e-5)


def test_one_hot_labels_per_pixel_are_the_same_labels():
    def pixels(seed):
        keras.utils.set_random_seed(seed)
        return keras.Sequential([keras.Input(SHAPE), layers.Conv2D(CLASSES, 1)])

    labels = np.random.default_rng(2).integers(0, CLASSES, (16, *SHAPE[:2]))
    model = distillation(pixels(1), pixels(2))
    expected = model.evaluate(images(), labels, verbose=0, return_dict=True)
    one_hot = np.eye(CLASSES, dtype="float32")[labels]
    assert model.evaluate(images(), one_hot, verbose=0, return_dict=True) == expected


def test_agreement_is_that_of_logits_whatever_the_networks_end_in():
    def ending(model, activation="softmax"):
        return keras.Sequential([keras.Input(SHAPE), model, layers.Activation(activation)])

    teacher, student = classifier(1), classifier(2)
    expected = km.measure_agreement(teacher, student, images())
    found = km.measure_agreement(ending(teacher), ending(student), images())
    assert found.kl == pytest.approx(expected.kl, rel=1e-5)
    assert found.agreement == expected.agreement
    # The teacher always sees class 0, the student class 1.
    assert km.measure_agreement(dense(-3.0, "sigmoid"), dense(3.0), images()).agreement == 0
    with pytest.raises(InputError, match="Received: floats in .*images / 255.0"):
        km.measure_agreement(teacher, student, images() * 255)


def test_probabilities_are_not_believed_of_a_linear_layer():
    with pytest.raises(InputError, match="'probabilities' was declared, but the last .* linear"):
        as_logits(classifier(1), "probabilities")


class Hidden(keras.Model):
    """A classifier whose softmax is not seen, rounded to 16 bits."""

    def __init__(self):
        super().__init__()
        self.network = classifier(1)

    def call(self, inputs, training=False):
        answers = keras.ops.softmax(self.network(inputs, training=training))
        return keras.ops.cast(answers, "bfloat16")


def test_rounded_probabilities_of_a_hidden_softmax_are_of_classes():
    model = Hidden()
    model(images(1))
    assert recognized(model)[1] == "3 classes (probabilities, as of a softmax)"
    # A guess gives way to what is declared.
    gates = keras.Sequential([keras.Input(SHAPE), classifier(1), layers.Lambda(keras.ops.sigmoid)])
    assert recognized(gates)[1].startswith("3 independent labels")
    assert recognized(gates, head="classes")[1].startswith("3 classes")
    one = keras.Sequential([keras.Input(SHAPE), dense(0.0), layers.Lambda(keras.ops.sigmoid)])
    for head in ("auto", "classes"):
        assert recognized(one, head=head)[1].startswith("a binary classifier of one unit")


def test_an_export_gives_logits_of_a_student_that_ends_in_softmax(tmp_path):
    student = classifier(2)
    ending = keras.Sequential([keras.Input(SHAPE), student, layers.Softmax()])
    export_student(ending, {"keras": tmp_path / "student.keras"})
    exported = keras.models.load_model(tmp_path / "student.keras")
    np.testing.assert_allclose(
        exported.predict(images(), verbose=0), student.predict(images(), verbose=0), atol=1e-6
    )
    with pytest.raises(InputError, match="the student by itself, model.student. Received: Know"):
        export_student(distillation(), {"keras": tmp_path / "trainer.keras"})


# ---- training --------------------------------------------------------------------------------


@pytest.mark.parametrize("is_scaling", [False, True])
def test_a_loss_is_scaled_once(is_scaling):
    optimizer = keras.optimizers.SGD(0.1)
    if is_scaling:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = distillation(optimizer=optimizer)
    finally:
        keras.config.set_dtype_policy("float32")
    (used,) = model.phase_optimizers.values()
    assert isinstance(used, keras.optimizers.LossScaleOptimizer)
    assert not isinstance(used.inner_optimizer, keras.optimizers.LossScaleOptimizer)


def test_networks_in_mixed_float16_have_their_loss_scaled_whatever_the_trainers_policy():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        student = classifier(2)
    finally:
        keras.config.set_dtype_policy("float32")
    (used,) = distillation(student=student).phase_optimizers.values()
    assert isinstance(used, keras.optimizers.LossScaleOptimizer)


def test_networks_that_share_what_is_trained_are_refused():
    teacher = classifier(1)
    head = keras.Model(teacher.inputs, layers.Dense(CLASSES)(teacher.layers[-2].output))
    for shared in (teacher, head):
        with pytest.raises(InputError, match="teacher and student must be separate networks"):
            distillation(teacher, shared)
    both = game.generator(), game.discriminator()
    student = classifier(2)
    with pytest.raises(InputError, match="must be separate networks"):
        MosaicKD(teacher, student, both[0], student, latent_dim=LATENT)
    # What nobody trains may be shared.
    for layer in teacher.layers:
        layer.trainable = False
    before = values(teacher.variables)
    distillation(teacher, head).fit(images(), batch_size=8, verbose=0)
    assert not moved(before, values(teacher.variables))


def test_a_hint_of_a_loaded_sequential_runs_it_once(tmp_path):
    def statistics(student):
        model = distillation(student=student, optimizer=keras.optimizers.SGD(0.0), kind=FitNet)
        model.fit(images(8), batch_size=8, verbose=0)
        return values(v for v in student.variables if "moving" in v.path)

    def made():
        keras.utils.set_random_seed(2)
        stack = [layers.Conv2D(5, 3, strides=2), layers.BatchNormalization(), layers.ReLU()]
        stack += [layers.GlobalAveragePooling2D(), layers.Dense(CLASSES)]
        return keras.Sequential([keras.Input(SHAPE), *stack])

    made().save(tmp_path / "student.keras")
    expected = statistics(made())
    for own, other in zip(
        expected, statistics(keras.models.load_model(tmp_path / "student.keras")), strict=True
    ):
        np.testing.assert_allclose(other, own, rtol=1e-6)


def test_weights_of_images_and_classes_are_refused():
    weights = np.ones(16)
    model = distillation(kind=Supervised)
    for call in (
        lambda: model.fit(images(), LABELS, sample_weight=weights, verbose=0),
        lambda: model.fit(images(), LABELS, class_weight={0: 2.0}, verbose=0),
        lambda: model.fit(images(), LABELS, validation_data=(images(), LABELS, weights)),
        lambda: model.evaluate(images(), LABELS, sample_weight=weights, verbose=0),
        lambda: game.game().fit(images(), batch_size=4, class_weight={0: 2.0}, verbose=0),
    ):
        with pytest.raises(InputError, match="weighs all images and classes alike. Received: "):
            call()
    with pytest.raises(InputError, match="compile.* Received: loss_weights"):
        model.compile(keras.optimizers.SGD(0.1), loss_weights=[2.0])
    with pytest.raises(InputError, match="takes no validation_split"):
        game.game().fit(images(), validation_split=0.5, verbose=0)


def test_regularizers_are_said_to_take_no_part(capsys):
    student = keras.Sequential(
        [keras.Input(SHAPE), layers.Flatten(), layers.Dense(CLASSES, kernel_regularizer="l2")],
        name="decayed",
    )
    distillation(student=student)
    assert "The regularizers (or add_loss) of 'decayed' take no part" in capsys.readouterr().out
    distillation()
    assert "regularizers" not in capsys.readouterr().out


def test_plain_images_go_on_where_a_saved_game_was(tmp_path):
    whole, half = game.game(), game.game()
    whole.fit(images(), epochs=2, batch_size=4, verbose=0)
    half.fit(images(), epochs=1, batch_size=4, verbose=0)
    half.save(tmp_path / "half.keras")
    loaded = keras.models.load_model(tmp_path / "half.keras")
    loaded.fit(images(), initial_epoch=1, epochs=2, batch_size=4, verbose=0)
    assert not moved(values(whole.student.variables), values(loaded.student.variables))


def test_images_of_a_list_are_stacked():
    one, other = game.game(), game.game()
    one.fit(list(images()), batch_size=4, verbose=0)
    other.fit(images(), batch_size=4, verbose=0)
    assert not moved(values(one.student.variables), values(other.student.variables))


def test_one_callback_needs_no_list():
    stop = keras.callbacks.EarlyStopping(monitor="loss", mode="min")
    distillation().fit(images(), batch_size=8, verbose=0, callbacks=stop)
    assert stop.best is not None


def test_tensorboard_and_validation_go_together(tmp_path):
    callback = keras.callbacks.TensorBoard(tmp_path)
    options = {"validation_data": (images(),), "callbacks": [callback], "verbose": 0}
    model = distillation()
    assert "val_agreement" in model.fit(images(), batch_size=8, **options).history


def test_fit_and_evaluate_take_keras_arguments_by_position(tmp_path):
    log = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    model = distillation()
    model.fit(images(), None, 8, 2, 0, [log], 0.0, (images(), LABELS))
    header, *rows = (tmp_path / "log.csv").read_text().splitlines()
    assert "val_accuracy" in header and len(rows) == 2
    assert model.evaluate(images(), LABELS, 8, 0) == model.evaluate(images(), LABELS, verbose=0)
    listed = model.evaluate(images(), LABELS, 8, 0)
    named = model.evaluate(images(), LABELS, 8, 0, None, None, None, True)
    assert listed == [named["loss"], named["accuracy"], named["agreement"]]
    with pytest.raises(InputError, match="Received: sample_weight"):
        model.evaluate(images(), LABELS, 8, 0, np.ones(16))
    played = game.game()
    assert len(played.fit(images(), None, 4, 2, 0).history["loss"]) == 2
    with pytest.raises(InputError, match="takes no labels"):
        played.fit(images(), LABELS, 4, 2, 0)


@pytest.mark.parametrize(
    "x", [None, [], {"image": images()}, images().tolist(), "images", np.array]
)
@pytest.mark.parametrize("make", [distillation, game.game])
def test_what_is_no_array_and_no_stream_is_refused(make, x):
    with pytest.raises(InputError, match="expected images as one array .n, h, w, c., or a stream"):
        make().fit(x, verbose=0)


def test_a_frozen_student_is_refused():
    student = classifier(2)
    student.trainable = False
    with pytest.raises(InputError, match="the student must have weights that can be trained"):
        distillation(student=student)


def test_one_output_in_a_dict_is_taken():
    inputs = keras.Input(SHAPE)
    teacher, student = (
        keras.Model(inputs, {"logits": classifier(seed)(inputs)}) for seed in (1, 2)
    )
    given = distillation(teacher, student).fit(images(), batch_size=8, verbose=0, shuffle=False)
    plain = distillation().fit(images(), batch_size=8, verbose=0, shuffle=False)
    assert given.history["loss"] == pytest.approx(plain.history["loss"], rel=1e-5)


class Subclassed(keras.Model):
    """A network whose layers are hidden."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def call(self, inputs, training=False):
        return self.network(inputs, training=training)


def test_subclassed_generators_and_discriminators_play():
    generator, discriminator = Subclassed(game.generator()), Subclassed(game.discriminator())
    generator(np.zeros((1, LATENT), "float32"))
    discriminator(images(1))
    model = MosaicKD(
        classifier(1),
        classifier(2),
        generator,
        discriminator,
        latent_dim=LATENT,
        student_steps=np.int64(STEPS),
        regularization="adaptive",
    )
    model.compile(**km.recipe(10, STEPS))
    before = values(generator.trainable_variables)
    model.fit(images(), batch_size=4, verbose=0)
    assert moved(before, values(generator.trainable_variables))


def test_what_no_gradient_reaches_stays_and_the_rest_learns():
    inputs = keras.Input(SHAPE)
    flat = layers.Flatten()(inputs)
    student = Subclassed(keras.Model(inputs, [layers.Dense(CLASSES)(flat), layers.Dense(2)(flat)]))
    student.call = lambda x, training=False: student.network(x, training=training)[0]
    student(images(1))
    before = values(student.trainable_variables)
    distillation(student=student).fit(images(), batch_size=8, verbose=0)
    after = values(student.trainable_variables)
    assert [bool((a != b).any()) for a, b in zip(before, after, strict=True)] == [1, 1, 0, 0]
    model = game.game(compiled=False)
    model.generator.trainable = False
    model.compile(**km.recipe(10, STEPS))
    generator, student = values(model.generator.variables), values(model.student.variables)
    model.fit(images(), batch_size=4, verbose=0)
    assert moved(student, values(model.student.variables))
    assert not moved(generator, values(model.generator.variables))


def test_networks_of_several_outputs_or_of_bytes_are_refused():
    inputs = keras.Input(SHAPE)
    flat = layers.Flatten()(inputs)
    two = keras.Model(inputs, [layers.Dense(CLASSES)(flat), layers.Dense(CLASSES)(flat)])
    with pytest.raises(InputError, match="the teacher must have one output. Received"):
        distillation(two)
    pixels = keras.Input(SHAPE, dtype="uint8")
    scaled = layers.Rescaling(1 / 255)(pixels)
    bytes_in = keras.Model(pixels, layers.Dense(CLASSES)(layers.Flatten()(scaled)))
    with pytest.raises(InputError, match="must take floats in .0, 1.*which takes uint8"):
        distillation(bytes_in)


def test_a_teacher_of_logits_is_told_of_its_range_too(capsys):
    teacher = keras.Sequential(
        [keras.Input(SHAPE), layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(CLASSES)]
    )
    distillation(teacher)
    assert "give --teacher_input=0-255 (from Python, km.load_teacher's)" in capsys.readouterr().out
    distillation(km.load_teacher(teacher, "0-255"))
    assert "Warning" not in capsys.readouterr().out


# ---- settings --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("recipe", "practicl", "one of paper, practical"),
        ("strategy", "mirored", "one of "),
        ("select", "best", "one of "),
        ("jit_compile", "yes", "one of "),
        ("epochs", -1, "a whole number of at least"),
        ("student_updates", 5.5, "a whole number"),
        ("evaluations", 0, "a whole number"),
        ("batch_size", "32", "a whole number"),
        ("temperature", 0, "a number above 0"),
        ("student_learning_rate", float("nan"), "a number"),
        ("mixup", 2, "a number from 0 to 1"),
        ("seed", -1, "a whole number"),
        ("synthetic_only", 1, "true or false"),
        ("teacher", 3, "text"),
    ],
)
def test_settings_are_checked_as_flags_are_before_anything_is_written(
    name, value, expected, tmp_path
):
    settings = {"run_dir": tmp_path / "run", "teacher": "wrn10_1", name: value}
    with pytest.raises(InputError, match=f"--{name}: expected {expected}.*Received: "):
        km.train(km.ExperimentConfig(**settings))
    assert not (tmp_path / "run").exists()


def test_paths_are_text(tmp_path):
    config = km.ExperimentConfig(teacher=Path("t.keras"), ood="folder:a", run_dir=tmp_path)
    assert config.teacher == "t.keras" and config.dataset == ""
    classifier(1).save(tmp_path / "teacher.keras")
    assert km.load_teacher(tmp_path / "teacher.keras").output_shape == (None, CLASSES)


def test_a_pool_is_what_load_gives():
    with pytest.raises(InputError, match="expected an ImageSet, as km.load gives. Received: nd"):
        km.select(classifier(1), images())


# ---- epochs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [KnowledgeDistillation, Supervised])
def test_an_incomplete_batch_weighs_as_many_images_as_it_has(kind):
    data = np.concatenate([np.zeros((8, *SHAPE)), np.ones((1, *SHAPE))]).astype("float32")
    student, labels = classifier(2), LABELS[:9]
    for layer in student.layers:
        layer.trainable = not isinstance(layer, layers.BatchNormalization)
    model = distillation(None, student, keras.optimizers.SGD(0.0), kind)
    if kind is Supervised:
        logits = student.predict(data, verbose=0)
        expected = float(model.cross_entropy(labels, logits))
    else:
        labels, expected = None, model.evaluate(data, batch_size=9, verbose=0)[0]
    history = model.fit(data, labels, batch_size=8, shuffle=False, verbose=0).history
    assert history["loss"] == pytest.approx([expected], rel=1e-4)


def test_steps_whose_gradients_overflow_are_counted(tmp_path):
    model = game.game(compiled=False)
    scaled = [
        keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=float("inf"))
        for _ in range(3)
    ]
    model.compile(*scaled)
    data = images(3 * game.BATCH)
    model.fit(data, batch_size=game.BATCH, verbose=0)
    assert [int(each.iterations) for each in scaled] == [0, 0, 0]
    model.save(tmp_path / "game.keras")
    for each in (model, keras.saving.load_model(tmp_path / "game.keras")):
        assert int(each.optimizer.iterations) == 3


def test_images_go_on_though_gradients_are_accumulated():
    model = game.game(compiled=False)
    rates = keras.optimizers.Adam(1e-3, gradient_accumulation_steps=2), keras.optimizers.Adam(1e-3)
    model.compile(keras.optimizers.SGD(0.1), *rates)
    seen = []
    objective = model.discriminator_objective

    def noted(*arguments):
        seen.append(float(keras.ops.sum(arguments[1])))
        return objective(*arguments)

    object.__setattr__(model, "discriminator_objective", noted)
    data = np.random.default_rng(0).random((3 * game.BATCH, *SHAPE), dtype="float32")
    for epochs in (1, 2):
        model.fit(data, batch_size=game.BATCH, epochs=epochs, verbose=0)
    assert len(set(seen)) == 9 and int(model.optimizer.iterations) == 9
