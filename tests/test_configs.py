"""The paper's experiments as flagfiles: every cell is there, and every file says what it does."""

import re

import pytest

from benchmarks import check_configs
from benchmarks.check_configs import CONFIGS, ONE_PER_TASK, ROOT, experiment_config, relative
from keras_mosaickd import networks
from keras_mosaickd.cli import flags
from keras_mosaickd.data import SPECS, parse

# Once is enough: the other backends build the same through benchmarks/check_configs.py.
pytestmark = pytest.mark.backend("tensorflow")

PAPER = CONFIGS / "paper"
RUNNABLE = check_configs.runnable()
TRAINED = [file for file in RUNNABLE if check_configs.commands(file)[0][0] == "train"]
PAPER_TRAINED = [file for file in TRAINED if PAPER in file.parents]

# Training images: supplement, table 1.
IMAGES = {
    "cifar100": 50_000,
    "cub200": 5_994,
    "stanford_dogs": 12_000,
    "nyuv2": 795,
    "cifar10": 50_000,
    "svhn": 73_257,
    "imagenet32": 1_281_167,
    "imagenet64": 1_281_167,
    "imagenet2012": 1_281_167,
    "places365": 1_803_460,
}
# Side in pixels and classes of what teachers are trained on: supplement, table 1 and section B.
DOMAINS = {
    "cifar100": (32, 100),
    "imagenet32": (32, 1000),
    "cub200": (64, 200),
    "stanford_dogs": (64, 120),
    "nyuv2": (128, 13),
}

# Main paper, table 1: rows of folder, method, then one number for each of PAIRS.
PAIRS = (
    ("resnet34", "resnet18"),
    ("vgg11", "resnet18"),
    ("wrn40_2", "wrn16_1"),
    ("wrn40_2", "wrn40_1"),
    ("wrn40_2", "wrn16_2"),
)
TABLE_1 = """
cifar100      teacher    78.05 71.32 75.83 75.83 75.83
cifar100      supervised 77.10 77.10 65.31 72.19 73.56
no_images   data_free  77.01 66.21 51.27 54.43 64.79
cifar10       kd         73.55 68.04 47.47 61.17 63.48
cifar10       balanced   68.54 64.14 50.50 56.50 57.33
cifar10       fitnet     70.14 67.52 50.31 60.17 60.60
cifar10       mosaickd   77.01 71.56 61.01 69.14 69.41
imagenet_ood  kd         50.89 50.52 36.54 36.87 41.69
imagenet_ood  balanced   41.74 47.04 31.61 29.57 35.65
imagenet_ood  fitnet     60.15 58.23 42.63 44.21 48.53
imagenet_ood  mosaickd   75.81 68.94 59.32 66.61 67.36
places365_ood kd         43.49 46.24 33.28 31.39 36.37
places365_ood balanced   28.16 38.85 23.22 21.54 28.62
places365_ood fitnet     54.08 54.15 36.33 44.21 38.74
places365_ood mosaickd   74.70 68.55 56.70 65.34 65.89
svhn          kd         31.55 34.00 19.77 23.07 24.75
svhn          balanced   26.93 29.34 16.18 18.96 21.50
svhn          fitnet     33.69 36.22 20.02 23.72 25.41
svhn          mosaickd   47.18 37.63 31.87 45.84 44.40
"""
# Folder of table 1 -> --ood and --ood_size.
TABLE_1_OOD = {
    "cifar10": ("cifar10", 0),
    "imagenet_ood": ("imagenet32", 50_000),
    "places365_ood": ("places365", 50_000),
    "svhn": ("svhn", 0),
}
# Supplement, table 4: stride, then students wrn16_1, wrn40_1, wrn16_2 of wrn40_2.
TABLE_4 = """
1 61.01 69.14 69.41
2 59.56 60.26 63.46
3 42.35 54.32 57.36
4 46.07 55.12 54.82
"""
# Supplement, table 5: file, method, --ood (- where none), then students resnet20 and mobilenetv2 of
# resnet56.
TABLE_5 = """
teacher          teacher    -          41.28 41.28
supervised       supervised -          32.20 32.48
kd_original_data kd         imagenet32 32.18 32.55
kd               kd         places365  21.76 10.25
balanced         balanced   places365  21.09 11.34
fitnet           fitnet     places365  21.45 13.12
mosaickd         mosaickd   places365  26.51 20.46
"""


