"""One pass over a corpus: the responses of every feature map, and the network's predictions.

The pass is cached in parts of a few images, so that an interrupted pass continues.
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
from zfnet.data.dataset import Images
from zfnet.data.tensor_file import read_tensors, write_tensors
from zfnet.forward import run
from zfnet.graph import chain, conv_layers
from zfnet.model import Network, evaluating

PART = 128  # images per cached part
BINS = 48  # of the histogram, half an octave each
LOWEST = 2 * (127 - 10)  # float32 exponent and first mantissa bit of 2^-10, the lowest bin
MAX_SIDE = 64  # positions per side in the histogram; larger maps are subsampled


@dataclass(frozen=True, eq=False)
class Table:
    """The responses of a network to N images. A layer has C maps, and the network K classes.

    Attributes:
        maximum: By layer, the largest activation of each map, float32 (N, C).
        position: By layer, its (row, column), the first in reading order, int16 (N, C, 2).
        counts: By layer, the histogram of the activations of each map, int64 (C, 1 + BINS): the
            zeros, then half octaves from 2^-10.
        step: By layer, the subsampling of rows and columns in the histogram.
        logits: (N, K).
        target: The class of each image, or its predicted class if it has no label, (N,).
        drive: Gradient of the target's logit times activation of each map of the last layer,
            summed over positions, (N, C).
    """

    maximum: dict[str, Tensor]
    position: dict[str, Tensor]
    counts: dict[str, Tensor]
    step: dict[str, int]
    logits: Tensor
    target: Tensor
    drive: Tensor


def edges() -> list[float]:
    """The BINS + 1 edges of the histogram's bins, without the bin of the zeros."""
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
    """Run the network on all images, part by part.

    Args:
        model: The network.
        images: The corpus.
        folder: Cache of the parts.
        batch: Images per forward pass.
        progress: Wraps the iterable of parts, as tqdm does.
    """
    layers = conv_layers(chain(model))
    starts = range(0, len(images), PART)
    parts = []
    for start in progress(starts, total=len(starts), desc="images"):
        path = folder / f"{start:07d}.safetensors"
        try:
            part = read_tensors(path)[0]
        except CheckpointError:  # missing or damaged
            chosen = range(start, min(start + PART, len(images)))
            part = _compute_part(model, images, chosen, layers, batch)
            write_tensors(path, part, {})
        parts.append(part)

    def join(name: str) -> Tensor:
        return torch.cat([part[name] for part in parts])

    def total(name: str) -> Tensor:
        return torch.stack([part[name] for part in parts]).sum(0)

    return Table(
        maximum={layer: join(f"{layer}.maximum") for layer in layers},
        position={layer: join(f"{layer}.position") for layer in layers},
        counts={layer: total(f"{layer}.counts") for layer in layers},
        step={layer: int(parts[0][f"{layer}.step"]) for layer in layers},
        logits=join("logits"),
        target=join("target"),
        drive=join("drive"),
    )


def _compute_part(
    model: Network, images: Images, chosen: range, layers: list[str], batch: int
) -> dict[str, Tensor]:
    gathered: dict[str, list[Tensor]] = {}
    start = chosen.start
    subset = Subset(images, chosen)  # pyright: ignore[reportArgumentType]
    batches = stream(model, subset, layers, batch=batch)
    for activations in batches:
        rows: dict[str, Tensor] = {}
        for layer, maps in activations.items():
            rows |= {f"{layer}.{name}": value for name, value in _summarize(maps).items()}
        last = activations[layers[-1]]
        labels = torch.from_numpy(images.labels[start : start + len(last)])
        start += len(last)
        logits, target, drive = decide(model, layers[-1], last, labels)
        rows |= {"logits": logits, "target": target, "drive": drive}
        for name, row in rows.items():
            gathered.setdefault(name, []).append(row.cpu())
    part = {name: torch.cat(rows) for name, rows in gathered.items()}
    for layer in layers:
        part[f"{layer}.counts"] = part[f"{layer}.counts"].sum(0)
        part[f"{layer}.step"] = part[f"{layer}.step"][0]
    return part


def _summarize(maps: Tensor) -> dict[str, Tensor]:
    """The maxima, their positions and the histogram of a batch of maps (B, C, H, W)."""
    by_position = maps.permute(0, 2, 3, 1).flatten(1, 2)  # (B, H W, C)
    value, place = by_position.max(1)  # (B, C); the first of equal maxima
    position = torch.stack([place // maps.shape[3], place % maps.shape[3]], -1)
    step = -(-maps.shape[2] // MAX_SIDE)
    return {
        "maximum": value,
        "position": position.short(),
        "counts": histogram(maps[:, :, ::step, ::step])[None],
        "step": torch.tensor([step]),
    }


def histogram(maps: Tensor) -> Tensor:
    """Count the activations of each map per bin.

    A bin holds the floats with the same exponent and first mantissa bit. The first and the last
    bin also hold what lies beyond them.

    Args:
        maps: Rectified maps (B, C, H, W).

    Returns:
        The number of zeros, then of values per half octave, int64 (C, 1 + BINS).
    """
    values = maps.permute(0, 2, 3, 1).flatten(0, 2).contiguous()  # (B H W, C)
    level = (values.view(torch.int32) >> 22) - (LOWEST - 1)
    level = level.clamp_(1, BINS).masked_fill_(values <= 0, 0)
    level += torch.arange(maps.shape[1], dtype=torch.int32, device=maps.device) * (1 + BINS)
    return torch.bincount(level.flatten(), minlength=maps.shape[1] * (1 + BINS)).view(-1, 1 + BINS)


def decide(
    model: Network, layer: str, maps: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Run the network above a layer, and attribute the logit to the layer's maps.

    The attribution of map c is $\sum_{ij} a_{cij} \, \partial S / \partial a_{cij}$. In a network
    that is piecewise linear above the layer, these and the biases' shares sum to the logit S.

    Args:
        model: The network.
        layer: The layer of `maps`.
        maps: Its activations (B, C, H, W).
        labels: The class of each image (B,). Below 0, the predicted class is used.

    Returns:
        The logits (B, K), the classes (B,), and the attributions (B, C).
    """
    steps = chain(model)
    above = steps[1 + next(i for i, step in enumerate(steps) if step.layer == layer) :]
    with evaluating(model), torch.enable_grad():
        leaf = maps.detach().contiguous().requires_grad_()
        logits = run(above, leaf, keep=(), switches=False).output
        labels = labels.to(logits.device)
        target = torch.where(labels < 0, logits.argmax(1), labels)
        share = (logit_gradient(logits, target, leaf) * leaf).sum((2, 3))
    return logits.detach(), target, share.detach()
