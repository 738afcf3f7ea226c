"""What is told of the devices, on each backend, and what a run costs."""

import types

import pytest

from keras_mosaickd.backend import training
from keras_mosaickd.config import ExperimentConfig
from keras_mosaickd.methods import KnowledgeDistillation, Supervised
from keras_mosaickd.networks import flops
from keras_mosaickd.runs import cost
from tests import game


@pytest.fixture
def gpu(monkeypatch, backend):
    """Gives the backend one GPU of a compute capability, as far as `has_bfloat16` looks."""

    def pretend(major, minor):
        if backend == "tensorflow":
            import tensorflow as tf

            details = {"compute_capability": (major, minor)}
            monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["GPU:0"])
            monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda _: details)
        elif backend == "jax":
            import jax

            device = types.SimpleNamespace(compute_capability=f"{major}.{minor}")
            monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
            monkeypatch.setattr(jax, "devices", lambda: [device])
        else:
            import torch

            monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
            monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (major, minor))

    return pretend


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), False), ((8, 0), True)])
def test_bfloat16_is_for_gpus_from_ampere_on(capability, expected, gpu):
    gpu(*capability)
    assert training.has_bfloat16() is expected


def test_a_cpu_is_not_recommended_bfloat16():
    assert training.has_bfloat16() is False


@pytest.mark.backend("jax")
@pytest.mark.parametrize(
    ("platform", "capability", "expected"), [("tpu", None, True), ("gpu", "gfx90a", False)]
)
def test_accelerators_without_a_number(platform, capability, expected, monkeypatch):
    import jax

    device = types.SimpleNamespace(compute_capability=capability)
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    monkeypatch.setattr(jax, "devices", lambda: [device])
    assert training.has_bfloat16() is expected


@pytest.mark.parametrize("is_there", [False, True])
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_the_dry_run_recommends_it_where_it_is_not_chosen(precision, is_there, monkeypatch):
    monkeypatch.setattr(cost, "has_bfloat16", lambda: is_there)
    lines = list(cost._precision_advice(ExperimentConfig(precision=precision)))
    assert any("--precision=mixed_bfloat16" in line for line in lines) == (
        is_there and precision == "float32"
    )


def test_operations_of_an_update_by_hand():
    teacher, student = game.classifier(1), game.classifier(2)
    once = flops(student)
    kd = KnowledgeDistillation(teacher, student)
    # Forward, gradient of weights and of inputs, of 2 B images; and what the teacher says of them.
    assert cost.floating_point_operations(kd, 4) == {"student": 8 * (flops(teacher) + 3 * once)}
    labelled = Supervised(teacher, student)
    assert cost.floating_point_operations(labelled, 4) == {"student": 8 * 3 * once}
