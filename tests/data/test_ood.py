"""Selection by entropy: ranking, scores, cache."""

import dataclasses
import gc

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops
from PIL import Image

from keras_mosaickd.data import (
    Selection,
    entropies,
    load,
    select,
    stored,
    teacher_hash,
    top_entropy,
)
from keras_mosaickd.data.image_set import ImageSet
from keras_mosaickd.data.selection import _histogram, most_confident
from keras_mosaickd.errors import InputError

NAN = float("nan")


def teacher(seed=0, classes=4, dropout=0.0):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.Normalization(mean=0.5, variance=0.1),
            keras.layers.Flatten(),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(dropout),
            keras.layers.Dense(classes, kernel_initializer=keras.initializers.RandomNormal(0, 1.0)),
        ]
    )


@pytest.fixture
def pool():
    images = np.random.default_rng(0).integers(0, 256, (50, 4, 4, 1), dtype=np.uint8)
    return ImageSet(images, None, (), "noise", "train", True)


def expected_entropies(model, images):
    logits = ops.convert_to_numpy(model(images.astype(np.float32) / 255, training=False))
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return -(np.exp(log_p) * log_p).sum(-1)


@pytest.mark.parametrize(
    ("scores", "count", "kept"),
    [
        ([0.1, 0.9, 0.5], 1, [1]),
        ([0.1, 0.9, 0.5], 2, [1, 2]),
        ([0.1, 0.9, 0.5], 3, [0, 1, 2]),
        ([0.1, 0.9, 0.5], 0, [0, 1, 2]),
        ([0.5, 0.9, 0.5, 0.5], 2, [0, 1]),  # ties: the earlier one
        ([0.5, 0.5, 0.5, 0.5], 3, [0, 1, 2]),
        ([NAN, 0.1, NAN, 0.2], 1, [3]),
        ([NAN, 0.1, NAN, 0.2], 2, [1, 3]),
        ([NAN, 0.1, NAN, 0.2], 0, [0, 1, 2, 3]),
        ([0.0, 0.0, NAN], 2, [0, 1]),
    ],
)
def test_ranking_by_hand(scores, count, kept):
    result = top_entropy(np.array(scores, np.float32), count)
    assert result.tolist() == kept
    assert result.dtype == np.int64


@pytest.mark.parametrize("count", [4, -1, 1.5])
def test_counts_that_the_pool_cannot_give(count):
    with pytest.raises(InputError, match="--ood_size: expected 0 .* at most the pool's 3"):
        top_entropy(np.zeros(3), count)


def test_not_enough_numbers():
    with pytest.raises(InputError, match="--ood_size: expected at most the 2 images"):
        top_entropy(np.array([NAN, 1, 2]), 3)


@given(st.lists(st.one_of(st.floats(0, 3, width=16), st.just(NAN)), min_size=1), st.data())
def test_nothing_dropped_is_above_what_is_kept(scores, data):
    scores = np.array(scores, np.float32)
    valid = int((~np.isnan(scores)).sum())
    if not valid:
        return
    count = data.draw(st.integers(1, valid))
    kept = top_entropy(scores, count)
    assert len(np.unique(kept)) == count
    dropped = np.delete(scores, kept)
    dropped = dropped[~np.isnan(dropped)]
    assert not np.isnan(scores[kept]).any()
    assert not len(dropped) or dropped.max() <= scores[kept].min()


@pytest.mark.parametrize("batch_size", [7, 50, 256])
def test_entropies_are_those_of_the_teacher_in_inference_mode(pool, batch_size):
    model = teacher(dropout=0.5)
    statistics = [ops.convert_to_numpy(weight) for weight in model.non_trainable_weights]
    scores = entropies(model, pool.images, batch_size)
    assert scores.dtype == np.float32 and scores.shape == (50,)
    np.testing.assert_allclose(scores, expected_entropies(model, pool.images), atol=1e-5)
    floats = pool.images.astype(np.float32) / 255
    np.testing.assert_allclose(entropies(model, floats, batch_size), scores, atol=1e-5)
    for before, after in zip(statistics, model.non_trainable_weights, strict=True):
        np.testing.assert_array_equal(before, ops.convert_to_numpy(after))


@pytest.mark.backend("torch")
def test_scoring_leaves_no_arrays_in_cycles():
    inputs = keras.Input((4, 4, 1))
    added = keras.layers.Add()([inputs, keras.layers.ReLU()(inputs)])
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(added)))
    images = np.zeros((40, 4, 4, 1), np.uint8)
    entropies(model, images, batch_size=4)
    gc.collect()
    gc.disable()
    try:
        entropies(model, images, batch_size=4)
        # 4,530 of 10 batches where nothing collects them.
        assert gc.collect() < 500
    finally:
        gc.enable()


