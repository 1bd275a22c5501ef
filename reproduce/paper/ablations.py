"""The rows of Table 3 and their trainings at each scale: Tables 2 and 3, Figures 4 and 6."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np

from reproduce import REPOSITORY
from reproduce.core.context import Context
from zfnet.training.config import Config, load_config

RECIPE = REPOSITORY / "configs" / "ablations.yaml"
PAPER_RECIPE = REPOSITORY / "configs" / "imagenet.yaml"
# Declared by the figures that train.
FILES = ("../../configs/ablations.yaml", "../../configs/imagenet.yaml", "mini_imagenet.yaml")
WIDE = "layers 3-5 of 512, 1024, 512"
# Table 3 from top to bottom: what each row changes in the configuration of the model.
ROWS: dict[str, dict] = {
    "AlexNet": {"arch": "alexnet"},
    "AlexNet without layers 3, 4": {"arch": "alexnet", "drop_layers": (3, 4)},
    "AlexNet without layer 7": {"arch": "alexnet", "drop_layers": (7,)},
    "AlexNet without layers 6, 7": {"arch": "alexnet", "drop_layers": (6, 7)},
    "AlexNet without layers 3, 4, 6, 7": {"arch": "alexnet", "drop_layers": (3, 4, 6, 7)},
    "AlexNet, layers 6, 7 of 2048": {"arch": "alexnet", "fc_units": 2048},
    "AlexNet, layers 6, 7 of 8192": {"arch": "alexnet", "fc_units": 8192},
    "ZFNet": {},
    "ZFNet, layers 6, 7 of 2048": {"fc_units": 2048},
    "ZFNet, layers 6, 7 of 8192": {"fc_units": 8192},
    f"ZFNet, {WIDE}": {"channels": (512, 1024, 512)},
    f"ZFNet, {WIDE}, and 6, 7 of 8192": {"channels": (512, 1024, 512), "fc_units": 8192},
}
NO_TREE = "No tree of images to train on; give ImageNet or a part of it with --data."
TOO_SMALL = "At this scale the run only shows that the code works."
ENSEMBLE = ("AlexNet", "ZFNet", f"ZFNet, {WIDE}")  # Table 2; their probabilities are cached
REPEATED = {"AlexNet": 2, "ZFNet": 5}  # rows with several seeds, and how many at most
FOLLOWED = ("ZFNet", 0)  # the training whose snapshots Figure 4 shows
SNAPSHOTS = 15  # of that training, at log-spaced steps
FIRST_SNAPSHOT = 0.05  # epochs
PAPER_SNAPSHOTS = (1, 2, 5, 10, 20, 30, 40, 64)  # epochs, Fig. 4


@dataclass(frozen=True)
class Plan:
    """The size of the trainings at one scale.

    Attributes:
        scale: "paper", "subset" or "smoke".
        classes: Number of evenly chosen classes; 0 for all; -1 for those of mini_imagenet.yaml.
        per_class: Training images per class and epoch; 0 for all.
        side: Side of the stored images, in pixels.
        size: Side of the crops.
        epochs: Number of epochs.
        batch: Batch size.
        lr: Learning rate.
        precision: Precision of the training.
        seeds: Number of seeds of the rows in REPEATED, at most; the other rows have one.
        held_out: Training images per class that are held out as test images, evenly spaced by
            name; 0 for the images of val/.
        views: Crops per image that Table 2 averages.
        parallel: Trainings at a time on a CPU.
    """

    scale: str
    classes: int
    per_class: int
    side: int
    size: int
    epochs: int
    batch: int
    lr: float
    precision: str
    seeds: int
    held_out: int
    views: int
    parallel: int = 1


# By --scale: "paper" trains by configs/imagenet.yaml, the others by configs/ablations.yaml.
PLANS = {
    "paper": Plan(
        "paper", classes=0, per_class=0, side=256, size=224, epochs=70, batch=128, lr=1e-2,
        precision="float32", seeds=5, held_out=0, views=10,
    ),
    # 12 epochs of all 14 trainings take 6 hours of two cores with AVX512-BF16, 8 if other programs
    # run. By a pilot with both cores busy, each trains from 95 (the widest ZFNet) to 530 images per
    # second (the smallest AlexNet). 30 epochs would be better, but take 15 to 20 hours.
    "subset": Plan(
        "subset", classes=-1, per_class=520, side=110, size=96, epochs=12, batch=128, lr=2e-2,
        precision="auto", seeds=2, held_out=50, views=10, parallel=2,
    ),
    "smoke": Plan(
        "smoke", classes=10, per_class=40, side=73, size=64, epochs=4, batch=64, lr=2e-2,
        precision="auto", seeds=1, held_out=0, views=1,
    ),
}  # fmt: skip
# Part of the figures' config.
SETTINGS = {"plans": {scale: asdict(plan) for scale, plan in PLANS.items()}, "rows": ROWS}


def plan_for(ctx: Context) -> Plan:
    """The plan of `--scale`, by default "subset"."""
    return PLANS[ctx.requested_scale or "subset"]


def trainings(plan: Plan) -> list[tuple[str, int]]:
    """The rows of Table 3 and their seeds."""
    return [(n, seed) for n in ROWS for seed in range(min(plan.seeds, REPEATED.get(n, 1)))]


def recipe(plan: Plan, name: str, seed: int) -> Config:
    """The training configuration of a row: that of the plan's scale, with the row's changes."""
    config = load_config(PAPER_RECIPE if plan.scale == "paper" else RECIPE)
    (stage,) = config.stages
    return replace(
        config,
        seed=seed,
        precision=plan.precision,
        model=replace(config.model, size=plan.size, **ROWS[name]),
        data=replace(config.data, per_class=plan.per_class),
        optim=replace(config.optim, batch=plan.batch, lr=plan.lr),
        stages=(replace(stage, epochs=plan.epochs, size=plan.size, side=plan.side),),
        snapshots=snapshots(plan) if (name, seed) == FOLLOWED else (),
    )


def snapshots(plan: Plan) -> tuple[float, ...]:
    """Epochs of the snapshots: the paper's, else log-spaced from within the first epoch."""
    if plan.scale == "paper":
        return PAPER_SNAPSHOTS
    epochs = np.geomspace(FIRST_SNAPSHOT, plan.epochs, SNAPSHOTS)
    return tuple(float(f"{epoch:.3g}") for epoch in epochs)
