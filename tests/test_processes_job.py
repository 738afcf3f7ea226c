"""The whole job in two processes: begun, stopped, killed, repeated."""

import json
import os
import signal
import time

import keras
import numpy as np
import pytest

from keras_mosaickd.cli import runner, train
from keras_mosaickd.data import load
from keras_mosaickd.errors import InputError
from keras_mosaickd.networks.loading import load_model
from keras_mosaickd.run_directory import CHECKPOINT, METRICS
from tests.processes import finish, module, start_group, variables

# PyTorch compiles nothing; what is JAX's own is in test_processes.
pytestmark = [pytest.mark.backend("torch"), pytest.mark.slow]

FLAGS = """--dataset=digits[0-2] --ood=digits[5-9] --ood_size=128 --image_size=8 --teacher=wrn10_1
--student=wrn10_1 --teacher_epochs=1 --teacher_batch_size=32 --batch_size=32 --student_updates=24
--student_steps=2 --evaluations=3 --export=keras --checkpoint_every_steps=1""".split()


def command(folder, name="run", *flags):
    places = [f"--run_dir={folder / name}", f"--cache_dir={folder / 'cache'}"]
    return module("keras_mosaickd.cli.train", *FLAGS, "--strategy=processes", *places, *flags)


def weights(folder, name="run"):
    trainer = load_model(folder / name / CHECKPOINT, "the checkpoint", compile=True)
    variables = [*trainer.variables, *trainer.optimizer.variables]
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def wait_for(condition, processes):
    deadline = time.monotonic() + 900
    while not condition():
        assert all(process.poll() is None for process in processes), "ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ended(processes, statuses):
    """Their outputs and errors, once all have ended; one that hangs is the test's failure."""
    return [finish(process, status) for process, status in zip(processes, statuses, strict=True)]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    results = [finish(process) for process in start_group(2, command(folder))]
    return folder, results


def test_job_of_two_processes_leaves_the_files_of_one(uninterrupted):
    folder, ((out, err), others) = uninterrupted
    assert others == ([], []) and err == []
    assert f"The run is in {folder / 'run'}" in out
    metrics = json.loads((folder / "run" / METRICS).read_text())
    assert metrics["student_updates"] == 24
    environment = json.loads((folder / "run" / "environment.json").read_text())
    assert environment["processes"] == 2
    (image_folder,) = (folder / "cache" / "ood").glob("[!.]*")
    images = np.load(image_folder / "images.npy")
    indices = np.load(image_folder / "indices.npy")
    entropies = np.load(image_folder / "entropies.npy")
    assert images.shape == (128, 8, 8, 1) and len(entropies) == 630
    assert set(indices) == set(np.argsort(-entropies, kind="stable")[:128])
    pool = load("digits[5-9]", "train", image_size=8).images
    np.testing.assert_array_equal(images, pool[indices])


@pytest.mark.long
def test_signal_at_one_process_saves_once_and_the_repeated_command_resumes(uninterrupted):
    folder, _ = uninterrupted
    processes = start_group(2, command(folder, "stopped"))
    wait_for((folder / "stopped" / CHECKPOINT).is_file, processes)
    processes[1].send_signal(signal.SIGTERM)
    status = 128 + signal.SIGTERM
    (_, err), others = ended(processes, [status, status])
    assert err == ["bin/train: SIGTERM: saved; repeat the command to resume"]
    assert others == ([], [])
    for process in start_group(2, command(folder, "stopped")):
        finish(process)
    for expected, received in zip(weights(folder), weights(folder, "stopped"), strict=True):
        np.testing.assert_array_equal(received, expected)


@pytest.mark.long
@pytest.mark.parametrize(("victim", "count"), [(0, 1), (1, 2)])
def test_killed_process_ends_all_with_one_line_and_the_repeated_command_resumes(
    uninterrupted, victim, count
):
    folder, _ = uninterrupted
    name = f"killed{victim}"
    processes = start_group(2, command(folder, name))
    wait_for((folder / name / CHECKPOINT).is_file, processes)
    processes[victim].kill()
    statuses = [1, 1]
    statuses[victim] = -signal.SIGKILL
    results = ended(processes, statuses)
    (line,) = results[1 - victim][1]
    assert line.startswith(f"bin/train: process {victim} (of 2, counted from 0) on "), line
    assert "ended without a word" in line
    outputs = [finish(process)[0] for process in start_group(count, command(folder, name))]
    assert any(line.startswith("Continuing the run in") for line in outputs[0])
    metrics = json.loads((folder / name / METRICS).read_text())
    assert metrics["student_updates"] == 24
    if count == 2:
        for expected, received in zip(weights(folder), weights(folder, name), strict=True):
            np.testing.assert_array_equal(received, expected)


@pytest.mark.long
def test_killed_process_in_the_selection_ends_all(uninterrupted, tmp_path):
    folder, _ = uninterrupted
    os.symlink(folder / "cache", tmp_path / "cache")
    other = command(tmp_path, "run", "--ood_size=100", "--evaluation_batch_size=1")
    processes = start_group(2, other)
    pool = folder / "cache" / "ood"
    wait_for(lambda: any(pool.glob(".*.new-*/new")), processes)
    processes[1].kill()
    (_, err), _ = ended(processes, [1, -signal.SIGKILL])
    assert len(err) == 1 and "process 1 (of 2" in err[0]


@pytest.mark.long
def test_settings_that_cannot_be_are_refused_once(tmp_path):
    processes = start_group(2, command(tmp_path, "run", "--batch_size=31"))
    # Most of this is their start, and so no time is kept.
    (_, err), others = [finish(process, 2) for process in processes]
    assert others == ([], [])
    assert err == [
        "bin/train: --batch_size must be divisible by the 2 devices of --strategy=processes. "
        "Received: 31"
    ]
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_error_of_one_process_names_it(tmp_path):
    folders = [tmp_path / "0", tmp_path / "1"]
    commands = [command(folder) for folder in folders]
    (_, err), others = [finish(process, 2) for process in start_group(2, commands)]
    assert others == ([], [])
    (line,) = err
    assert line.startswith("bin/train: --cache_dir must be the same place for all processes")
    assert "process 1 of 2" in line


def test_without_a_launcher_it_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("RANK", raising=False)
    given = [*FLAGS, "--strategy=processes", f"--run_dir={tmp_path / 'run'}"]
    assert runner.run(train.main, "train", given) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "such as torchrun (docs/several_devices.md)" in line


def test_members_with_other_flags_are_refused_before_anything_is_written(tmp_path):
    commands = [command(tmp_path, "run", f"--temperature={value}") for value in (20, 1)]
    (_, (line,)), _ = ended(start_group(2, commands), (2, 2))
    assert "--temperature must be the same for all processes. Received: 20.0 of process 0" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"RANK": "x"}, "expected a whole number in RANK. Received: x"),
        ({"RANK": "2"}, "RANK from 0 to below WORLD_SIZE.*Received: RANK=2, WORLD_SIZE=2"),
        ({"MASTER_PORT": "99999"}, "MASTER_PORT below 65536.*MASTER_PORT=99999"),
    ],
)
def test_wrong_variables_of_a_launcher_are_refused_at_once(changes, message, monkeypatch):
    from keras_mosaickd.backend.processes import torch as engine

    for name, value in {**next(variables(2)), **changes}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=message):
        engine.start()
