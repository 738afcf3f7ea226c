"""Judging a student without labels: agreement, held-out images, class names, the verdict."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_mosaickd import InputError
from keras_mosaickd.data import ImageSet
from keras_mosaickd.data.class_matching import class_names_of, labelled_as, renames
from keras_mosaickd.data.held_out import hold_out
from keras_mosaickd.evaluation.agreement import agreement_of_logits
from keras_mosaickd.evaluation.label_free import SCORE, LabelFreeAgreement, LabelFreeJudge
from keras_mosaickd.evaluation.verdict import verdict
from tests import game


def table(rows):
    """A model that gives row i of a table for an image of value i / 255."""
    rows = np.asarray(rows, "float32")
    inputs = keras.Input((1, 1, 1))
    index = keras.ops.cast(keras.ops.round(inputs[:, 0, 0, 0] * 255), "int32")
    embedding = keras.layers.Embedding(*rows.shape, embeddings_initializer="zeros")
    model = keras.Model(inputs, embedding(index))
    embedding.set_weights([rows])
    return model


def numbered(count):
    return np.arange(count, dtype=np.uint8).reshape(count, 1, 1, 1)


def test_agreement_by_hand():
    # Probabilities (3/4, 1/4), (3/4, 1/4), (1/4, 3/4) of T and (1/2, 1/2)+, (1/4, 3/4) of S.
    three = np.log(3.0)
    teacher = table([[three, 0], [three, 0], [0, three]])
    student = table([[three, 0], [0, three], [0, three]])
    found = agreement_of_logits(teacher, student, numbered(3))
    assert found.agreement == pytest.approx(2 / 3)
    # KL of (3/4, 1/4) and (1/4, 3/4) is 3/4 ln 3 - 1/4 ln 3; the other two images have none.
    assert found.kl == pytest.approx(three / 2 / 3, abs=1e-6)
    assert found.calibration_gap == pytest.approx(3 / 4 - 2 / 3, abs=1e-6)
    assert found.counts == (2, 1) and found.agreeing == (1, 1)
    assert found.per_class == [0.5, 1.0]
    assert np.isnan(found.lowest)
    json.dumps(found.summary(["a", "b"]), allow_nan=False)


def test_lowest_agreement_leaves_rare_classes_out():
    # Class 0 twelve times, agreed on nine times; class 1 once, never agreed on.
    teacher = table([[1, 0]] * 12 + [[0, 1]])
    student = table([[1, 0]] * 9 + [[0, 1]] * 3 + [[1, 0]])
    found = agreement_of_logits(teacher, student, numbered(13))
    assert found.lowest == 0.75 and found.per_class == [0.75, 0.0]
    assert found.summary(["a", "b"])["agreement_per_class"] == {"a": 0.75, "b": 0.0}


def test_pixels_are_counted_one_by_one_and_batches_do_not_matter():
    inputs = keras.Input((2, 2, 1))
    first = keras.Model(inputs, keras.ops.concatenate([inputs, 1 - inputs], axis=-1))
    second = keras.Model(inputs, keras.ops.concatenate([1 - inputs, inputs], axis=-1))
    images = np.random.default_rng(0).random((300, 2, 2, 1), dtype="float32")
    found = agreement_of_logits(first, second, images)
    assert sum(found.counts) == 300 * 4 and found.agreement == 0
    p = np.exp(images) / (np.exp(images) + np.exp(1 - images))
    expected = (p * np.log(p / (1 - p)) + (1 - p) * np.log((1 - p) / p)).mean()
    assert found.kl == pytest.approx(expected, abs=1e-5)


@given(logits=st.lists(st.lists(st.floats(-50, 50), min_size=3, max_size=3), min_size=1))
def test_a_network_agrees_with_itself(logits):
    # Without Keras's drawing of weights: what is measured is arithmetic on logits.
    class Model:
        output_shape = (None, 3)

        def __call__(self, images, training):
            return keras.ops.convert_to_tensor(np.asarray(logits, "float32"))

    found = agreement_of_logits(Model(), Model(), numbered(len(logits)))
    assert found.agreement == 1 and found.kl == 0 and found.calibration_gap <= 1e-12


# ---- held-out images -------------------------------------------------------------------


def pool(count, size=4):
    images = np.arange(count, dtype=np.uint32).astype(np.uint8)[:, None, None, None]
    images = np.broadcast_to(images, (count, size, size, 1))
    return ImageSet(images, None, (), "pool", "all", flip=True)


@given(count=st.integers(20, 250), seed=st.integers(0, 3))
def test_held_out_images_are_a_tenth_and_never_trained_on(count, seed):
    rest, held_out = hold_out(pool(count), seed)
    values = [part.images[:, 0, 0, 0].tolist() for part in (rest, held_out)]
    assert sorted(values[0] + values[1]) == list(range(count))
    assert all(part == sorted(part) for part in values)
    assert len(held_out) == round(count / 10)
    again = hold_out(pool(count), seed)[1]
    np.testing.assert_array_equal(again.images, held_out.images)


@pytest.mark.slow
def test_held_out_images_differ_by_seed_and_have_a_most():
    first, second = (hold_out(pool(200), seed)[1].images[:, 0, 0, 0] for seed in (0, 1))
    assert first.tolist() != second.tolist()
    assert len(hold_out(pool(30_000, size=1), 0)[1]) == 2000
    # 256 MiB of float32 are 256 images of 512 x 512.
    assert len(hold_out(pool(2600, size=512), 0)[1]) == 256


def test_too_few_images_to_hold_some_out():
    with pytest.raises(InputError, match="--ood must have at least 20 images"):
        hold_out(pool(14), 0)


# ---- the judge and its callback ----------------------------------------------------------


def test_the_callback_adds_what_the_judge_finds():
    model = game.game()
    held_out = (game.images(20) * 255).astype("uint8")
    judge = LabelFreeJudge(held_out, game.LATENT, game.SHAPE, seed=0)
    callback = LabelFreeAgreement(judge, is_validation=True)
    callback.set_model(model)
    logs = {"loss": 1.0}
    callback.on_epoch_end(0, logs)
    judged = judge.judge(model)
    assert logs["held_out_agreement"] == judged["held_out"].agreement == logs["val_agreement"]
    assert logs["synthetic_kl"] == judged["synthetic"].kl > 0
    assert logs["val_loss"] == judged["held_out"].kl
    means = (judged["held_out"].agreement + judged["synthetic"].agreement) / 2
    assert logs[SCORE] == pytest.approx(means)
    assert all(np.isfinite(value) for value in logs.values())
    # Of the same student the teacher itself would be.
    perfect = judge.judge(model, student=model.teacher)
    assert perfect["held_out"].agreement == perfect["synthetic"].agreement == 1


def test_a_method_without_generator_or_images_is_judged_on_the_rest():
    model = game.game()
    assert list(LabelFreeJudge(None, game.LATENT, game.SHAPE, 0).judge(model)) == ["synthetic"]
    assert list(LabelFreeJudge(game.images(), None, game.SHAPE, 0).judge(model)) == ["held_out"]


# ---- names and labels --------------------------------------------------------------------


def test_class_names(tmp_path):
    file = tmp_path / "names.txt"
    file.write_text("cat\n dog \n\n")
    assert class_names_of(file, 2) == ("cat", "dog")
    for encoding in ("utf-8-sig", "utf-16"):  # As Windows writes them.
        file.write_text("chat\nchien à poil\n", encoding=encoding)
        assert class_names_of(file, 2) == ("chat", "chien à poil")
    for text, wrong in (
        ("cat\ncat\n", "with cat on 2 lines"),
        ("cat\n", "with 1 line for 2 classes"),
        ("a\n\nb\n", "with 3 lines for 2 classes"),
        ("\nb\n", "whose line 1 is empty"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=f"2 different names.*{wrong}"):
            class_names_of(file, 2)
    with pytest.raises(InputError, match="--class_names must be a readable text file") as missing:
        class_names_of(tmp_path / "none.txt", 2)
    assert str(missing.value).count("none.txt") == 1
    assert str(missing.value).endswith("(No such file or directory)")


def labels(*names):
    images = np.zeros((len(names), 2, 2, 1), np.uint8)
    return ImageSet(images, np.arange(len(names)), names, "folder:x", "all", True)


def test_labels_are_matched_by_name():
    # Sub-folders come in the order of their names, which is not the teacher's.
    # Written in one piece by most systems, in two by some.
    found = labelled_as(labels("ba\u0308r"), ("ant", "b\u00e4r"), "classification", True)
    assert found.labels.tolist() == [1]
    found = labelled_as(labels("cat", "dog"), ("dog", "fox", "cat"), "classification", True)
    assert found.labels.tolist() == [2, 0]
    numbers = tuple(map(str, range(11)))
    found = labelled_as(labels("0", "1", "10", "2"), numbers, "classification", True)
    assert found.labels.tolist() == [0, 1, 10, 2]


def test_spelling_that_tells_no_classes_apart_makes_no_difference():
    class_names = ("hot_dog", "Cat", "ant")
    found = labelled_as(labels("Ant", "cat", "hot dog"), class_names, "classification", True)
    assert found.labels.tolist() == [2, 1, 0] and found.class_names == class_names
    assert not renames(class_names, labels("ANT", "CAT", "HOT-DOG"))
    assert renames(class_names, labels("Ameise", "Katze", "Wurst"))
    found = labelled_as(labels("A", "a"), ("a", "A"), "classification", True)
    assert found.labels.tolist() == [1, 0]
    found = labelled_as(labels("Dog "), ("a-b", "a b", "dog"), "classification", True)
    assert found.labels.tolist() == [2]
    for names, class_names in ((("A", "A-B"), ("a b", "A", "a_b")), (("A", "a"), ("a", "b"))):
        with pytest.raises(InputError, match="Received: folder:x with A"):
            labelled_as(labels(*names), class_names, "classification", True)


def test_numbers_that_may_mean_two_things_are_refused(capsys):
    """Keras numbers folders in the order of their names as text: folder 10 is class 2."""
    few, many = tuple(map(str, range(3))), tuple(map(str, range(12)))
    for names, folders in ((many, sorted(many)), (many, few), (many[:10], sorted(many[1:11]))):
        with pytest.raises(InputError, match="--eval needs --class_names.*0, 1, 10, 2"):
            labelled_as(labels(*folders), names, "classification", False)
    found = labelled_as(labels("1", "2"), few, "classification", False)
    assert found.labels.tolist() == [1, 2]
    assert "1, 2 are taken for the teacher's classes by their numbers" in capsys.readouterr().out
    padded = [f"{index:02}" for index in range(12)]
    found = labelled_as(labels(*padded), many, "classification", False)
    assert found.labels.tolist() == list(range(12))


def test_other_names_are_taken_in_order_only_where_the_teachers_are_not_known(capsys):
    found = labelled_as(labels("cat", "dog"), ("0", "1"), "classification", False)
    assert found.labels.tolist() == [0, 1] and "in this order" in capsys.readouterr().out
    for names, is_named in ((("0", "1"), True), (("0", "1", "2"), False)):
        with pytest.raises(InputError, match="--eval must have classes of the teacher"):
            labelled_as(labels("cat", "dog"), names, "classification", is_named)
    with pytest.raises(InputError, match="--eval must have labels"):
        labelled_as(pool(3), ("0", "1"), "classification", False)


# ---- the verdict -------------------------------------------------------------------------


def metrics(held_out, synthetic=None, gap=0.0, **others):
    found = {
        "teacher_parameters": 1000,
        "student_parameters": 100,
        "held_out_agreement": held_out,
        "held_out_calibration_gap": gap,
        "held_out_classes_seen": 10,
        "class_names": list("abcdefghij"),
    }
    if synthetic is not None:
        found |= {"synthetic_agreement": synthetic, "synthetic_classes_seen": 10}
    return {**found, **others}


@pytest.mark.parametrize(
    ("held_out", "synthetic", "use"),
    [
        (0.97, 0.95, "in the teacher's place"),
        (0.97, 0.94, "one other answer in ten"),
        (0.85, None, "one other answer in ten"),
        (0.84, 0.99, "first filter"),
        (0.60, 0.60, "first filter"),
        (0.59, 0.99, "none yet"),
    ],
)
def test_the_verdict_goes_by_the_lower_agreement(held_out, synthetic, use):
    text = verdict(metrics(held_out, synthetic))
    assert use in text and "10.0 times fewer" in text and f"{held_out:.1%}" in text


@pytest.mark.parametrize("head", ["classes", "labels"])
def test_one_class_of_two_says_nothing(head):
    names = {"class_names": ["no", "yes"], "held_out_classes_seen": 1, "head": head}
    assert ("only 1 of its 2 classes in all" in verdict(metrics(0.99, **names))) == (
        head == "classes"
    )


def test_the_verdict_tells_what_labelled_images_have_shown():
    assert "not known without some of them" in verdict(metrics(0.9))
    tested = {"eval_student_accuracy": 0.44, "eval_teacher_accuracy": 0.995}
    text = verdict(metrics(0.9, eval="folder:shapes", **tested))
    assert "labelled images of folder:shapes its accuracy is 44.0%, the teacher's 99.5%" in text
    assert "not known" not in text


def test_the_verdict_says_what_confidence_is_worth():
    assert "as sure as it is right" in verdict(metrics(0.9, gap=0.04))
    assert "too sure" in verdict(metrics(0.9, gap=0.06))
    assert "too unsure" in verdict(metrics(0.9, gap=-0.06))


def test_the_verdict_says_when_the_images_are_one_sided():
    one_sided = verdict(metrics(0.99, 0.99, held_out_classes_seen=3))
    assert "sees only 3 of its 10 classes" in one_sided and "in the teacher's place" in one_sided
    assert "sees only" not in verdict(metrics(0.99, held_out_classes_seen=5))


def test_what_a_blind_teacher_agrees_to_is_worth_nothing():
    for blind in (
        metrics(0.99, held_out_classes_seen=4),
        metrics(0.99, 0.99, held_out_classes_seen=1, synthetic_classes_seen=2),
    ):
        text = verdict(blind)
        assert "Expected use: none yet" in text and "--teacher_input" in text
    assert "--teacher_input" not in verdict(metrics(0.99, held_out_classes_seen=5))


def test_a_student_larger_than_its_teacher_is_not_told_to_grow():
    assert "a larger student" in verdict(metrics(0.1))
    assert "larger" not in verdict(metrics(0.1, student_parameters=2000))
    larger = verdict(metrics(0.9, student_parameters=2000))
    assert "2.0 times more" in larger
