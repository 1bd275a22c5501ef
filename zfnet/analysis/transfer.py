"""Transfer: how good are the features of a frozen network for other images (section 5, Tables 4-7, Fig. 9)?

Features are extracted once and kept on disk. A linear classifier of features with more numbers than there are images needs
only their inner products: it is trained on exact factors of the Gram matrix instead. Needs scikit-learn.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from uuid import uuid4

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zfnet.analysis.attributes import LUMA
from zfnet.analysis.extra import import_extra
from zfnet.data import no_progress
from zfnet.data.cache import Images, cache_dir, digest
from zfnet.data.images import PREPROCESSING, center_crop
from zfnet.forward import evaluating, network_steps, run
from zfnet.graph import UnknownLayer, layer_names
from zfnet.model import Network, device_of
from zfnet.tensor_file import sha256

FEATURES = 1  # part of the cache's name; to be raised when the forward pass changes
CHOICES = {
    "linear_svm": (0.01, 0.1, 1.0, 10.0, 100.0),
    "softmax": (0.1, 1.0, 10.0, 100.0, 1000.0),
}  # of C
# Table 7's layers 1-5 and 7, rectified, and pooled where they are.
LAYERS = ("pool1", "pool2", "conv3", "conv4", "pool5", "fc7")


@dataclass(frozen=True)
class Fold:
    """One split: `train` holds the same number of images of each class that has them, `test` the others, up to a limit."""

    train: np.ndarray
    test: np.ndarray


def folds(
    labels: np.ndarray, per_class: int, *, most: int = 50, count: int = 5, seed: int = 0
) -> list[Fold]:
    """Draw `count` splits: `per_class` images of each class to train, up to `most` others to test (Caltech-101's protocol).

    A larger `per_class` of the same seed holds the smaller one's training images. A class with too few images keeps one for
    the test. Raises ValueError for a class with one image, which cannot be both.
    """
    classes, counts = np.unique(labels, return_counts=True)
    if counts.min() < 2:
        raise ValueError(
            f"the classes {classes[counts < 2][:10].tolist()} have one image each: none is left to test"
        )
    splits = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        drawn = [rng.permutation((labels == c).nonzero()[0]) for c in classes]
        parts = [np.split(d, [min(per_class, len(d) - 1)]) for d in drawn]
        splits.append(
            Fold(
                *(
                    np.concatenate(side)
                    for side in zip(*((a, b[:most]) for a, b in parts), strict=True)
                )
            )
        )
    return splits


def extract(
    model: Network,
    images: Images,
    layers: str | Sequence[str] = LAYERS,
    *,
    batch: int = 64,
    progress: Callable = no_progress,
) -> dict[str, np.ndarray]:
    """The features of every image at every layer, (N, D) float16 each, mapped from the cache; computed the first time.

    `layers` name steps of `trace`. Half precision rounds a feature by at most one part in 2,000. ZFNet's layer 1 takes 580 KB
    an image. Keyed by the hashes of the network's weights and of the images. Raises UnknownLayer, and ValueError for
    features beyond 65,504.
    """
    layers, names = layer_names(layers), [name for name, _ in model.named_children()]
    if unknown := [layer for layer in layers if layer not in names]:
        raise UnknownLayer(f"no layer {', '.join(unknown)}; the network has {', '.join(names)}")
    side = images.pixels.shape[1]
    weights = sha256(
        {name: t.cpu() for name, t in model.state_dict().items()}, {"modules": str(model)}
    )
    stem = digest("features", FEATURES, PREPROCESSING, weights, images.digest, side, images.size)[
        :20
    ]
    paths = {layer: cache_dir() / f"{stem}-{layer}.npy" for layer in layers}
    missing = {layer: path for layer, path in paths.items() if not path.exists()}
    partials = {
        layer: path.with_suffix(f".{uuid4().hex}.partial") for layer, path in missing.items()
    }
    if missing:
        device = device_of(model)
        steps = network_steps(model, images.batch([0]).to(device), max(missing, key=names.index))
        kept: dict[str, np.ndarray] = {}
        batches = np.array_split(np.arange(len(images)), -(-len(images) // batch))
        try:
            with evaluating(model), torch.inference_mode():
                for part in progress(batches, total=len(batches), desc="extracting features"):
                    t = run(steps, images.batch(part).to(device), keep=missing, switches=False)
                    for layer, partial in partials.items():
                        features = t[layer].flatten(1).half().cpu().numpy()
                        if not np.isfinite(features).all():
                            raise ValueError(f"features of {layer} beyond half precision")
                        if layer not in kept:
                            shape = (len(images), features.shape[1])
                            kept[layer] = np.lib.format.open_memmap(
                                partial, "w+", np.float16, shape
                            )
                        kept[layer][part] = features
            kept.clear()  # and so written to the files
            for layer, path in missing.items():
                os.replace(partials[layer], path)
        finally:
            for partial in partials.values():
                partial.unlink(missing_ok=True)
    return {layer: np.load(path, mmap_mode="r") for layer, path in paths.items()}


def gram(
    features: np.ndarray, *, chunk: int = 1024, progress: Callable = no_progress
) -> np.ndarray:
    """The inner products of all pairs of features (N, D), float32 (N, N): exact up to its rounding, two chunks at a time."""
    starts = range(0, len(features), chunk)
    products = np.empty((len(features), len(features)), np.float32)
    for i in progress(starts, total=len(starts), desc="inner products"):
        rows = torch.from_numpy(np.array(features[i : i + chunk], np.float32))
        for j in starts:
            if j > i:
                break
            columns = (
                rows if i == j else torch.from_numpy(np.array(features[j : j + chunk], np.float32))
            )
            block = (rows @ columns.T).numpy()
            products[i : i + chunk, j : j + chunk] = block
            products[j : j + chunk, i : i + chunk] = block.T
    return products


def coordinates(
    products: np.ndarray, fold: Fold, *, tolerance: float = 1e-6
) -> tuple[np.ndarray, np.ndarray]:
    r"""Coordinates of the training and the test images in which a linear classifier is the one on the features themselves.

    With the training images' Gram matrix $K = U \Lambda U^T$: $U \Lambda^{1/2}$ (n, r), and $K_* U \Lambda^{-1/2}$ (m, r) for
    the test images. Directions below `tolerance` of the largest are rounding. Scaled to a mean squared length of 1 over the
    training images, so that one regularisation suits every layer. `products` (N, N) as from `gram`.
    """
    kernel = torch.from_numpy(products[np.ix_(fold.train, fold.train)]).double()
    kernel, scale = kernel / kernel.diagonal().mean(), float(kernel.diagonal().mean())
    values, vectors = torch.linalg.eigh(kernel)
    kept = values > tolerance * values[-1]
    values, vectors = values[kept], vectors[:, kept]
    others = torch.from_numpy(products[np.ix_(fold.test, fold.train)]).double() / scale
    return (vectors * values.sqrt()).numpy(), (others @ vectors / values.sqrt()).numpy()


def linear_svm(
    x: np.ndarray, y: np.ndarray, choices: Sequence[float] = CHOICES["linear_svm"], *, seed: int = 0
):
    """scikit-learn's LinearSVC on x (n, d), one against the rest, its C by 3-fold cross-validation on x, for 30 classes of it.

    Solved to a tolerance of 0.01 instead of scikit-learn's 0.0001, in a fraction of the time.
    """
    svm = import_extra("sklearn.svm")
    return _chosen(svm.LinearSVC(random_state=seed, tol=1e-2), x, y, choices, seed)


def softmax(
    x: np.ndarray, y: np.ndarray, choices: Sequence[float] = CHOICES["softmax"], *, seed: int = 0
):
    """scikit-learn's multinomial logistic regression, a softmax layer on x (n, d), its C chosen as `linear_svm`'s."""
    linear_model = import_extra("sklearn.linear_model")
    return _chosen(linear_model.LogisticRegression(max_iter=1000), x, y, choices, seed)


def _chosen(
    classifier, x: np.ndarray, y: np.ndarray, choices: Sequence[float], seed: int, most: int = 30
):
    """The classifier with the best of `choices`, fitted to all of x; chosen on at most `most` of the classes, for speed."""
    selection = import_extra("sklearn.model_selection")
    classes, counts = np.unique(y, return_counts=True)
    splits = min(3, int(counts.min()))
    best = choices[len(choices) // 2]
    if len(choices) > 1 and splits > 1:
        some = np.isin(y, np.random.default_rng(seed).permutation(classes)[:most])
        splitter = selection.StratifiedKFold(splits, shuffle=True, random_state=seed)
        best = (
            selection.GridSearchCV(classifier, {"C": list(choices)}, cv=splitter, refit=False)
            .fit(x[some], y[some])
            .best_params_["C"]
        )
    return classifier.set_params(C=best).fit(x, y)


def pooling_head(
    model: Network,
    images: Images,
    *,
    c: float = 0.1,
    batch: int = 100,
    precision: str = "float32",
    progress: Callable = no_progress,
) -> tuple[Tensor, Tensor]:
    """A softmax layer on the global average pool of the last rectified maps: weights (classes, C) and biases (classes,).

    What class activation mapping needs of a network that was trained with dense layers; the network itself stays as it is.
    `images` are labelled by folder; `c` is the inverse of the regularisation, of features scaled to a deviation of 1. At most
    150 iterations: minutes for 40,000 images of 1,000 classes. The maps are computed in `precision`, "float32" or "bfloat16".
    Zhou et al. 2016, section 2.
    """
    linear_model = import_extra("sklearn.linear_model")
    ConvergenceWarning = import_extra("sklearn.exceptions").ConvergenceWarning
    images = images.aligned(model.wnids, model.classes)
    layer = f"conv{model.table[-1].number}"
    device = device_of(model)
    steps = network_steps(model, images.batch([0]).to(device), layer)
    pooled = []
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
    with evaluating(model), torch.inference_mode(), autocast:
        for part in progress(
            np.array_split(np.arange(len(images)), -(-len(images) // batch)),
            desc="pooling features",
        ):
            x = images.batch(part).to(device, memory_format=torch.channels_last)
            pooled.append(
                run(steps, x, keep=(layer,), switches=False)[layer].float().mean((2, 3)).cpu()
            )
    features = torch.cat(pooled).numpy()
    scale = float(features.std())
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # close enough long before the last digit stands
        fitted = linear_model.LogisticRegression(C=c, max_iter=150).fit(
            features / scale, images.labels
        )
    coefficients, intercepts = fitted.coef_ / scale, fitted.intercept_
    if len(fitted.classes_) == 2:  # one row, for the second class against the first
        coefficients, intercepts = (
            np.concatenate([-coefficients, coefficients]) / 2,
            np.concatenate([-intercepts, intercepts]) / 2,
        )
    weight, bias = (
        torch.zeros(len(model.classes), features.shape[1]),
        torch.full((len(model.classes),), -torch.inf),
    )
    weight[fitted.classes_] = torch.from_numpy(coefficients).float()
    bias[fitted.classes_] = torch.from_numpy(intercepts).float()
    return weight, bias


def per_class_accuracy(labels: np.ndarray, predicted: np.ndarray) -> float:
    """The mean over classes of the share of a class's images that are classified as it, in percent."""
    right = labels == predicted
    return 100 * float(np.mean([right[labels == c].mean() for c in np.unique(labels)]))


def average_precision(scores: np.ndarray, present: np.ndarray) -> float:
    """PASCAL VOC 2012's average precision of one class: the area under the precision-recall curve made monotonic.

    `scores` (N,), `present` (N,): 1, 0, or -1 for images that do not count. Percent. Raises ValueError where none is present.
    """
    counted = present >= 0
    order = np.argsort(-scores[counted], kind="stable")
    hits = present[counted][order] == 1
    if not hits.any():
        raise ValueError("no image shows the class")
    precision = hits.cumsum() / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]  # at that recall or more
    return 100 * float(best[hits].mean())


