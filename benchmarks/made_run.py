"""A run of `bin/train` that is made once: what the benchmarks that compare methods are made of."""

import json
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def made(run_dir, *arguments, core=None):
    """Makes a run, unless it is there; an interrupted one is resumed.

    Args:
        run_dir: `Path` of its directory; what it prints goes to RUN_DIR.log.
        *arguments: of `bin/train`, but for --run_dir.
        core: number of the one core that it runs on; by default all.

    Returns:
        Dict of its `metrics.json`.
    """
    metrics = run_dir / "metrics.json"
    if not metrics.is_file():
        run_dir.parent.mkdir(parents=True, exist_ok=True)
        command = [str(ROOT / "bin" / "train"), f"--run_dir={run_dir}", *arguments]
        if core is not None:
            command = ["taskset", "-c", str(core), *command]
        with open(f"{run_dir}.log", "a") as log:
            subprocess.run(command, check=True, stdout=log)
    return json.loads(metrics.read_text())


def directory_name(method, *parts):
    """A directory's name of a method's title, such as "kd, temperature 5", and what else it is."""
    return "-".join(["".join(c if c.isalnum() else "_" for c in method), *map(str, parts)])
