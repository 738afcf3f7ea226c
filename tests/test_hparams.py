"""Studies in TensorBoard's HParams plugin, read back by the plugin itself."""

import subprocess
import sys

import keras_tuner
import pytest

from keras_mosaickd import tuning
from keras_mosaickd.callbacks.event_files import EventFile
from keras_mosaickd.config import ExperimentConfig
from keras_mosaickd.run_directory import RunDirectory
from keras_mosaickd.tuning import runs

# Once is enough: a file is written, whatever the backend.
pytestmark = [
    pytest.mark.backend("tensorflow"),
    # KerasTuner's locks.
    pytest.mark.filterwarnings("ignore:currentThread:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:getName:DeprecationWarning"),
]


def agreement(config):
    return 0.5 + 0.125 * config.seed - config.overlap_stride / 16


def fake_train(config, command):
    """What a run leaves behind that the plugin looks at; wrn16_1 with stride 4 diverges."""
    run = RunDirectory(config.run_dir)
    run.path.mkdir(parents=True, exist_ok=True)
    (run / "flags.txt").write_text("--seed=0\n")
    (run.path.parent / f"{run.path.name}.log").write_text("bin/train: failed: it diverged\n")
    if (config.student, config.overlap_stride) == ("wrn16_1", 4):
        raise keras_tuner.errors.FailedTrialError("it diverged")
    file = EventFile(run / "tensorboard" / "validation")
    for epoch, share in ((0, 0.5), (1, 1.0)):
        scores = {"epoch_agreement": share * agreement(config), "epoch_accuracy": 0.25}
        file.scalars(epoch, scores)
    file.close()
    metrics = {
        "student_agreement": agreement(config),
        "student_accuracy": 0.25,
        "student_updates": 1,
    }
    run.write_json("metrics.json", metrics)
    return metrics


def read(study):
    """The experiment and its groups of sessions, as TensorBoard's page gets them."""
    from tensorboard import context
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
    from tensorboard.plugins import base_plugin
    from tensorboard.plugins.hparams import (
        api_pb2,
        backend_context,
        get_experiment,
        list_session_groups,
    )

    multiplexer = plugin_event_multiplexer.EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(study))
    multiplexer.Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(study))
    backend = backend_context.Context(base_plugin.TBContext(data_provider=provider))
    experiment = get_experiment.Handler(
        context.RequestContext(), backend, "", api_pb2.GetExperimentRequest()
    ).run()
    request = api_pb2.ListSessionGroupsRequest(
        slice_size=100,
        allowed_statuses=[api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE],
        aggregation_type=api_pb2.AGGREGATION_AVG,
    )
    groups = list_session_groups.Handler(context.RequestContext(), backend, "", request).run()
    return experiment, list(groups.session_groups)


def values(group):
    return {name: value.string_value or value.number_value for name, value in group.hparams.items()}


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "check", lambda *arguments: None)
    monkeypatch.setattr(runs, "train", fake_train)
    config = ExperimentConfig(run_dir=str(tmp_path / "study"))
    described = tuning.Study(
        "stride", students="wrn10_1,wrn16_1", grid="1,4", executions_per_trial=2
    )
    # A second time: a study that is continued says nothing twice.
    for _ in range(2):
        tuning.tune(config, described)
    return tmp_path / "study"


def test_the_plugin_reads_what_is_varied_and_what_came_of_it(study):
    from tensorboard.plugins.hparams import api_pb2

    experiment, groups = read(study)
    infos = {info.name: info for info in experiment.hparam_infos}
    assert set(infos) == {"student", "local_reduction", "overlap_stride"}
    domains = {name: list(info.domain_discrete) for name, info in infos.items()}
    assert domains["student"] == ["wrn10_1", "wrn16_1"] and domains["overlap_stride"] == [1, 4]
    assert infos["student"].type == api_pb2.DATA_TYPE_STRING
    assert infos["overlap_stride"].type == api_pb2.DATA_TYPE_FLOAT64
    assert [info.name.tag for info in experiment.metric_infos] == [
        "epoch_agreement",
        "epoch_accuracy",
    ]
    assert len(groups) == 8 and len({str(values(group)) for group in groups}) == 8
    for group in groups:
        found = values(group)
        failed = (found["student"], found["overlap_stride"]) == ("wrn16_1", 4)
        statuses = {session.status for session in group.sessions}
        if failed:
            # The other seed is not tried once one has failed.
            assert statuses == {api_pb2.STATUS_FAILURE} and len(group.sessions) == 1
            continue
        assert statuses == {api_pb2.STATUS_SUCCESS} and len(group.sessions) == 2
        # By hand: the mean of the seeds 0 and 1 after the last epoch.
        mean = {metric.name.tag: metric.value for metric in group.metric_values}
        by_hand = 0.5 + 0.125 * (0 + 1) / 2 - found["overlap_stride"] / 16
        assert mean == pytest.approx({"epoch_agreement": by_hand, "epoch_accuracy": 0.25})
        for session in group.sessions:
            assert session.start_time_secs <= session.end_time_secs


def test_a_search_has_intervals(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "check", lambda *arguments: None)
    monkeypatch.setattr(runs, "train", fake_train)
    config = ExperimentConfig(run_dir=str(tmp_path / "study"))
    tuning.tune(config, tuning.Study("search", tuner="bayesian", max_trials=2))
    experiment, groups = read(tmp_path / "study")
    interval = {i.name: i.domain_interval for i in experiment.hparam_infos}["temperature"]
    assert (interval.min_value, interval.max_value) == (1, 20)
    assert len(groups) == 2 and all(1 <= values(g)["temperature"] <= 20 for g in groups)


@pytest.mark.slow
def test_nothing_of_tensorflow_is_loaded(study):
    code = f"""
import os, sys
os.environ["KERAS_BACKEND"] = "jax"
sys.modules["tensorflow"] = None
from keras_mosaickd import tuning
from keras_mosaickd.config import ExperimentConfig
from keras_mosaickd.tuning import hparams
config = ExperimentConfig(run_dir={str(study / "trials" / "0000-execution-0")!r})
hparams.write_session(config, {{"overlap_stride": 3}}, "another", True)
"""
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert 3 in [values(group)["overlap_stride"] for group in read(study)[1]]


def test_without_tensorboard_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.plugins.hparams", None)
    monkeypatch.setattr(runs, "check", lambda *arguments: None)
    monkeypatch.setattr(runs, "train", fake_train)
    config = ExperimentConfig(run_dir=str(tmp_path / "study"))
    final = tuning.tune(config, tuning.Study("stride", grid="1"))
    assert final["finished"]
    assert not list(tmp_path.rglob("events.out.tfevents.[es]*"))
