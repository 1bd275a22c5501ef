"""One pass over a corpus: what every feature map says to every image, and what the classifier makes of it.

Kept in parts of a few images in the cache, so that an interrupted pass goes on where it was, and a finished one is read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Subset

from zfnet.analysis.responses import stream
from zfnet.attribution.base import logit_gradient
from zfnet.checkpoint import CheckpointError
from zfnet.data import no_progress
from zfnet.data.cache import Images
from zfnet.forward import evaluating, run
from zfnet.graph import chain, conv_layers
from zfnet.model import Network, device_of
from zfnet.tensor_file import read_tensors, write_tensors

PART = 128  # images: what an interruption costs
BINS = 48  # half octaves of a histogram
LOWEST = 2 * (
    127 - 10
)  # the float32 exponent and first bit of 2^-10: smaller activations count in the first bin
DENSE = 64  # positions along a side, beyond which the histogram counts every second row and column, or third, ...


@dataclass(frozen=True, eq=False)
class Table:
    """N images, each layer's C maps, K classes.

    `maximum[layer]` (N, C) float32 is over positions and `position[layer]` (N, C, 2) int16 its (row, column), the first in
    reading order. `counts[layer]` (C, 1 + BINS) int64 is a histogram of activations, every `step[layer]`-th row and column:
    zeros, then half octaves from 2^-10. `logits` (N, K). `target` (N,) is an image's class, or where it has none the most
    probable one, and `drive` (N, C) what each map of the last layer gives to that logit: gradient times activation, summed.
    """

    maximum: dict[str, Tensor]
    position: dict[str, Tensor]
    counts: dict[str, Tensor]
    step: dict[str, int]
    logits: Tensor
    target: Tensor
    drive: Tensor


def edges() -> list[float]:
    """The lower edges of the histogram's bins, after that of the zeros, and the last one's upper edge."""
    bits = torch.arange(LOWEST, LOWEST + BINS + 1, dtype=torch.int32) << 22
    return bits.view(torch.float32).tolist()


def tabulate(
    model: Network,
    images: Images,
    folder: Path,
    *,
    batch: int = 32,
    progress: Callable = no_progress,
) -> Table:
    """Pass the images through the network once, in parts of PART that are kept in `folder`. Raises as `stream`."""
    layers = conv_layers(chain(model, images.batch([0]).to(device_of(model))))
    starts = range(0, len(images), PART)
    parts = []
    for start in progress(starts, total=len(starts), desc="images"):
        path = folder / f"{start:07d}.safetensors"
        try:
            part = read_tensors(path)[0]
        except CheckpointError:  # not there, or damaged
            part = _part(model, images, range(start, min(start + PART, len(images))), layers, batch)
            write_tensors(path, part, {})
        parts.append(part)

    def joined(name: str) -> Tensor:
        return torch.cat([part[name] for part in parts])

    return Table(
        {layer: joined(f"{layer}.maximum") for layer in layers},
        {layer: joined(f"{layer}.position") for layer in layers},
        {layer: torch.stack([part[f"{layer}.counts"] for part in parts]).sum(0) for layer in layers},
        {layer: int(parts[0][f"{layer}.step"]) for layer in layers},
        joined("logits"), joined("target"), joined("drive"),
    )  # fmt: skip


def _part(
    model: Network, images: Images, chosen: range, layers: list[str], batch: int
) -> dict[str, Tensor]:
    gathered: dict[str, list[Tensor]] = {}
    done = 0
    for found in stream(model, Subset(images, chosen), layers, batch=batch):  # pyright: ignore[reportArgumentType]
        rows = {}
        for layer, maps in found.items():
            value, place = (
                maps.permute(0, 2, 3, 1).flatten(1, 2).max(1)
            )  # (B, C); max keeps the first
            rows[f"{layer}.maximum"] = value
            rows[f"{layer}.position"] = torch.stack(
                [place // maps.shape[3], place % maps.shape[3]], -1
            ).short()
            step = -(-maps.shape[2] // DENSE)
            rows[f"{layer}.counts"] = histogram(maps[:, :, ::step, ::step])[None]
            rows[f"{layer}.step"] = torch.tensor([step])
        last = found[layers[-1]]
        labels = torch.from_numpy(
            images.labels[chosen.start + done : chosen.start + done + len(last)]
        )
        rows |= dict(
            zip(("logits", "target", "drive"), decide(model, layers[-1], last, labels), strict=True)
        )
        done += len(last)
        for name, row in rows.items():
            gathered.setdefault(name, []).append(row.cpu())
    part = {name: torch.cat(rows) for name, rows in gathered.items()}
    for layer in layers:
        part |= {
            f"{layer}.counts": part[f"{layer}.counts"].sum(0),
            f"{layer}.step": part[f"{layer}.step"][0],
        }
    return part


def histogram(maps: Tensor) -> Tensor:
    """How many activations of each rectified map (B, C, H, W) are zero, and lie in each half octave: (C, 1 + BINS) int64.

    The bins are the floats that agree in exponent and first bit; what lies beyond the first or last counts there.
    """
    values = maps.permute(0, 2, 3, 1).flatten(0, 2).contiguous()  # (B H W, C)
    level = (values.view(torch.int32) >> 22) - (LOWEST - 1)
    level = level.clamp_(1, BINS).masked_fill_(values <= 0, 0)
    level += torch.arange(maps.shape[1], dtype=torch.int32, device=maps.device) * (1 + BINS)
    return torch.bincount(level.flatten(), minlength=maps.shape[1] * (1 + BINS)).view(-1, 1 + BINS)


def decide(
    model: Network, layer: str, maps: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    r"""From a layer's maps (B, C, H, W) to logits (B, K), the target class (B,), and what each map gives to its logit (B, C).

    $\sum_{ij} a_{cij} \, \partial S / \partial a_{cij}$: with a network that is piecewise linear above the layer, the maps'
    shares and those of the biases add up to the logit S. `labels` below 0 mean the most probable class.
    """
    steps = chain(model, maps)
    above = steps[1 + next(i for i, step in enumerate(steps) if step.layer == layer) :]
    with evaluating(model), torch.enable_grad():
        leaf = maps.detach().contiguous().requires_grad_()
        logits = run(above, leaf, keep=(), switches=False).output
        labels = labels.to(logits.device)
        target = torch.where(labels < 0, logits.argmax(1), labels)
        share = (logit_gradient(logits, target, leaf) * leaf).sum((2, 3))
    return logits.detach(), target, share.detach()