def rows(table):
    return [line.split() for line in table.strip().splitlines()]


def cell(path, number, dataset, method, teacher, student, ood=None, ood_size=0, **others):
    """A cell's file, published number and flags; a teacher's file stands for all its cells."""
    if method == "teacher":
        return f"{path}_{teacher}", number, {"dataset": dataset, "teacher": teacher}
    given = {"dataset": dataset, "method": method, "teacher": teacher, "student": student}
    if ood:
        given |= {"ood": ood, "ood_size": ood_size}
    return path, number, given | others


def paper_cells():
    """Every cell of the tables, of figure 1 and of the supplement's section B."""
    for folder, method, *numbers in rows(TABLE_1):
        for (teacher, student), number in zip(PAIRS, numbers, strict=True):
            path = f"table1_main/{folder}/{method}"
            if method != "teacher":
                path += f"_{teacher}_{student}"
            ood = TABLE_1_OOD.get(folder, (None, 0))
            yield cell(path, number, "cifar100", method, teacher, student, *ood)
    game = ("cifar100", "mosaickd", "wrn40_2")
    for stride, *numbers in rows(TABLE_4):
        for student, number in zip(("wrn16_1", "wrn40_1", "wrn16_2"), numbers, strict=True):
            path = f"table4_stride/stride{stride}_wrn40_2_{student}"
            yield cell(path, number, *game, student, "cifar10", overlap_stride=int(stride))
    for name, method, ood, *numbers in rows(TABLE_5):
        for student, number in zip(("resnet20", "mobilenetv2"), numbers, strict=True):
            path = f"table5_imagenet32/{name}"
            if method != "teacher":
                path += f"_resnet56_{student}"
            ood_name = None if ood == "-" else ood
            yield cell(path, number, "imagenet32", method, "resnet56", student, ood_name)
    for regularizer in ("none", "image", "patch"):
        path = f"figure1/mosaickd_{regularizer}"
        yield cell(path, None, *game, "wrn16_1", "cifar10", regularizer=regularizer)
    for method in ("mosaickd", "kd"):
        for dataset in ("cub200", "stanford_dogs"):
            for ood in ("imagenet64", "places365"):
                path = f"fine_grained/{dataset}_{ood}/{method}"
                yield cell(path, None, dataset, method, "resnet34", "resnet18", ood, 50_000)
        segmenters = ("deeplabv3_resnet50", "deeplabv3_mobilenetv2", "imagenet2012", 50_000)
        path = f"segmentation/nyuv2_imagenet2012/{method}"
        yield cell(path, None, "nyuv2", method, *segmenters, task="segmentation")


CELLS = list(paper_cells())
FILES = {f"configs/paper/{path}.flags": (number, given) for path, number, given in CELLS}


def settings(file):
    [(command, _)] = check_configs.commands(file)
    return flags.parse(command, [f"--flagfile={file}"]).values


def training_images(config):
    """How many images an epoch of a run passes over."""
    is_from_domain = config.method in ("data_free", "supervised")
    return IMAGES[config.dataset] if is_from_domain else config.ood_size or IMAGES[config.ood]


def test_every_cell_has_its_file_and_every_file_its_cell():
    assert len(CELLS) == 19 * 5 + 4 * 3 + 7 * 2 + 3 + 2 * 5
    assert [relative(file) for file in RUNNABLE if PAPER in file.parents] == sorted(FILES)
    others = set(PAPER.rglob("*")) - set(RUNNABLE)
    assert {path.name for path in others if path.is_file()} == {
        f"recipe{method}.flags" for method in ("", "_kd", "_supervised", "_teacher")
    }


def test_published_numbers():
    found = {
        name: re.findall(r"^# Published: (.*)\.$", (ROOT / name).read_text(), re.MULTILINE)
        for name in FILES
    }
    assert found == {
        name: [f"{number} %" if number else "none given"] for name, (number, _) in FILES.items()
    }


@pytest.mark.parametrize("name", FILES)
def test_a_cell_has_its_flags(name):
    values = settings(ROOT / name)
    expected = FILES[name][1]
    assert {flag: values[flag] for flag in expected} == expected


@pytest.mark.parametrize("file", RUNNABLE, ids=relative)
def test_a_file_names_itself_in_its_command(file):
    [(command, path)] = check_configs.commands(file)
    assert path == relative(file)
    assert command in ("train", "teacher")
    assert (ROOT / "bin" / command).is_file()


