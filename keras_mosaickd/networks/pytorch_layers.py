"""Which layer of this project's networks takes the weights of which layer of a PyTorch network."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from keras_mosaickd.errors import InputError
from keras_mosaickd.files import read_text

# Layer there, as a regular expression -> layer here, by family of networks. A group that counts
# from 0 there and from 1 here is called *_from_0.
_WIDE_RESNET = {  # xternalz/WideResNet-pytorch, and the distillation literature after it
    r"conv1": "stem_conv",
    r"block(?P<group>\d)\.layer\.(?P<block_from_0>\d+)\.(?P<layer>bn1|conv1|bn2|conv2)": (
        "group{group}_block{block}_{layer}"
    ),
    r"block(?P<group>\d)\.layer\.(?P<block_from_0>\d+)\.convShortcut": (
        "group{group}_block{block}_shortcut"
    ),
    r"bn1": "final_bn",
    r"fc": "logits",
}
_RESNET = {  # torchvision, and the usual CIFAR versions of its names
    r"conv1": "stem_conv",
    r"bn1": "stem_bn",
    r"layer(?P<group>\d)\.(?P<block_from_0>\d+)\.(?P<layer>conv1|bn1|conv2|bn2)": (
        "group{group}_block{block}_{layer}"
    ),
    r"layer(?P<group>\d)\.(?P<block_from_0>\d+)\.(downsample|shortcut)\.0": (
        "group{group}_block{block}_shortcut"
    ),
    r"layer(?P<group>\d)\.(?P<block_from_0>\d+)\.(downsample|shortcut)\.1": (
        "group{group}_block{block}_shortcut_bn"
    ),
    r"fc|linear": "logits",
}
_VGG = {  # HobbitLong/RepDistiller: vgg11_bn with one linear layer
    r"block(?P<group_from_0>\d)\.0": "group{group}_conv1",
    r"block(?P<group_from_0>\d)\.1": "group{group}_bn1",
    r"block(?P<group_from_0>\d)\.3": "group{group}_conv2",
    r"block(?P<group_from_0>\d)\.4": "group{group}_bn2",
    r"classifier|fc": "logits",
}
_BUILT_IN = {"wrn": _WIDE_RESNET, "resnet": _RESNET, "vgg": _VGG}


def finder(network: str, layer_map: Mapping[str, str] | None = None) -> Callable[[str], str | None]:
    """Returns the function from a layer's name there to the name here, None where there is none.

    Args:
        network: A network's name.
        layer_map: Layer there -> layer here. None takes the built-in map of the network's family.

    Raises:
        InputError: If the family has no built-in map and none is given.
    """
    if layer_map is not None:
        return layer_map.get
    family = re.match(r"[a-z]+", network)
    rules = _BUILT_IN.get(family.group() if family else "")
    if rules is None:
        raise InputError(
            f"--layer_map: expected one for {network}; the built-in ones are for wide residual "
            "networks, ResNets and vgg11. Received: none"
        )

    def find(there: str) -> str | None:
        for pattern, here in rules.items():
            match = re.fullmatch(pattern, there)
            if match:
                values = {
                    key.removesuffix("_from_0"): int(text) + 1 if key.endswith("_from_0") else text
                    for key, text in match.groupdict().items()
                }
                return here.format(**values)
        return None

    return find


def read(path: str | os.PathLike[str]) -> dict[str, str]:
    """Reads a layer map: one JSON object, layer there -> layer here.

    Raises:
        InputError: If it is no such file, or names a layer twice.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{name} stands there twice")
        return dict(pairs)

    try:
        found = json.loads(read_text(path), object_pairs_hook=once)
    except (OSError, ValueError) as error:
        raise InputError(
            f"--layer_map: expected a JSON file. Received: {path} ({error})"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found.values()):
        raise InputError(
            "--layer_map: expected one JSON object of layer names, such as "
            f'{{"conv1": "stem_conv"}}. Received: {path}'
        )
    return found
