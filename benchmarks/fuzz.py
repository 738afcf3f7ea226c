"""Random command lines, folders and teachers through the commands, random data through `fit`.

    PYTHONPATH=. python benchmarks/fuzz.py --cases=2000 --processes=100 [--seed=0]
    PYTHONPATH=. python benchmarks/fuzz.py --of=teachers --cases=5000 [--seed=0]
    PYTHONPATH=. python benchmarks/fuzz.py --of=inputs --cases=5000 [--seed=0]

`--of=lines` (tests/fuzz.py): any command line, flagfile or folder ends well. The first
`--processes` cases run as processes of their own, the others in this one. `--of=teachers`
(tests/fuzz_teachers.py): teachers as Keras users make them, declared in some way, on folders of
labelled images; the accuracy is that of Keras and Pillow alone, or the case is refused.
`--of=inputs` (tests/fuzz_inputs.py): what users hand to `fit`, `evaluate` and `predict`. Prints
every case that did something wrong and how the cases ended; exit status 1 if there was any.
"""

import argparse
import collections
import faulthandler
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests import fuzz, fuzz_inputs, fuzz_material, fuzz_teachers


def main():
    """Runs the cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--of", choices=("lines", "teachers", "inputs"), default="lines")
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--processes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    material_of = {"lines": fuzz, "teachers": fuzz_teachers, "inputs": fuzz_inputs}[arguments.of]
    counts, failures = collections.Counter(), {}
    start = time.monotonic()
    terminal = os.fdopen(os.dup(2), "w")  # A case's own stderr is caught.

    with tempfile.TemporaryDirectory() as name:
        material = Path(name)
        fuzz_material.write(material)

        @seed(arguments.seed)
        @settings(
            max_examples=arguments.cases,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=material_of.cases())
        def run(case):
            # A hang in C++, which no signal ends.
            faulthandler.dump_traceback_later(2 * fuzz.SECONDS, exit=True, file=terminal)
            if arguments.of != "lines":
                counts[arguments.of, material_of.must_be_refused(case) or "accepted"] += 1
                told = material_of.complaint(case)
            else:
                as_process = sum(counts.values()) < arguments.processes
                counts[case.command, "process" if as_process else "in process"] += 1
                told = fuzz.complaint(case, material, as_process)
            if told and told not in failures:
                failures[told] = case
                print(f"{told}\n    {case}", flush=True)
            if sum(counts.values()) % 100 == 0:
                seconds = time.monotonic() - start
                print(f"{sum(counts.values())} cases, {seconds:.0f} s", flush=True)

        run()
    faulthandler.cancel_dump_traceback_later()
    for (command, how), count in sorted(counts.items()):
        print(f"{count:5} {command:9} {how}")
    print(f"{sum(counts.values())} cases, {len(failures)} different failures")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
