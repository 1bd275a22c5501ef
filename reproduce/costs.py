"""How long figures take: from the multiply-adds of their trainings, or from a committed record.

A training costs 2 x 3 floating-point operations per multiply-add of the forward pass, for each
image. The backward pass computes two gradients, of the inputs and of the weights, each as
expensive as the forward pass. A search costs the forward pass only.
"""

from __future__ import annotations

import functools
from dataclasses import asdict, replace

import torch

from reproduce import FIGURES
from reproduce.core.context import Context
from reproduce.core.figure import Figure
from reproduce.core.record import Record, read_record
from reproduce.paper import ablations, fig6_filters, filter_training
from reproduce.paper.ablation_images import mini_imagenet
from reproduce.paper.ablations import ENSEMBLE, Plan
from zfnet.model import ARCHITECTURES, describe
from zfnet.training.config import Config, load_config

TRAIN, CLASSES = 1_281_167, 1000  # training images and classes of ImageNet 2012
FORWARD, TRAINING = 2, 6  # floating-point operations per multiply-add
GTX_580_DAYS = 12  # section 3 of the paper: 70 epochs on one GTX 580
GPU_FLOPS = 10e12  # assumed for a current GPU in float32; `zfnet train --dry-run` measures yours
SPEEDS = "training images"  # begins the name of the speeds in the record of Table 3


def multiply_adds(config: Config) -> int:
    """Multiply-adds of one forward pass on one image, at the size of the last stage."""
    options = asdict(config.model)
    options["size"] = config.stages[-1].size
    with torch.device("meta"):
        network = ARCHITECTURES[options.pop("arch")](classes=CLASSES, **options)
    return sum(row.macs for row in describe(network))


def training_operations(config: Config, images: int) -> float:
    """Floating-point operations of a training with `images` images per epoch."""
    epochs = sum(stage.epochs for stage in config.stages)
    return float(TRAINING * multiply_adds(config) * images * epochs)


@functools.cache
def paper_training() -> float:
    """Floating-point operations of configs/imagenet.yaml, the network of the paper."""
    return training_operations(load_config(ablations.PAPER_RECIPE), TRAIN)


def gtx_580_flops() -> float:
    """Floating-point operations per second of the authors' GPU, from their 12 days of training."""
    return paper_training() / (GTX_580_DAYS * 86400)


def cpu_flops() -> float:
    """Operations per second of a CPU in training, from the speed in the record of Table 3."""
    record = committed_record("tab3")
    assert record is not None
    plans = record.config.get("plans", {"smoke": {"size": 112}})  # of records without plans
    size = plans[record.scale]["size"]
    config = ablations.recipe(replace(ablations.PLANS["subset"], size=size), "ZFNet", 0)
    speeds = next(of for name, of in record.measured.items() if name.startswith(SPEEDS))
    return TRAINING * multiply_adds(config) * speeds["ZFNet"]


def committed_record(figure_id: str) -> Record | None:
    """The first committed record of a figure on images beyond the samples, with our network."""
    for path in sorted(FIGURES.glob(f"*/{figure_id}/result.json")):
        record = read_record(path.parent) if "@" not in str(path) else None
        if record and record.verdict != "not run" and record.scale != "samples":
            return record
    return None


def trainings(figure: Figure, scale: str) -> list[Config]:
    """The trainings of Table 2, Table 3 or Figure 6 at a scale."""
    plan = _plan(figure, scale)
    if figure.id == "fig6":
        rows = [(name, figure.seed) for name in fig6_filters.RUNS.values()]
    elif figure.id == "tab3":
        rows = ablations.trainings(plan)
    elif figure.id == "tab2":
        rows = [row for row in ablations.trainings(plan) if row[0] in ENSEMBLE]
    else:
        rows = []
    return [ablations.recipe(plan, name, seed) for name, seed in rows]


def _plan(figure: Figure, scale: str) -> Plan:
    return (filter_training.PLANS if figure.id == "fig6" else ablations.PLANS)[scale]


def operations(figure: Figure, scale: str, classes: int = CLASSES, train: int = TRAIN) -> float:
    """Floating-point operations of a figure with `scales`.

    Args:
        figure: Table 2, Table 3, Figure 4 or Figure 6.
        scale: The value of `--scale`.
        classes: Classes of the tree of images.
        train: Training images of the tree.
    """
    if figure.id == "fig4":
        config = ablations.recipe(ablations.PLANS[scale], *ablations.FOLLOWED)
        searched = min(figure.config["images"][scale] or train, train)
        return float(FORWARD * multiply_adds(config) * searched * len(config.snapshots))
    plan = _plan(figure, scale)
    listed = len(mini_imagenet()) if plan.classes < 0 else plan.classes
    used = min(listed or classes, classes)
    images = min(used * plan.per_class, train) if plan.per_class else train
    configs = trainings(figure, scale)
    return sum(training_operations(config, images) for config in configs)


def default_scale(figure: Figure, context: Context) -> str:
    """The scale at which a figure with `scales` is made."""
    return ablations.plan_for(context).scale


def estimate(figure: Figure, context: Context) -> tuple[float, str]:
    """Seconds that a figure takes, and their source. `--scale paper` assumes all of ImageNet."""
    if figure.scales and (context.tree or context.requested_scale == "paper"):
        rate, source = GPU_FLOPS, f"{GPU_FLOPS / 1e12:.0f} TFLOP/s, assumed"
        if context.device_type == "cpu":
            rate, source = cpu_flops(), "Table 3's speed on a CPU"
        size = (CLASSES, TRAIN)
        if context.requested_scale != "paper":
            size = context.tree_size[:2]
        scale = default_scale(figure, context)
        return operations(figure, scale, *size) / rate, source
    record = committed_record(figure.id)
    if record and (context.data or figure.corpus or "images" not in figure.inputs):
        return record.seconds, f"record on {record.inputs['corpus']}"
    return figure.time_budget, "time budget"
