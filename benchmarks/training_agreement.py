r"""Agreement with the teacher on the domain's training pictures, for settings given as flags.

    PYTHONPATH=. python benchmarks/training_agreement.py \
        "--flagfile=configs/fashion_mnist_mosaickd.flags --local_weight=0.01 --temperature=5" \
        "--flagfile=configs/fashion_mnist_kd.flags --method=fitnet --hint_weight=10"

The measure by which settings are chosen here: no test picture takes part. Each argument is one run,
of `bin/train`'s flags; they go one after the other, nothing is kept but the teacher and the
selection in the cache, and a line is printed for each.

`--add_hint=W` gives the student of every `mosaickd` among them FitNet's hint too, with weight W.
It answers whether a difference between the two lies in the pictures or in the teacher's features,
and shows how to change the student's update in a game of one's own.
"""

import argparse
import time

import keras
from keras import ops

from keras_mosaickd import MosaicKD, losses, recipe
from keras_mosaickd.baselines import FitNet
from keras_mosaickd.baselines.fitnet import mean_squared_error
from keras_mosaickd.cli import flags
from keras_mosaickd.data import evaluation_arrays
from keras_mosaickd.experiment import Experiment, ExperimentConfig


class HintedMosaicKD(MosaicKD):
    """MosaicKD whose student also imitates the teacher's middle feature map, as FitNet's does."""

    def add_hint(self, weight, seed):
        """Takes layers, regressor and two-headed networks from a FitNet on the same networks."""
        self.hint_weight = weight
        fitnet = FitNet(self.teacher, self.student, teacher_outputs="logits", seed=seed)
        self.teacher_with_hint = fitnet.teacher_with_hint
        self.student_with_hint = fitnet.student_with_hint

    def compile_phases(self, phases, **kwargs):
        """The student's optimizer moves the regressor too."""
        optimizer, _ = phases["student_optimizer"]
        super().compile_phases(
            {**phases, "student_optimizer": (optimizer, self.student_with_hint)}, **kwargs
        )

    def update_student(self, pictures):
        """One student update on given pictures, real and synthetic."""
        with self.without_gradient():
            hint, teacher_logits = map(
                ops.stop_gradient, self.teacher_with_hint(pictures, training=False)
            )

        def objective():
            regressed, student_logits = self.student_with_hint(pictures, training=True)
            divergence = losses.kl_divergence(teacher_logits, student_logits, self.temperature)
            loss = ops.mean(divergence) + self.hint_weight * mean_squared_error(hint, regressed)
            return loss, {"student_loss": loss}

        self.track(
            self.minimize(
                objective,
                self.phase_optimizers["student_optimizer"],
                self.student_with_hint.trainable_variables,
            )
        )


def hinted(game, config, schedule, weight):
    """The same game on the same networks, with a hint; compiled."""
    networks = {name: getattr(game, name) for name in game.networks}
    made = HintedMosaicKD(**{**game.get_config(), **networks})
    made.add_hint(weight, config.seed)
    made.compile(
        **recipe(
            schedule.steps,
            config.student_steps,
            config.student_learning_rate,
            config.generator_learning_rate,
            config.weight_decay,
        )
    )
    return made


def measure(config, change=lambda trainer, schedule: trainer):
    """One run.

    Args:
        config: `ExperimentConfig`.
        change: makes of the compiled trainer and the schedule the trainer that is used.

    Returns:
        Agreement and mean KL(T || S) on the domain's training pictures, at the end.
    """
    keras.utils.clear_session()
    experiment = Experiment(config)
    teacher = experiment.teacher()
    images = experiment.select(teacher.model).images
    schedule = config.schedule(len(images))
    trainer = change(experiment.trainer(teacher.model, schedule), schedule)
    stream = experiment.stream(images, schedule, first_step=0)
    trainer.fit(stream, epochs=schedule.rounds, steps_per_epoch=schedule.steps_per_round, verbose=0)
    pictures, _ = evaluation_arrays(experiment.domain)
    result = trainer.evaluate(pictures, verbose=0, return_dict=True)
    return result["agreement"], result["loss"]


def main():
    """Prints a line for each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("settings", nargs="+", help="flags of bin/train, in quotes")
    parser.add_argument("--add_hint", type=float, help="weight of the hint in mosaickd")
    arguments = parser.parse_args()
    for text in arguments.settings:
        config = ExperimentConfig(**flags.parse("train", text.split()).settings())
        added = arguments.add_hint is not None and config.method == "mosaickd"

        def change(game, schedule, config=config, added=added):
            return hinted(game, config, schedule, arguments.add_hint) if added else game

        start = time.perf_counter()
        agreement, divergence = measure(config, change)
        print(
            f"{text}{f', with hint {arguments.add_hint:g}' if added else ''}: agreement "
            f"{agreement:.4f}, KL {divergence:.4f} nats, {time.perf_counter() - start:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