@pytest.mark.backend("jax", "torch")
@pytest.mark.parametrize("batch_size", [7, 20, 64])
def test_a_pool_is_scored_in_parts_and_read_forward_once(pool, batch_size, monkeypatch):
    class Read:
        """Notes what is read."""

        shape, starts = pool.images.shape, []

        def __len__(self):
            return len(pool.images)

        def __getitem__(self, index):
            self.starts.append(index.start)
            return pool.images[index]

    model, images = teacher(), Read()
    whole = entropies(model, pool.images, batch_size)
    monkeypatch.setattr("keras_mosaickd.data.scores.TOGETHER", 2)
    np.testing.assert_array_equal(entropies(model, images, batch_size), whole)
    # The first batch twice: Keras builds its model by it.
    assert sorted(images.starts) == images.starts
    assert images.starts.count(images.starts[-1]) <= 2 and whole.shape == (50,)
    assert set(images.starts) == set(range(0, 50, min(batch_size, 50)))


def test_predictions_per_pixel_give_one_score_per_image(pool):
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(3, 1)])
    expected = expected_entropies(model, pool.images).mean(axis=(1, 2))
    np.testing.assert_allclose(entropies(model, pool.images), expected, atol=1e-5)


def test_a_mixed_precision_policy_is_harmless(pool):
    model = teacher()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        scores = entropies(model, pool.images)
    finally:
        keras.config.set_dtype_policy("float32")
    np.testing.assert_allclose(scores, expected_entropies(model, pool.images), atol=1e-5)


def test_logits_that_are_no_numbers_give_nan(pool):
    model = teacher()
    model.layers[-1].bias.assign([np.inf, 0, 0, 0])
    assert np.isnan(entropies(model, pool.images)).all()


def test_a_selection(pool, tmp_path):
    model = teacher()
    selection = select(model, pool, 20, cache_dir=tmp_path)
    expected = expected_entropies(model, pool.images)
    kept = np.sort(np.argsort(-expected)[:20])
    np.testing.assert_array_equal(selection.indices, kept)
    np.testing.assert_array_equal(selection.images, pool.images[kept])
    assert isinstance(selection.images, np.memmap) and selection.images.dtype == np.uint8
    assert selection.kept_mean == pytest.approx(expected[kept].mean(), abs=1e-5)
    assert selection.dropped_mean == pytest.approx(np.delete(expected, kept).mean(), abs=1e-5)
    assert not selection.reused and len(selection) == 20
    assert selection.path.parent == tmp_path / "ood"
    text = selection.describe()
    assert "20 of 50 kept from noise (train)" in text
    assert f"kept {selection.kept_mean:.4f}, dropped {selection.dropped_mean:.4f}" in text
    edges, counts, kept_counts = selection.histogram
    assert counts.sum() == 50 and kept_counts.sum() == 20
    assert len(text.splitlines()) == 3 + len(counts)


def test_the_whole_pool(pool, tmp_path):
    selection = select(teacher(), pool, cache_dir=tmp_path)
    np.testing.assert_array_equal(selection.images, pool.images)
    assert np.isnan(selection.dropped_mean)
    assert "dropped none" in selection.describe()


