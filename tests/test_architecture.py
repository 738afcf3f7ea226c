"""The package's imports point one way (README, architecture): parsed, not executed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "keras_mosaickd"

# Once is enough: nothing here depends on the backend.
pytestmark = pytest.mark.backend("tensorflow")

# What a module, or any module of a sub-package, may import from this package besides its own
# sub-package. `errors` and `__version__` know nothing and may be imported by all.
_METHOD = {"data", "fused", "losses", "networks", "optimizers", "student_trainer", "training"}
LAYERS: dict[str, set[str]] = {
    "errors": set(),
    "losses": set(),
    "pictures": set(),
    "optimizers": set(),
    "networks": set(),
    "training": set(),
    "operations": set(),
    "config": set(),
    "divergence": set(),
    "loading": set(),
    "checkpoints": {"divergence"},
    "layer_maps": set(),
    "import_weights": {"layer_maps", "networks"},
    "teacher_outputs": set(),
    "data": {"losses", "teacher_outputs"},
    "event_files": {"pictures"},
    "callbacks": {"event_files", "pictures"},
    "export": {"loading", "networks", "quality"},
    "run_directory": {"training"},
    "model_card": {"run_directory"},
    "report": {
        "callbacks",
        "config",
        "evaluation",
        "pictures",
        "quality",
        "run_directory",
        "teacher_features",
    },
    "metrics": {"data"},
    "fused": {"operations"},
    "student_trainer": {
        "data",
        "fused",
        "losses",
        "metrics",
        "optimizers",
        "teacher_outputs",
        "training",
    },
    "mosaic_kd": _METHOD,
    "baselines": _METHOD | {"mosaic_kd"},
    "methods": {"baselines", "data", "mosaic_kd", "normalization", "optimizers"},
    "progress": set(),
    "cost": {"data", "networks", "progress"},
    "saved_model_layer": set(),
    "given_models": {"loading", "saved_model_layer"},
    "normalization": set(),
    "own_teacher": {"given_models", "normalization", "teacher_outputs"},
    "teachers": {
        "data",
        "given_models",
        "loading",
        "metrics",
        "networks",
        "normalization",
        "optimizers",
        "own_teacher",
    },
    "labelled": {"data"},
    "preparation": {
        "config",
        "data",
        "given_models",
        "labelled",
        "networks",
        "teacher_outputs",
        "teachers",
        "training",
    },
    "checks": {"config", "export", "given_models", "run_directory"},
    "agreement": set(),
    "label_free": {"agreement", "teacher_features"},
    "verdict": set(),
    "quality": {"teacher_features"},
    "teacher_features": set(),
    "quality_callback": {"event_files", "quality", "teacher_features"},
    "tuning": {"config", "event_files", "run_directory"},
    "transfer_set": {"evaluation", "pictures", "run_directory", "teacher_features"},
    "evaluation": {
        "callbacks",
        "checkpoints",
        "config",
        "data",
        "given_models",
        "labelled",
        "loading",
        "mosaic_kd",
        "pictures",
        "quality",
        "run_directory",
    },
    "shipping": {
        "checkpoints",
        "data",
        "evaluation",
        "export",
        "labelled",
        "model_card",
        "run_directory",
        "teacher_features",
    },
    "fitting": {
        "callbacks",
        "checkpoints",
        "data",
        "divergence",
        "evaluation",
        "label_free",
        "loading",
        "progress",
        "quality_callback",
        "run_directory",
    },
    "outcome": {
        "callbacks",
        "config",
        "evaluation",
        "export",
        "label_free",
        "loading",
        "model_card",
        "run_directory",
        "shipping",
        "verdict",
    },
    "experiment": {
        "checkpoints",
        "checks",
        "config",
        "cost",
        "data",
        "evaluation",
        "fitting",
        "label_free",
        "methods",
        "outcome",
        "preparation",
        "run_directory",
        "teachers",
    },
    "cli": {
        "evaluation",
        "experiment",
        "export",
        "given_models",
        "import_weights",
        "layer_maps",
        "model_card",
        "report",
        "run_directory",
        "shipping",
        "transfer_set",
        "tuning",
    },
}

# The only places that may import TensorFlow. The command line's process loads it quietly, where it
# is the backend, before Keras does it loudly.
TENSORFLOW = (
    "data/",
    "training/tensorflow.py",
    "operations/tensorflow.py",
    "export/",
    "cli/runner.py",
)

# The package must work without TensorFlow and without the backends that were not chosen, so each is
# imported by a module of its own or inside a function.
BACKEND_MODULES = {
    "tensorflow": {"training/tensorflow.py", "operations/tensorflow.py", "data/pipelines.py"},
    "tensorflow_datasets": set(),
    "jax": {"training/jax.py", "operations/jax.py"},
    "torch": {"training/torch.py", "operations/torch.py"},
    **{name: set() for name in ("ai_edge_litert", "onnxruntime", "tf2onnx")},
}


def modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def imports(path: Path, top_level_only: bool = False) -> Iterator[str]:
    """Yields the dotted names that a file imports; of this package down to the module."""
    tree = ast.parse(path.read_text())
    nodes = _outside_functions(tree) if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _outside_functions(child)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def layer_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


# __init__.py exports the names of all layers, lazily.
@pytest.mark.parametrize(
    "path", [path for path in modules() if path != ROOT / "__init__.py"], ids=name_of
)
def test_imports_point_one_way(path):
    layer = layer_of(path)
    assert layer in LAYERS, f"{layer} is new: say in LAYERS what it may import"
    used = {name.split(".")[1] for name in imports(path) if name.startswith("keras_mosaickd.")}
    allowed = LAYERS[layer] | {layer, "errors", "__version__"}
    assert used <= allowed, f"{name_of(path)} imports {sorted(used - allowed)}"


def test_the_layers_have_no_circle():
    done: set[str] = set()
    while len(done) < len(LAYERS):
        ready = {layer for layer, below in LAYERS.items() if layer not in done and below <= done}
        assert ready, f"a circle among {sorted(set(LAYERS) - done)}"
        done |= ready


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_tensorflow_has_its_places(path):
    uses = any(name.split(".")[0] == "tensorflow" for name in imports(path))
    assert not uses or name_of(path).startswith(TENSORFLOW)


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_optional_packages_are_imported_inside_functions(path):
    for name in imports(path, top_level_only=True):
        homes = BACKEND_MODULES.get(name.split(".")[0])
        assert homes is None or name_of(path) in homes, f"{name_of(path)} imports {name}"


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_no_file_changes_the_environment_of_its_user(path):
    if name_of(path).startswith("cli/"):
        return
    for node in ast.walk(ast.parse(path.read_text())):
        text = ast.unparse(node) if isinstance(node, ast.Assign | ast.Call) else ""
        assert not text.startswith(("os.environ[", "os.environ.setdefault", "os.putenv")), text


def test_the_package_and_its_data_names_import_no_keras():
    code = (
        "import sys, keras_mosaickd, keras_mosaickd.errors, keras_mosaickd.data.specs\n"
        "print(sorted({'keras', 'tensorflow', 'jax', 'torch'} & set(sys.modules)))"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT.parent
    )
    assert finished.stdout.strip() == "[]", finished.stdout + finished.stderr
