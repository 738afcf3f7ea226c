r"""BatchNorm policy `inference` against `training`, by default on the quickstart's digits.

    PYTHONPATH=. python benchmarks/batch_norm_policy.py [--seeds 0 1 2] [--updates 250] \
        [--flagfile FILE]

Same teacher, networks (preset `paper`), images and seeds; only `batch_norm_policy` differs.
The measure that decides is taken on the domain's training images, so that no test image takes
part in the choice: agreement with the teacher and mean KL(T || S), at the end of the run.
"""

import argparse
import dataclasses
import statistics
from pathlib import Path

from benchmarks.training_agreement import measure
from keras_mosaickd.cli import flags
from keras_mosaickd.config import ExperimentConfig

ROOT = Path(__file__).resolve().parent.parent


def with_policy(policy):
    """A change of the trainer to the policy."""

    def change(trainer):
        trainer.batch_norm_policy = policy
        return trainer

    return change


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--updates", type=int, default=250)
    parser.add_argument("--policies", nargs="+", default=["inference", "training"])
    parser.add_argument(
        "--flagfile", type=Path, default=ROOT / "configs" / "quickstart_mosaickd.flags"
    )
    arguments = parser.parse_args()
    settings = flags.parse("train", [f"--flagfile={arguments.flagfile}"]).settings()
    config = ExperimentConfig(**settings)
    print("| policy | agreement | KL(T‖S), nats | agreement by seed |\n|---|---|---|---|")
    for policy in arguments.policies:
        results = [
            measure(
                dataclasses.replace(config, seed=seed, student_updates=arguments.updates),
                with_policy(policy),
            )
            for seed in arguments.seeds
        ]
        agreements, divergences = zip(*results, strict=True)
        print(
            f"| {policy} | {statistics.mean(agreements):.4f} | {statistics.mean(divergences):.4f} "
            f"| {', '.join(f'{agreement:.4f}' for agreement in agreements)} |"
        )


if __name__ == "__main__":
    main()
