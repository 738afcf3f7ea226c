"""The table of flags: type, default (for `bin/train` see `config`), range, help, unit, source.

"Supplement" is the supplement of Fang et al., "Mosaicking to Distill" (NeurIPS 2021,
arXiv 2110.15094), whose recipe and tables the defaults follow.
"""

from __future__ import annotations

import functools
import math
import numbers
from dataclasses import dataclass
from typing import Any

from keras_mosaickd.config import METHODS, ExperimentConfig
from keras_mosaickd.errors import InputError
from keras_mosaickd.run_directory import field_name


@dataclass(frozen=True)
class Flag:
    """One flag.

    Attributes:
        name: Name without dashes, snake_case.
        kind: `str`, `int`, `float` or `bool`.
        default: Value when the flag is not given.
        help: What it does, unit and source; the range is added from the bounds.
        group: Heading in ``--help``.
        lower: Least value, or None.
        upper: Greatest value, or None.
        lower_is_open: The value must be above ``lower``, not equal to it.
        choices: The only values allowed, or empty.
    """

    name: str
    kind: type
    default: str | int | float | bool
    help: str
    group: str
    lower: int | float | None = None
    upper: int | float | None = None
    lower_is_open: bool = False
    choices: tuple[str, ...] = ()

    def expectation(self) -> str:
        """Returns the allowed values in words, or an empty string where any text is allowed."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.kind is bool:
            return "true or false"
        if self.kind is str:
            return ""
        noun = "a whole number" if self.kind is int else "a number"
        if self.lower is not None and self.upper is not None:
            return f"{noun} from {self.lower} to {self.upper}"
        return f"{noun} {'above' if self.lower_is_open else 'of at least'} {self.lower}"

    def allows(self, value: Any) -> bool:
        """Whether a value has the flag's type and is in its range; NaN is in none."""
        if self.kind in (bool, str):
            return isinstance(value, self.kind) and (not self.choices or value in self.choices)
        wanted = numbers.Integral if self.kind is int else numbers.Real
        if not isinstance(value, wanted) or isinstance(value, bool) or not math.isfinite(value):
            return False
        low, high, value = self.lower, self.upper, float(value)
        above = low is None or (value > low if self.lower_is_open else value >= low)
        return above and (high is None or value <= high)

    def check(self, value: Any) -> None:
        """Raises InputError for a value that the command line would refuse."""
        if not self.allows(value):
            expected = self.expectation() or "text"
            raise InputError(f"--{self.name}: expected {expected}. Received: {value!r}")


_FILES, _OTHER, _STUDY, _IMPORT = "Files", "Other", "Study", "PyTorch weights"

_DEFAULTS = vars(ExperimentConfig())


def _setting(group: str, name: str, help: str, **bounds: Any) -> Flag:
    """A flag of `bin/train`: its type and default are those of its field in `ExperimentConfig`."""
    default = _DEFAULTS[field_name(name)]
    return Flag(name, type(default), default, help, group, **bounds)


def _of(group: str) -> functools.partial[Flag]:
    return functools.partial(_setting, group)


def _text(name: str, help: str, group: str) -> Flag:
    return Flag(name, str, "", help, group)


_data, _network, _teacher = map(_of, ("Data", "Networks", "Teacher's training"))
_distillation, _loss, _optimizer = map(_of, ("Distillation", "Losses", "Optimizers"))
_machine, _file = map(_of, ("Machine", _FILES))
_weight = functools.partial(_loss, lower=0)
_share = functools.partial(_loss, lower=0, upper=1)


