"""docs/slurm.sbatch, with stand-ins for SLURM's two commands that it calls."""

import json
import os
import signal
import subprocess

import pytest

from keras_mosaickd.run_directory import CHECKPOINT, METRICS
from tests.documents import ROOT
from tests.processes import free_port
from tests.test_processes_job import FLAGS, wait_for

BATCH = ROOT / "docs" / "slurm.sbatch"

# A task for each of two processes of this machine, with the variables that srun gives it.
SRUN = """#!/bin/bash
[ "$1" = --kill-on-bad-exit=0 ] && shift
export SLURM_NTASKS=2 SLURM_STEP_NUM_NODES=1 SLURM_STEP_NODELIST=localhost
for number in 0 1; do
    SLURM_PROCID=$number SLURM_LOCALID=$number "$@" &
    tasks="$tasks $!"
done
echo "$tasks" >>"$STAND_INS/tasks"
highest=0
for task in $tasks; do
    wait "$task"
    status=$?
    [ "$status" -gt "$highest" ] && highest=$status
done
exit "$highest"
"""
SCONTROL = """#!/bin/bash
echo "$@" >>"$STAND_INS/asked"
[ "$1 $2" = "show hostnames" ] && echo localhost
exit 0
"""


def test_the_batch_file_is_bash():
    subprocess.run(["bash", "-n", str(BATCH)], check=True)


@pytest.mark.long
@pytest.mark.backend("jax", "torch")
def test_the_job_is_queued_again_when_its_time_is_up_and_goes_on(tmp_path, backend):
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    run = tmp_path / "run"
    # The port of MASTER_ADDR and of JAX follow from the job's number.
    job = str(free_port())
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "STAND_INS": str(tmp_path),
        "SLURM_JOB_ID": job,
        "SLURM_JOB_NODELIST": "localhost",
    }
    command = ["bash", str(BATCH), *FLAGS, f"--run_dir={run}", f"--cache_dir={tmp_path / 'cache'}"]
    first = subprocess.Popen(command, cwd=ROOT, env=environment)
    wait_for((run / CHECKPOINT).is_file, [first])
    # What SLURM does two minutes before the time is up; one task's signal is enough.
    last = (tmp_path / "tasks").read_text().split()[-1]
    os.kill(int(last), signal.SIGUSR1)
    assert first.wait() == 128 + signal.SIGUSR1
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked == ["show hostnames localhost", f"requeue {job}"]
    assert not (run / METRICS).exists()

    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    assert json.loads((run / METRICS).read_text())["student_updates"] == 24
    assert json.loads((run / "environment.json").read_text())["processes"] == 2
    assert len((tmp_path / "asked").read_text().splitlines()) == 3
