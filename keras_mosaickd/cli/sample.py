"""``bin/sample``: synthetic images, as a grid or as a transfer set."""

from __future__ import annotations

from pathlib import Path

from keras_mosaickd.cli import flags, runner
from keras_mosaickd.errors import InputError

# A grid of more images is too large to be looked at.
MOST_IN_A_GRID = 4096
_OTHER_IMAGES = (".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".pdf", ".svg")


def main(parsed: flags.Parsed) -> None:
    """Draws the grid or writes the transfer set, and prints where it is."""
    run_dir = runner.required(parsed, "run_dir")
    out = parsed.values["out"] or str(Path(run_dir) / "samples.png")
    count, *loading = (parsed.values[name] for name in ("count", "seed", "teacher", "unsafe_load"))
    suffix = Path(out).suffix.lower()
    if suffix in _OTHER_IMAGES:
        raise InputError(f"--out: expected a .png file, or a directory. Received: {out}")
    if suffix != ".png":
        runner.load_backend(parsed)
        from keras_mosaickd.export import transfer_set

        print(transfer_set.write(run_dir, count, out, *loading))
        return
    if count > MOST_IN_A_GRID:
        raise InputError(
            f"--count: expected at most {MOST_IN_A_GRID} for a grid, or a directory as --out. "
            f"Received: {count}"
        )
    runner.load_backend(parsed)
    from keras_mosaickd.evaluation import of_run as evaluation

    print(evaluation.sample(run_dir, count, out, *loading))


console = runner.entry_point(main, "sample")

if __name__ == "__main__":
    console()
