"""A run up to its training, in memory: for benchmarks that measure something between its parts."""

from keras_mosaickd.methods import registry as methods
from keras_mosaickd.runs import building, run
from keras_mosaickd.runs.inputs import load


class UnwrittenRun:
    """What `km.train` has in its hands before it trains; only the cache is written.

    Args:
        config: `ExperimentConfig`.

    Attributes:
        inputs: `Inputs`.
        teacher: Keras model from images to logits.
        images: the selected out-of-domain images, uint8 `[n, h, w, c]`; None where there are none.
        schedule: `Schedule`.
    """

    def __init__(self, config):
        self.inputs = load(config)
        self.teacher = run.ready_teacher(self.inputs).model
        self.images = None
        if self.inputs.pool is not None:
            self.images = run.selection(self.inputs, self.teacher).images
        size = self.inputs.epoch_size if self.images is None else len(self.images)
        self.schedule = config.schedule(size)

    def trainer(self):
        """The compiled method on fresh networks."""
        networks = building.build(self.inputs)
        with self.inputs.distribution.scope():
            return methods.trainer(self.inputs.config, self.teacher, networks, self.schedule)

    def fit(self, trainer, callbacks=()):
        """Trains for the whole schedule, with callbacks if given."""
        inputs = self.inputs
        data = methods.training_images(
            inputs.config,
            self.teacher,
            inputs.domain,
            self.images,
            inputs.pool is not None and inputs.pool.flip,
            inputs.class_names,
        )
        trainer.fit(
            methods.stream(inputs.config, data, self.schedule, first_step=0),
            epochs=self.schedule.rounds,
            steps_per_epoch=self.schedule.steps_per_round,
            callbacks=list(callbacks),
            shuffle=False,  # The stream's own order is `bin/train`'s.
            verbose=0,
        )
