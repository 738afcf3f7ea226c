"""200 random command lines, flagfiles and folders; benchmarks/fuzz.py runs as many as one likes."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, seed, settings

from tests import fuzz, fuzz_material

# What is judged comes before any backend's work.
pytestmark = pytest.mark.backend("tensorflow")


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    folder = tmp_path_factory.mktemp("material")
    fuzz_material.write(folder)
    return folder


@seed(6)
@settings(max_examples=200, database=None, suppress_health_check=list(HealthCheck))
@given(case=fuzz.cases())
def test_every_command_line_ends_well(case, material):
    assert fuzz.complaint(case, material) is None
