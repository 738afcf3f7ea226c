"""What an experiment is given: data, teacher, devices, fresh networks."""

import functools
import os
from pathlib import Path

import keras
import numpy as np

from keras_mosaickd import networks
from keras_mosaickd.backend.training import distribution
from keras_mosaickd.config import CACHE_DIR, OUT_OF_DOMAIN
from keras_mosaickd.data import load, parse, stored
from keras_mosaickd.data.class_matching import (
    class_names_of,
    labelled_as,
    read_labelled,
    renames,
)
from keras_mosaickd.data.held_out import hold_out
from keras_mosaickd.errors import InputError
from keras_mosaickd.files import file_sha256, sha256
from keras_mosaickd.networks.heads import head_of, new_head
from keras_mosaickd.networks.loading import import_modules
from keras_mosaickd.networks.logits import student_logits
from keras_mosaickd.teachers import load as given_models
from keras_mosaickd.teachers import training as teachers


class Preparation:
    """Loads and builds what settings name, each when it is first asked for.

    Args:
        config: `ExperimentConfig`.
        is_dry: whether images are counted only: then none is decoded, and nothing is written.
    """

    def __init__(self, config, is_dry=False):
        self.config = config
        self.is_dry = is_dry
        self.unreadable = []
        keras.config.set_dtype_policy(config.precision)
        import_modules(config.import_)

    # ---- what is given -------------------------------------------------------------------

    @property
    def cache_dir(self):
        """Directory of cached teachers and selections."""
        return Path(self.config.cache_dir or CACHE_DIR)

    @property
    def has_domain(self):
        """Whether there is a data set of the domain; without one there are no labels."""
        return bool(self.config.dataset)

    @functools.cached_property
    def domain(self):
        """Training images of the domain, labelled with the teacher's classes."""
        return self._of_domain("train")

    @functools.cached_property
    def domain_test(self):
        """Test images of the domain: only ever used to report."""
        return self._of_domain("test")

    def _of_domain(self, split):
        config = self.config
        images = self._load(config.dataset, split, "--dataset", *self._teacher_format)
        if images.labels is None or images.task != config.task:
            return images  # `checks` refuses them.
        classes = len(images.class_names)
        if config.class_names:
            names = class_names_of(config.class_names, classes)
            is_named = not renames(names, images)
        elif self.given_teacher is None:
            return images  # The teacher learns these labels.
        else:
            names, is_named = tuple(map(str, range(classes))), False
        return labelled_as(images, names, config.task, is_named, "--dataset")

    @property
    def pool(self):
        """Out-of-domain images to select from, in the teacher's size and channels."""
        return self._out_of_domain[0]

    @property
    def held_out(self):
        """Out-of-domain images kept out of training, to judge the student; None without any."""
        return self._out_of_domain[1]

    @functools.cached_property
    def _out_of_domain(self):
        config = self.config
        if config.method not in OUT_OF_DOMAIN:
            return None, None
        height, _, channels = self.input_shape
        # Test images stay out of training; a folder has none to keep apart.
        split = "all" if parse(config.ood, "--ood").path else "train"
        images = self._read(config.ood, split, "--ood", height, channels, with_labels=False)
        held_out = None
        if config.judges_without_labels:
            images, held_out = hold_out(images, config.seed)
            held_out = self._stored(held_out)
        # A large pool is read as a stream, of which the selection writes what it keeps.
        return self._stored(images, streams=False), held_out

    @functools.cached_property
    def labelled(self):
        """The images of `--eval`, labelled with the teacher's classes; None without any."""
        if not self.config.eval:
            return None
        images = read_labelled(
            self.config.eval,
            self.input_shape,
            self.config.data_dir,
            skip_unreadable=self.config.skip_unreadable,
        )
        images = self._stored(images)
        is_named = self.has_domain or bool(self.config.class_names)
        return labelled_as(images, self.class_names, self.config.task, is_named)

    @functools.cached_property
    def inputs(self):
        """SHA-256 of what flags name by paths: it makes the run, not the place where it lies."""
        config = self.config
        named = {
            "dataset": (self.domain, self.domain_test) if self.has_domain else (),
            "ood": self._out_of_domain,
            "eval": (self.labelled,),
        }
        found = {}
        for name, image_sets in named.items():
            used = [images for images in image_sets if images is not None]
            if used and parse(getattr(config, name)).path:
                labels = [np.asarray(images.labels) for images in used if images.labels is not None]
                found[name] = sha256(
                    [*(images.fingerprint() for images in used), *map(np.ndarray.tobytes, labels)]
                )
        for name in ("teacher", "student", "class_names"):
            if os.path.isfile(getattr(config, name)):
                found[name] = file_sha256(getattr(config, name))
        if self.given_teacher is not None and self.given_teacher.sha256:
            found["teacher"] = self.given_teacher.sha256
        return found

    @property
    def input_shape(self):
        """`(height, width, channels)`."""
        if self.given_teacher is not None:
            return tuple(self.given_teacher.model.input_shape[1:])
        return tuple(self.domain.images.shape[1:])

    @property
    def head(self):
        """What the teacher's logits say (`keras_mosaickd.networks.heads`)."""
        if self.given_teacher is not None:
            return head_of(self.given_teacher.model)
        return new_head("classes", len(self.domain.class_names))

    @property
    def classes(self):
        """Number of classes (or labels) of the teacher."""
        return self.head.classes

    @property
    def units(self):
        """Number of the teacher's logits: one may stand for two classes."""
        if self.given_teacher is not None:
            return self.given_teacher.model.output_shape[-1]
        return self.classes

    @functools.cached_property
    def class_names(self):
        """Names of the teacher's classes: from the file, of the domain, or their numbers."""
        if self.config.class_names:
            return class_names_of(self.config.class_names, self.classes)
        if self.has_domain:
            return tuple(self.domain.class_names)
        return tuple(map(str, range(self.classes)))

    @property
    def images(self):
        """Number of images that one epoch of the method passes over."""
        if self.config.method in OUT_OF_DOMAIN:
            return self.config.ood_size or len(self.pool)
        return len(self.domain)

    @functools.cached_property
    def given_teacher(self):
        """The `Teacher` of the user's own, or None where `--teacher` is a network's name."""
        config = self.config
        if not given_models.is_given(config.teacher):
            return None
        with self.distribution.scope():
            return teachers.given(config, config.image_size or None)

    @property
    def _teacher_format(self):
        """Image size and channels of a given teacher; of any other those of the data set."""
        if self.given_teacher is None:
            return None, None
        _, width, channels = self.input_shape
        return width, channels

    @functools.cached_property
    def distribution(self):
        """The `Distribution` in whose scope every network is built and compiled."""
        return distribution(self.config.strategy)

    def _read(self, name, split, flag, image_size=None, channels=None, with_labels=True):
        return load(
            name,
            split,
            image_size=image_size or self.config.image_size or None,
            channels=channels,
            data_dir=self.config.data_dir or None,
            flag=flag,
            with_labels=with_labels,
            skip_unreadable=self.config.skip_unreadable,
        )

    def _load(self, *arguments):
        return self._stored(self._read(*arguments))

    def _stored(self, images, streams=True):
        """The images decoded and kept in the cache, where they are needed."""
        if self.is_dry:
            return images
        images = stored(images, self.cache_dir, streams, self.config.skip_unreadable)
        self.unreadable += [path for path in images.unreadable if path not in self.unreadable]
        return images

    # ---- networks ------------------------------------------------------------------------

    def network(self, name, mean=None, std=None):
        """A fresh teacher or student by its name."""
        return networks.build(
            name,
            self.input_shape,
            self.units,
            mean=mean,
            std=std,
            task=self.config.task,
            synchronized_batch_norm=self.distribution.is_per_replica,
        )

    def student(self, mean, std):
        """A fresh student, one by name with the normalisation of its teacher."""
        name = self.config.student
        if not given_models.is_given(name):
            return self.network(name, mean, std)
        if given_models.is_saved_model(name):
            raise InputError(
                "--student must be a network's name, a .keras file or module:function: a "
                f"SavedModel cannot be trained. Received: {name}"
            )
        student = given_models.load(
            name, "--student", input_shape=self.input_shape, classes=self.units
        )
        self._check_given_student(student)
        return student_logits(student, self.input_shape, copies=True)

    def _check_given_student(self, student):
        rank = 4 if self.config.task == "segmentation" else 2
        fits = all(
            received in (None, wanted)
            for received, wanted in zip(student.input_shape[1:], self.input_shape, strict=True)
        )
        fits = fits and len(student.output_shape) == rank
        if not fits or not self.head.fits(student.output_shape[-1]):
            raise InputError(
                f"--student must take images of {self.input_shape} and have {self.units} "
                f"outputs, as the teacher. Received: {self.config.student} with input "
                f"{student.input_shape[1:]} and output {student.output_shape[1:]}"
            )
        if not student.trainable_variables:
            raise InputError(
                "--student must have weights that can be trained. "
                f"Received: {self.config.student}, which is frozen"
            )

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
