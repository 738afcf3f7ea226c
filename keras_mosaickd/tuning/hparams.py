"""A study in TensorBoard's HParams plugin: ``tensorboard --logdir=STUDY`` compares its trials.

The plugin finds what is varied, and by what trials are judged, in the study's own directory, and in
each run's ``tensorboard`` directory the values that the run had. Its own writers
(`tensorboard.plugins.hparams.summary`) start TensorFlow; its messages do not. Where the package
tensorboard is not installed, nothing is written.
"""

from pathlib import Path

from keras_mosaickd.callbacks.event_files import write_whole
from keras_mosaickd.run_directory import FLAGS, METRICS, TENSORBOARD, RunDirectory

# Names of files: whatever has "tfevents" in its name is read. Being fixed, they are replaced when a
# study is continued, and nothing stands there twice.
EXPERIMENT, SESSION = "events.out.tfevents.experiment", "events.out.tfevents.session"


def write_experiment(directory, config, hyperparameters):
    """Says what a study varies and by what its trials are judged.

    Args:
        directory: the study's directory, which exists.
        config: `ExperimentConfig` of the study.
        hyperparameters: KerasTuner's `HyperParameters`.
    """
    try:
        from tensorboard.plugins.hparams import api_pb2, metadata
    except ImportError:
        return
    experiment = api_pb2.Experiment()
    for parameter in hyperparameters.space:
        info = experiment.hparam_infos.add(name=parameter.name)
        kind = type(getattr(config, parameter.name))
        if not hasattr(parameter, "min_value"):  # a choice
            info.domain_discrete.extend([kind(value) for value in parameter.values])
        else:
            info.domain_interval.min_value = parameter.min_value
            info.domain_interval.max_value = parameter.max_value
        info.type = api_pb2.DATA_TYPE_STRING if kind is str else api_pb2.DATA_TYPE_FLOAT64
    for metric in ("agreement", "accuracy"):
        info = experiment.metric_infos.add(display_name=metric)
        # Where `keras_mosaickd.callbacks.traces.TensorBoardScalars` writes them, below a run's log.
        info.name.group, info.name.tag = "validation", f"epoch_{metric}"
    _write(Path(directory) / EXPERIMENT, {metadata.EXPERIMENT_TAG: {"experiment": experiment}})


def write_session(config, values, trial_id, succeeded):
    """Says which values a run that has ended had, when it ran, and how it ended.

    Args:
        config: `ExperimentConfig` of the run. One that failed before it had a directory is left
            out.
        values: dict of its hyperparameters by name.
        trial_id: name of its trial, which the runs of other seeds share.
        succeeded: whether it came to its end.
    """
    try:
        from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
    except ImportError:
        return
    run = RunDirectory(config.run_dir)
    if not (run / FLAGS).is_file():
        return
    start = plugin_data_pb2.SessionStartInfo(
        group_name=trial_id, start_time_secs=(run / FLAGS).stat().st_mtime
    )
    for name, value in values.items():
        kind = "string_value" if isinstance(value, str) else "number_value"
        setattr(start.hparams[name], kind, value)
    last = run / METRICS if succeeded else Path(f"{run.path}.log")
    end = plugin_data_pb2.SessionEndInfo(
        status=api_pb2.STATUS_SUCCESS if succeeded else api_pb2.STATUS_FAILURE,
        end_time_secs=last.stat().st_mtime,
    )
    (run / TENSORBOARD).mkdir(exist_ok=True)
    parts = {
        metadata.SESSION_START_INFO_TAG: {"session_start_info": start},
        metadata.SESSION_END_INFO_TAG: {"session_end_info": end},
    }
    _write(run / TENSORBOARD / SESSION, parts)


def _write(path, parts):
    """An event file of the plugin's messages, by their tags."""
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    values = [
        {
            "tag": tag,
            # All that the plugin reads is in the metadata.
            "metadata": metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(**part)),
            "tensor": metadata.NULL_TENSOR,
        }
        for tag, part in parts.items()
    ]
    write_whole(path, values)
