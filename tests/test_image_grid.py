"""Grids and PNG files: keras_mosaickd/data/image_grid.py."""

from __future__ import annotations

import io
import os

import numpy
import pytest
from PIL import Image

from keras_mosaickd.data import image_grid

# Once is enough: nothing here depends on the backend.
pytestmark = pytest.mark.backend("tensorflow")


def test_grid_places_images_row_by_row_with_lines_between():
    images = numpy.arange(3, dtype="uint8")[:, None, None, None].repeat(2, 1).repeat(2, 2) * 100
    sheet = image_grid.grid(images, columns=2, least_size=1)
    assert sheet.shape == (5, 5, 1) and sheet.dtype == numpy.uint8
    expected = [
        [0, 0, 255, 100, 100],
        [0, 0, 255, 100, 100],
        [255, 255, 255, 255, 255],
        [200, 200, 255, 255, 255],
        [200, 200, 255, 255, 255],
    ]
    assert sheet[..., 0].tolist() == expected


def test_grid_enlarges_by_a_whole_factor_only_what_is_small():
    assert image_grid.grid(numpy.zeros((1, 16, 16, 3))).shape == (48, 48, 3)
    assert image_grid.grid(numpy.zeros((1, 20, 30, 3))).shape == (60, 90, 3)
    assert image_grid.grid(numpy.zeros((1, 64, 64, 3))).shape == (64, 64, 3)
    assert image_grid.grid(numpy.zeros((64, 64, 64, 3))).shape == (519, 519, 3)
    assert image_grid.grid(numpy.zeros((2, 64, 64, 3)), columns=9).shape == (64, 129, 3)


@pytest.mark.parametrize("channels", [1, 3])
def test_captions_stand_below_their_images(channels):
    images = numpy.zeros((5, 28, 28, channels), "uint8") + 100
    captions = ["7", "", "Ankle boot", "a name that is much too long", "7"]
    sheet = image_grid.grid(images, columns=1, captions=captions)
    assert sheet.shape[1:] == (56, channels)
    tiles = numpy.split(numpy.concatenate([sheet, sheet[:1]]), 5)
    strips = [tile[56:-1] for tile in tiles]
    for tile, strip in zip(tiles, strips, strict=True):
        assert (tile[:56] == 100).all()
        # Black on white, grey at the edges of letters, no other colour.
        assert (strip[..., :1] == strip).all()
    ink = [int((strip[..., 0] < 128).sum()) for strip in strips]
    assert ink[1] == 0 < ink[0] < ink[2] and (strips[0] == strips[4]).all()
    assert 8 <= strips[0].shape[0] <= 20
    cut = image_grid.grid(images[:1], captions=["a name that is much too wide"])[56:]
    assert (cut == strips[3]).all()


def test_captions_grow_with_the_images():
    small, large = (
        image_grid.grid(numpy.zeros((1, size, size, 1)), captions=["cat"]) for size in (64, 256)
    )
    assert large.shape[0] - 256 > small.shape[0] - 64


def test_floats_are_rounded_and_clipped():
    values = numpy.array([-1.0, 0.0, 0.5, 1.0, 2.0, numpy.nan], "float32")
    sheet = image_grid.grid(values.reshape(1, 1, 6, 1), least_size=1)
    assert sheet.ravel().tolist() == [0, 0, 128, 255, 255, 0]


@pytest.mark.parametrize("shape", [(0, 4, 4, 3), (4, 4, 3), (1, 4, 4, 2), (1, 0, 4, 1)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="expected images"):
        image_grid.grid(numpy.zeros(shape))


def test_columns_below_one_are_refused():
    with pytest.raises(ValueError, match="columns"):
        image_grid.grid(numpy.zeros((1, 4, 4, 1)), columns=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_png_round_trip_makes_directories_and_leaves_no_other_file(tmp_path, channels):
    image = numpy.random.default_rng(0).integers(0, 256, (5, 7, channels), dtype="uint8")
    path = image_grid.write_png(tmp_path / "new" / "a.png", image)
    image_grid.write_png(path, image)
    with Image.open(path) as opened:
        read = numpy.asarray(opened).reshape(image.shape)
    assert (read == image).all() and os.listdir(path.parent) == ["a.png"]
    assert Image.open(io.BytesIO(image_grid.encode_png(image))).format == "PNG"


def test_png_wants_bytes():
    with pytest.raises(ValueError, match="uint8"):
        image_grid.encode_png(numpy.zeros((4, 4, 3)))
