"""What is made before it is asked for."""

import threading

import numpy as np
import pytest

from keras_mosaickd.data.streams.ahead import Ahead

# Once is enough: what each backend does with the arrays is in test_streams.
pytestmark = pytest.mark.backend("tensorflow")


class Made:
    """Notes what was made, and by whom."""

    def __init__(self, broken=None):
        self.numbers, self.broken = [], broken
        self.here = threading.get_ident()
        self.is_made = threading.Condition()

    def __call__(self, number):
        with self.is_made:
            self.numbers.append((number, threading.get_ident() == self.here))
            self.is_made.notify_all()
        if number == self.broken:
            raise ValueError(f"no {number}")
        return (np.array(number),)

    def wait_for(self, *numbers):
        with self.is_made:
            assert self.is_made.wait_for(lambda: {*numbers} <= {n for n, _ in self.numbers}, 60)


def test_the_next_ones_are_made_in_a_thread_once_two_were_asked_for_in_order():
    made = Made()
    ahead = Ahead(made, depth=3)
    assert ahead(7) == (7,)
    assert made.numbers == [(7, True)]
    assert ahead(8) == (8,)
    made.wait_for(9, 10, 11)
    assert sorted(made.numbers[1:]) == [(8, True), (9, False), (10, False), (11, False)]
    assert [ahead(n) for n in range(9, 30)] == [(n,) for n in range(9, 30)]
    made.wait_for(32)
    assert sorted(number for number, _ in made.numbers) == list(range(7, 33))


def test_any_order_gives_the_same():
    ahead = Ahead(Made(), depth=2)
    order = np.random.default_rng(0).integers(0, 9, 300).tolist()
    assert [ahead(number) for number in order] == [(number,) for number in order]


def test_an_error_comes_with_its_element():
    made = Made(broken=3)
    ahead = Ahead(made, depth=3)
    ahead(0), ahead(1)
    made.wait_for(4)
    assert ahead(2) == (2,)
    with pytest.raises(ValueError, match="no 3"):
        ahead(3)
    assert ahead(4) == (4,)


def test_nothing_is_made_ahead_of_what_is_looked_at_alone():
    made = Made()
    for ahead in (Ahead(made, depth=3), Ahead(made, depth=0)):
        assert [ahead(0), ahead(0), ahead(5)] == [(0,), (0,), (5,)]
    ahead(6)
    assert all(is_here for _, is_here in made.numbers)
