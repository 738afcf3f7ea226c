"""What commit 1d88c6f (version 0.1) wrote is still loaded, resumed and exported.

`material/written_by_1d88c6f.tar.xz` holds a game saved by itself, `game.keras`; a run of kd that
was interrupted after 2 of 4 steps; its cache with teacher and selection; and the state of both
checkpoints as that commit loaded them: all variables of the trainer, then those of its optimizer.
"""

import tarfile
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_mosaickd.cli import export, runner, train
from keras_mosaickd.networks.loading import load_model
from keras_mosaickd.run_directory import CHECKPOINT, RunDirectory

MATERIAL = Path(__file__).parent / "material" / "written_by_1d88c6f.tar.xz"

# The cache's keys name the backend that trained the teacher.
pytestmark = pytest.mark.backend("tensorflow")


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """The directory with everything in it."""
    folder = tmp_path_factory.mktemp("earlier")
    with tarfile.open(MATERIAL) as archive:
        archive.extractall(folder, filter="data")
    return folder / "old"


@pytest.mark.parametrize("name", ["game.keras", "run/checkpoints/last.keras"])
def test_all_state_is_loaded_bit_for_bit(name, old):
    trainer = load_model(old / name, "the checkpoint", compile=True)
    # The number of steps was the first optimizer's then.
    found = [*trainer.variables, *trainer.optimizer.variables[:-1]]
    first = trainer.optimizer.optimizers[0]
    assert int(trainer.optimizer.iterations) == int(first.iterations) > 0
    with np.load((old / Path(name).name).with_suffix(".npz")) as expected:
        assert len(found) == len(expected.files)
        for variable, key in zip(found, expected.files, strict=True):
            values = keras.ops.convert_to_numpy(variable)
            np.testing.assert_array_equal(values, expected[key], err_msg=variable.path)


@pytest.mark.slow
def test_a_run_resumes_with_its_cache_and_is_exported(old, monkeypatch, capsys):
    monkeypatch.chdir(old)  # It names its student by a relative path.
    arguments = ["--flagfile=run/flags.txt", "--run_dir=run", "--cache_dir=cache"]
    assert runner.run(train.main, "train", [*arguments, "--seed=1"]) == 2
    assert "holds another run" in capsys.readouterr().err
    assert runner.run(train.main, "train", arguments) == 0
    told = capsys.readouterr().out
    for expected in ("found in", "as selected before", "after step 2 of 4"):
        assert expected in told
    run = RunDirectory("run")
    assert run.is_finished and (run / CHECKPOINT).is_file()
    assert runner.run(export.main, "export", ["--run_dir=run", "--export=saved_model"]) == 0
    assert (run / "saved_model").is_dir() and "saved_model" in capsys.readouterr().out
