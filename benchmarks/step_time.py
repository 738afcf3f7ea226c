"""Seconds per iteration of MosaicKD through `fit`, against the plain eager PyTorch loop.

    PYTHONPATH=. python benchmarks/step_time.py --backend tensorflow --precision float32 --pairs 7

Each side lives in a process of its own; both are warmed up and then run in turn, so that what else
happens on the machine meets both. One pair is `--iterations` iterations of each side. Both use the
cores that the process may use (`taskset -c 0 python ...` for one). The reference (see
reference_torch.py) has its batches ready in memory; ours is fed by `mosaic_stream`, augmentation
included. Prints for each side the seconds per iteration (and the CPU time, which other programs
disturb less), synthetic images per second, peak memory less what the imports take, and the
achieved FLOP/s beside those of a large matrix product; then the ratio reference / ours, above 1
where ours is faster, as median and range over the pairs.

`--reference_precision=float32` compares a bfloat16 run of ours with the float32 reference. With
`--device=cuda` the same numbers are taken on the GPU, with the GPU's memory.
"""

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

PRECISIONS = ("float32", "bfloat16")


def arguments_parser():
    """The options, which the workers get as they are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", choices=("tensorflow", "jax", "torch"), default="tensorflow")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    parser.add_argument("--reference_precision", choices=PRECISIONS, help="default: --precision")
    parser.add_argument("--teacher", default="wrn40_2")
    parser.add_argument("--student", default="wrn16_1")
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--size", type=int, default=32, help="side of the images, in pixels")
    parser.add_argument("--batch", type=int, default=32, help="B: B synthetic + B real images")
    parser.add_argument("--student_steps", type=int, default=5)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--iterations", type=int, default=5, help="of each side in one pair")
    parser.add_argument("--side", choices=("ours", "reference"), help=argparse.SUPPRESS)
    return parser


# ---- one side, in its own process ------------------------------------------------------------


def build_ours(options):
    """Returns (run, facts): `run(iterations)` fits, facts describe this side."""
    import keras
    import numpy as np

    import keras_mosaickd as km
    from keras_mosaickd.runs.cost import floating_point_operations

    if options.precision == "bfloat16":
        keras.config.set_dtype_policy("mixed_bfloat16")
    # No keras.utils.set_random_seed: it imports TensorFlow on every backend, 450 MB of our peak.
    shape = (options.size, options.size, 3)
    teacher, student = (
        km.networks.build(name, shape, options.classes, mean=0.5, std=0.25)
        for name in (options.teacher, options.student)
    )
    model = km.MosaicKD(
        teacher,
        student,
        km.networks.generator(shape, preset="official"),
        km.networks.discriminator(shape, preset="official", mean=0.5, std=0.25),
        student_steps=options.student_steps,
        seed=0,
    )
    model.compile(**km.recipe(40_000, options.student_steps))
    pool = np.random.default_rng(0).integers(0, 256, (4 * options.batch, *shape), "uint8")
    stream = km.mosaic_stream(
        pool,
        options.batch,
        student_steps=options.student_steps,
        steps_per_epoch=options.iterations,
    )

    def run():
        losses = model.fit(stream, verbose=0).history["loss"]
        if not np.isfinite(losses).all():
            raise SystemExit("our loss is not finite")

    operations = floating_point_operations(model, options.batch)
    return run, {"operations": sum(operations.values())}


def build_reference(options):
    """As `build_ours`, for the reference."""
    import torch
    from reference_torch import faster_loop

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    options.precision = options.reference_precision
    chosen = faster_loop(options)
    return lambda: chosen.loop.run(options.iterations), {"layout": chosen.layout}


def matrix_product_rate(options, side):
    """FLOP/s of a large matrix product in this side's library and precision."""
    size = 16384 if options.device == "cuda" else 2048
    if side == "reference" or options.backend == "torch":
        import torch

        dtype = torch.bfloat16 if options.precision == "bfloat16" else torch.float32
        a = torch.rand(size, size, device=options.device).to(dtype)

        def multiply():
            return (a @ a)[0, 0].item()

    elif options.backend == "jax":
        import jax

        a = jax.numpy.ones((size, size), options.precision)
        product = jax.jit(lambda a: a @ a)

        def multiply():
            return product(a).block_until_ready()

    else:
        import tensorflow as tf

        a = tf.cast(tf.random.uniform((size, size)), options.precision)

        def multiply():
            return tf.matmul(a, a)[0, 0].numpy()

    multiply()
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        multiply()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def peak_memory(options, side, baseline):
    """Bytes at the peak: of the process less `baseline`, or of the GPU."""
    if options.device == "cpu":
        return _status("VmHWM") - baseline
    if side == "reference" or options.backend == "torch":
        import torch

        return torch.cuda.max_memory_allocated()
    if options.backend == "jax":
        import jax

        return jax.devices()[0].memory_stats()["peak_bytes_in_use"]
    import tensorflow as tf

    return tf.config.experimental.get_memory_info("GPU:0")["peak"]


