"""What a run costs on many devices: counted from the layers, and checked on two processes here.

    PYTHONPATH=. python benchmarks/scale.py [--batch 256] [--rate 20 --bandwidth 10 --latency 20]
    PYTHONPATH=. python benchmarks/scale.py --check --batch 8 --size 16

The first prints, for wrn40_2 -> wrn16_1 and the preset official, operations and bytes by phase,
what one iteration reduces over processes and in how many exchanges, and the seconds that follow for
1 to 64 devices of --rate TFLOP/s each, connected by --bandwidth GB/s with --latency microseconds.
The second counts the exchanges of two processes on loopback beside the formulas, and times a step,
on PyTorch, where they can be counted.
"""

import argparse
import json
import math
import os
import socket
import subprocess
import sys
import time

COUNTS = (1, 2, 4, 8, 16, 32, 64)


def build(options):
    """The game of the paper's pair, compiled."""
    import keras

    import keras_mosaickd as km

    keras.utils.set_random_seed(0)
    shape = (options.size, options.size, 3)
    teacher, student = (
        km.networks.build(name, shape, 100, mean=0.5, std=0.25)
        for name in (options.teacher, options.student)
    )
    generator = km.networks.generator(shape, preset="official")
    discriminator = km.networks.discriminator(shape, preset="official")
    game = km.MosaicKD(
        teacher, student, generator, discriminator, student_steps=options.steps, seed=0
    )
    game.compile(**km.recipe(1000, options.steps))
    return game


def parameters(network):
    """Number of trained parameters."""
    return sum(math.prod(variable.shape) for variable in network.trainable_variables)


def channels(network):
    """Channels of each BatchNorm."""
    import keras

    normalizations = (keras.layers.BatchNormalization,)
    return [
        layer.moving_mean.shape[0] for layer in network.layers if isinstance(layer, normalizations)
    ]


def exchanged(game):
    """What one iteration exchanges: by kind the number of exchanges, and the values in them.

    Gradients once for each update. A BatchNorm in training mode exchanges two moments of each
    channel on the way forward, and two sums on the way back.
    """
    steps = game.student_steps
    generator, discriminator, student = (
        channels(network) for network in (game.generator, game.discriminator, game.student)
    )
    # D sees synthetic and real images in its own update, and synthetic ones in G's.
    forward = generator * (1 + steps) + discriminator * 3 + student * (1 + steps)
    backward = generator + discriminator * 3 + student * (1 + steps)
    classes = game.head.classes
    trained = [game.generator, game.discriminator, *[game.student] * steps]
    return {
        "gradients": (len(trained), sum(map(parameters, trained))),
        # The mean prediction of the balance term, forward and back.
        "balance": (2, 2 * classes),
        "moments": (len(forward) + len(backward), 2 * (sum(forward) + sum(backward))),
    }


def describe(options):
    """Prints the counts and what follows from them."""
    from keras_mosaickd.runs.cost import floating_point_operations, memory_traffic

    game = build(options)
    phases = floating_point_operations(game, options.batch)
    moved = memory_traffic(game, options.batch)
    for name, operations in phases.items():
        print(f"{name:<14} {operations / 1e9:9.1f} GFLOP {moved[name] / 1e9:7.2f} GB moved at most")
    total = sum(phases.values())
    kinds = exchanged(game)
    for name, (count, values) in kinds.items():
        print(f"{name:<14} {count:6d} exchanges {4 * values / 1e6:9.3f} MB")
    exchanges = sum(count for count, _ in kinds.values())
    size = 4 * sum(values for _, values in kinds.values())
    print(f"\n{'devices':>7} {'compute s':>10} {'exchange s':>11} {'step s':>8} {'speed-up':>9}")
    one = total / (options.rate * 1e12)
    for count in COUNTS:
        compute = one / count
        ring = 2 * (count - 1) / count * size / (options.bandwidth * 1e9)
        # Small messages go up a tree and down again.
        waits = exchanges * 2 * math.ceil(math.log2(count)) * options.latency * 1e-6
        step = compute + ring + waits
        print(f"{count:>7} {compute:10.4f} {ring + waits:11.4f} {step:8.4f} {one / step:9.1f}")


def check(options):
    """Counts and times the iterations of two processes, beside the formulas."""
    if not options.here:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        for count in (1, 2):
            processes = []
            for number in range(count):
                names = {"RANK": number, "WORLD_SIZE": count, "MASTER_PORT": port + count}
                names |= {"MASTER_ADDR": "127.0.0.1", "LOCAL_RANK": number}
                names |= {"KERAS_BACKEND": "torch"}
                environment = {**os.environ, **{name: str(v) for name, v in names.items()}}
                command = [sys.executable, *sys.argv, "--here"]
                processes.append(
                    subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
                )
            results = [process.communicate()[0] for process in processes]
            print(f"{count} process(es): {json.loads(results[0].splitlines()[-1])}", flush=True)
        return
    print(json.dumps(counted(options)))


def counted(options):
    """The exchanges of one iteration in this process, and its seconds."""
    import numpy as np
    from torch import distributed

    import keras_mosaickd as km
    from keras_mosaickd.backend import processes
    from keras_mosaickd.backend.training import distribution

    distribution("processes")
    game = build(options)
    pool = np.random.default_rng(0).integers(
        0, 256, (4 * options.batch, options.size, options.size, 3), "uint8"
    )
    stream = km.mosaic_stream(pool, options.batch, student_steps=options.steps)
    game.fit(stream, epochs=1, verbose=0)  # the first step of a process takes longer
    exchanges, values = [], []

    def counting(function):
        def call(tensor, *arguments):
            seen = arguments[0] if isinstance(tensor, list) else tensor
            exchanges.append(1)
            values.append(seen.numel())
            return function(tensor, *arguments)

        return call

    kept = distributed.all_reduce, distributed.all_gather
    distributed.all_reduce, distributed.all_gather = map(counting, kept)
    start = time.perf_counter()
    game.fit(stream, epochs=1, verbose=0)
    seconds = (time.perf_counter() - start) / len(stream)
    distributed.all_reduce, distributed.all_gather = kept
    result = {"seconds": round(seconds, 3), "exchanges": len(exchanges) / len(stream)}
    result["values"] = sum(values) / len(stream)
    kinds = exchanged(game)
    result["by formula"] = [sum(part) for part in zip(*kinds.values(), strict=True)]
    processes.leave()
    return result


def main():
    """Prints the model, or checks it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", default="wrn40_2")
    parser.add_argument("--student", default="wrn16_1")
    parser.add_argument("--batch", type=int, default=256, help="global batch")
    parser.add_argument("--size", type=int, default=32, help="height and width of the images")
    parser.add_argument("--steps", type=int, default=5, help="student updates in an iteration")
    parser.add_argument("--rate", type=float, default=20.0, help="TFLOP/s of a device, achieved")
    parser.add_argument("--bandwidth", type=float, default=10.0, help="GB/s between devices")
    parser.add_argument("--latency", type=float, default=20.0, help="microseconds of a message")
    parser.add_argument("--check", action="store_true", help="count on two processes instead")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.check:
        check(options)
    else:
        describe(options)


if __name__ == "__main__":
    main()
