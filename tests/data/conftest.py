"""Data tests hardly touch Keras's global state: clearing it before and after each costs more."""

import keras
import pytest


@pytest.fixture(autouse=True)
def _fresh_keras():
    keras.utils.set_random_seed(20211)
