"""``bin/import_weights``: a PyTorch network's weights as a teacher in a .keras file."""

from __future__ import annotations

from pathlib import Path

from keras_mosaickd.cli import flags, runner
from keras_mosaickd.errors import InputError
from keras_mosaickd.files import replacing


def main(parsed: flags.Parsed) -> None:
    """Reads and checks the weights, writes the .keras file whole or not at all, and prints it."""
    values = parsed.values
    for name in ("weights", "network", "out"):
        runner.required(parsed, name)
    out = Path(values["out"])
    if out.suffix != ".keras" or out.exists():
        raise InputError(f"--out: expected a new .keras file. Received: {out}")
    normalization = statistics(values["normalization"])
    runner.load_backend(parsed)
    from keras_mosaickd.networks import pytorch_layers as layer_maps
    from keras_mosaickd.networks.pytorch_weights import import_weights, read

    layer_map = layer_maps.read(values["layer_map"]) if values["layer_map"] else None
    model = import_weights(
        read(values["weights"]), values["network"], values["image_size"], normalization, layer_map
    )
    with replacing(out) as new:
        model.save(new)
    runner.print_values(
        {
            "network": values["network"],
            "pictures": "x".join(str(size) for size in model.input_shape[1:]),
            "classes": model.output_shape[-1],
            "parameters": model.count_params(),
        }
    )
    print(f"The teacher is in {out}")


def statistics(text: str) -> tuple[list[float], list[float]] | None:
    """Returns mean and standard deviation from ``MEAN/STD``, numbers with commas; None from ''.

    Raises:
        InputError: If it is no such text.
    """
    if not text:
        return None
    try:
        mean, std = ([float(number) for number in part.split(",")] for part in text.split("/"))
    except ValueError:
        raise InputError(
            "--normalization: expected MEAN/STD, one number or one per channel, such as "
            f"0.5,0.5,0.5/0.25,0.25,0.25. Received: {text}"
        ) from None
    return mean, std


console = runner.entry_point(main, "import_weights")

if __name__ == "__main__":
    console()
