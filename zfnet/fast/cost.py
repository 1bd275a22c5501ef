"""Predict whether incremental passes for an occluder are faster than full passes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from zfnet.receptive_field import Window

if TYPE_CHECKING:
    from zfnet.fast.incremental import Incremental

# Multiply-adds in the time of moving one number through memory, on two cores with AVX-512.
VALUE = 160
# Multiply-adds in the time of one call of a layer for one group of windows. A GPU's is an estimate,
# not measured: 0.15 ms to launch its kernels and to send the windows, at 30e12 per second.
CALL = {"cpu": 2e7, "cuda": 5e9}


def predict(network: Incremental, boxes: Tensor, batch: int) -> tuple[float, int]:
    """Predict the cost of the incremental pass.

    Counts multiply-adds, numbers moved through memory (each worth `VALUE` multiply-adds), and calls
    (worth `CALL`).

    Args:
        network: The incremental pass.
        boxes: The positions of the occluder (P, 4).
        batch: Whole images that fit into memory.

    Returns:
        The time for all boxes as a share of the time of whole passes, and how many positions at
        once take no more memory than `batch` whole images.
    """
    window, count = Window(boxes[:, :2], boxes[:, 2:]), len(boxes)
    work = whole = calls = 0.0
    most = most_whole = 1.0
    shapes = network.shapes
    for stage, (below, size_below), (channels, size) in zip(
        network.stages, shapes[:-1], shapes[1:], strict=True
    ):
        window = window.above(stage.module, size)  # pyright: ignore[reportArgumentType]
        read = window.below(stage.module).size.prod(1) * below  # pyright: ignore[reportArgumentType]
        cells, all_cells = window.size.prod(1), size[0] * size[1]
        written = cells * channels * (len(stage.steps) + 1)
        work += float((cells * stage.multiplications() + VALUE * (read + written)).sum())
        whole += count * all_cells * (stage.multiplications() + VALUE * channels * len(stage.steps))
        calls += len(torch.unique(window.size, dim=0))
        most = max(most, float((read + written).max()))
        most_whole = max(most_whole, below * size_below[0] * size_below[1] + all_cells * channels)
    last_size = shapes[-1][1]
    share = float(window.size.prod(1).double().mean()) / (last_size[0] * last_size[1])
    dense = [
        step.module.weight.numel() for step in network.tail if isinstance(step.module, nn.Linear)
    ]
    work += count * (sum(dense) - dense[0] * (1 - share) if network.flat else sum(dense))
    whole += count * sum(dense)
    positions = max(1, min(count, int(batch * most_whole / most)))
    chunks, batches = -(-count // positions), -(-count // batch)
    call = CALL["cpu" if boxes.device.type == "cpu" else "cuda"]
    return (work + call * calls * chunks) / (
        whole + call * len(network.stages) * batches
    ), positions