_TABLE = (
    _data(
        "task",
        "What the networks predict: one class for an image, or one for each of its pixels.",
        choices=("classification", "segmentation"),
    ),
    _data(
        "dataset",
        "The domain: what the teacher knows and the student is tested on. digits, fashion_mnist, "
        "cifar10, cifar100, svhn, cub200, stanford_dogs, imagenet32, imagenet64, imagenet2012, "
        "places365, nyuv2, folder:PATH or segmentation:PATH (train/images, train/labels, "
        "test/images, test/labels, classes.txt); a subset of classes by numbers, ranges or names, "
        "as in digits[0-4], fashion_mnist[Sandal,Bag]. Empty, the default with a --teacher of your "
        "own: there is none, and no label takes part anywhere.",
    ),
    _data("ood", "The out-of-domain images, named like --dataset; their labels are not used."),
    _data(
        "ood_size",
        "How many of the --ood images to keep, chosen by --ood_select (the supplement keeps "
        "50000). 0 keeps all.",
        lower=0,
    ),
    _data(
        "ood_select",
        "Which --ood_size images to keep: those of the teacher's highest entropy (supplement, "
        "algorithm 1), random ones, or confident: half of them those that it is surest of in each "
        "class, half random. all keeps the whole pool.",
        choices=("entropy", "random", "confident", "all"),
    ),
    _data(
        "image_size",
        "Height and width of the images in pixels. 0 takes the size of your own --teacher, else "
        "that of --dataset.",
        lower=0,
        upper=1024,
    ),
    _data(
        "skip_unreadable",
        "Leave out images of folders that cannot be read, instead of stopping: their number is "
        "printed, and RUN_DIR/unreadable.txt names them.",
    ),
    _data(
        "data_dir",
        "Directory of data files: the prepared sets of tensorflow-datasets (the two .tar files of "
        "imagenet2012 go to DIR/downloads/manual), Fashion-MNIST's idx files, or nyuv2/. Empty "
        "takes the usual places.",
    ),
    _network(
        "teacher",
        "The teacher: a network's name (wrn16_1, wrn40_2: depth 6n+4 and width), trained here or "
        "taken from the cache; or your own, which needs no --dataset: the path of a .keras or .h5 "
        "file or of a SavedModel's directory (TensorFlow), https://.../NAME.keras#sha256=HASH, "
        "hf://OWNER/NAME with @REVISION where it is meant, or module:function that returns a Keras "
        "model or, on PyTorch, a torch.nn.Module.",
    ),
    _network(
        "teacher_input",
        "What pixels your own --teacher takes: 0-1, 0-255, -1-1; caffe, tf or torch, the modes of "
        "keras.applications; or MEAN/STD of images in [0, 1], as 0.5,0.5,0.5/0.25,0.25,0.25. "
        "Scaling that the model does inside counts as its own.",
    ),
    _network("teacher_output", "Name of the output to take, where your own --teacher has several."),
    _network(
        "import",
        "Modules of yours, importable from the working directory, with commas between them, which "
        "register the layers of your own models (keras.saving.register_keras_serializable).",
    ),
    _network(
        "unsafe_load",
        "Run the code (Lambda layers) that is written in the .keras or .h5 file of --teacher. For "
        "files that you made yourself: downloaded ones are refused. environment.json records it.",
    ),
    _network(
        "head",
        "What the logits of your own --teacher say, where its last layer does not: classes (one of "
        "them holds; auto without a softmax or sigmoid) or labels (each holds or not, as after "
        "sigmoids). One logit is a binary classifier's.",
        choices=("auto", "classes", "labels"),
    ),
    _network(
        "class_names",
        "File with the names of the teacher's classes, one per line, in the order of its outputs: "
        "labelled images are matched by them. Empty takes those of --dataset, or numbers, and "
        "folders in the order of their names.",
    ),
    _network(
        "student",
        "The student: a network's name, the path of a .keras file, or module:function, which "
        "returns a Keras model and is given input_shape and classes if it has such parameters.",
    ),
    _distillation(
        "recipe",
        "Defaults of the other flags: paper (the supplement), or practical (for thousands of "
        "updates: docs/algorithm.md, What may be added). A flag that is given wins.",
        choices=("paper", "practical"),
    ),
    _network(
        "preset",
        "Generator and discriminator: paper (supplement, tables 2 and 3) or official (the authors' "
        "code).",
        choices=("paper", "official"),
    ),
    _network("latent_dim", "Numbers in the generator's input z (supplement, table 2).", lower=1),
    _network(
        "overlap_stride",
        "Stride of the discriminator's last layer: 1 overlaps the patches most (supplement, "
        "table 4).",
        lower=1,
        upper=4,
    ),
    _teacher(
        "teacher_epochs",
        "Passes over the training part of --dataset (supplement, section A).",
        lower=1,
    ),
    _teacher("teacher_batch_size", "Images per update.", lower=1),
    _teacher(
        "teacher_learning_rate",
        "Initial learning rate of SGD (momentum 0.9, cosine to 0).",
        lower=0,
        lower_is_open=True,
    ),
    _distillation(
        "method",
        "mosaickd; on the same out-of-domain images kd (plain distillation), balanced (kd on a "
        "set balanced over the teacher's classes: Nayak et al., 2021) and fitnet (kd and a hint: "
        "Romero et al., 2015); data_free (a generator without any images); supervised (the "
        "student on the labels of --dataset).",
        choices=METHODS,
    ),
    _distillation(
        "batch_size",
        "Out-of-domain images per update, over all devices together; mosaickd's student sees as "
        "many synthetic ones besides.",
        lower=1,
    ),
    _distillation(
        "epochs",
        "Passes of the discriminator over the out-of-domain images (the paper's 200). Not used "
        "when --student_updates is given.",
        lower=1,
    ),
    _distillation(
        "student_steps",
        "Updates of the student for each one of generator and discriminator.",
        lower=1,
    ),
    _distillation(
        "student_updates",
        "Length of the distillation in updates of the student, whatever the method; overrides "
        "--epochs. 0 leaves the length to --epochs. Rounded up to --evaluations rounds of whole "
        "training steps, of --student_steps updates each.",
        lower=0,
    ),
    _distillation(
        "evaluations",
        "Into how many rounds --student_updates is divided; each ends in an evaluation and a row "
        "of history.csv.",
        lower=1,
    ),
    _distillation(
        "checkpoint_every_steps",
        "Save a checkpoint after every so many training steps, besides that after every epoch. 0 "
        "saves none between.",
        lower=0,
    ),
    _distillation(
        "select",
        "Which student is exported: that of the last epoch, or that of the epoch with the highest "
        "agreement with the teacher on held-out out-of-domain and on synthetic images (a tenth "
        "of --ood, 2000 at most, is held out for it). No label takes part in it.",
        choices=("last", "agreement"),
    ),
    _data(
        "eval",
        "Labelled images on which the exported student is tested in the end, named like "
        "--dataset (of folder:PATH every image). They choose nothing. Empty tests on none.",
    ),
    _distillation(
        "regularizer",
        "What the discriminator judges: patches, the whole image, or nothing (supplement, "
        "figure 1).",
        choices=("patch", "image", "none"),
    ),
    _distillation(
        "batch_norm_policy",
        "BatchNorm of the student in the generator's update, and of the generator when it draws "
        "for the student: training (the authors' code) or inference.",
        choices=("training", "inference"),
    ),
    _distillation(
        "synthetic_only",
        "Train the student on synthetic images alone, without the out-of-domain ones.",
    ),
    _distillation(
        "generator_multiple",
        "Synthetic images in an update of discriminator and generator: so many times --batch_size. "
        "0 makes 128 of them, four times as many at most, and of images above 64 pixels none more.",
        lower=0,
    ),
    _distillation(
        "student_start",
        "The student's initial weights: own, or teacher: of each layer that the teacher has by the "
        "same name and shapes, and of the last layer.",
        choices=("own", "teacher"),
    ),
    _distillation(
        "mixup",
        "Share of the student's images that are mixed with another one and labelled by the teacher "
        "as mixed (Beyer et al. 2022, arXiv 2106.05237).",
        lower=0,
        upper=1,
    ),
    _loss(
        "temperature",
        "Temperature of the student's KL divergence; the loss is multiplied by its square.",
        lower=0,
        lower_is_open=True,
    ),
    _loss(
        "regularization",
        "The paper's lambda: fixed to --regularization_weight; or adaptive, a multiplier each of "
        "the patch loss and of the teacher's entropy, that start there and rise while "
        "--epsilon_local and --epsilon_align are exceeded (supplement, eq. 2 and 3).",
        choices=("fixed", "adaptive"),
    ),
    _weight("regularization_weight", "The paper's lambda: weight of local + align (eq. 2 to 4)."),
    _share(
        "epsilon_local",
        "With --regularization=adaptive, how far apart patches of synthetic and of out-of-domain "
        "images may be: Jensen-Shannon divergence over ln 2. 0: indistinguishable; 1: any.",
    ),
    _share(
        "epsilon_align",
        "With --regularization=adaptive, how uncertain the teacher may be of synthetic images: "
        "mean entropy over its largest value. 0: certain; 1: any.",
    ),
    _weight("local_weight", "Weight of the patch adversarial loss."),
    _weight("align_weight", "Weight of the teacher's entropy on each synthetic image."),
    _weight("adversarial_weight", "Weight of the generator's KL(teacher, student)."),
    _weight("balance_weight", "Weight of the class balance loss, log base 2 (supplement, eq. 1)."),
    _weight(
        "batch_norm_weight",
        "Weight of the distance between synthetic images' statistics and those in the teacher's "
        "BatchNorms (Yin et al. 2020, arXiv 1912.08795, eq. 4).",
    ),
    _weight("hint_weight", "Weight of fitnet's hint: mean squared error of middle features."),
    _weight(
        "feature_weight",
        "Weight of the mean squared error of the features before the last layers (SimKD, arXiv "
        "2203.14001).",
    ),
    _loss(
        "local_reduction",
        "Patch losses: 64 x the mean over the discriminator's map, or its sum (the authors' code). "
        "They are equal on the 8x8 map of a 32x32 image.",
        choices=("mean", "sum"),
    ),
    _optimizer(
        "student_learning_rate",
        "Initial learning rate of the student's SGD (momentum 0.9, cosine to 0).",
        lower=0,
        lower_is_open=True,
    ),
    _optimizer(
        "generator_learning_rate",
        "Initial learning rate of the Adam (0.5, 0.999) of generator and discriminator.",
        lower=0,
        lower_is_open=True,
    ),
    _optimizer(
        "weight_decay", "L2 weight decay of teacher and student, added to the gradient.", lower=0
    ),
    _machine(
        "strategy",
        "mirrored: all devices (TensorFlow, JAX); none: one; auto: mirrored where there are "
        "several GPUs; processes: this process is one of several that a launcher has started "
        "(PyTorch, JAX; docs/several_devices.md).",
        choices=("auto", "none", "mirrored", "processes"),
    ),
    _machine(
        "precision",
        "Precision of the networks' arithmetic; losses and weights stay float32.",
        choices=("float32", "mixed_bfloat16"),
    ),
    _machine(
        "jit_compile",
        "Whether the training step is compiled by XLA (on PyTorch by its own compiler): on, off, "
        "or auto, as Keras decides for the backend and the device, unless a network has an "
        "operation that XLA cannot compile.",
        choices=("auto", "on", "off"),
    ),
    _machine(
        "evaluation_batch_size",
        "Images at a time where nothing is trained: in evaluation, validation and selection. 0 "
        "takes 256, or 16 in segmentation.",
        lower=0,
    ),
    _machine("seed", "Seed of every random number.", lower=0, upper=2**32 - 1),
    _file(
        "run_dir",
        "Directory of the run. Empty takes runs/NAME, after the flagfile's name or the method.",
    ),
    _file(
        "cache_dir",
        "Directory of what later runs reuse: trained teachers, selected images, and programs that "
        "JAX has compiled. Empty takes .cache in the working directory.",
    ),
    _file(
        "export",
        "Formats of the student, with commas: saved_model, keras, onnx (extra onnx), "
        "litert, and litert_int8, whole numbers of 8 bits, calibrated on synthetic and "
        "out-of-domain images (extra litert). Each is run and compared with the student. A run "
        "always keeps student.keras too.",
    ),
    _text("out", "Where to write.", _FILES),
    Flag("count", int, 64, "Number of images.", _OTHER, lower=1, upper=1_000_000),
    Flag(
        "study",
        str,
        "stride",
        "What is varied. stride: --overlap_stride, with --local_reduction mean and sum "
        "(supplement, table 4); lambda: --regularization_weight; local: --local_weight; align: "
        "--align_weight; epsilon: --epsilon_local; search: lambda, --balance_weight, --temperature "
        "and --student_learning_rate, for the best agreement with the teacher.",
        _STUDY,
        choices=("stride", "lambda", "local", "align", "epsilon", "search"),
    ),
    _text(
        "students",
        "Students, with commas; the grid is run for each. Empty takes --student.",
        _STUDY,
    ),
    _text(
        "grid",
        "Values to try, with commas. Empty takes 1,2,3,4 for stride, 0.1,0.3,0.5,0.7,0.9 for "
        "epsilon, and 0,0.1,0.3,1,3,10 for lambda, local and align.",
        _STUDY,
    ),
    Flag(
        "tuner",
        str,
        "hyperband",
        "How search chooses its trials. hyperband also trains shorter ones, of 1/9 and 1/3 of the "
        "updates; bayesian trains each in full.",
        _STUDY,
        choices=("hyperband", "bayesian"),
    ),
    Flag(
        "max_trials",
        int,
        23,
        "Trials of search; 23 are one round of hyperband, 9 of them in 1/9 of the updates.",
        _STUDY,
        lower=1,
        upper=100_000,
    ),
    Flag(
        "executions_per_trial",
        int,
        1,
        "Runs of each trial, with seeds --seed, --seed + 1 and so on; the table has their mean and "
        "standard deviation. Each seed has its own teacher, which all trials share.",
        _STUDY,
        lower=1,
        upper=1000,
    ),
    _text(
        "weights",
        "File of the weights, .safetensors or .npz, under the names of PyTorch's state_dict.",
        _IMPORT,
    ),
    _text("network", "The network's name here, such as wrn40_2 or resnet20.", _IMPORT),
    _text(
        "layer_map",
        "JSON file: an object of layer there -> layer here, for all layers with weights. Empty "
        "takes the built-in map of the usual names (wide residual networks, ResNets, vgg11).",
        _IMPORT,
    ),
    _text(
        "normalization",
        "MEAN/STD by which images in [0, 1] were normalised for the network, one number or one "
        "per channel each, as in 0.5,0.5,0.5/0.25,0.25,0.25; becomes a layer. Empty: not at all.",
        _IMPORT,
    ),
    Flag(
        "dry_run",
        bool,
        False,
        "Print the resolved flags, shapes, parameters, FLOPs per iteration and an estimated time, "
        "and stop; nothing is written.",
        _OTHER,
    ),
    Flag("traceback", bool, False, "Show the whole traceback of an error.", _OTHER),
    Flag("help", bool, False, "Show this help.", _OTHER),
    Flag("helpfull", bool, False, "Show the help of every flag.", _OTHER),
    Flag("version", bool, False, "Show this package's version.", _OTHER),
)

FLAGS: dict[str, Flag] = {flag.name: flag for flag in _TABLE}