def test_the_whole_of_a_decoded_folder_is_kept_once(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(6):
        grey = np.full((4, 4), 40 * index, "uint8")
        Image.fromarray(grey).save(folder / f"{index}.png")
    cache = tmp_path / "cache"
    decoded = stored(load(f"folder:{folder}", "all", 4, channels=1), cache)
    for _ in range(2):  # made, then found
        selection = select(teacher(), decoded, cache_dir=cache)
        np.testing.assert_array_equal(selection.images, decoded.images)
        assert [path.name for path in cache.rglob("images.npy")] == ["images.npy"]
        shown = np.load(selection.summary()["images"])
        np.testing.assert_array_equal(shown, decoded.images)
    # A part of a file is a memory map too.
    part = dataclasses.replace(decoded, images=decoded.images[1:], labels=None)
    selection = select(teacher(), part, cache_dir=cache)
    np.testing.assert_array_equal(np.load(selection.summary()["images"]), decoded.images[1:])


@pytest.mark.parametrize("highest", [1e-9, 3e-4, 0.02, 0.099, 0.1, 1.2, 6.9])
def test_bins_can_be_told_apart_whatever_the_entropies(highest, tmp_path):
    scores = np.linspace(0, highest, 50, dtype=np.float32)
    kept = np.arange(30, 50)
    selection = Selection(
        "noise",
        "train",
        kept,
        scores,
        scores,
        highest * 0.8,
        highest * 0.3,
        _histogram(scores, kept),
        tmp_path,
        False,
    )
    _, means, heading, *bins = selection.describe().splitlines()
    spans = [line[: heading.index("entropy") + len("entropy")] for line in bins]
    edges = [span.replace(" ", "").split("-") for span in spans]
    assert len(bins) == 12 and all(float(low) < float(high) for low, high in edges)
    assert len({len(span) for span in spans}) == 1
    # Three decimals are enough where the teacher is not sure.
    assert (len(edges[0][0]) == len("0.000")) == (highest > 0.1)
    if highest > 1e-4:
        assert float(means.split("kept ")[1].split(",")[0]) == pytest.approx(
            highest * 0.8, rel=0.05
        )


def test_images_without_a_valid_entropy_are_reported(pool, tmp_path):
    model = teacher()
    found = select(model, pool, cache_dir=tmp_path)
    entropies = found.entropies.copy()
    entropies[:3] = np.nan
    told = dataclasses.replace(found, entropies=entropies).describe()
    assert "not a number: 3" in told
    with pytest.raises(InputError, match="--ood_size: expected at most the 47 images"):
        top_entropy(entropies, 48)
    model.layers[-1].bias.assign([np.inf, 0, 0, 0])
    with pytest.raises(InputError, match="--teacher: expected answers .* NaN for each of the 50"):
        select(model, pool, cache_dir=tmp_path)


def test_the_same_is_read_and_anything_else_selected_anew(pool, tmp_path):
    model = teacher()
    first = select(model, pool, 20, cache_dir=tmp_path)
    again = select(model, pool, 20, cache_dir=tmp_path)
    assert again.reused and "as selected before" in again.describe()
    for field in dataclasses.fields(Selection):
        one, two = getattr(first, field.name), getattr(again, field.name)
        if isinstance(one, np.ndarray):
            np.testing.assert_array_equal(one, two)
        elif field.name not in ("reused", "histogram"):
            assert one == two
    # The same weights under other names are the same teacher.
    renamed = keras.models.clone_model(model)
    renamed.set_weights(model.get_weights())
    assert select(renamed, pool, 20, cache_dir=tmp_path).reused

    assert not select(model, pool, 21, cache_dir=tmp_path).reused
    # The same weights behind another scaling of the images are another teacher.
    darkened = keras.Sequential([keras.Input(model.input_shape[1:]), keras.layers.Rescaling(0.5)])
    darkened.add(model)
    assert not select(darkened, pool, 20, cache_dir=tmp_path).reused
    # Probabilities are not taken for logits.
    softmax = keras.Sequential([model, keras.layers.Softmax()])
    np.testing.assert_allclose(
        select(softmax, pool, 20, cache_dir=tmp_path).entropies, first.entropies, rtol=1e-4
    )
    # Images that have moved are the same ones.
    here, there = (
        dataclasses.replace(pool, name=f"folder:{place}", split="all") for place in ("a", "b")
    )
    select(model, here, 20, cache_dir=tmp_path)
    assert select(model, there, 20, cache_dir=tmp_path).reused
    other_images = pool.images.copy()
    other_images[0, 0, 0, 0] ^= 1
    for changed in (
        {"images": other_images},
        {"images": pool.images.reshape(50, 4, 4, 1)[:40]},
    ):
        other = dataclasses.replace(pool, **changed)
        assert not select(model, other, 20, cache_dir=tmp_path).reused
    # One weight by the smallest step, then a statistic of BatchNormalization.
    for layer, name in ((model.layers[-1], "kernel"), (model.layers[2], "moving_mean")):
        weight = getattr(layer, name)
        value = ops.convert_to_numpy(weight).copy()
        value.flat[0] = np.nextafter(value.flat[0], np.float32(9))
        weight.assign(value)
        assert not select(model, pool, 20, cache_dir=tmp_path).reused


@pytest.mark.parametrize("name", ["images.npy", "indices.npy", "entropies.npy"])
def test_one_flipped_byte_is_noticed(pool, tmp_path, name):
    model = teacher()
    first = select(model, pool, 20, cache_dir=tmp_path)
    content = bytearray((first.path / name).read_bytes())
    content[-1] ^= 1
    (first.path / name).write_bytes(content)
    with pytest.warns(UserWarning, match=f"{name} was changed"):
        again = select(model, pool, 20, cache_dir=tmp_path)
    assert not again.reused
    np.testing.assert_array_equal(again.images, pool.images[again.indices])


def test_what_the_pool_cannot_give_is_refused_before_any_work(pool, tmp_path):
    with pytest.raises(InputError, match="--ood_size: .* 50 images. Received: 51"):
        select(None, pool, 51, cache_dir=tmp_path)
    floats = dataclasses.replace(pool, images=pool.images / 255)
    with pytest.raises(InputError, match="as uint8"):
        select(None, floats, 5, cache_dir=tmp_path)


@pytest.mark.parametrize("count", [0, 3])
def test_a_broken_image_is_found_and_named(tmp_path, count):
    from PIL import Image

    from keras_mosaickd.data import load

    for index in range(5):
        Image.new("L", (4, 4), index * 50).save(tmp_path / f"{index}.png")
    images = load(f"folder:{tmp_path}", "train", image_size=4, channels=1)
    selection = select(teacher(), images, count, cache_dir=tmp_path / "cache")
    np.testing.assert_array_equal(
        selection.images[:, 0, 0, 0], np.arange(5)[selection.indices] * 50
    )
    (tmp_path / "3.png").write_bytes(b"")
    images = load(f"folder:{tmp_path}", "train", image_size=4, channels=1)
    with pytest.raises(InputError, match="readable image. Received: .*3.png"):
        select(teacher(), images, count, cache_dir=tmp_path / "cache")


ONES = {"kernel_initializer": "ones"}


def test_the_hash_follows_settings_and_not_names():
    def hashed(name, **settings):
        inputs = keras.Input((4,), name=f"{name}_input")
        dense = keras.layers.Dense(2, name=f"{name}_dense", **{**ONES, **settings})
        inner = keras.Model(inputs, dense(inputs) * 1.0, name=name)
        outer = keras.Input((4,), name=f"{name}_outer")
        return teacher_hash(keras.Model(outer, inner(outer), name=f"{name}_model"))

    assert hashed("one") == hashed("two")
    assert hashed("one") != hashed("one", activation="relu")
    assert hashed("one") != hashed("one", dtype="mixed_bfloat16")


def test_the_hash_follows_order_shape_type_and_value():
    def hashed(*arrays):
        model = keras.Sequential([keras.Input((2,))])
        layer = keras.layers.Dense(2)
        model.add(layer)
        layer.set_weights(arrays)
        return teacher_hash(model)

    one, two = np.array([[1.0, 2], [3, 4]]), np.array([5.0, 6])
    assert hashed(one, two) == hashed(one, two)
    assert hashed(one, two) != hashed(one.T, two)
    assert hashed(one, two) != hashed(one, two[::-1])


def test_confident_images_take_turns_by_class_and_the_rest_is_drawn():
    scores = np.array([0.1, 0.2, 0.3, 0.4, 0.5, NAN, 0.6, 0.7])
    classes = np.array([0, 0, 0, 1, 1, 1, 0, 2])
    # Class 0: 0, 1, 2, 6; class 1: 3, 4; class 2: 7. First turn 0, 3, 7, second 1, 4.
    kept = most_confident(scores, classes, 7)
    assert kept.tolist() == [0, 1, 2, 3, 4, 6, 7]
    kept = set(most_confident(scores, classes, 4))
    assert {0, 3} <= kept and len(kept) == 4 and 5 not in kept
    assert set(most_confident(scores, classes, 1)) == {0}


def test_rules_of_selection(pool, tmp_path):
    model = teacher()
    kept = {
        by: select(model, pool, 10, cache_dir=tmp_path, by=by, seed=1)
        for by in ("entropy", "random", "confident")
    }
    assert kept["confident"].kept_mean < kept["random"].kept_mean < kept["entropy"].kept_mean
    for selection in kept.values():
        np.testing.assert_array_equal(selection.images, pool.images[selection.indices])
    again = select(model, pool, 10, cache_dir=tmp_path, by="random", seed=1)
    assert again.reused and (again.indices == kept["random"].indices).all()
    other = select(model, pool, 10, cache_dir=tmp_path, by="random", seed=2)
    assert not other.reused and (other.indices != kept["random"].indices).any()
    with pytest.raises(InputError, match="by: expected one of entropy.*Received: 'all'"):
        select(model, pool, 10, cache_dir=tmp_path, by="all")