def _status(field):
    """A number of bytes out of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def worker(options):
    """Serves one side: a line of JSON when ready, one for each line "run" that comes in."""
    if options.side == "reference":
        import reference_torch  # noqa: F401
    else:
        import keras_mosaickd.methods.mosaic_kd  # noqa: F401
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on
    baseline = _status("VmRSS")
    run, facts = (build_reference if options.side == "reference" else build_ours)(options)
    for _ in range(2):
        run()
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        if line.strip() == "run":
            cpu, start = time.process_time(), time.perf_counter()
            run()
            taken = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}
        else:
            taken = {"memory": peak_memory(options, options.side, baseline)}
            taken["matrix_product"] = matrix_product_rate(options, options.side)
        print(json.dumps(taken), flush=True)


# ---- the two sides in turn -------------------------------------------------------------------


class Side:
    """A worker process and what it measured."""

    def __init__(self, name, options):
        self.name = name
        environment = {**os.environ, "KERAS_BACKEND": options.backend, "TF_CPP_MIN_LOG_LEVEL": "2"}
        environment.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # As the commands do.
        if options.device == "cpu":
            environment |= {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, __file__, "--side", name]
        for key, value in vars(options).items():
            if key != "side":
                command += [f"--{key}", str(value)]
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.facts = self._answer()
        self.runs = []

    def ask(self, question):
        """Sends a line and returns the answer."""
        self.process.stdin.write(question + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the process of {self.name} ended with {self.process.wait()}")
        return json.loads(line)

    def end(self):
        """Lets the process end."""
        self.process.stdin.close()
        self.process.wait()


def describe(name, runs, final, operations, options):
    """One side as text."""
    seconds = statistics.median(run["seconds"] for run in runs) / options.iterations
    cpu = statistics.median(run["cpu"] for run in runs) / options.iterations
    made = options.batch * (options.student_steps + 1)
    rate = operations / seconds
    return (
        f"{name:<10} {seconds:8.3f} s per iteration ({cpu:.3f} s of CPU), {made / seconds:.0f} "
        f"synthetic images/s, peak memory {final['memory'] / 2**20:.0f} MiB, "
        f"{rate / 1e9:.0f} GFLOP/s of {final['matrix_product'] / 1e9:.0f} "
        f"({rate / final['matrix_product']:.0%})"
    )


def spread(ratios):
    """Median and range."""
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def main():
    """Measures and prints."""
    options = arguments_parser().parse_args()
    options.reference_precision = options.reference_precision or options.precision
    if options.side:
        worker(options)
        return
    sides = {name: Side(name, options) for name in ("reference", "ours")}
    for pair in range(options.pairs):
        for name in sorted(sides, reverse=pair % 2 == 0):
            sides[name].runs.append(sides[name].ask("run"))
    final = {name: side.ask("end") for name, side in sides.items()}
    for side in sides.values():
        side.end()
    operations = sides["ours"].facts["operations"]
    cores = len(os.sched_getaffinity(0))
    where = f"{cores} core{'s' if cores > 1 else ''}" if options.device == "cpu" else "cuda"
    print(
        f"{options.backend} {options.precision} against PyTorch eager "
        f"{options.reference_precision} ({sides['reference'].facts['layout']}); "
        f"{options.teacher} -> {options.student}, {options.size} px, batch {options.batch} + "
        f"{options.batch}, {options.student_steps} student steps, {where}, "
        f"{operations / 1e9:.0f} GFLOP per iteration"
    )
    for name, side in sides.items():
        print(describe(name, side.runs, final[name], operations, options))
    for label, key in (("ratio", "seconds"), ("ratio of CPU time", "cpu")):
        pairs = zip(sides["reference"].runs, sides["ours"].runs, strict=True)
        print(f"{label}, reference / ours: {spread([r[key] / o[key] for r, o in pairs])}")
    memory = final["ours"]["memory"] / final["reference"]["memory"]
    print(f"peak memory, ours / reference: {memory:.2f}")


if __name__ == "__main__":
    main()
