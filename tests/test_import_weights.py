"""PyTorch's weights in this project's networks give PyTorch's own outputs, on every backend."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

from keras_mosaickd.cli import import_weights as command
from keras_mosaickd.cli import runner
from keras_mosaickd.errors import InputError
from keras_mosaickd.networks import pytorch_layers as layer_maps
from keras_mosaickd.networks.pytorch_weights import import_weights, read

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.numpy")
nn, functional = torch.nn, torch.nn.functional

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)


def convolution(inputs, outputs, kernel=3, stride=1, bias=False):
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=bias)


class WideBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), convolution(inputs, outputs, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), convolution(outputs, outputs)
        self.convShortcut = (
            None if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        )

    def forward(self, x):
        activated = functional.relu(self.bn1(x))
        out = self.conv2(functional.relu(self.bn2(self.conv1(activated))))
        return out + (x if self.convShortcut is None else self.convShortcut(activated))


class WideGroup(nn.Module):
    def __init__(self, inputs, outputs, blocks, stride):
        super().__init__()
        self.layer = nn.Sequential(
            WideBlock(inputs, outputs, stride),
            *(WideBlock(outputs, outputs, 1) for _ in range(blocks - 1)),
        )

    def forward(self, x):
        return self.layer(x)


class WideResNet(nn.Module):
    """Names and structure of xternalz/WideResNet-pytorch."""

    def __init__(self, depth=16, width=1, classes=10):
        super().__init__()
        blocks = (depth - 4) // 6
        self.conv1 = convolution(3, 16)
        self.block1 = WideGroup(16, 16 * width, blocks, 1)
        self.block2 = WideGroup(16 * width, 32 * width, blocks, 2)
        self.block3 = WideGroup(32 * width, 64 * width, blocks, 2)
        self.bn1, self.fc = nn.BatchNorm2d(64 * width), nn.Linear(64 * width, classes)

    def forward(self, x):
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(functional.relu(self.bn1(x)).mean((2, 3)))


class BasicBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1, self.bn1 = convolution(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = convolution(outputs, outputs), nn.BatchNorm2d(outputs)
        self.downsample = nn.Sequential()
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        out = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(out + self.downsample(x))


class ResNet(nn.Module):
    """Names and structure of torchvision's ResNet with a 3x3 stem and no pooling after it."""

    def __init__(self, widths, blocks, classes=10, channels=3):
        super().__init__()
        self.conv1, self.bn1 = convolution(channels, widths[0]), nn.BatchNorm2d(widths[0])
        self.groups = len(widths)
        inputs = widths[0]
        for group, outputs in enumerate(widths, start=1):
            layers = []
            for block in range(blocks):
                stride = 2 if group > 1 and block == 0 else 1
                layers.append(BasicBlock(inputs, outputs, stride))
                inputs = outputs
            setattr(self, f"layer{group}", nn.Sequential(*layers))
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x)))
        for group in range(1, self.groups + 1):
            x = getattr(self, f"layer{group}")(x)
        return self.fc(x.mean((2, 3)))


class VGG(nn.Module):
    """Names and structure of RepDistiller's vgg11_bn, whose convolutions have a bias."""

    def __init__(self, classes=10):
        super().__init__()
        inputs = 3
        for group, widths in enumerate(((64,), (128,), (256, 256), (512, 512), (512, 512))):
            layers = []
            for outputs in widths:
                layers += [convolution(inputs, outputs, bias=True), nn.BatchNorm2d(outputs)]
                layers.append(nn.ReLU())
                inputs = outputs
            setattr(self, f"block{group}", nn.Sequential(*layers[:-1]))
        self.classifier = nn.Linear(inputs, classes)

    def forward(self, x):
        for group in range(5):
            x = functional.relu(getattr(self, f"block{group}")(x))
            if group < 3:
                x = functional.max_pool2d(x, 2)
        return self.classifier(x.mean((2, 3)))


NETWORKS = {
    "wrn16_1": WideResNet,
    "resnet20": lambda: ResNet((16, 32, 64), 3),
    "resnet18": lambda: ResNet((64, 128, 256, 512), 2, classes=5),
    "vgg11": VGG,
}


