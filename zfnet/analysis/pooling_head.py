"""A linear classifier on globally pooled features, which class activation mapping needs."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from zfnet.analysis.extra import import_extra
from zfnet.data import no_progress
from zfnet.data.dataset import Images
from zfnet.forward import run
from zfnet.graph import network_steps
from zfnet.model import Network, device_of, evaluating


def fit_pooling_head(
    model: Network,
    images: Images,
    *,
    c: float = 0.1,
    batch: int = 100,
    precision: str = "float32",
    progress: Callable = no_progress,
) -> tuple[Tensor, Tensor]:
    """Fit a softmax layer to the global average pool of the last rectified feature maps.

    It gives class activation maps to a network that was trained with dense layers. The network does
    not change. Zhou et al. 2016, section 2. The fit takes minutes for 40,000 images of 1,000
    classes.

    Args:
        model: A network of this library, with class names.
        images: Training images, labeled by folder.
        c: The inverse of the regularization strength, for features with a standard deviation of 1.
        batch: The number of images per forward pass.
        precision: The precision of the forward pass, "float32" or "bfloat16".
        progress: A progress bar such as `tqdm.tqdm`.

    Returns:
        Weights (classes, C) and biases (classes,). The bias of a class without images is -inf.

    Raises:
        ImportError: If scikit-learn is missing.

    Example:
        >>> import zfnet
        >>> model, digits = zfnet.mnist(), zfnet.load_digits("test").subset(range(0, 1000, 20))
        >>> model.classes, model.wnids = digits.classes, digits.wnids
        >>> weight, bias = fit_pooling_head(model, digits)
        >>> weight.shape, bias.shape
        (torch.Size([10, 32]), torch.Size([10]))
    """
    images = images.aligned(model.wnids, model.classes)
    features = _pooled_features(model, images, batch, precision, progress)
    scale = float(features.std())
    coefficients, intercepts, classes = _fit(features / scale, images.labels, c)
    weight = torch.zeros(len(model.classes), features.shape[1], device="cpu")
    bias = torch.full((len(model.classes),), -torch.inf, device="cpu")
    weight[classes] = torch.from_numpy(coefficients / scale).float()
    bias[classes] = torch.from_numpy(intercepts).float()
    return weight, bias


def _pooled_features(
    model: Network, images: Images, batch: int, precision: str, progress: Callable
) -> np.ndarray:
    """Return the spatial means of the last rectified feature maps (N, C)."""
    layer = f"conv{model.table[-1].number}"
    device = device_of(model)
    steps = network_steps(model, images.batch([0]).to(device), layer)
    batches = np.array_split(np.arange(len(images)), -(-len(images) // batch))
    pooled = []
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
    with evaluating(model), torch.inference_mode(), autocast:
        for index in progress(batches, desc="pooling features"):
            x = images.batch(index).to(device, memory_format=torch.channels_last)
            maps = run(steps, x, keep=(layer,), switches=False)[layer]
            pooled.append(maps.float().mean((2, 3)).cpu())
    return torch.cat(pooled).numpy()


def _fit(
    features: np.ndarray, labels: np.ndarray, c: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fit a logistic regression; return coefficients (K, C), intercepts (K,) and classes (K,)."""
    linear_model = import_extra("sklearn.linear_model")
    ConvergenceWarning = import_extra("sklearn.exceptions").ConvergenceWarning
    with warnings.catch_warnings():
        # 150 iterations are accurate enough, even if the solver has not converged.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fit = linear_model.LogisticRegression(C=c, max_iter=150).fit(features, labels)
    coefficients, intercepts = fit.coef_, fit.intercept_
    if len(fit.classes_) == 2:  # scikit-learn returns one row: the second class minus the first
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercepts = np.concatenate([-intercepts, intercepts]) / 2
    return coefficients, intercepts, fit.classes_
