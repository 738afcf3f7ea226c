"""Several processes that talk over loopback against one."""

import re
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from keras_mosaickd import networks
from keras_mosaickd.cli import flags
from tests import processes_program
from tests.documents import ROOT, blocks
from tests.processes import finish, free_port, module, start, start_group

pytestmark = pytest.mark.slow


def trained(tmp_path, count, *names):
    """What each of `count` processes ends with; of this one, which has no launcher, for 0."""
    paths = [tmp_path / f"{count}_{number}.npz" for number in range(max(count, 1))]
    if count:
        program = "tests.processes_program"
        commands = [module(program, path, "processes", *names) for path in paths]
        for process in start_group(count, commands):
            finish(process)
    else:
        processes_program.main(paths[0], "none", *names)
    results = []
    for path in paths:
        with np.load(path, allow_pickle=False) as file:
            results.append({name: file[name] for name in file.files})
    assert [int(result.pop("processes")) for result in results] == [max(count, 1)] * max(count, 1)
    return results


def check_equal(one, several):
    for name, expected in one.items():
        for result in several:
            np.testing.assert_allclose(result[name], expected, rtol=1e-4, atol=1e-4, err_msg=name)
            # All of a group hold the very same.
            np.testing.assert_array_equal(result[name], several[0][name], err_msg=name)


# The others are compared with four.
@pytest.mark.long_on("jax")
def test_two_processes_give_what_one_gives(tmp_path):
    (one,) = trained(tmp_path, 0, "practical")
    check_equal(one, trained(tmp_path, 2, "practical"))


@pytest.mark.long
def test_four_processes_give_what_one_gives(tmp_path):
    names = ("mosaickd", "practical", "kd", "fitnet", "supervised", "teacher")
    (one,) = trained(tmp_path, 0, *names)
    check_equal(one, trained(tmp_path, 4, *names))


@pytest.mark.long
def test_what_two_processes_began_goes_on_in_one(tmp_path):
    game = f"mosaickd={tmp_path / 'begun.keras'}"
    trained(tmp_path, 2, game)
    (one,) = trained(tmp_path, 0, game)
    check_equal(one, trained(tmp_path, 2, game))


@pytest.mark.long
@pytest.mark.backend("jax")
def test_jax_finds_the_group_by_the_variables_of_slurm(tmp_path):
    """As `srun` sets them; docs/slurm.sbatch gives JAX no more."""
    program = "tests.processes_program"
    paths = [tmp_path / f"{number}.npz" for number in range(2)]
    job = {
        "SLURM_JOB_ID": str(free_port()),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "SLURM_STEP_NUM_NODES": "1",
    }
    started = [
        start(
            module(program, path, "processes", "kd"),
            SLURM_PROCID=str(number),
            SLURM_LOCALID=str(number),
            **job,
        )
        for number, path in enumerate(paths)
    ]
    for process in started:
        finish(process)
    for path in paths:
        with np.load(path) as file:
            assert int(file["processes"]) == 2


GUIDE = ROOT / "docs" / "several_devices.md"


@pytest.mark.long
def test_the_program_of_the_guide_trains_in_two_processes(tmp_path):
    (program,) = (block.text for block in blocks(GUIDE) if block.language == "python")
    for given, small in (
        ("batch_size=256", "batch_size=8"),
        ("* 20)", "* 1)"),
        ("=20,", "=1,"),
        (":512]", ":9]"),
    ):
        assert given in program
        program = program.replace(given, small)
    networks.build("wrn10_1", (16, 16, 3), 5, mean=0.5, std=0.25).save(tmp_path / "teacher.keras")
    (tmp_path / "images").mkdir()
    for number in range(40):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 24, 3), "uint8")
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    for process in start_group(2, [sys.executable, "-c", program], folder=tmp_path):
        finish(process)
    student = keras.saving.load_model(tmp_path / "student.keras", compile=False)
    assert student.output_shape == (None, 5)


@pytest.mark.parametrize("page", ["several_devices.md", "slurm.sbatch", "kubernetes.yaml"])
def test_the_commands_of_the_guide_are_commands(page):
    text = (ROOT / "docs" / page).read_text().replace("\\\n", " ")
    found = re.findall(r"bin/train((?:\s+--[\w=./\[\]-]+)+)", text)
    assert found
    for arguments in found:
        assert flags.parse("train", arguments.split()).values["strategy"] in (
            "processes",
            "mirrored",
        ), arguments