def trained(name):
    """A network with statistics of images, and no weight that is as in a fresh one."""
    torch.manual_seed(0)
    model = NETWORKS[name]()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0.0, 0.1)
            layer.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.randn(16, 3, 32, 32))
    return model.eval()


def arrays(model):
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def images(side=32):
    random = np.random.default_rng(0)
    return random.random((4, side, side, 3), "float32") * random.random((4, 1, 1, 1), "float32")


def torch_outputs(model, x):
    normalized = (x - np.float32(MEAN)) / np.float32(STD)
    with torch.no_grad():
        return model(torch.from_numpy(normalized.transpose(0, 3, 1, 2))).numpy()


def run(*arguments):
    return runner.run(command.main, "import_weights", [str(argument) for argument in arguments])


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name == "resnet18")) for name in NETWORKS],
)
def test_outputs_are_pytorchs(name):
    theirs = trained(name)
    ours = import_weights(arrays(theirs), name, 32, (MEAN, STD))
    expected = torch_outputs(theirs, images())
    assert np.ptp(expected, axis=0).max() > 0.1  # the images make a difference
    np.testing.assert_allclose(ours.predict(images(), verbose=0), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["safetensors", "npz"])
def test_the_command_writes_a_teacher(kind, tmp_path, capsys):
    theirs = trained("wrn16_1")
    # As DataParallel saves it.
    weights = {f"module.{name}": array for name, array in arrays(theirs).items()}
    file = tmp_path / f"weights.{kind}"
    if kind == "npz":
        np.savez(file, **weights)
    else:
        safetensors.save_file(weights, file)
    out = tmp_path / "new" / "teacher.keras"
    normalization = "/".join(",".join(map(str, values)) for values in (MEAN, STD))
    flags = [f"--weights={file}", "--network=wrn16_1", f"--normalization={normalization}"]
    assert run(*flags, f"--out={out}") == 0
    printed = capsys.readouterr().out
    assert "32x32x3" in printed and f"The teacher is in {out}" in printed
    assert [path.name for path in out.parent.iterdir()] == ["teacher.keras"]
    loaded = keras.saving.load_model(out, safe_mode=True)
    np.testing.assert_allclose(
        loaded.predict(images(), verbose=0), torch_outputs(theirs, images()), atol=1e-5
    )
    assert run(*flags, f"--out={out}") == 2  # never over a teacher that is there
    assert "expected a new .keras file" in capsys.readouterr().err


def test_a_layer_map_takes_the_built_in_ones_place(tmp_path):
    theirs = arrays(trained("resnet20"))
    renamed, layer_map = {}, {}
    for name, array in theirs.items():
        there, _, what = name.rpartition(".")
        group, _, rest = there.partition(".")
        here = {"conv1": "stem_conv", "bn1": "stem_bn", "fc": "logits"}.get(there)
        if here is None:
            block, _, layer = rest.partition(".")
            layer = {"downsample.0": "shortcut", "downsample.1": "shortcut_bn"}.get(layer, layer)
            here = f"group{group[-1]}_block{int(block) + 1}_{layer}"
        layer_map[f"mine.{there}"] = here
        renamed[f"mine.{name}"] = array
    file = tmp_path / "map.json"
    file.write_text(json.dumps(layer_map))
    np.savez(tmp_path / "weights.npz", **renamed)
    flags = [f"--weights={tmp_path}/weights.npz", "--network=resnet20"]
    assert run(*flags, f"--layer_map={file}", f"--out={tmp_path}/mapped.keras") == 0
    mapped = keras.saving.load_model(tmp_path / "mapped.keras").get_weights()
    for a, b in zip(mapped, import_weights(theirs, "resnet20").get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_channels_and_half_precision_follow_from_the_weights():
    torch.manual_seed(1)
    weights = arrays(ResNet((16, 32, 64), 3, classes=4, channels=1).half())
    model = import_weights(weights, "resnet20", 16)
    assert model.input_shape == (None, 16, 16, 1) and model.output_shape == (None, 4)
    kernel = model.get_layer("stem_conv").kernel
    assert keras.backend.standardize_dtype(kernel.dtype) == "float32"
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(kernel)[..., 5], weights["conv1.weight"][5].transpose(1, 2, 0)
    )


