"""Some random command lines, folders, teachers and data; benchmarks/fuzz.py runs many more."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, Phase, find, given, seed, settings

from keras_mosaickd.teachers import scaling
from tests import fuzz, fuzz_inputs, fuzz_material, fuzz_teachers


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    folder = tmp_path_factory.mktemp("material")
    fuzz_material.write(folder)
    return folder


# What is judged comes before any backend's work.
@pytest.mark.slow
@pytest.mark.backend("tensorflow")
@seed(6)
@settings(max_examples=40, database=None, suppress_health_check=list(HealthCheck))
@given(case=fuzz.cases())
def test_every_command_line_ends_well(case, material):
    assert fuzz.complaint(case, material) is None


@seed(6)
@settings(max_examples=60, database=None, suppress_health_check=list(HealthCheck))
@given(case=fuzz_teachers.cases())
def test_every_teacher_is_measured_as_by_keras_alone_or_refused(case):
    assert fuzz_teachers.complaint(case) is None


def test_the_fuzzer_finds_a_wrong_range(monkeypatch):
    monkeypatch.setitem(scaling.RANGES, "-1-1", (0.5, 0.6))
    monkeypatch.setattr(fuzz_teachers, "RANGES", ("-1-1", "tf") * 5)
    # Raises NoSuchExample where the harness complains of none.
    find(
        fuzz_teachers.cases(),
        lambda case: "plain Keras" in (fuzz_teachers.complaint(case) or ""),
        settings=settings(max_examples=200, phases=[Phase.generate], database=None),
        random=random.Random(6),
    )


# PyTorch compiles nothing for each new shape.
@pytest.mark.backend("torch")
@pytest.mark.filterwarnings("default:.*Your input ran out of data:UserWarning")
@seed(6)
@settings(max_examples=60, database=None, suppress_health_check=list(HealthCheck))
@given(case=fuzz_inputs.cases())
def test_what_user_code_hands_in_is_measured_as_by_keras_alone_or_refused(case):
    assert fuzz_inputs.complaint(case) is None
