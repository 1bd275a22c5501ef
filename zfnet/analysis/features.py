"""Features of a data set at several layers, computed once and cached on disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import uuid4

import numpy as np
import torch

from zfnet.data import no_progress
from zfnet.data.cache import cache_dir, digest
from zfnet.data.dataset import Images
from zfnet.data.images import PREPROCESSING
from zfnet.data.tensor_file import sha256
from zfnet.forward import run
from zfnet.graph import UnknownLayer, layer_names, network_steps
from zfnet.model import Network, device_of, evaluating

CACHE_VERSION = 1  # increase it when the forward pass changes
# Layers 1-5 and 7 of Table 7: rectified, and pooled where the network pools.
LAYERS = ("pool1", "pool2", "conv3", "conv4", "pool5", "fc7")


def extract(
    model: Network,
    images: Images,
    layers: str | Sequence[str] = LAYERS,
    *,
    batch: int = 64,
    progress: Callable = no_progress,
) -> dict[str, np.ndarray]:
    """Return the features of images, memory-mapped from the cache; compute them if necessary.

    The key of the cache is made of the hashes of the network's weights and of the images. Half
    precision has a relative error of at most 1 / 2,000. ZFNet's layer 1 takes 580 KB per image.

    Args:
        model: A network of this library.
        images: N images.
        layers: Layer names, as in `zfnet.trace`.
        batch: The number of images per forward pass.
        progress: A progress bar such as `tqdm.tqdm`.

    Returns:
        Features (N, D) float16 by layer.

    Raises:
        UnknownLayer: If the network has no such layer.
        ValueError: If a feature exceeds 65,504, the largest number of half precision.

    Example:
        >>> import zfnet
        >>> digits = zfnet.load_digits("test").subset(range(4))
        >>> extract(zfnet.mnist(), digits, "fc3")["fc3"].shape
        (4, 64)
    """
    layers, names = layer_names(layers), [name for name, _ in model.named_children()]
    if unknown := [layer for layer in layers if layer not in names]:
        raise UnknownLayer(f"no layer {', '.join(unknown)}; the network has {', '.join(names)}")
    side = images.pixels.shape[1]
    weights = sha256(
        {name: t.cpu() for name, t in model.state_dict().items()}, {"modules": str(model)}
    )
    key = digest(
        "features", CACHE_VERSION, PREPROCESSING, weights, images.digest, side, images.size
    )
    paths = {layer: cache_dir() / f"{key[:20]}-{layer}.npy" for layer in layers}
    missing = {layer: path for layer, path in paths.items() if not path.exists()}
    partial_paths = {
        layer: path.with_suffix(f".{uuid4().hex}.partial") for layer, path in missing.items()
    }
    try:
        if missing:
            _write_features(model, images, partial_paths, batch, progress)
        for layer, path in missing.items():
            os.replace(partial_paths[layer], path)
    finally:
        for path in partial_paths.values():
            path.unlink(missing_ok=True)
    return {layer: np.load(path, mmap_mode="r") for layer, path in paths.items()}


def _write_features(
    model: Network, images: Images, paths: dict[str, Path], batch: int, progress: Callable
) -> None:
    """Write the features of each layer to its path, as a memory-mapped .npy file."""
    device = device_of(model)
    names = [name for name, _ in model.named_children()]
    steps = network_steps(model, images.batch([0]).to(device), max(paths, key=names.index))
    arrays: dict[str, np.ndarray] = {}
    batches = np.array_split(np.arange(len(images)), -(-len(images) // batch))
    with evaluating(model), torch.inference_mode():
        for index in progress(batches, total=len(batches), desc="extracting features"):
            t = run(steps, images.batch(index).to(device), keep=paths, switches=False)
            for layer, path in paths.items():
                features = t[layer].flatten(1).half().cpu().numpy()
                if not np.isfinite(features).all():
                    raise ValueError(f"features of {layer} exceed half precision")
                if layer not in arrays:
                    shape = (len(images), features.shape[1])
                    arrays[layer] = np.lib.format.open_memmap(path, "w+", np.float16, shape)
                arrays[layer][index] = features
    arrays.clear()  # closing a memory map writes it to its file
