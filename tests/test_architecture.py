"""The package's imports point one way (README, architecture): parsed, not executed."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "keras_mosaickd"

# Once is enough: nothing here depends on the backend.
pytestmark = pytest.mark.backend("tensorflow")

# The floors of the house, each may use those before it. `errors` and `__version__` know nothing and
# may be imported by all. Modules of one line do not know each other.
FLOORS = (
    ("errors", "extras", "config", "files", "losses", "optimizers"),
    ("backend",),
    ("run_directory",),
    ("networks",),
    ("data",),
    ("teachers",),
    ("methods",),
    ("evaluation",),
    ("callbacks",),
    ("export",),
    ("report",),
    ("runs",),
    ("tuning",),
    ("cli",),
)

# The only places that may import TensorFlow. The command line's process loads it quietly, where it
# is the backend, before Keras does it loudly.
TENSORFLOW = (
    "data/",
    "backend/training/tensorflow.py",
    "backend/operations/tensorflow.py",
    "export/",
    "cli/runner.py",
)

# The package must work without TensorFlow and without the backends that were not chosen, so each is
# imported by a module of its own or inside a function.
BACKEND_MODULES = {
    "tensorflow": {
        "backend/training/tensorflow.py",
        "backend/operations/tensorflow.py",
        "data/streams/tensorflow.py",
    },
    "tensorflow_datasets": set(),
    "jax": {
        "backend/training/jax.py",
        "backend/training/jax_programs.py",
        "backend/operations/jax.py",
        "backend/processes/jax.py",
    },
    "torch": {
        "backend/training/torch.py",
        "backend/operations/torch.py",
        "backend/processes/torch.py",
    },
    **{
        name: set()
        for name in (
            "ai_edge_litert",
            "onnxruntime",
            "tf2onnx",
            "sklearn",
            "matplotlib",
            "safetensors",
            "huggingface_hub",
        )
    },
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


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


# __init__.py exports the names of all floors, lazily.
@pytest.mark.parametrize(
    "path", [path for path in modules() if path != ROOT / "__init__.py"], ids=name_of
)
def test_imports_point_one_way(path):
    room = room_of(path)
    floors = [floor for floor in FLOORS if room in floor]
    assert floors, f"{room} is new: say in FLOORS where it stands"
    below = {name for floor in FLOORS[: FLOORS.index(floors[0])] for name in floor}
    used = {name.split(".")[1] for name in imports(path) if name.startswith("keras_mosaickd.")}
    wrong = used - below - {room, "errors", "__version__"}
    assert not wrong, f"{name_of(path)} imports {sorted(wrong)}"


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_tensorflow_has_its_places(path):
    uses = any(name.split(".")[0] == "tensorflow" for name in imports(path))
    assert not uses or name_of(path).startswith(TENSORFLOW)


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_optional_packages_are_imported_inside_functions(path):
    for name in imports(path, top_level_only=True):
        homes = BACKEND_MODULES.get(name.split(".")[0])
        assert homes is None or name_of(path) in homes, f"{name_of(path)} imports {name}"


def defined(tree: ast.AST) -> Iterator[str]:
    """Names that a file gives to something of its own."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.id if isinstance(node, ast.Name) else node.attr


def attributes(tree: ast.AST) -> Iterator[str]:
    """Names of all attributes that a file reads, those that it asks for by text too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr"):
            yield ast.unparse(node.args[1]).strip("'")


def test_private_keras_has_one_place():
    """And KerasTuner's internals have another."""
    places = ("backend/keras_graph.py", "tuning/oracles.py")
    trees = {path: ast.parse(path.read_text()) for path in modules()}
    own = {name for tree in trees.values() for name in defined(tree)}
    for path, tree in trees.items():
        if name_of(path) in places:
            continue
        used = {name for name in attributes(tree) if re.fullmatch(r"_[a-z]\w+", name)} - own
        assert not used, f"{name_of(path)} uses {sorted(used)}: see backend/keras_graph.py"
        text = path.read_text()
        for internal in ("keras.src", "seed_generator_state", "keras_tuner.engine"):
            assert internal not in text, f"{name_of(path)} uses {internal}"


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_no_file_changes_the_environment_of_its_user(path):
    if name_of(path).startswith("cli/"):
        return
    for node in ast.walk(ast.parse(path.read_text())):
        text = ast.unparse(node) if isinstance(node, ast.Assign | ast.Call) else ""
        assert not text.startswith(("os.environ[", "os.environ.setdefault", "os.putenv")), text


def test_the_package_and_its_data_names_import_no_keras():
    code = (
        "import sys, keras_mosaickd, keras_mosaickd.errors, keras_mosaickd.data.sources.request\n"
        "print(sorted({'keras', 'tensorflow', 'jax', 'torch'} & set(sys.modules)))"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT.parent
    )
    assert finished.stdout.strip() == "[]", finished.stdout + finished.stderr
