"""Estimate the time of figures from the multiply-adds of their trainings, or from a record.

A training costs 2 x 3 floating-point operations per multiply-add of the forward pass, for each
image. The backward pass computes two gradients, of the inputs and of the weights, each as
expensive as the forward pass. A search costs the forward pass only.
"""

from __future__ import annotations

import functools
from dataclasses import asdict

import torch

from reproduce import FIGURES
from reproduce.core.context import Context
from reproduce.core.figure import Figure
from reproduce.core.record import Record, read_record
from reproduce.paper import ablations, fig4_evolution, fig6_filters
from reproduce.paper.ablations import ENSEMBLE, ROWS, Plan
from zfnet.model import ARCHITECTURES, describe
from zfnet.training.config import Config, load_config

TRAIN, CLASSES = 1_281_167, 1000  # training images and classes of ImageNet 2012
FORWARD, TRAINING = 2, 6  # floating-point operations per multiply-add
GTX_580_DAYS = 12  # section 3 of the paper: 70 epochs on one GTX 580
GPU_FLOPS = 10e12  # assumed for a current GPU in float32; `zfnet train --dry-run` measures yours
SPEEDS = "training images a second, each row at its time"  # in the record of Table 3


def multiply_adds(config: Config) -> int:
    """Return the multiply-adds of a forward pass on one image of the last stage's size."""
    options = asdict(config.model)
    options["size"] = config.stages[-1].size
    with torch.device("meta"):
        network = ARCHITECTURES[options.pop("arch")](classes=CLASSES, **options)
    return sum(row.macs for row in describe(network))


def training_operations(config: Config, images: int) -> float:
    """Return the floating-point operations of a training with `images` images per epoch."""
    epochs = sum(stage.epochs for stage in config.stages)
    return float(TRAINING * multiply_adds(config) * images * epochs)


@functools.cache
def paper_training() -> float:
    """Return the floating-point operations of configs/imagenet.yaml, the network of the paper."""
    return training_operations(load_config(ablations.PAPER_RECIPE), TRAIN)


def gtx_580_flops() -> float:
    """Return the operations per second of the authors' GPU, from their 12 days of training."""
    return paper_training() / (GTX_580_DAYS * 86400)


def cpu_flops() -> float:
    """Return the operations per second of a CPU in training, from the record of Table 3."""
    record = committed_record("tab3")
    assert record is not None
    config = ablations.recipe(ablations.PLANS["smoke"], "ZFNet", 0)
    return TRAINING * multiply_adds(config) * record.measured[SPEEDS]["ZFNet"]


def committed_record(figure_id: str) -> Record | None:
    """Return the first committed record of a figure with our network, except on the samples."""
    for path in sorted(FIGURES.glob(f"*/{figure_id}/result.json")):
        record = read_record(path.parent) if "@" not in str(path) else None
        if record and record.verdict != "not run" and record.scale != "samples":
            return record
    return None


def trainings(figure: Figure, scale: str, device_type: str) -> list[Config]:
    """Return the trainings of Table 2, Table 3 or Figure 6 at a scale, on "cuda" or "cpu"."""
    plan = _plan(figure, scale, device_type)
    if figure.id == "fig6":
        rows = [(name, figure.seed) for name, _ in fig6_filters.RUNS.values()]
    elif figure.id == "tab3":
        rows = [(name, 0) for name in ROWS]  # one seed
    elif figure.id == "tab2":
        rows = [("ZFNet", seed) for seed in range(plan.seeds)]
        rows += [(name, 0) for name in ENSEMBLE if name != "ZFNet"]
    else:
        rows = []
    return [ablations.recipe(plan, name, seed) for name, seed in rows]


def _plan(figure: Figure, scale: str, device_type: str) -> Plan:
    if figure.id == "fig6":
        return fig6_filters.PLANS[scale, device_type]
    return ablations.PLANS[scale]


def operations(
    figure: Figure, scale: str, device_type: str, classes: int = CLASSES, train: int = TRAIN
) -> float:
    """Return the floating-point operations of a figure with `scales`.

    Args:
        figure: Table 2, Table 3, Figure 4 or Figure 6.
        scale: The value of `--scale`.
        device_type: "cuda" or "cpu".
        classes: Number of classes in the image folder.
        train: Number of training images in the image folder.
    """
    if figure.id == "fig4":
        searched = min(figure.config["images"][scale] or train, train)
        snapshots = len(fig4_evolution.FIGURE.paper["epochs shown"])
        macs = multiply_adds(load_config(ablations.PAPER_RECIPE))
        return float(FORWARD * macs * searched * snapshots)
    plan = _plan(figure, scale, device_type)
    used = min(plan.classes or classes, classes)
    images = min(used * plan.per_class, train) if plan.per_class else train
    configs = trainings(figure, scale, device_type)
    return sum(training_operations(config, images) for config in configs)


def default_scale(figure: Figure, context: Context) -> str:
    """Return the scale of a figure with `scales`: the requested one, or that of the device."""
    if figure.id in ("fig4", "fig6"):
        return context.requested_scale or "subset"
    return ablations.plan_for(context).scale


def estimate(figure: Figure, context: Context) -> tuple[float, str]:
    """Return the estimated seconds and their source. `--scale paper` assumes all of ImageNet."""
    if figure.scales and (context.tree or context.requested_scale == "paper"):
        rate, source = GPU_FLOPS, f"{GPU_FLOPS / 1e12:.0f} TFLOP/s, assumed"
        if context.device_type == "cpu":
            rate, source = cpu_flops(), "Table 3's speed on a CPU"
        size = (CLASSES, TRAIN)
        if context.requested_scale != "paper":
            size = context.tree_size[:2]
        scale = default_scale(figure, context)
        return operations(figure, scale, context.device_type, *size) / rate, source
    record = committed_record(figure.id)
    if record and (context.data or figure.corpus or "images" not in figure.inputs):
        return record.seconds, f"record on {record.inputs['corpus']}"
    return figure.time_budget, "time budget"