@pytest.mark.parametrize("file", RUNNABLE, ids=relative)
def test_networks_exist_for_the_task(file):
    values = settings(file)
    used = {values["teacher"], values.get("student", values["teacher"])}
    assert used <= set(networks.registry.names(values["task"]))


def test_runs_have_directories_of_their_own():
    for file in PAPER_TRAINED:
        path = file.relative_to(CONFIGS).with_suffix("").as_posix()
        assert settings(file)["run_dir"] == f"runs/{path}"


def test_cost_is_that_of_the_schedule():
    for file in PAPER_TRAINED:
        config = experiment_config(file)
        updates = config.schedule(training_images(config)).student_updates
        cost = f"# Cost: {updates} student updates of {config.student_batch_size} images ("
        assert cost in file.read_text(), relative(file)
    for file in set(RUNNABLE) - set(TRAINED):
        values = settings(file)
        size = values["teacher_batch_size"]
        updates = IMAGES[values["dataset"]] // size * values["teacher_epochs"]
        assert f"# Cost: {updates} teacher updates of {size} images (" in file.read_text()


def test_recipe_is_the_papers():
    teacher = {"teacher_epochs": 200, "teacher_learning_rate": 0.1, "weight_decay": 1e-4}
    student = {"student_learning_rate": 0.1, **teacher}
    game = {
        "preset": "official",
        "batch_norm_policy": "training",
        "latent_dim": 100,
        "batch_size": 256,
        "epochs": 200,
        "student_steps": 5,
        "student_updates": 0,
        "generator_learning_rate": 1e-3,
        "temperature": 1.0,
        "regularization_weight": 1.0,
        "local_weight": 1.0,
        "align_weight": 1.0,
        "adversarial_weight": 1.0,
        "balance_weight": 10.0,
        "synthetic_only": False,
    }
    for file in PAPER_TRAINED:
        config = experiment_config(file)
        expected = dict(student)
        if config.is_game:
            expected |= game
        elif config.method != "supervised":
            expected["temperature"] = 5.0
        assert {name: getattr(config, name) for name in expected} == expected, relative(file)
        assert config.teacher_batch_size == (16 if config.task == "segmentation" else 256)
        if not config.is_game:
            assert config.student_batch_size == (256 if config.method == "supervised" else 128)
            images = training_images(config)
            seen = config.schedule(images).student_updates * config.student_batch_size
            assert seen / images == pytest.approx(200, rel=0.01)


def test_every_teacher_is_trained_once_for_all_its_runs():
    """Runs that differ in what their teacher is trained by would not share one in the cache."""
    recipes = {}
    names = flags.COMMANDS["teacher"].flags
    for file in RUNNABLE:
        if PAPER in file.parents:
            values = settings(file)
            recipe = {name: values[name] for name in names}
            known = recipes.setdefault((values["dataset"], values["teacher"]), recipe)
            assert recipe == known, relative(file)


@pytest.mark.parametrize("name", IMAGES)
def test_data_sets_are_known(name):
    assert parse(name).name == name
    assert SPECS[name].channels == 3
    if name in DOMAINS:
        size, classes = DOMAINS[name]
        assert (SPECS[name].image_size, len(SPECS[name].class_names)) == (size, classes)


def test_every_combination_is_checked_by_the_command():
    described = {check_configs.describe(experiment_config(file)) for file in TRAINED}
    assert set(check_configs.combinations()) == described
    tasks = [experiment_config(ROOT / name).task for name in ONE_PER_TASK]
    assert tasks == ["classification", "segmentation"]
    assert set(ONE_PER_TASK) <= set(FILES)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mosaickd", pytest.param("kd", marks=pytest.mark.long)])
def test_the_cheapest_combinations_make_a_step(method):
    """The others: benchmarks/check_configs.py."""
    file = PAPER / "table1_main" / "cifar10" / f"{method}_wrn40_2_wrn16_1.flags"
    check_configs.step(experiment_config(file))


@pytest.mark.long
def test_a_network_that_does_not_learn_is_found():
    file = CONFIGS / "quickstart_mosaickd.flags"
    values = flags.parse("train", [f"--flagfile={file}", "--adversarial_weight=0"]).settings()
    still = {"regularization_weight": 0.0, "balance_weight": 0.0}
    with pytest.raises(RuntimeError, match="the generator did not learn"):
        check_configs.step(check_configs.ExperimentConfig(**values | still))