@pytest.fixture(scope="module")
def resnet20():
    return arrays(trained("resnet20"))


def without(weights, name):
    return {key: array for key, array in weights.items() if key != name}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: {**w, "extra.weight": w["fc.weight"]}, "has none for 'extra'.*extra.weight"),
        (lambda w: {**w, "layer4.0.conv1.weight": w["fc.weight"]}, "no layer group4_block1_conv1"),
        (lambda w: {**w, "linear.weight": w["fc.weight"]}, "fc.weight and linear.weight"),
        (lambda w: {**w, "conv1.bias": w["bn1.bias"][:3]}, r"conv1.bias.*\(16,\).*\(3,\)"),
        (lambda w: {**w, "conv1.gain": w["bn1.bias"]}, "weight, bias.*conv1.gain"),
        (lambda w: without(w, "layer2.1.bn2.running_var"), "running_var.*group2_block2_bn2"),
        (lambda w: without(w, "conv1.weight"), "stem_conv of resnet20"),
        (lambda w: without(w, "layer1.0.conv2.weight"), "group1_block1_conv2 of resnet20"),
        (lambda w: {**w, "fc.weight": w["fc.bias"]}, "fc.weight to have 2 axes"),
        (
            lambda w: {**w, "layer1.1.conv1.weight": w["conv1.weight"]},
            r"\(16, 16, 3, 3\).*group1_block2_conv1.*Received: \(16, 3, 3, 3\)",
        ),
        (lambda w: {**w, "fc.bias": w["fc.bias"] * np.nan}, "fc.bias to hold finite numbers"),
        (lambda w: {**w, "fc.bias": w["fc.bias"].astype(int)}, "fc.bias to hold finite.*int64"),
    ],
)
def test_the_first_weight_that_does_not_fit_is_named(change, words, resnet20):
    with pytest.raises(InputError, match=words):
        import_weights(change(resnet20), "resnet20")


def test_a_bias_that_batch_norm_cannot_take_is_refused():
    weights = arrays(trained("wrn16_1"))
    bias = {"block1.layer.0.conv2.bias": np.zeros(16, "float32")}
    with pytest.raises(InputError, match=r"group1_block1_conv2.*block1.layer.0.conv2.bias"):
        import_weights(weights | bias, "wrn16_1")


def test_a_network_without_a_built_in_map_asks_for_one(resnet20):
    with pytest.raises(InputError, match="--layer_map: expected one for mobilenetv2"):
        import_weights(resnet20, "mobilenetv2")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("weights.pth", b"", "which can run code"),
        ("weights.npz", None, "which is none"),
        ("weights.npz", b"PK no zip", "readable file of arrays"),
        ("weights.safetensors", b"\xff" * 40, "readable file of arrays"),
    ],
)
def test_files_that_cannot_be_read(name, content, words, tmp_path):
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=words):
        read(file)


def test_a_pickle_inside_an_npz_is_refused(tmp_path):
    file = tmp_path / "weights.npz"
    np.savez(file, weight=np.array([{"run": "me"}], dtype=object))
    with pytest.raises(InputError, match="readable file of arrays"):
        read(file)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "expected --weights"),
        (["--weights=w.npz"], "expected --network"),
        (["--weights=w.npz", "--network=wrn16_1"], "expected --out"),
        (["--weights=w.npz", "--network=wrn16_1", "--out=t.h5"], "--out: expected a new .keras"),
        (
            ["--weights=w.npz", "--network=wrn16_1", "--out=t.keras", "--normalization=1"],
            "--normalization: expected MEAN/STD",
        ),
        (
            ["--weights=w.npz", "--network=wrn16_1", "--out=t.keras", "--layer_map=no.json"],
            "--layer_map: expected a JSON file",
        ),
    ],
)
def test_usage_errors_are_one_line_and_write_nothing(
    arguments, words, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert words in error and len(error.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["[1]", '{"a": 1}', '{"a": "b", "a": "c"}'])
def test_a_layer_map_that_is_none(text, tmp_path):
    file = tmp_path / "map.json"
    file.write_text(text)
    with pytest.raises(InputError, match="--layer_map"):
        layer_maps.read(file)