@dataclass(frozen=True, eq=False)
class Overlaps:
    """The images that a network may have seen in training.

    For each of N images, `other` (N,) is the most alike of the others and `correlation` (N,) how alike, in [-1, 1]; `index` are
    the images where that is above the threshold.
    """

    index: np.ndarray
    other: np.ndarray
    correlation: np.ndarray


def find_overlaps(
    images: Images,
    others: Images,
    *,
    threshold: float = 0.85,
    side: int = 32,
    batch: int = 512,
    progress: Callable = no_progress,
) -> Overlaps:
    """Images that are near-duplicates of one of the others, by normalised correlation (section 5.1).

    Of grey squares of `side` pixels, locally: each pixel less the mean and over the deviation of the 5 x 5 around it. Of the
    whole squares, a bright sky over dark ground is alike in thousands of photographs. The outer sixth does not count: it may
    be a frame. An image is compared as its central 16/16, 15/16 and 14/16, mirrored or not, since data sets crop differently.
    """
    shares = (1.0, 15 / 16, 14 / 16)
    views = [
        torch.cat(vectors)
        for share in shares
        for vectors in zip(*_vectors(images, side, batch, share), strict=True)
    ]
    best, place = torch.full((len(images),), -2.0), torch.zeros(len(images), dtype=torch.int64)
    start = 0
    total = -(-len(others) // batch)
    for plain, _ in progress(
        _vectors(others, side, batch, 1.0), total=total, desc="looking for overlaps"
    ):
        for view in views:
            value, where = (view @ plain.T).max(1)
            better = value > best
            best[better], place[better] = value[better], where[better] + start
        start += len(plain)
    return Overlaps((best > threshold).nonzero()[:, 0].numpy(), place.numpy(), best.numpy())


def _vectors(
    images: Images, side: int, batch: int, share: float
) -> Iterator[tuple[Tensor, Tensor]]:
    """Unit vectors of the images' central share, as it is and mirrored, a batch at a time."""
    edge = side // 6
    for chosen in np.array_split(np.arange(len(images)), -(-len(images) // batch)):
        grey = (images.raw(chosen).float() @ torch.tensor(LUMA))[:, None]  # (N, 1, S, S)
        grey = F.interpolate(
            center_crop(grey, round(share * grey.shape[-1])), (side, side), mode="area"
        )
        high = grey - _around(grey)
        local = high / (_around(high**2).sqrt() + 4)  # of 255: what is fainter than that is noise
        inner = local[..., edge:-edge, edge:-edge]
        yield F.normalize(inner.flatten(1), dim=1), F.normalize(inner.flip(3).flatten(1), dim=1)


def _around(maps: Tensor) -> Tensor:
    """The mean of the 5 x 5 around each pixel."""
    return F.avg_pool2d(F.pad(maps, (2,) * 4, mode="replicate"), 5, 1)
