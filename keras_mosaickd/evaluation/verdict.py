"""A plain verdict on a finished run: how much smaller, how alike, and what for."""

# Lowest agreement (of held-out out-of-domain and of synthetic images, the lower one) -> expected
# use. docs/own_teacher.md documents the thresholds.
USES = {
    0.95: "Expected use: in the teacher's place, after a look at some of its predictions on your "
    "own images.",
    0.85: "Expected use: where one other answer in ten is bearable, or in front of the teacher, "
    "which is asked where the student is unsure.",
    0.60: "Expected use: a first filter or a start for training on labels, not in the teacher's "
    "place. More updates or more varied images may help.",
    0.0: "Expected use: none yet. It imitates the teacher badly: try more updates{larger} or more "
    "varied images.",
}
BLIND = (
    "Expected use: none yet. The teacher sees only {seen} of its {classes} classes in all these "
    "images, so that agreement on them says little: look at the teacher's declared input first "
    "(--teacher_input), then for more varied images."
)
KINDS = {"held_out": "held-out out-of-domain images", "synthetic": "synthetic images"}


def verdict(metrics):
    """Says in a few sentences what a run without labels came to.

    Args:
        metrics: dict with `teacher_parameters`, `student_parameters`, `class_names` and, of each
            kind of images in `KINDS` that there was, `<kind>_agreement`,
            `<kind>_calibration_gap` and `<kind>_classes_seen`; where labelled images tested both,
            `eval`, `eval_student_accuracy` and `eval_teacher_accuracy`.

    Returns:
        Text: compression, agreement, expected use.
    """
    teacher, student = metrics["teacher_parameters"], metrics["student_parameters"]
    kinds = [kind for kind in KINDS if f"{kind}_agreement" in metrics]
    of_labels = "labels of the " if metrics.get("head") == "labels" else ""
    shares = [
        f"{metrics[f'{kind}_agreement']:.1%} of the {of_labels}{KINDS[kind]}" for kind in kinds
    ]
    gap = metrics[f"{kinds[0]}_calibration_gap"]
    sure = "as sure as it is right" if abs(gap) < 0.05 else "too sure" if gap > 0 else "too unsure"
    classes = len(metrics["class_names"])
    seen = {kind: metrics[f"{kind}_classes_seen"] for kind in kinds}
    first = seen[kinds[0]]
    one_sided = f" The teacher sees only {first} of its {classes} classes in the {KINDS[kinds[0]]}."
    lowest = min(metrics[f"{kind}_agreement"] for kind in kinds)
    return " ".join(
        [
            f"The student has {student:,} parameters, the teacher {teacher:,}: {_factor(metrics)}.",
            f"It agrees with the teacher on {' and '.join(shares)}, and is {sure} "
            f"(confidence minus agreement {gap:+.2f})."
            + (one_sided if _is_blind(metrics, first) else ""),
            _use(metrics, lowest, max(seen.values())),
            _tested(metrics),
        ]
    )


def _tested(metrics):
    accuracies = [metrics.get(f"eval_{network}_accuracy") for network in ("student", "teacher")]
    if None in accuracies:
        return "How it does on the teacher's own kind of images is not known without some of them."
    student, teacher = accuracies
    return (
        f"On the labelled images of {metrics['eval']} its accuracy is {student:.1%}, the teacher's "
        f"{teacher:.1%}."
    )


def _is_blind(metrics, seen):
    """Whether the teacher sees too few of its classes for agreement to say anything."""
    classes = len(metrics["class_names"])
    # Of two classes one alone is half, and a student that always answers the same agrees.
    return 2 * seen < classes or (seen < 2 and metrics.get("head") != "labels")


def _use(metrics, lowest, seen):
    if _is_blind(metrics, seen):
        return BLIND.format(seen=seen, classes=len(metrics["class_names"]))
    is_smaller = metrics["student_parameters"] < metrics["teacher_parameters"]
    use = next(use for least, use in USES.items() if lowest >= least)
    return use.format(larger=", a larger student" if is_smaller else "")


def _factor(metrics):
    if metrics["teacher_parameters"] == metrics["student_parameters"]:
        return "as many"
    factor = metrics["teacher_parameters"] / metrics["student_parameters"]
    return f"{factor:.1f} times fewer" if factor >= 1 else f"{1 / factor:.1f} times more"
