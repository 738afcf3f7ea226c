"""The runs of a trial, each trained by a process of its own and by never more than one."""

import subprocess
import sys
from pathlib import Path

import keras_tuner

from keras_mosaickd.errors import STOPPING, InputError
from keras_mosaickd.files import locked
from keras_mosaickd.run_directory import METRICS, RunDirectory, flag_line


def train_command(config):
    """The command line of the process that trains one run: a list of strings."""
    flags = [flag_line(name, value) for name, value in vars(config).items()]
    return [sys.executable, "-m", "keras_mosaickd.cli.train", *flags]


def check(config, study, command):
    """Lets the training itself check one run of each student, before any is trained.

    Returns:
        List of what it says of them, `bin/train --dry_run`'s text.
    """
    said = []
    space = study.space(config).space
    last = {p.name: p.values[-1] for p in space} if study.study != "search" else {}
    for student in study.names_of_students(config):
        values = {**last, "student": student}
        checked = study.configs(config, "check", values)[0]
        finished = subprocess.run(
            [*command(checked), "--dry_run"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        if finished.returncode:
            error = last_line(finished.stdout + finished.stderr)
            raise InputError(error) if finished.returncode == 2 else RuntimeError(error)
        said.append(finished.stdout.decode(errors="replace").strip())
    return said


def train(config, command):
    """Trains one run, continues it, or waits for whoever does; returns its metrics."""
    directory = RunDirectory(config.run_dir)
    directory.path.parent.mkdir(parents=True, exist_ok=True)
    log = Path(f"{directory.path}.log")
    name = directory.path.name
    with locked(f"{directory.path}.lock", f"the process that still trains {name}") as lock:
        if not directory.is_finished:
            with log.open("ab") as output:
                process = subprocess.Popen(
                    command(config),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    # Closing does not unlock what a child has inherited.
                    pass_fds=() if lock is None else (lock.fileno(),),
                )
            try:
                status = process.wait()
            except BaseException:
                process.terminate()
                process.wait()
                raise
            if status == 2:
                raise InputError(last_line(log.read_bytes()))
            if status > 128 or -status in STOPPING:
                # Someone stopped it: it is to be continued, not to be counted as failed.
                raise KeyboardInterrupt
            # One that is finished has its metrics, though an export may have failed.
            if status and not directory.is_finished:
                raise keras_tuner.errors.FailedTrialError(last_line(log.read_bytes()))
        return directory.read_json(METRICS)


def last_line(output):
    """The last words of a process, from its output as bytes."""
    lines = [line for line in output.decode(errors="replace").splitlines() if line.strip()]
    return (lines or ["it said nothing"])[-1].strip().removeprefix("bin/train: ")
