"""What an experiment is given: data, teacher, devices; and the checks that come before any work."""

import functools
from pathlib import Path

import keras

from keras_mosaickd import export, networks, teachers
from keras_mosaickd.config import METHODS, OUT_OF_DOMAIN
from keras_mosaickd.data import load, parse, stored
from keras_mosaickd.errors import InputError
from keras_mosaickd.run_directory import RunDirectory
from keras_mosaickd.training import distribution


class Preparation:
    """Loads and builds what settings name, each when it is first asked for, and checks it.

    Args:
        config: `ExperimentConfig`.
    """

    def __init__(self, config):
        self.config = config
        keras.config.set_dtype_policy(config.precision)

    # ---- what is given -------------------------------------------------------------------

    @property
    def cache_dir(self):
        """Directory of cached teachers and selections."""
        return Path(self.config.cache_dir or ".cache")

    @functools.cached_property
    def domain(self):
        """Training pictures of the domain, with labels."""
        return self._load(self.config.dataset, "train", "--dataset")

    @functools.cached_property
    def domain_test(self):
        """Test pictures of the domain: only ever used to report."""
        return self._load(self.config.dataset, "test", "--dataset")

    @functools.cached_property
    def pool(self):
        """Out-of-domain pictures to select from, in the domain's size and channels."""
        height, _, channels = self.input_shape
        # Test pictures stay out of training; a folder has none to keep apart.
        split = "all" if parse(self.config.ood, "--ood").path else "train"
        return self._load(self.config.ood, split, "--ood", height, channels, is_pool=True)

    @property
    def input_shape(self):
        """`(height, width, channels)`."""
        return tuple(self.domain.images.shape[1:])

    @property
    def classes(self):
        """Number of classes of the domain."""
        return len(self.domain.class_names)

    @property
    def pictures(self):
        """Number of pictures that one epoch of the method passes over."""
        if self.config.method in OUT_OF_DOMAIN:
            return self.config.ood_size or len(self.pool)
        return len(self.domain)

    @functools.cached_property
    def given_teacher(self):
        """The `Teacher` of `--teacher=PATH.keras`, or None where it is named by its network."""
        if not teachers.is_file(self.config.teacher):
            return None
        with self.distribution.scope():
            return teachers.load(self.config.teacher, self.input_shape, self.classes)

    @functools.cached_property
    def distribution(self):
        """The `Distribution` in whose scope every network is built and compiled."""
        return distribution(self.config.strategy)

    def _load(self, name, split, flag, image_size=None, channels=None, is_pool=False):
        config = self.config
        pictures = load(
            name,
            split,
            image_size=image_size or config.image_size or None,
            channels=channels,
            data_dir=config.data_dir or None,
            flag=flag,
            with_labels=not is_pool,
        )
        # A large pool is read as a stream, of which the selection writes what it keeps.
        return stored(pictures, self.cache_dir, streams=not is_pool)

    # ---- checks --------------------------------------------------------------------------

    def check(self):
        """Raises InputError for everything that would make the run fail later."""
        config = self.config
        if config.method not in METHODS:
            raise InputError(
                f"--method must be one of {', '.join(METHODS)}. Received: {config.method}"
            )
        if config.method == "balanced" and config.task != "classification":
            raise InputError(
                "--method=balanced balances over classes of pictures and needs "
                f"--task=classification. Received: --task={config.task}"
            )
        export.check(export.parse(config.export))
        RunDirectory(config.run_dir or "runs").check(vars(config))
        self.check_domain()
        if config.method in OUT_OF_DOMAIN:
            self.check_pool()
        with self.distribution.scope():
            self.student(None, None)
            if config.is_game:
                self.adversaries(None, None)
        needed = config.batch_size if config.is_game else config.student_batch_size
        if needed > self.pictures:
            raise InputError(
                f"--batch_size {config.batch_size} takes {needed} pictures in an update of "
                f"--method={config.method}. Received: {self.pictures} pictures"
            )
        if config.batch_size % self.distribution.replicas:
            raise InputError(
                f"--batch_size must be divisible by the {self.distribution.replicas} devices of "
                f"--strategy={config.strategy}. Received: {config.batch_size}"
            )

    def check_domain(self):
        """Checks data set and teacher."""
        config = self.config
        if self.domain.labels is None:
            raise InputError(f"--dataset must have labels. Received: {self.domain.name}")
        if self.domain.task != config.task:
            raise InputError(
                f"--task={config.task} must be the task of --dataset. Received: "
                f"{self.domain.name}, which is for {self.domain.task}"
            )
        if self.classes < 2:
            raise InputError(
                f"--dataset must have two classes or more. Received: {self.domain.name}"
            )
        if len(self.domain_test) == 0:
            raise InputError(f"--dataset must have test pictures. Received: {self.domain.name}")
        if self.given_teacher is None:
            with self.distribution.scope():
                self.network(config.teacher)
            if config.teacher_batch_size > len(self.domain):
                raise InputError(
                    "--teacher_batch_size must be at most the number of training pictures, "
                    f"{len(self.domain)}. Received: {config.teacher_batch_size}"
                )

    def check_pool(self):
        """Checks the out-of-domain pictures."""
        if self.config.ood_size > len(self.pool):
            raise InputError(
                f"--ood_size must be at most the number of pictures of --ood, {len(self.pool)}. "
                f"Received: {self.config.ood_size}"
            )

    # ---- networks ------------------------------------------------------------------------

    def network(self, name, mean=None, std=None):
        """A fresh teacher or student by its name."""
        return networks.build(
            name,
            self.input_shape,
            self.classes,
            mean=mean,
            std=std,
            task=self.config.task,
            synchronized_batch_norm=self.distribution.is_per_replica,
        )

    def student(self, mean, std):
        """A fresh student, with the normalisation of its teacher."""
        return self.network(self.config.student, mean, std)

    def adversaries(self, mean, std):
        """A fresh generator, and a discriminator or None."""
        config = self.config
        synchronized = self.distribution.is_per_replica
        generator = networks.generator(
            self.input_shape,
            latent_dim=config.latent_dim,
            preset=config.preset,
            synchronized_batch_norm=synchronized,
        )
        if config.regularizer == "none" or config.method == "data_free":
            return generator, None
        return generator, networks.discriminator(
            self.input_shape,
            preset=config.preset,
            regularizer=config.regularizer,
            overlap_stride=config.overlap_stride,
            mean=mean,
            std=std,
            synchronized_batch_norm=synchronized,
        )
