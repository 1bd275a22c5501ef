"""The rows of Table 3 and their trainings at each scale, for Tables 2 and 3 and Figure 6."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np

from reproduce import REPOSITORY
from reproduce.core.context import Context
from zfnet.data.dataset import Images
from zfnet.data.folders import load_files
from zfnet.data.labels import class_names
from zfnet.data.tree import scan
from zfnet.training.config import Config, load_config

RECIPE = REPOSITORY / "configs" / "ablations.yaml"
PAPER_RECIPE = REPOSITORY / "configs" / "imagenet.yaml"
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
ENSEMBLE = ("AlexNet", "ZFNet", f"ZFNet, {WIDE}")  # Table 2; their probabilities are cached


@dataclass(frozen=True)
class Plan:
    """The size of the trainings at one scale.

    Attributes:
        scale: "paper", "subset" or "smoke".
        classes: Number of evenly chosen classes; 0 for all.
        per_class: Training images per class and epoch; 0 for all.
        side: Side of the stored images, in pixels.
        size: Side of the crops.
        epochs: Number of epochs.
        batch: Batch size.
        lr: Learning rate.
        precision: Precision of the training.
        seeds: Number of seeds per row of Table 3, at most.
        minutes: The time after which Table 3 starts no further seed; 0 for one seed.
        views: Crops per image that Table 2 averages.
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
    minutes: float
    views: int


# By --scale: "paper" trains by configs/imagenet.yaml, the others by configs/ablations.yaml.
PLANS = {
    "paper": Plan(
        "paper", classes=0, per_class=0, side=256, size=224, epochs=70, batch=128, lr=1e-2,
        precision="float32", seeds=5, minutes=0, views=10,
    ),
    "subset": Plan(
        "subset", classes=0, per_class=40, side=146, size=128, epochs=20, batch=128, lr=1e-2,
        precision="auto", seeds=5, minutes=20, views=10,
    ),
    "smoke": Plan(
        "smoke", classes=100, per_class=40, side=128, size=112, epochs=32, batch=64, lr=2e-2,
        precision="auto", seeds=1, minutes=0, views=1,
    ),
}  # fmt: skip
# Part of the figures' config.
SETTINGS = {"plans": {scale: asdict(plan) for scale, plan in PLANS.items()}, "rows": ROWS}


def plan_for(ctx: Context) -> Plan:
    """The plan of `--scale`; by default "subset" on a GPU and "smoke" on a CPU.

    "paper" takes weeks, and has to be requested.
    """
    return PLANS[ctx.requested_scale or ("subset" if ctx.device_type == "cuda" else "smoke")]


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
        snapshots=(),
    )


def load_images(ctx: Context, plan: Plan) -> dict[str, Images]:
    """The "train" and "val" images of a plan."""
    return {split: load_split(ctx, plan, split) for split in ("train", "val")}


def load_split(ctx: Context, plan: Plan, split: str) -> Images:
    """The images of a split, of the plan's number of evenly chosen classes."""
    assert ctx.tree is not None
    root = ctx.tree / split
    folders, files, labels = scan(root)
    chosen = np.arange(len(folders))
    if plan.classes and plan.classes < len(folders):
        chosen = np.linspace(0, len(folders) - 1, plan.classes).astype(int)
    rows = np.flatnonzero(np.isin(labels, chosen))
    names = class_names(folders)
    return load_files(
        root,
        [files[i] for i in rows],
        np.searchsorted(chosen, labels[rows]),
        [names[i] for i in chosen],
        [folders[i] for i in chosen],
        side=plan.side,
        size=plan.size,
        progress=ctx.progress,
    )
