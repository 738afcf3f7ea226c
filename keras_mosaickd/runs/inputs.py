"""What a run is given: data, a teacher, devices; loaded and checked before anything is made."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mosaickd import networks
from keras_mosaickd.backend import processes
from keras_mosaickd.backend.training import distribution
from keras_mosaickd.config import CACHE_DIR, OUT_OF_DOMAIN, ExperimentConfig
from keras_mosaickd.data import ImageSet, parse, stored
from keras_mosaickd.data import load as load_images
from keras_mosaickd.data.class_matching import (
    class_names_of,
    has_empty_classes,
    labelled_as,
    read_labelled,
    renames,
)
from keras_mosaickd.data.held_out import hold_out
from keras_mosaickd.errors import InputError
from keras_mosaickd.files import file_sha256, sha256
from keras_mosaickd.networks.heads import Categorical, new_head
from keras_mosaickd.networks.loading import import_modules
from keras_mosaickd.runs import checks
from keras_mosaickd.runs.teacher import Teacher, given


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a run is given.

    Attributes:
        config: `ExperimentConfig`.
        distribution: the `Distribution` in whose scope every network is built and compiled.
        teacher: the `Teacher` of the user's own; None where one of the package's networks is
            trained on the domain.
        domain: training images of the domain, labelled with the teacher's classes; None without.
        domain_test: its test images, only ever used to report; None without.
        pool: out-of-domain images to select from, in the teacher's size and channels; None where
            the method takes none.
        held_out: out-of-domain images kept out of training, to judge the student; None without.
        labelled: the images of `--eval`, labelled with the teacher's classes; None without.
        input_shape: `(height, width, channels)` of all images.
        head: what the teacher's logits say.
        units: number of its logits: one may stand for two classes.
        class_names: names of its classes: from the file, of the domain, or their numbers.
        unreadable: paths of the images that were left out.
    """

    config: ExperimentConfig
    distribution: Any
    teacher: Teacher | None
    domain: ImageSet | None
    domain_test: ImageSet | None
    pool: ImageSet | None
    held_out: ImageSet | None
    labelled: ImageSet | None
    input_shape: tuple[int, int, int]
    head: Categorical
    units: int
    class_names: tuple[str, ...]
    unreadable: tuple[str, ...] = ()

    @property
    def cache_dir(self):
        """Directory of cached images, teachers and selections."""
        return Path(self.config.cache_dir or CACHE_DIR)

    @property
    def epoch_size(self):
        """Number of images that one epoch of the method passes over; 0 where there are none."""
        if self.pool is not None:
            return self.config.ood_size or len(self.pool)
        return 0 if self.domain is None else len(self.domain)

    def network(self, role, mean, std):
        """The network of the package that `--teacher` or `--student` names, with fresh weights."""
        try:
            return networks.build(
                getattr(self.config, role),
                self.input_shape,
                self.units,
                mean=mean,
                std=std,
                task=self.config.task,
                synchronized_batch_norm=self.distribution.is_per_replica,
            )
        except InputError as error:
            raise InputError(f"--{role}: {error}") from error

    def hashes(self):
        """SHA-256 of what flags name by paths: it makes the run, not the place where it lies."""
        config = self.config
        named = {
            "dataset": (self.domain, self.domain_test),
            "ood": (self.pool, self.held_out),
            "eval": (self.labelled,),
        }
        found = {}
        for name, image_sets in named.items():
            used = [images for images in image_sets if images is not None]
            if used and parse(getattr(config, name)).path:
                labels = [np.asarray(images.labels) for images in used if images.labels is not None]
                parts = [
                    *(images.fingerprint() for images in used),
                    *map(np.ndarray.tobytes, labels),
                ]
                if name == "dataset" and has_empty_classes(used[0]):
                    parts += [label.encode() for label in used[0].class_names]
                found[name] = sha256(parts)
        for name in ("teacher", "student", "class_names"):
            if os.path.isfile(getattr(config, name)):
                found[name] = file_sha256(getattr(config, name))
        if self.teacher is not None and self.teacher.sha256:
            found["teacher"] = self.teacher.sha256
        return found


