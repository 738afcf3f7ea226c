"""What would make a run fail later is refused before any work: keras_mosaickd/runs/checks.py."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest

from keras_mosaickd.config import ExperimentConfig
from keras_mosaickd.errors import InputError
from keras_mosaickd.networks.heads import Bernoulli, Categorical
from keras_mosaickd.runs import checks
from tests import game

TWO_DEVICES = SimpleNamespace(replicas=2)
NONE = np.zeros((0, 8, 8, 1))


def domain(**changes):
    """What a data set says of itself."""
    said = {"name": "mine", "task": "classification", "class_names": ["a", "b", "c"]}
    return SimpleNamespace(**said, labels=np.zeros(4), **changes)


def frozen():
    student = game.classifier()
    student.trainable = False
    return student


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (
            lambda: checks.check_settings(ExperimentConfig(method="magic")),
            "--method: expected one of mosaickd, .*Received: 'magic'",
        ),
        (
            lambda: checks.check_settings(ExperimentConfig(balance_weight=-1)),
            "--balance_weight: expected a number of at least 0. Received: -1",
        ),
        (
            lambda: checks.check_teacher(
                ExperimentConfig(task="segmentation"),
                SimpleNamespace(model=game.classifier()),
                TWO_DEVICES,
            ),
            r"--teacher must give one prediction per pixel.*output \(None, 3\)",
        ),
        (
            lambda: checks.check_classes(ExperimentConfig(dataset="mine[0]"), Categorical(1)),
            "--dataset must have two classes or more. Received: mine",
        ),
        (
            lambda: checks.check_classes(
                ExperimentConfig(dataset="", eval="labelled"), Bernoulli(3)
            ),
            "3 independent labels: leave them away.*Received: --eval=labelled",
        ),
        (
            lambda: checks.check_classes(
                ExperimentConfig(dataset="", method="balanced", teacher="t.keras"), Bernoulli(3)
            ),
            "--method=balanced balances over classes.*Received: --teacher=t.keras",
        ),
        (
            lambda: checks.check_domain(
                ExperimentConfig(), domain(), NONE, Categorical(3), game.classifier()
            ),
            "--dataset must have test images. Received: mine",
        ),
        (
            lambda: checks.check_domain(
                ExperimentConfig(teacher="t.keras", ood="folder:x"),
                domain(),
                [1],
                Categorical(4),
                "a teacher",
            ),
            "--teacher must have 3 outputs.*Received: t.keras with 4",
        ),
        (
            lambda: checks.check_judging(
                ExperimentConfig(method="supervised", dataset="", select="agreement")
            ),
            "--method=supervised needs --dataset and --select=last",
        ),
        (
            lambda: checks.check_pool(ExperimentConfig(ood_select="all", ood_size=5), range(9)),
            "leave --ood_size away. Received: --ood_size=5",
        ),
        (
            lambda: checks.check_pool(ExperimentConfig(ood_size=10), range(9)),
            "--ood_size must be at most the number of images of --ood, 9. Received: 10",
        ),
        (
            lambda: checks.check_labelled(ExperimentConfig(eval="folder:empty"), NONE),
            "--eval must have images. Received: folder:empty",
        ),
        (
            lambda: checks.check_batches(
                ExperimentConfig(method="data_free", student_updates=0), 0, 1
            ),
            "--method=data_free without --dataset needs --student_updates",
        ),
        (
            lambda: checks.check_batches(ExperimentConfig(batch_size=7), 100, 2),
            "--batch_size must be divisible by the 2 devices.*Received: 7",
        ),
        (
            lambda: checks.check_student(
                ExperimentConfig(student="mine:student"), frozen(), game.SHAPE, 3, Categorical(3)
            ),
            "--student must have weights that can be trained.*mine:student, which is frozen",
        ),
        (
            lambda: checks.check_student(
                ExperimentConfig(), game.classifier(), game.SHAPE, 5, Categorical(5)
            ),
            r"--student must take images of \(8, 8, 1\) and have 5 outputs",
        ),
    ],
)
def test_what_cannot_be_is_refused(check, message):
    with pytest.raises(InputError, match=message):
        check()


def test_a_saved_model_teaches_on_one_device(tmp_path):
    (tmp_path / "saved_model.pb").touch()
    config = ExperimentConfig(teacher=str(tmp_path), ood="folder:x")
    teacher = SimpleNamespace(model=game.classifier())
    checks.check_teacher(config, teacher, SimpleNamespace(replicas=1))
    with pytest.raises(InputError, match="--strategy must be none with a SavedModel"):
        checks.check_teacher(config, teacher, TWO_DEVICES)


def test_what_can_be_is_not():
    config = ExperimentConfig(student_updates=10, batch_size=8, ood_size=5)
    checks.check_settings(config)
    checks.check_teacher(config, SimpleNamespace(model=game.classifier()), TWO_DEVICES)
    checks.check_classes(config, Categorical(3))
    checks.check_pool(config, range(9))
    checks.check_batches(config, 100, 2)
    sizes_open = keras.Sequential(
        [
            keras.Input((None, None, 1)),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3),
        ]
    )
    checks.check_student(config, sizes_open, game.SHAPE, 3, Categorical(3))


@pytest.mark.backend("torch")
def test_pytorch_draws_from_smaller_seeds():
    checks.check_seed(2**31 - 1)
    with pytest.raises(InputError, match="--seed: expected a number below 2147483648 on PyTorch"):
        checks.check_seed(2**31)
