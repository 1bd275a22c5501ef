"""The three trainings of Figure 6, and what is kept of each."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

import zfnet
from reproduce.core.context import Context
from reproduce.paper import ablations
from reproduce.paper import filter_statistics as stats
from reproduce.paper.ablation_images import load_images
from reproduce.paper.ablations import Plan, recipe
from reproduce.paper.trained_rows import save_arrays, train_in
from zfnet.analysis.statistics import population
from zfnet.data.cache import cache_dir, digest
from zfnet.data.dataset import Images
from zfnet.model import Network
from zfnet.plot import enlarge, photograph, projection_image
from zfnet.projection import patches_inside
from zfnet.ranking import Top
from zfnet.training.config import Config, to_dict
from zfnet.training.evaluate import evaluate
from zfnet.training.loop import DivergedError
from zfnet.training.setup import new_model

PLANS = {  # by scale: each training's size
    "paper": ablations.PLANS["paper"],
    # 30 epochs of the three networks take 3.5 hours of two cores with AVX512-BF16, 5 if other
    # programs run. By a pilot, a core trains 235 (ZFNet) or 305 (AlexNet) images per second.
    "subset": replace(ablations.PLANS["subset"], epochs=30, lr=5e-3),
    "smoke": replace(ablations.PLANS["smoke"], epochs=2, batch=16, lr=5e-3, precision="float32"),
}
LAYER = "conv2"
FEATURES = 8  # of layer 2 that are drawn
K = 9  # strongest images of each
TILE = 48  # pixels of a drawn patch
HIGH = 0.25  # cycles per pixel
SNAPSHOTS = 12  # epochs whose filters are kept, log-spaced
VERSION = 1  # raise it when the cached file holds something else
Arrays = dict[str, np.ndarray]


def training_config(plan: Plan, row: str, limit: float, seed: int) -> Config:
    """The recipe of a row with the paper's inputs, initial weights and crops.

    Args:
        plan: The size of the training.
        row: The network, a row of Table 3.
        limit: The RMS at which filters are clipped; 0 for none.
        seed: Seed of the training.
    """
    config = recipe(plan, row, seed)
    epochs = np.unique(np.geomspace(1, plan.epochs, SNAPSHOTS).round())
    return replace(
        config,
        model=replace(config.model, input="paper", init="paper"),
        augment=replace(config.augment, crops="paper"),
        optim=replace(config.optim, clip_rms=limit),
        snapshots=tuple(epochs.tolist()),
    )


def result_path(config: Config, images: dict[str, Images]) -> Path:
    """The file of a training in the cache."""
    digests = (part.digest for part in images.values())
    key = digest(to_dict(config), FEATURES, K, HIGH, VERSION, *digests)
    return cache_dir() / f"fig6-{key[:20]}.npz"


def train_missing(model: str, data: str, plan: Plan, row: str, limit: float, seed: int) -> None:
    """Train a network in a separate process."""
    ctx = Context(model, data)
    with torch.no_grad():
        train_filters(ctx, load_images(ctx, plan), training_config(plan, row, limit, seed))


def train_filters(ctx: Context, images: dict[str, Images], config: Config) -> Arrays:
    """Train a network, or load it from the cache, and analyze its filters.

    Returns:
        The arrays of `analyze`; "epochs" (E,) and layer 1's "filters" (E, M, 3, k, k) after these;
        "initial", the filters before the first step; "error", top-1; "diverged", where it diverged.

    Raises:
        DivergedError: The training diverged before its first snapshot.
    """
    path = result_path(config, images)
    folder = path.with_suffix("")
    if not path.exists():
        diverged = train_in(folder, config, images, ctx.device)
        snapshots = sorted((folder / "snapshots").glob("*.safetensors"))
        if not snapshots:
            raise DivergedError(f"{config.model.arch}, limit {config.optim.clip_rms:g}: {diverged}")
        networks = [zfnet.load(snapshot) for snapshot in snapshots]
        last, val = networks[-1].to(ctx.device), images["val"]
        save_arrays(
            path,
            epochs=np.array([float(p.stem.removeprefix("epoch-")) for p in snapshots]),
            filters=np.stack([_filters(network) for network in networks]),
            initial=initial_filters(config, images["train"]),
            error=np.array(evaluate(last, val).top1),
            diverged=np.array(diverged),
            **analyze(last, val, config.seed),
        )
        shutil.rmtree(folder)
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def initial_filters(config: Config, images: Images) -> np.ndarray:
    """Layer 1's filters before the first step, drawn as `zfnet.training.loop.train` does."""
    with torch.random.fork_rng([]):
        torch.manual_seed(config.seed)
        return _filters(new_model(config, images))


