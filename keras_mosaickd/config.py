"""Everything that one experiment is told, and the lengths that follow from it."""

import dataclasses
import math
import os
import re

from keras_mosaickd.errors import InputError

# Where teachers, selections and compiled programs are kept, unless --cache_dir says otherwise.
CACHE_DIR = ".cache"
METHODS = ("mosaickd", "kd", "balanced", "fitnet", "data_free", "supervised")
# Methods with a generator: one training step holds `student_steps` updates of the student.
GAMES = ("mosaickd", "data_free")
# Methods that learn from out-of-domain images.
OUT_OF_DOMAIN = ("mosaickd", "kd", "balanced", "fitnet")
# The paper's.
BATCH_SIZE = 256
# Greatest shares of divergence and entropy that --regularization=adaptive allows: docs/measured.md
# says how they were chosen.
EPSILON_LOCAL, EPSILON_ALIGN = 0.5, 0.7
# What a flag names a model of the user's own by, beside the directory of a SavedModel.
MODEL_FILES = (".keras", ".h5", ".hdf5")
_NAME = r"[A-Za-z_]\w*"
FUNCTION = re.compile(rf"{_NAME}(\.{_NAME})*:{_NAME}")
# What --recipe=practical sets where the user does not: docs/algorithm.md says how it was chosen. A
# multiple of 0 follows from batch and image size (`methods/practical.py`).
PRACTICAL = {
    "student_start": "teacher",
    "generator_multiple": 0,
    "feature_weight": 2.0,
    "temperature": 5.0,
    "student_steps": 2,
    "batch_norm_weight": 100.0,
    "adversarial_weight": 5.0,
    "local_weight": 0.01,
}


def recipe_defaults(settings):
    """What a recipe sets where the user does not.

    Args:
        settings: dict of settings by name, among them `recipe` and `regularization` if given.

    Returns:
        Dict; empty of the paper's recipe. Multipliers that find themselves are weights already.
    """
    if settings.get("recipe") != "practical":
        return {}
    left_out = ("local_weight",) if settings.get("regularization") == "adaptive" else ()
    return {name: value for name, value in PRACTICAL.items() if name not in left_out}


def is_saved_model(path):
    """Whether a directory holds a SavedModel."""
    return os.path.isfile(os.path.join(path, "saved_model.pb"))


def is_given(text):
    """Whether a flag names a model of the user's rather than a network of this package."""
    return (
        text.lower().endswith(MODEL_FILES)
        or os.sep in text
        or FUNCTION.fullmatch(text) is not None
        or is_saved_model(text)
        or os.path.isfile(text)
    )


def own_teacher_defaults(settings):
    """What a teacher of the user's own sets where the user does not: no labelled data set.

    Args:
        settings: dict of settings by name.

    Returns:
        Dict; empty of a network of this package.

    Raises:
        InputError: if no images to learn from were given with it.
    """
    if not is_given(str(settings.get("teacher", ""))) or "dataset" in settings:
        return {}
    if "ood" not in settings and settings.get("method") != "data_free":
        raise InputError(
            "expected --ood=folder:PATH, the images to learn from with a --teacher of your own. "
            "Received: none"
        )
    return {"dataset": ""}


def _with_defaults(config):
    """Lets a class of settings take from others what the caller does not give."""
    initialize = config.__init__

    def __init__(self, **settings):
        paths = {k: os.fspath(v) for k, v in settings.items() if isinstance(v, os.PathLike)}
        settings |= paths
        taken = {**recipe_defaults(settings), **own_teacher_defaults(settings)}
        initialize(self, **{**taken, **settings})

    config.__init__ = __init__
    return config


