"""What every method shares: a frozen teacher, a student, and how the student is judged."""

import inspect

import keras
from keras import ops

from keras_mosaickd.backend import processes
from keras_mosaickd.backend.fused import Fused
from keras_mosaickd.backend.training import whole_batches
from keras_mosaickd.backend.training.callback_lists import with_first
from keras_mosaickd.data.mean_iou import MeanIoU
from keras_mosaickd.data.pixels import VOID, unit_range_tensor
from keras_mosaickd.data.streams import given
from keras_mosaickd.errors import InputError
from keras_mosaickd.files import say_once
from keras_mosaickd.methods.checks import check_fit, check_plain, check_separate
from keras_mosaickd.methods.phases import Phases
from keras_mosaickd.methods.watched import CheckRange, OutOfRange
from keras_mosaickd.networks.heads import head_of
from keras_mosaickd.networks.logits import recognized, student_logits, with_shapes
from keras_mosaickd.teachers.scaling import contradiction

_WEIGHTS = ("sample_weight", "class_weight")


class StudentTrainer(Phases):
    """Trains a student to imitate a frozen teacher; `predict` is the student's.

    Images are uint8 or floats in [0, 1] everywhere; the networks by themselves take the latter.
    `evaluate` and validation take images, with integer (or one-hot) labels or without:

    - `loss`: mean KL(T || S), in nats;
    - `agreement`: share of predictions in which student and teacher choose the same class, which
      needs no labels;
    - `accuracy`: share of correct predictions, where labels are given;

    A teacher that ends in several sigmoids has independent labels instead of classes: KL is summed
    over them, agreement and accuracy are means over them, and labels are rows of 0 and 1. One
    sigmoid, or one logit, is a binary classifier of classes 0 and 1.

    - `mean_iou`: where there is one prediction per pixel, the mean over the classes of intersection
      over union.

    Pixels with the label 255 (void) take no part in `accuracy` and `mean_iou`.

    Args:
        teacher: built Keras classifier from images in [0, 1], `[batch, height, width,
            channels]`, to `[batch, classes]` (or one prediction per pixel). It is called with
            `training=False` always, and its weights never change.
        student: built Keras classifier with the same input and output shape, giving logits; a
            softmax or sigmoid that is a layer of its own is left out of `self.student`.
        teacher_outputs: "auto", "logits" or "probabilities" (see `networks.logits.as_logits`).
        seed: seed of everything drawn in training.
        **kwargs: of `keras.Model`.

    Raises:
        InputError: if teacher and student do not fit together.
    """

    learns_labels = False
    """Whether `fit` uses labels; otherwise it leaves them out, which is said."""

    def __init__(self, teacher, student, teacher_outputs="auto", seed=None, **kwargs):
        super().__init__(**kwargs)
        for role, model in (("teacher", teacher), ("student", student)):
            if not isinstance(model, keras.Model):
                raise InputError(
                    f"the {role} must be a keras.Model. Received: {type(model).__name__}"
                )
        teacher, student = with_shapes(teacher), with_shapes(student)
        check_plain(teacher=teacher, student=student)
        self.teacher, recognized_as = recognized(teacher, teacher_outputs)
        if self.teacher is not teacher:
            print(f"Teacher {teacher.name}: {recognized_as}")
        self.head = head_of(self.teacher)
        self.student = student_logits(student, self.teacher.input_shape[1:])
        check_fit(self.teacher, self.student, self.head)
        check_separate(teacher=teacher, student=student)
        # Declared logits have been looked at by `load_teacher`, or are those of a saved trainer.
        is_new = teacher_outputs != "logits" or self.teacher is not teacher
        if is_new and (line := contradiction(teacher, "0-1")):
            print(line)
        self.run_teacher, self.run_student = Fused(self.teacher), Fused(self.student)
        self.seed = seed
        self.accuracy_metric = keras.metrics.Mean(name="accuracy")
        self.agreement_metric = keras.metrics.Mean(name="agreement")
        self.out_of_range = OutOfRange()
        self.mean_iou_metric = None
        if len(student.output_shape) == 4:
            self.mean_iou_metric = MeanIoU(self.head.classes)
        self.loss_terms = {}
        self.built = True

    def build(self, input_shape=None):
        """Nothing to build: the networks come built."""
        self.built = True

    def call(self, inputs, training=False):
        """The student's logits for images in [0, 1], or as bytes."""
        return self.student(unit_range_tensor(inputs), training=training)

    # ---- training ------------------------------------------------------------------------

    def fit(self, x=None, *args, **kwargs):
        """As `keras.Model.fit`.

        Raises:
            InputError: before training, if arrays of images or the first ones of a stream, those
                of `validation_data` too, do not have the networks' size and channels, or are
                neither uint8 nor floats in [0, 1]; at the next evaluation or the end of the epoch,
                if later ones of a stream are not.
        """
        kwargs = by_name(keras.Model.fit, args, kwargs)
        x, first = self._checked(x)
        _refuse_weights("fit", first, kwargs)
        labels = [given.beside(first), kwargs.get("y")]
        if not self.learns_labels and any(value is not None for value in labels):
            self.leave_out_labels(first)
        validation = kwargs.get("validation_data")
        if isinstance(validation, tuple | list) and validation:
            _refuse_weights("fit", validation, {})
            self._checked(validation[0])
            kwargs["validation_data"] = _own_share(validation)
        elif validation is not None:
            kwargs["validation_data"], _ = self._checked(validation)
        if not (given.is_array(x) or isinstance(x, keras.utils.PyDataset)):
            kwargs.setdefault("shuffle", False)  # Keras warns that it cannot.
        for callback in reversed(self.own_callbacks()):
            kwargs["callbacks"] = with_first(callback, kwargs.get("callbacks"))
        return super().fit(x, **kwargs)

    def own_callbacks(self):
        """Callbacks that every `fit` has before those that it is given."""
        return [CheckRange()]

    def leave_out_labels(self, element):
        """Says once that what is beside the images is not used; a game's element has no labels."""
        if not given.is_of_game(element):
            say_once(f"{type(self).__name__}.fit: labels are left out, it learns from the teacher")

    def _checked(self, x, may_be_single=False):
        """`x` of `fit`, `evaluate` or `predict` and, of a stream, what it begins with."""
        shape = self.student.input_shape[1:]
        if given.is_array(x):
            given.check(x, shape)
            return x, None
        first, x = given.first_element(x)
        images = given.images_of(first)
        if given.is_array(images):
            is_single = may_be_single and len(images.shape) == 3
            given.check(images[None] if is_single else images, shape, x)
        return x, first

    def in_unit_range(self, images):
        """Images of a step as floats in [0, 1]; whether they were is seen at the next evaluation.

        So that no step waits for an answer from the device.
        """
        dtype = keras.backend.standardize_dtype(images.dtype)
        if dtype == "float64":  # NumPy's own, which a network in float32 does not add to its own
            images = ops.cast(images, self.variable_dtype)
        if dtype != "uint8":
            self.out_of_range.update_state(images)
        return unit_range_tensor(images)

    # ---- evaluation ----------------------------------------------------------------------

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=False):
        """Mean KL(T || S); counts agreement on the way, while the teacher's logits are at hand."""
        teacher_logits = self.teacher(self.in_unit_range(x), training=False)
        self.agreement_metric.update_state(self.head.agreement(teacher_logits, y_pred))
        # Keras takes the replicas' losses as parts of a sum.
        return self.part_of_replica(ops.mean(self.head.kl_divergence(teacher_logits, y_pred)))

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Loss and agreement, and accuracy where there are labels."""
        logs = {"loss": self._mean_loss.result(), "agreement": self.agreement_metric.result()}
        if y is not None:
            correct = self.head.accuracy(y, y_pred)
            if self.mean_iou_metric is None:
                self.accuracy_metric.update_state(correct)
            else:
                if len(y.shape) == len(y_pred.shape) and y.shape[-1] > 1:
                    y = ops.argmax(y, axis=-1)  # one-hot
                y = ops.reshape(ops.cast(y, "int32"), ops.shape(y_pred)[:-1])
                counted = ops.cast(ops.not_equal(y, VOID), "float32")
                self.accuracy_metric.update_state(correct, counted)
                self.mean_iou_metric.update_state(y, self.head.predictions(y_pred))
                logs["mean_iou"] = self.mean_iou_metric.result()
            logs["accuracy"] = self.accuracy_metric.result()
        return logs

    def evaluate(self, x=None, *args, return_dict=False, **kwargs):
        """As `keras.Model.evaluate`, exact over several devices too; by all of several processes.

        Keras reports the mean over the devices of each one's mean, which is another number where
        they saw unequal numbers of images; the metrics' own totals are over all of them.

        Raises:
            InputError: as of `fit`, also where it trained on a stream that is out of range.
        """
        self.out_of_range.check()
        kwargs = by_name(keras.Model.evaluate, args, kwargs)
        return_dict = kwargs.pop("return_dict", return_dict)
        x, first = self._checked(x)
        _refuse_weights("evaluate", first, kwargs)
        with whole_batches():
            logs = super().evaluate(x, return_dict=True, **kwargs)
        self.out_of_range.check()
        metrics = {"loss": self._mean_loss, "agreement": self.agreement_metric}
        metrics |= {"accuracy": self.accuracy_metric, "mean_iou": self.mean_iou_metric}
        for name in logs:
            # Totals and counts: of a part in each of several processes, or of all in all of them.
            for variable in metrics[name].variables:
                value = ops.convert_to_numpy(variable)
                variable.assign(sum(processes.gather(value)))
        logs = {name: float(ops.convert_to_numpy(metrics[name].result())) for name in logs}
        return logs if return_dict else [logs[name] for name in self.metrics_names if name in logs]

    def predict(self, x, *args, **kwargs):
        """As `keras.Model.predict`: the student's logits.

        Raises:
            InputError: as of `fit`, of arrays and of what a stream begins with.
        """
        x, _ = self._checked(x)
        with whole_batches():
            return super().predict(x, *args, **kwargs)

    @property
    def _mean_loss(self):
        """Keras's own metric of `compute_loss`."""
        return next(metric for metric in self.metrics if metric.name == "loss")

    # ---- saving --------------------------------------------------------------------------

    def get_config(self):
        """Everything that makes the same trainer again; networks as Keras objects."""
        config = {**super().get_config(), "seed": self.seed, "teacher_outputs": "logits"}
        for name in self.networks:
            config[name] = keras.saving.serialize_keras_object(getattr(self, name))
        return config

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Makes the trainer of a `get_config`."""
        config = dict(config)
        for name in cls.networks:
            config[name] = keras.saving.deserialize_keras_object(config[name], custom_objects)
        return cls(**config)


def by_name(method, args, kwargs):
    """The arguments of a method of Keras after its first, all by their names."""
    bound = inspect.signature(method).bind(None, None, *args, **kwargs).arguments
    names = [*bound][2:]
    return {name: bound[name] for name in names if name != "kwargs"} | bound.get("kwargs", {})


def _refuse_weights(method, element, options):
    """Refuses weights of images or classes, which no loss here has."""
    given_weights = [name for name in _WEIGHTS if options.get(name) is not None]
    if isinstance(element, tuple | list) and len(element) > 2 and element[2] is not None:
        given_weights.append("a third item beside images and labels")
    if given_weights:
        raise InputError(
            f"{method}() weighs all images and classes alike. Received: {', '.join(given_weights)}"
        )


def _own_share(validation):
    """This process's part of validation arrays; all of them where not everyone would get some."""
    if not 1 < processes.count() <= len(validation[0]):
        return validation
    part = processes.share(len(validation[0]))
    return tuple(None if array is None else array[part] for array in validation)