def load(config, is_dry=False, with_pool=True, trains=True):
    """Loads what the settings name, and checks that it fits together.

    Args:
        config: `ExperimentConfig`.
        is_dry: whether images are counted only: then none is decoded, and nothing is written.
        with_pool: whether what follows the teacher is loaded too: the out-of-domain images, and
            those of `--eval`.
        trains: whether a student is trained, in batches that the images must fill.

    Returns:
        `Inputs`.

    Raises:
        InputError: for everything that would make the run fail later.
    """
    checks.check_seed(config.seed)
    keras.config.set_dtype_policy(config.precision)
    import_modules(config.import_)
    devices = distribution(config.strategy)
    if not is_dry:
        processes.check_shared(cache_dir=config.cache_dir or CACHE_DIR)
    teacher = given(config, devices.scope)
    checks.check_teacher(config, teacher, devices)
    reader = _Reader(config, is_dry)
    domain = domain_test = None
    if config.dataset:
        domain, domain_test = (reader.domain(split, teacher) for split in ("train", "test"))
    head = _head(teacher, domain)
    checks.check_classes(config, head)
    if config.dataset:
        checks.check_domain(config, domain, domain_test, head, teacher)
    names = _class_names(config, head, domain)
    shape = _input_shape(teacher, domain)
    pool = held_out = labelled = None
    if with_pool:
        checks.check_judging(config)
        if config.method in OUT_OF_DOMAIN:
            pool, held_out = reader.out_of_domain(shape)
            checks.check_pool(config, pool)
        if config.eval:
            labelled = reader.labelled(shape, names)
    inputs = Inputs(
        config=config,
        distribution=devices,
        teacher=teacher,
        domain=domain,
        domain_test=domain_test,
        pool=pool,
        held_out=held_out,
        labelled=labelled,
        input_shape=shape,
        head=head,
        units=head.classes if teacher is None else teacher.model.output_shape[-1],
        class_names=names,
        unreadable=tuple(reader.unreadable),
    )
    if with_pool and trains:
        checks.check_batches(config, inputs.epoch_size, devices.replicas)
    return inputs


def _head(teacher, domain):
    return new_head("classes", len(domain.class_names)) if teacher is None else teacher.head


def _input_shape(teacher, domain):
    return tuple(domain.images.shape[1:]) if teacher is None else teacher.input_shape


def _class_names(config, head, domain):
    if config.class_names:
        return class_names_of(config.class_names, head.classes)
    if domain is not None:
        return tuple(domain.class_names)
    return tuple(map(str, range(head.classes)))


class _Reader:
    """Reads image sets as a run's flags say, and notes the images that it leaves out."""

    def __init__(self, config, is_dry):
        self._config = config
        self._is_dry = is_dry
        self.unreadable = []

    def domain(self, split, teacher):
        """Images of the domain, in the size, the channels and the classes of a given teacher."""
        config = self._config
        size, channels = (None, None) if teacher is None else teacher.input_shape[1:]
        images = self._kept(self._read(config.dataset, split, "--dataset", size, channels))
        if images.labels is None or images.task != config.task:
            return images  # `checks` refuses them.
        classes = len(images.class_names)
        if config.class_names:
            names = class_names_of(config.class_names, classes)
            is_named = not renames(names, images)
        elif teacher is None:
            return images  # The teacher learns these labels.
        else:
            names, is_named = tuple(map(str, range(classes))), False
        return labelled_as(images, names, config.task, is_named, "--dataset")

    def out_of_domain(self, shape):
        """Out-of-domain images to select from, and those held out: None where none need be."""
        config = self._config
        # Test images stay out of training; a folder has none to keep apart.
        split = "all" if parse(config.ood, "--ood").path else "train"
        height, _, channels = shape
        images = self._read(config.ood, split, "--ood", height, channels, with_labels=False)
        held_out = None
        if config.judges_without_labels:
            images, held_out = hold_out(images, config.seed)
            held_out = self._kept(held_out)
        # A large pool is read as a stream, of which the selection writes what it keeps.
        return self._kept(images, streams=False), held_out

    def labelled(self, shape, class_names):
        """The images of `--eval`, labelled with the teacher's classes."""
        config = self._config
        images = read_labelled(
            config.eval, shape, config.data_dir, skip_unreadable=config.skip_unreadable
        )
        images = self._kept(images)
        is_named = bool(config.dataset or config.class_names)
        images = labelled_as(images, class_names, config.task, is_named)
        checks.check_labelled(config, images)
        return images

    def _read(self, name, split, flag, image_size=None, channels=None, with_labels=True):
        return load_images(
            name,
            split,
            image_size=image_size or self._config.image_size or None,
            channels=channels,
            data_dir=self._config.data_dir or None,
            flag=flag,
            with_labels=with_labels,
            skip_unreadable=self._config.skip_unreadable,
        )

    def _kept(self, images, streams=True):
        """The images decoded and kept in the cache, where they are needed."""
        if self._is_dry:
            return images
        cache_dir = Path(self._config.cache_dir or CACHE_DIR)
        images = stored(images, cache_dir, streams, self._config.skip_unreadable)
        self.unreadable += [path for path in images.unreadable if path not in self.unreadable]
        return images