def _filters(model: Network) -> np.ndarray:
    weight = cast(torch.nn.Conv2d, model.get_submodule("conv1")).weight
    return weight.detach().cpu().numpy()


def analyze(model: Network, val: Images, seed: int) -> Arrays:
    """Maps that no image excites, and the projections of layer 2's interior units.

    Returns:
        "dead.conv1" and "dead.conv2"; "high", the share of high frequencies in the projection of
        each excited map's strongest unit; "projections" and "patches" (F, 9, TILE, TILE, 3) of the
        nine strongest units of F random excited maps; their "channels".
    """
    excited = population(model, val, ("conv1", LAYER))
    top = interior_top(model, val, LAYER, K)
    alive = torch.where(top.value[:, 0] > 0)[0]
    high = []
    for channels in alive.split(32):
        # The whole image, because the two networks' receptive fields differ in size.
        pixels, _ = _project(model, val, top, channels, 1, crop=False)
        # AlexNet's patches are larger, so less leaks into its high band.
        high.append(stats.band_shares(pixels.numpy(), (HIGH,))[:, -1])
    order = torch.randperm(len(alive), generator=torch.Generator().manual_seed(seed))
    shown = alive[order[:FEATURES]].sort().values
    count = min(K, top.value.shape[1])
    pixels, patches = _project(model, val, top, shown, count, crop=True)
    shape = (len(shown), count, TILE, TILE, 3)
    return {
        **{f"dead.{layer}": excited[layer].dead.numpy() for layer in excited},
        "high": np.concatenate(high) if high else np.zeros(0),
        "projections": enlarge(projection_image(pixels), TILE).reshape(shape),
        "patches": enlarge(photograph(patches), TILE).reshape(shape),
        "channels": shown.numpy(),
    }


def interior_top(model: Network, images: Images, layer: str, k: int) -> Top:
    """The strongest units of each map among those whose receptive field is inside the image.

    Units at the border see padding. At most one unit per image and map counts. Where no unit is
    inside the image, all are searched.
    """
    values, positions = [], []
    for rows in np.array_split(np.arange(len(images)), -(-len(images) // 100)):
        x = images.batch(rows).to(next(model.parameters()).device)
        t = zfnet.trace(model, x, until=layer)
        maps, field = t[layer], t.receptive_field(layer)  # (N, C, H, W)
        start = field.offset + field.stride * torch.arange(maps.shape[-1])
        inside = torch.where((start >= 0) & (start + field.size <= x.shape[-1]))[0]
        if not len(inside):
            inside = torch.arange(maps.shape[-1])
        low, high = int(inside[0]), int(inside[-1]) + 1
        value, index = maps[:, :, low:high, low:high].flatten(2).max(2)  # (N, C)
        side = high - low
        values.append(value.cpu())
        positions.append(torch.stack([index // side + low, index % side + low], -1).cpu())
    value, position = torch.cat(values), torch.cat(positions)
    best = value.topk(min(k, len(value)), dim=0)  # (k, C)
    channel = torch.arange(value.shape[1])
    return Top(best.values.T, best.indices.T, position[best.indices, channel].transpose(0, 1))


def _project(
    model: Network, images: Images, top: Top, channels: Tensor, k: int, crop: bool
) -> tuple[Tensor, Tensor]:
    """Projections of the k strongest units of some maps, and their images: (M k, 3, S, S) each."""
    device = next(model.parameters()).device
    if not len(channels):
        return torch.zeros(0, 3, TILE, TILE), torch.zeros(0, 3, TILE, TILE)
    x = images.batch(top.index[channels, :k].flatten()).to(device)
    position = top.position[channels, :k].flatten(0, 1).to(device)
    p = zfnet.project(model, x, LAYER, channels.repeat_interleave(k).to(device), position)
    if not crop:
        return p.pixels.cpu(), x.cpu()
    field = zfnet.trace(model, x[:1]).receptive_field(LAYER).size
    projection, patch = patches_inside(p, x, min(field, x.shape[-1]))
    return projection.cpu(), patch.cpu()
