"""Compare our attribution methods with those of Captum, pytorch-grad-cam and torch-cam."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import zfnet
from zfnet.analysis.extra import import_extra
from zfnet.analysis.faithfulness import rank_correlation
from zfnet.benchmarking import from_captum, from_grad_cam, from_torchcam
from zfnet.benchmarking.progress_file import ProgressFile, fingerprint
from zfnet.data import no_progress
from zfnet.data.dataset import Images

HEADER = (
    "method", "package", "largest difference", "rank correlation", "ours, ms per image",
    "theirs, ms per image", "images",
)  # fmt: skip
CHUNK = 10  # images per call
PACKAGES = ("captum", "grad-cam", "torchcam")  # another version is compared again


def pairs(size: int) -> list[tuple[str, dict, str, Callable]]:
    """Return (method, options, package, peer), with the same reduction over channels.

    Args:
        size: Side of the occluder in pixels; its stride is half of it.
    """
    import captum.attr as captum
    import pytorch_grad_cam as grad_cam
    import torchcam.methods as torchcam

    steps = {"n_steps": 50, "method": "riemann_middle", "internal_batch_size": 50}
    occlusion_options = {
        "sliding_window_shapes": (3, size, size),
        "strides": (3, size // 2, size // 2),
        "perturbations_per_eval": 16,
    }
    relu = {"relu_attributions": True}
    return [
        ("saliency", {}, "Captum", largest(from_captum(captum.Saliency))),
        ("gradient_x_input", {}, "Captum", from_captum(captum.InputXGradient)),
        ("integrated_gradients", {"steps": 50, "batch": 50}, "Captum",
         from_captum(captum.IntegratedGradients, **steps)),
        ("guided_backprop", {}, "Captum", largest(from_captum(captum.GuidedBackprop))),
        ("deconvnet", {}, "Captum", largest(from_captum(captum.Deconvolution))),
        ("occlusion", {"size": size, "stride": size // 2}, "Captum",
         first(from_captum(captum.Occlusion, **occlusion_options))),
        ("grad_cam", {}, "Captum",
         from_captum(lambda m: captum.LayerGradCam(m, m.relu5), **relu)),
        ("grad_cam", {}, "pytorch-grad-cam",
         from_grad_cam(lambda m: grad_cam.GradCAM(m, [m.relu5]))),
        ("grad_cam", {}, "torch-cam", from_torchcam(lambda m: torchcam.GradCAM(m, "relu5"))),
        ("grad_cam_plus_plus", {}, "pytorch-grad-cam",
         from_grad_cam(lambda m: grad_cam.GradCAMPlusPlus(m, [m.relu5]))),
        ("grad_cam_plus_plus", {}, "torch-cam",
         from_torchcam(lambda m: torchcam.GradCAMpp(m, "relu5"))),
    ]  # fmt: skip


def largest(method: Callable) -> Callable:
    """Reduce the channels of a method to their largest absolute value."""
    return lambda model, x, target: method(model, x, target).abs().amax(1, keepdim=True)


def first(method: Callable) -> Callable:
    """Keep the first channel, for a method that repeats its map in all channels."""
    return lambda model, x, target: method(model, x, target)[:, :1]


def compare(
    model: nn.Module,
    x: Tensor,
    resume: str | Path | None = None,
    progress: Callable = no_progress,
) -> list[list[str]]:
    """Return one row per pair, in the order of HEADER.

    The largest difference is computed between maps scaled to [0, 1], because the CAM packages scale
    their maps. Seconds are those of the fastest call.

    Args:
        model: The network.
        x: Images (N, 3, H, W).
        resume: A file that keeps finished rows. An interrupted comparison continues from it.
        progress: A progress bar such as `tqdm.tqdm`.
    """
    file = ProgressFile(resume, fingerprint(model, *map(version, PACKAGES)))
    rows = []
    for name, options, package, peer in progress(pairs(x.shape[2] // 7)):
        key = file.key(name, sorted(options.items()), package, x)
        part = file.get(key) or {"row": compare_pair(model, x, name, options, peer)}
        file.put(key, part)
        rows.append([name, package, *part["row"], str(len(x))])
    return rows


def compare_pair(
    model: nn.Module, x: Tensor, name: str, options: dict, peer: Callable
) -> list[str]:
    """Return the difference, the correlation and the times of one method and its peer."""
    our_map, our_seconds = measure(partial(zfnet.explain, method=name, **options), model, x)
    peer_map, peer_seconds = measure(partial(zfnet.explain, method=peer), model, x)
    difference = (scaled(our_map) - scaled(peer_map)).abs().max()
    correlation = rank_correlation(our_map, peer_map).nanmean()
    return [
        f"{float(difference):.1e}",
        f"{float(correlation):.4f}",
        f"{1000 * our_seconds:.1f}",
        f"{1000 * peer_seconds:.1f}",
    ]


def measure(method: Callable, model: nn.Module, x: Tensor) -> tuple[Tensor, float]:
    """Return the maps for the predicted classes, and the seconds per image of the fastest call.

    The first images are explained three times, so that warming up does not count.
    """
    with torch.no_grad():
        target = model(x).argmax(1)
    maps, seconds = [], []
    for number, (images, classes) in enumerate(
        zip(x.split(CHUNK), target.split(CHUNK), strict=True)
    ):
        for _ in range(1 if number else 3):
            start = time.perf_counter()
            result = method(model, images, target=classes).map
            seconds.append((time.perf_counter() - start) / len(images))
        maps.append(result)
    return torch.cat(maps), min(seconds)


def scaled(maps: Tensor) -> Tensor:
    """Scale each map (N, 1, H, W) to [0, 1]."""
    low, high = maps.amin((1, 2, 3), keepdim=True), maps.amax((1, 2, 3), keepdim=True)
    return (maps - low) / (high - low).clamp_min(1e-12)


def pooling_head(model: nn.Module, images: Images, count: int = 1000) -> tuple[Tensor, Tensor]:
    """Fit the head of CAM: logistic regression on pooled conv5. Return its weight and bias."""
    pooled = [
        zfnet.trace(model, images.batch(part), until="conv5")["conv5"].mean((2, 3))
        for part in np.array_split(np.arange(count), 10)
    ]
    regression = import_extra("sklearn.linear_model").LogisticRegression(max_iter=2000)
    fit = regression.fit(torch.cat(pooled).numpy(), images.labels[:count])
    return torch.from_numpy(fit.coef_).float(), torch.from_numpy(fit.intercept_).float()
