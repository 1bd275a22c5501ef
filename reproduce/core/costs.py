"""How long figures take: from the multiply-adds of their trainings, or from the seconds in a committed record.

A training costs 2 x 3 floating-point operations per multiply-add of the forward pass and image: the backward pass computes
two gradients, of the inputs and of the weights, each as expensive as the forward pass. A search costs the forward pass only.
"""

from __future__ import annotations

import functools

import torch

from reproduce import REPOSITORY
from reproduce.core.context import Context
from reproduce.core.figure import Figure
from reproduce.core.record import Record, read_record
from reproduce.paper import ablations, fig4_evolution, fig6_filters
from reproduce.paper.ablations import ENSEMBLE, ROWS, Plan
from zfnet.model import ARCHITECTURES
from zfnet.summary import describe
from zfnet.training.config import Config, load_config

TRAIN, VAL, CLASSES = 1_281_167, 50_000, 1000  # images and classes of ImageNet 2012
FORWARD, TRAINING = 2, 6  # floating-point operations per multiply-add
GTX_580_DAYS = 12  # section 3 of the paper: 70 epochs on one GTX 580
GPU_FLOPS = (
    10e12  # assumed: what a current GPU sustains in float32; `zfnet train --dry-run` measures yours
)
FIGURES = REPOSITORY / "figures"


@functools.cache
def multiply_adds(config: Config) -> int:
    """Multiply-adds of one forward pass of a configuration's network on one image, at the size of its last stage."""
    options = {name: value for name, value in vars(config.model).items() if name != "arch"}
    options["size"] = config.stages[-1].size
    with torch.device("meta"):
        network = ARCHITECTURES[config.model.arch](classes=CLASSES, **options)
    return sum(row.macs for row in describe(network))


def training_operations(config: Config, images: int) -> float:
    """Floating-point operations of a training on `images` images per epoch."""
    return float(
        TRAINING * multiply_adds(config) * images * sum(stage.epochs for stage in config.stages)
    )


@functools.cache
def paper_training() -> float:
    """Floating-point operations of configs/imagenet.yaml, the network of the paper."""
    return training_operations(load_config(ablations.PAPER_RECIPE), TRAIN)


def gtx_580_flops() -> float:
    """What the authors' GPU sustained: the operations of their training over its 12 days."""
    return paper_training() / (GTX_580_DAYS * 86400)


def record_of(figure_id: str) -> Record | None:
    """The committed record of a figure that was run, on whichever data."""
    records = (
        read_record(path.parent)
        for path in sorted(FIGURES.glob(f"*/{figure_id}/result.json"))
        if "@" not in str(path)
    )
    return next(
        (
            record
            for record in records
            if record and record.verdict != "not run" and record.scale != "samples"
        ),
        None,
    )


def cpu_flops() -> float:
    """What a CPU sustained in training, by the images per second in the committed record of Table 3."""
    record = record_of("tab3")
    assert record is not None
    speed = record.measured["training images a second, each row at its time"]["ZFNet"]
    return TRAINING * multiply_adds(ablations.recipe(ablations.PLANS["smoke"], "ZFNet", 0)) * speed


def trainings(figure: Figure, scale: str, kind: str) -> list[Config]:
    """The trainings of Table 2, Table 3 or Figure 6 at a scale, on a "cuda" or "cpu" device."""
    if figure.id == "fig6":
        plan = fig6_filters.PLANS[scale, kind]
        return [
            ablations.recipe(plan, row, fig6_filters.FIGURE.seed)
            for row, _ in fig6_filters.RUNS.values()
        ]
    plan = ablations.PLANS[scale]
    if figure.id == "tab3":
        return [ablations.recipe(plan, name, 0) for name in ROWS]  # of one seed
    if figure.id == "tab2":
        others = [name for name in ENSEMBLE if name != "ZFNet"]
        rows = [("ZFNet", seed) for seed in range(plan.seeds)] + [(name, 0) for name in others]
        return [ablations.recipe(plan, *row) for row in rows]
    return []


def operations(figure: Figure, scale: str, kind: str, classes: int, train: int) -> float:
    """Floating-point operations of a figure with `scales`, on a tree of so many classes and training images."""
    if figure.id == "fig4":
        searched = fig4_evolution.FIGURE.config["images"][scale] or train
        snapshots = len(fig4_evolution.FIGURE.paper["epochs shown"])
        return float(
            FORWARD
            * multiply_adds(load_config(ablations.PAPER_RECIPE))
            * min(searched, train)
            * snapshots
        )
    plan = _plan(figure, scale, kind)
    used = min(plan.classes or classes, classes)
    images = min(used * plan.per_class, train) if plan.per_class else train
    return sum(training_operations(config, images) for config in trainings(figure, scale, kind))


def _plan(figure: Figure, scale: str, kind: str) -> Plan:
    return fig6_filters.PLANS[scale, kind] if figure.id == "fig6" else ablations.PLANS[scale]


def scale_of(figure: Figure, context: Context) -> str:
    """The scale at which a figure that trains would be made: the requested one, else the device's."""
    if figure.id in ("fig4", "fig6"):
        return context.requested_scale or "subset"
    return ablations.plan_for(context).scale


def estimate(figure: Figure, context: Context) -> tuple[float, str]:
    """Seconds that a figure takes, and what they are estimated from."""
    if figure.scales and context.tree is not None:
        classes, train, _ = context.tree_size
        rate, source = (
            (GPU_FLOPS, "10 TFLOP/s assumed")
            if context.device_type == "cuda"
            else (cpu_flops(), "tab3's images/s on a CPU")
        )
        return operations(
            figure, scale_of(figure, context), context.device_type, classes, train
        ) / rate, source
    record = record_of(figure.id)
    if record and (context.data or figure.corpus or "images" not in figure.inputs):
        return record.seconds, f"record on {record.inputs['corpus']}"
    return figure.time_budget, "time budget"