@_with_defaults
@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
    """The settings of one run: a field for each flag, with the flag's name and default.

    What each means is said once, in `bin/train --help`. As there, with `recipe="practical"` what is
    not given is the recipe's, and with a teacher of your own there is no data set by default.
    """

    task: str = "classification"
    dataset: str = "digits[0-4]"
    ood: str = "digits[5-9]"
    ood_size: int = 0
    ood_select: str = "entropy"
    image_size: int = 0
    skip_unreadable: bool = False
    data_dir: str = ""
    cache_dir: str = ""
    run_dir: str = ""
    teacher: str = "wrn16_1"
    teacher_input: str = "0-1"
    teacher_output: str = ""
    head: str = "auto"
    import_: str = ""
    unsafe_load: bool = False
    class_names: str = ""
    teacher_epochs: int = 200
    teacher_batch_size: int = 256
    teacher_learning_rate: float = 0.1
    student: str = "wrn10_1"
    method: str = "mosaickd"
    recipe: str = "paper"
    preset: str = "paper"
    regularizer: str = "patch"
    batch_norm_policy: str = "training"
    synthetic_only: bool = False
    generator_multiple: int = 1
    latent_dim: int = 100
    overlap_stride: int = 1
    batch_size: int = BATCH_SIZE
    evaluation_batch_size: int = 0
    epochs: int = 200
    student_steps: int = 5
    student_updates: int = 0
    evaluations: int = 10
    temperature: float = 1.0
    student_start: str = "own"
    mixup: float = 0.0
    hint_weight: float = 1.0
    feature_weight: float = 0.0
    regularization: str = "fixed"
    regularization_weight: float = 1.0
    local_weight: float = 1.0
    align_weight: float = 1.0
    epsilon_local: float = EPSILON_LOCAL
    epsilon_align: float = EPSILON_ALIGN
    adversarial_weight: float = 1.0
    balance_weight: float = 10.0
    batch_norm_weight: float = 0.0
    local_reduction: str = "mean"
    student_learning_rate: float = 0.1
    generator_learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    checkpoint_every_steps: int = 0
    export: str = "saved_model"
    select: str = "last"
    eval: str = ""
    strategy: str = "auto"
    precision: str = "float32"
    jit_compile: str = "auto"
    seed: int = 0

    @property
    def student_batch_size(self):
        """Images in one student update: B synthetic and B out-of-domain, or B synthetic alone.

        The methods without a generator see as many as the paper's game: 2 B.
        """
        alone = self.method == "data_free" or (self.method == "mosaickd" and self.synthetic_only)
        return self.batch_size * (1 if alone else 2)

    @property
    def is_game(self):
        """Whether the method has a generator."""
        return self.method in GAMES

    @property
    def judges_without_labels(self):
        """Whether out-of-domain images are held out, to judge the student without labels."""
        return not self.dataset or self.select == "agreement"

    def schedule(self, pool_size):
        """Lengths of the distillation on a pool of `pool_size` images.

        An epoch is one pass of the discriminator over the pool. With `student_updates` the run
        is divided into `evaluations` rounds instead, and rounded up to whole iterations in each.

        Returns:
            `Schedule`, with the same number of student updates for every method.
        """
        per_pass = pool_size // self.batch_size
        if self.student_updates:
            iterations = math.ceil(self.student_updates / self.student_steps)
            rounds = min(self.evaluations, iterations)
            iterations_per_round = math.ceil(iterations / rounds)
        else:
            rounds, iterations_per_round = self.epochs, per_pass
        per_step = self.student_steps if self.is_game else 1
        return Schedule(
            rounds=rounds,
            steps_per_round=iterations_per_round * self.student_steps // per_step,
            updates_per_step=per_step,
        )


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How long a distillation is.

    Attributes:
        rounds: epochs of `fit`, each ending in an evaluation and a checkpoint.
        steps_per_round: training steps in each of them.
        updates_per_step: student updates in a training step.
    """

    rounds: int
    steps_per_round: int
    updates_per_step: int

    @property
    def steps(self):
        """Training steps in all."""
        return self.rounds * self.steps_per_round

    @property
    def student_updates(self):
        """Student updates in all."""
        return self.steps * self.updates_per_step
