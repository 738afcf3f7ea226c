"""Studies: every trial once, whatever is killed, and what is written about them."""

import csv
import dataclasses
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from keras_mosaickd import run_directory, tuning
from keras_mosaickd.cli import runner, tune
from keras_mosaickd.config import ExperimentConfig
from keras_mosaickd.errors import InputError
from keras_mosaickd.tuning import oracles, runs

ROOT = Path(__file__).resolve().parent.parent

# Trials are processes of bin/train, so nothing here depends on the backend; once is enough.
pytestmark = [
    pytest.mark.backend("tensorflow"),
    # KerasTuner's locks.
    pytest.mark.filterwarnings("ignore:currentThread:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:getName:DeprecationWarning"),
]

# Stands in for bin/train: notes that it begins and ends, and "measures" lambda and the seed.
FAKE = """
import json, os, sys, time
from pathlib import Path

flags = dict(argument[2:].split("=", 1) for argument in sys.argv[1:] if "=" in argument)
if flags["student"] == "refused":
    sys.exit(print("bin/train: --student: expected a network") or 2)
if "--dry_run" in sys.argv:
    sys.exit(print(flags["student"], flags["overlap_stride"], "would be trained"))
run = Path(flags["run_dir"])

def note(event):
    with open(run.parent.parent / "events.txt", "a") as file:
        file.write(f"{event} {run.name} {os.getpid()}\\n")

note("begin")
if flags["regularization_weight"] == "10.0":
    sys.exit(print("bin/train: failed: it diverged") or 1)
time.sleep(float(os.environ.get("FAKE_SECONDS", 0)))
gate = os.environ.get("FAKE_GATE")
while gate and run.name == "0001" and not os.path.exists(gate):
    time.sleep(0.05)
run.mkdir(exist_ok=True)
agreement = 0.5 + 0.1 * float(flags["regularization_weight"]) + 0.01 * int(flags["seed"]) ** 2
metrics = {"student_agreement": agreement, "student_accuracy": agreement / 2, "student_updates": 7}
(run / ".new").write_text(json.dumps(metrics))
note("end")
os.replace(run / ".new", run / "metrics.json")
"""

# bin/tune, with the stand-in for its trials.
TUNE = """
import sys
from keras_mosaickd import tuning
from keras_mosaickd.cli import runner, tune

fake, real = sys.argv[1], tuning.train_command
tuning.train_command = lambda config: [sys.executable, fake, *real(config)[3:]]
sys.exit(runner.run(tune.main, "tune", sys.argv[2:]))
"""


@pytest.fixture
def fake(tmp_path):
    path = tmp_path / "fake.py"
    path.write_text(FAKE)
    return path


def command_of(fake):
    return lambda config: [sys.executable, str(fake), *tuning.train_command(config)[3:]]


def events(directory, kind):
    """Names of the runs that began or ended, in order."""
    lines = (directory / "events.txt").read_text().splitlines()
    return [line.split()[1] for line in lines if line.startswith(kind)]


def study_of(directory):
    return json.loads((directory / "study.json").read_text())


def fake_run(calls, score=lambda config: 0.5):
    """Replaces the process of a run by a call; a finished run is not run again."""

    def run(config, command):
        directory = run_directory.RunDirectory(config.run_dir)
        if not directory.is_finished:
            calls.append(config)
            directory.path.mkdir(parents=True, exist_ok=True)
            directory.write_json(
                "metrics.json",
                {
                    "student_agreement": score(config),
                    "student_accuracy": 0.25,
                    "student_updates": config.student_updates,
                },
            )
        return directory.read_json("metrics.json")

    return run


def test_mean_and_deviation_over_seeds_and_a_failed_trial(tmp_path, fake):
    config = ExperimentConfig(run_dir=str(tmp_path / "study"), seed=1)
    study = tuning.Study("lambda", grid="0,0.1,10", executions_per_trial=3)
    final = tuning.tune(config, study, command_of(fake))
    assert final == study_of(tmp_path / "study") and final["finished"]
    none, tenth, ten = final["trials"]
    assert [t["hyperparameters"]["regularization_weight"] for t in final["trials"]] == [0, 0.1, 10]
    # By hand: 0.5 + 0.1 lambda + 0.01 seed^2 for the seeds 1, 2, 3.
    by_hand = [0.52, 0.55, 0.60]
    assert [run["student_agreement"] for run in tenth["executions"]] == pytest.approx(by_hand)
    assert tenth["mean"]["student_agreement"] == pytest.approx(sum(by_hand) / 3)
    assert tenth["sd"]["student_agreement"] == pytest.approx(statistics.stdev(by_hand))
    assert none["status"] == tenth["status"] == "COMPLETED" and final["best"] == tenth["trial"]
    assert ten["status"] == "FAILED" and ten["error"] == "failed: it diverged"
    assert none["runs"] == [f"trials/0000-execution-{k}" for k in range(3)]
    with (tmp_path / "study" / "study.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["regularization_weight"] for row in rows] == ["0.0", "0.1", "10.0"]
    assert float(rows[1]["student_agreement_mean"]) == tenth["mean"]["student_agreement"]
    assert {row["local_reduction"] for row in rows} == {"mean"}
    lines = tuning.table(final).splitlines()
    assert "0.5567 ± 0.0404" in lines[2] and lines[3].endswith("failed: it diverged")

    # Continued, only what failed is tried again.
    begun = len(events(tmp_path / "study", "begin"))
    tuning.tune(config, study, command_of(fake))
    assert events(tmp_path / "study", "begin")[begun:] == ["0002-execution-0"]
    assert events(tmp_path / "study", "end").count("0001-execution-2") == 1


def test_a_run_whose_export_failed_has_its_metrics(tmp_path, fake):
    fake.write_text(FAKE + "sys.exit(1)\n")
    study = tuning.Study("lambda", grid="0,0.1")
    final = tuning.tune(ExperimentConfig(run_dir=str(tmp_path / "study")), study, command_of(fake))
    assert [trial["status"] for trial in final["trials"]] == ["COMPLETED", "COMPLETED"]
    assert [len(trial["executions"]) for trial in final["trials"]] == [1, 1]


def test_stride_study_has_every_stride_reduction_and_student(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(runs, "train", fake_run(calls))
    monkeypatch.setattr(runs, "check", lambda *arguments: None)
    config = ExperimentConfig(run_dir=str(tmp_path / "study"), student_updates=500, seed=3)
    final = tuning.tune(config, tuning.Study("stride", students="wrn10_1,wrn16_1"))
    combinations = [(c.student, c.local_reduction, c.overlap_stride) for c in calls]
    assert combinations == [
        (student, reduction, stride)
        for student in ("wrn10_1", "wrn16_1")
        for reduction in ("mean", "sum")
        for stride in (1, 2, 3, 4)
    ]
    assert {c.student_updates for c in calls} == {500} and {c.seed for c in calls} == {3}
    same = {"student", "local_reduction", "overlap_stride", "run_dir"}
    for call in calls:
        changed = {f.name for f in dataclasses.fields(call)} - same
        assert all(getattr(call, name) == getattr(config, name) for name in changed)
    assert final["trials"][5]["hyperparameters"] == {
        "student": "wrn10_1",
        "local_reduction": "sum",
        "overlap_stride": 2,
    }


def test_epsilon_study_and_search_vary_what_a_found_lambda_obeys(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(runs, "train", fake_run(calls))
    monkeypatch.setattr(runs, "check", lambda *arguments: None)
    config = ExperimentConfig(
        run_dir=str(tmp_path / "study"), student_updates=500, regularization="adaptive"
    )
    study = tuning.Study("epsilon")
    study.check(config)
    final = tuning.tune(config, study)
    assert [call.epsilon_local for call in calls] == [0.1, 0.3, 0.5, 0.7, 0.9]
    assert final["trials"][1]["hyperparameters"] == {"student": "wrn10_1", "epsilon_local": 0.3}
    starts = tuning.Study("lambda", grid="0.01,1,30").space(config).space[-1]
    assert (starts.name, starts.values) == ("regularization_weight", ["0.01", "1.0", "30.0"])
    names = [parameter.name for parameter in tuning.Study("search").space(config).space]
    assert "epsilon_local" in names and "regularization_weight" not in names


def test_hyperband_shortens_and_the_best_is_of_full_length(tmp_path, monkeypatch):
    calls = []

    # Short trainings look better here; they must not win.
    def score(config):
        return 0.9 - config.student_updates / 2000 - config.student_learning_rate

    monkeypatch.setattr(runs, "train", fake_run(calls, score))
    monkeypatch.setattr(runs, "check", lambda *arguments: None)
    config = ExperimentConfig(run_dir=str(tmp_path / "study"), student_updates=500)
    final = tuning.tune(config, tuning.Study("search", max_trials=25))
    lengths = [call.student_updates for call in calls]
    assert len(lengths) == 25 and set(lengths) == {56, 167, 500}
    assert lengths.count(500) >= 4
    for call in calls:
        assert 0.03 <= call.regularization_weight <= 10 and 0.1 <= call.balance_weight <= 30
        assert 1 <= call.temperature <= 20 and 0.01 <= call.student_learning_rate <= 0.3
    best = next(t for t in final["trials"] if t["trial"] == final["best"])
    full = [t for t in final["trials"] if t["share_of_updates"] == 1]
    assert best["mean"]["student_agreement"] == max(t["mean"]["student_agreement"] for t in full)
    assert (
        max(t["mean"]["student_agreement"] for t in final["trials"])
        > (best["mean"]["student_agreement"])
    )
    assert tuning.table(final).splitlines()[1].split()[0] == final["best"]


def test_bayesian_search_learns_from_agreement(tmp_path, monkeypatch):
    calls = []

    def score(config):
        return 1 - abs(config.student_learning_rate - 0.05)

    monkeypatch.setattr(runs, "train", fake_run(calls, score))
    monkeypatch.setattr(runs, "check", lambda *arguments: None)
    config = ExperimentConfig(run_dir=str(tmp_path / "study"), epochs=7)
    final = tuning.tune(config, tuning.Study("search", tuner="bayesian", max_trials=6))
    assert len(calls) == 6 and {call.epochs for call in calls} == {7}
    rates = [t["hyperparameters"]["student_learning_rate"] for t in final["trials"]]
    assert rates == [call.student_learning_rate for call in calls] and len(set(rates)) == 6


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lambda", pytest.param("search", marks=pytest.mark.long)])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_at_any_write_no_trial_is_lost_or_done_twice(name, moment, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "check", lambda *arguments: None)
    study = tuning.Study(name, grid="0,1,3" if name == "lambda" else "", max_trials=3)
    write = oracles.write_file
    interruptions = 0
    for nth in range(1, 100):
        calls, writes = [], []
        config = ExperimentConfig(run_dir=str(tmp_path / f"study{nth}"), student_updates=9)
        monkeypatch.setattr(runs, "train", fake_run(calls))

        def killed(path, text, nth=nth, writes=writes):
            writes.append(path)
            if moment == "before" and len(writes) == nth:
                raise KeyboardInterrupt
            write(path, text)
            if len(writes) == nth:
                raise KeyboardInterrupt

        monkeypatch.setattr(oracles, "write_file", killed)
        try:
            tuning.tune(config, study)
        except KeyboardInterrupt:
            interruptions += 1
        finished = len(writes) < nth
        monkeypatch.setattr(oracles, "write_file", write)
        final = tuning.tune(config, study)
        assert [t["status"] for t in final["trials"]] == ["COMPLETED"] * 3, f"write {nth}"
        values = {json.dumps(t["hyperparameters"]) for t in final["trials"]}
        assert len(values) == len(calls) == 3, f"write {nth}"
        if finished:
            break
    assert finished and interruptions > 9


@pytest.mark.parametrize("role", ["chief", "alone"])
def test_trials_under_way_wait_for_their_worker_or_go_to_whoever_asks(role, tmp_path):
    config, study = ExperimentConfig(), tuning.Study("lambda", grid="0,1,3")

    def oracle():
        made = oracles.make(config, study)
        made.verbose = 0
        made.belongs_to_workers = role == "chief"
        made._set_project_dir(tmp_path, "tuner")
        return made

    first = oracle()
    for worker in ("worker-0", "worker-1"):
        first.create_trial(worker)
    first.update_trial("0000", {"student_agreement": 0.5})
    ended = first.get_trial("0000")
    ended.status = "COMPLETED"
    first.end_trial(ended)
    again = oracle()
    again.reload()
    asked = [again.create_trial(worker).trial_id for worker in ("worker-0", "worker-1")]
    # worker-1 had the second trial when the oracle was killed.
    assert asked == (["0002", "0001"] if role == "chief" else ["0001", "0002"])
    assert again.create_trial("worker-2").status == "STOPPED"


def start(fake, directory, *arguments, **environment):
    """Starts bin/tune with the stand-in, as the leader of a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", TUNE, str(fake), f"--run_dir={directory}", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def begun(directory):
    return events(directory, "begin") if (directory / "events.txt").exists() else []


@pytest.mark.long
@pytest.mark.parametrize("how", ["tuner", "group", "terminated"])
def test_a_killed_study_continues_where_it_was(how, tmp_path, fake):
    directory = tmp_path / "study"
    flags = ("--study=lambda", "--grid=0,1,3")
    gate = tmp_path / "gate"
    process = start(fake, directory, *flags, FAKE_GATE=str(gate))
    wait_for(lambda: len(begun(directory)) == 2)
    if how == "tuner":  # Its trial lives on, and must neither be lost nor started again.
        process.kill()
    elif how == "group":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.terminate()
    output = process.communicate()[0]
    if how == "terminated":
        assert process.returncode == 128 + signal.SIGTERM, output
        assert "repeat the command to resume" in output
    continued = start(fake, directory, *flags)
    if how == "tuner":
        assert any("Waiting for the process that still trains 0001" in s for s in continued.stdout)
        gate.touch()
    output = continued.communicate(timeout=90)[0]
    assert continued.returncode == 0, output
    assert events(directory, "end") == ["0000", "0001", "0002"]
    again = [] if how == "tuner" else ["0001"]
    assert sorted(begun(directory)) == sorted(["0000", "0001", "0002", *again])
    assert [t["status"] for t in study_of(directory)["trials"]] == ["COMPLETED"] * 3


@pytest.mark.long
@pytest.mark.slow
def test_chief_and_two_workers_one_of_them_killed(tmp_path, fake):
    directory = tmp_path / "study"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    flags = ("--study=lambda", "--grid=0,0.1,0.2,0.3,0.4,0.5,0.7,1")
    address = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": port}

    def member(name):
        return start(fake, directory, *flags, **address, KERASTUNER_TUNER_ID=name, FAKE_SECONDS="1")

    members = {name: member(name) for name in ("chief", "worker-0", "worker-1")}
    try:
        wait_for(lambda: len(begun(directory)) >= 3)
        os.killpg(members["worker-1"].pid, signal.SIGKILL)
        members["worker-1"].communicate()
        members["worker-1"] = member("worker-1")
        for name, process in members.items():
            output = process.communicate(timeout=120)[0]
            assert process.returncode == 0, f"{name}: {output}"
    finally:
        for process in members.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    final = study_of(directory)
    grid = [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1]
    found = [t["hyperparameters"]["regularization_weight"] for t in final["trials"]]
    assert final["finished"] and found == grid
    assert {t["status"] for t in final["trials"]} == {"COMPLETED"}
    assert sorted(events(directory, "end")) == [t["trial"] for t in final["trials"]]
    # The killed one's trial began twice, if it was killed in one; no other did.
    assert len(begun(directory)) <= 9


@pytest.mark.long
@pytest.mark.backend("torch")  # whose trials compile nothing
def test_trials_are_ordinary_runs(tmp_path):
    tiny = (
        "--dataset=digits[0-2] --ood=digits[5-9] --ood_size=40 --image_size=8 --teacher=wrn10_1 "
        "--teacher_epochs=1 --teacher_batch_size=128 --batch_size=16 --student_steps=2 "
        "--student_updates=4 --evaluations=1 --export=keras --study=align --grid=0,3"
    ).split()
    finished = subprocess.run(
        [sys.executable, "-m", "keras_mosaickd.cli.tune", *tiny]
        + [f"--run_dir={tmp_path / 'study'}", f"--cache_dir={tmp_path / 'cache'}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    trials = study_of(tmp_path / "study")["trials"]
    assert len(trials) == 2 and {t["student_updates"] for t in trials} == {4}
    for trial, weight in zip(trials, (0.0, 3.0), strict=True):
        run = tmp_path / "study" / trial["runs"][0]
        assert f"--align_weight={weight}\n" in (run / "flags.txt").read_text()
        assert (run / "student.keras").is_file() and (run / "history.csv").is_file()
        assert json.loads((run / "metrics.json").read_text()) == trial["executions"][0]
    assert len(list((tmp_path / "cache" / "teachers").glob("*/teacher.keras"))) == 1
    assert finished.stdout.splitlines()[-1] == f"The study is in {tmp_path / 'study'}"


def test_what_the_training_refuses_stops_the_study(tmp_path, fake):
    config = ExperimentConfig(run_dir=str(tmp_path / "study"))
    study = tuning.Study("stride", students="wrn10_1,refused")
    with pytest.raises(InputError, match="^--student: expected a network$"):
        tuning.tune(config, study, command_of(fake))
    assert not (tmp_path / "study").exists()


def test_dry_run_counts_the_runs_and_shows_one_of_each_student(tmp_path, fake, capsys, monkeypatch):
    real = tuning.train_command

    def stand_in(config):
        return [sys.executable, str(fake), *real(config)[3:]]

    monkeypatch.setattr(tuning, "train_command", stand_in)
    arguments = ["--study=stride", "--grid=1,3", "--students=wrn10_1,wrn16_1"]
    arguments += [f"--run_dir={tmp_path / 'study'}", "--executions_per_trial=2", "--dry_run"]
    assert runner.run(tune.main, "tune", arguments) == 0
    said = capsys.readouterr().out.split("\n\n")
    assert said[0].startswith("runs               16 (8 trials, 2 each)")
    assert [text.strip() for text in said[1:]] == [
        "wrn10_1 3 would be trained",
        "wrn16_1 3 would be trained",
    ]
    assert not (tmp_path / "study").exists()


def test_refusal_in_a_trial_is_no_failed_trial(tmp_path, fake, monkeypatch):
    monkeypatch.setattr(runs, "check", lambda *arguments: None)
    config = ExperimentConfig(run_dir=str(tmp_path / "study"))
    study = tuning.Study("stride", students="wrn10_1,refused", grid="2")
    with pytest.raises(InputError, match="expected a network"):
        tuning.tune(config, study, command_of(fake))
    done = study_of(tmp_path / "study")["trials"]
    assert [trial["status"] for trial in done] == ["COMPLETED"] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--study=speed"], "expected one of stride, lambda, local, align, epsilon, search"),
        (["--study=stride", "--grid=1,5"], "--grid: expected different whole numbers from 1 to 4"),
        (["--study=lambda", "--grid=0.1,-1"], "--grid: expected different numbers of at least 0"),
        (["--study=lambda", "--grid=1,1.0"], "--grid: expected different numbers"),
        (["--study=lambda", "--grid=nan"], "--grid: expected different numbers"),
        (["--study=lambda", "--students=wrn10_1,"], "--students: expected different names"),
        (["--study=search", "--grid=1"], "--grid: expected none with --study=search"),
        (["--study=lambda", "--method=kd"], "expected --method=mosaickd. Received: kd"),
        (["--study=local", "--method=data_free"], "expected --method=mosaickd"),
        (["--study=stride", "--regularizer=image"], "expected --regularizer=patch"),
        (["--study=local", "--regularizer=none"], "expected --regularizer=patch or image"),
        (["--study=epsilon"], "expected --regularization=adaptive. Received: fixed"),
        (
            ["--study=align", "--regularization=adaptive"],
            "expected --regularization=fixed. Received: adaptive",
        ),
        (
            ["--study=epsilon", "--regularization=adaptive", "--grid=0.5,1.5"],
            "--grid: expected different numbers from 0 to 1",
        ),
        (
            ["--study=lambda", "--regularization=adaptive"],
            "--grid: expected different numbers from 0.001 to 100",
        ),
        (["--max_trials=0"], "--max_trials"),
        (
            ["--executions_per_trial=2", "--seed=4294967295"],
            "--seed: expected 2 seeds from it on, each below 4294967296",
        ),
        (["--run_dir={tmp}/other"], "--run_dir must be new, empty"),
    ],
)
def test_bad_input_is_one_line_before_any_work(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("x")
    arguments = [argument.format(tmp=tmp_path) for argument in arguments]
    assert runner.run(tune.main, "tune", arguments) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and message in error, error
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_a_study_is_not_continued_with_other_flags(tmp_path, capsys):
    study = tmp_path / "study"
    study.mkdir()
    (study / "flags.txt").write_text("--grid=0,1\n--study=lambda\n")
    assert runner.run(tune.main, "tune", [f"--run_dir={study}", "--study=align"]) == 2
    assert "holds another run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("identity", "expected"), [("chief", "chief"), ("worker-1", "worker"), (None, None)]
)
def test_role_comes_from_the_environment(identity, expected, monkeypatch):
    assert tuning.role() == "alone"
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", "8000")
    if identity:
        monkeypatch.setenv("KERASTUNER_TUNER_ID", identity)
        assert tuning.role() == expected
    else:
        with pytest.raises(InputError, match="Received: no KERASTUNER_TUNER_ID"):
            tuning.role()


def test_help_does_not_import_keras_tuner():
    code = (
        "import sys\n"
        "from keras_mosaickd.cli import tune, runner\n"
        "assert runner.run(tune.main, 'tune', ['--help']) == 0\n"
        "print(sorted({'keras', 'keras_tuner', 'numpy'} & set(sys.modules)))\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert finished.stdout.splitlines()[-1] == "[]", finished.stderr
