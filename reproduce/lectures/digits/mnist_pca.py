"""MNIST: principal components of the first and the second layer's activations.

Lectures color the digits by class in the plane of the first two components, observe that classes
separate from layer to layer, and guess what the components mean: slant, verticality, curved tops.
Both are measured. The quality of the clusters is the mean silhouette of the whole representation,
and of the plane that is drawn. Each component is correlated with the three attributes, measured on
the picture (zfnet/analysis/shapes.py). A guess holds for an attribute if it explains a quarter of
the variance of one of the first three components: |r| above 0.5 beyond its interval. Classes differ
in every attribute, so a component that only separates classes correlates with all. Correlations
within a digit, with class means removed, are more informative.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes

import zfnet
from reproduce.core.claims import above, verdict
from reproduce.core.context import Context
from reproduce.core.digits import gray
from reproduce.core.figure import Figure, Result
from reproduce.core.page import SMALL, caption, interval_bars, new_page, set_finding
from zfnet.analysis.embedding import nearest_centroid, pca, silhouette
from zfnet.analysis.intervals import correlation_interval, mean_interval
from zfnet.analysis.shapes import curved_top, slant, verticality

FIGURE = Figure(
    id="mnist_pca",
    title="Digits in the plane of the principal components of conv1 and conv2",
    claim="The classes are further apart after the second layer than after the first. The leading "
    "components are slant, verticality and curved tops.",
    inputs=("digits",),
    seed=0,
    time_budget=150,
    config={
        "digits": 1000,
        "components": 3,
        "layers": ["conv1", "conv2"],
        "least correlation": 0.5,
    },
    manual=True,
    corpus="mnist",
    trains=True,
)
QUALITIES = {"slant": slant, "verticality": verticality, "curved top": curved_top}
LAYERS = FIGURE.config["layers"]
SILHOUETTE, PLANE = "silhouette", "silhouette of the first two components"
NEAREST, VARIANCE = "nearest to the mean of their class, %", "variance, %"
WITHIN = "correlation within a digit"


def compute(ctx: Context) -> Result:
    digits = ctx.dataset("digits")
    test = digits.test
    chosen = np.linspace(0, len(test) - 1, min(len(test), FIGURE.config["digits"])).astype(int)
    x, labels = test.batch(chosen), torch.from_numpy(test.labels[chosen])
    traces = [zfnet.trace(digits.model, part) for part in x.split(100)]
    features = {"pixels": gray(x)} | {
        name: torch.cat([t[name] for t in traces]) for name in (*LAYERS, "fc3")
    }
    qualities = {name: measure(gray(x)).numpy() for name, measure in QUALITIES.items()}
    clusters, codes = cluster_numbers(features, labels)
    measured: dict = {"digits": len(x), "accuracy, %": digits.accuracy} | clusters
    for title, centered in (("correlation", False), (WITHIN, True)):
        measured[title] = {
            layer: {
                f"component {k + 1}": {
                    name: correlate(code, q, labels.numpy(), centered)
                    for name, q in qualities.items()
                }
                for k, code in enumerate(codes[layer].T)
            }
            for layer in LAYERS
        }
    claims, outcome = judge(measured)
    missing = int(np.isnan(qualities["curved top"]).sum())
    note = (
        f"{len(x)} digits outside the training set; 95 % intervals by bootstrap over them. "
        f"Rectified maps before pooling. {missing} digits are too narrow to have a top. The sign "
        "of a component is arbitrary."
    )
    arrays, measured = {"labels": labels.numpy()} | codes, measured | {"claims": claims}
    return Result(arrays, measured, outcome, n=len(x), note=note, scale=digits.scale)


def cluster_numbers(
    features: dict[str, torch.Tensor], labels: torch.Tensor
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """How far apart the classes are in each representation.

    Args:
        features: Activations (N, ...) by name.
        labels: Digits (N,).

    Returns:
        The measured numbers, and the coordinates along principal components (N, K) by layer.
    """
    measured: dict[str, Any] = {SILHOUETTE: {}, PLANE: {}, NEAREST: {}, VARIANCE: {}}
    silhouettes, codes = {}, {}
    for layer, maps in features.items():
        components = pca(maps, FIGURE.config["components"])
        silhouettes[layer] = silhouette(maps, labels).numpy()
        plane = silhouette(components.codes[:, :2], labels).numpy()
        hits = 100 * nearest_centroid(maps, labels).double().numpy()
        measured[SILHOUETTE][layer] = mean_interval(silhouettes[layer], seed=FIGURE.seed)
        measured[PLANE][layer] = mean_interval(plane, seed=FIGURE.seed)
        measured[NEAREST][layer] = mean_interval(hits, seed=FIGURE.seed)
        measured[VARIANCE][layer] = (100 * components.explained_variance_ratio).tolist()
        if layer in LAYERS:
            codes[layer] = components.codes.numpy()
    gain = silhouettes["conv2"] - silhouettes["conv1"]
    measured["silhouette, conv2 less conv1"] = mean_interval(gain, seed=FIGURE.seed)
    return measured, codes


def correlate(
    code: np.ndarray, quality: np.ndarray, labels: np.ndarray, centered: bool
) -> list[float]:
    """Pearson's r between a component and an attribute, with its interval.

    Args:
        code: Coordinates along the component (n,).
        quality: The attribute (n,); NaN if undefined.
        labels: Digits (n,).
        centered: Remove the class means first.

    Returns:
        [r, low, high].
    """
    finite = np.isfinite(quality)
    a, b, labels = code[finite].astype(float), quality[finite].astype(float), labels[finite]
    if centered:
        for label in np.unique(labels):
            a[labels == label] -= a[labels == label].mean()
            b[labels == label] -= b[labels == label].mean()
    return correlation_interval(a, b, seed=FIGURE.seed)


def judge(m: dict) -> tuple[dict[str, str], str]:
    """Classes separate, and each attribute is found in a component."""
    results = {
        "the classes are further apart after conv2 than after conv1": above(
            m["silhouette, conv2 less conv1"]
        )
    }
    for quality in QUALITIES:
        intervals = [row[quality] for layer in LAYERS for row in m["correlation"][layer].values()]
        results[f"one of the first three components is {quality}"] = any(
            min(abs(low), abs(high)) > FIGURE.config["least correlation"] and low * high > 0
            for _, low, high in intervals
        )
    return verdict(results)


def draw(result: Result) -> dict[str, Any]:
    m, labels = result.measured, result.arrays["labels"]
    figure = new_page(6.6)
    top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.75, 1)).flat
    for axes, layer in zip(top.subplots(1, 2), LAYERS, strict=True):
        for digit in range(10):
            x, y = result.arrays[layer][labels == digit, :2].T
            axes.scatter(x, y, s=22, marker=f"${digit}$", color=f"C{digit}", linewidths=0.2)
        axes.set_title(f"after {layer}: silhouette {m[SILHOUETTE][layer][0]:.2f}")
        share = m[VARIANCE][layer]
        axes.set(xlabel=f"component 1 ({share[0]:.0f} % of the variance)", xticks=[])
        axes.set(ylabel=f"component 2 ({share[1]:.0f} %)", yticks=[])
    *tables, bars = bottom.subplots(1, 3, width_ratios=(1, 1, 0.9))
    for axes, layer in zip(tables, LAYERS, strict=True):
        draw_correlations(axes, m, layer)
    interval_bars(bars, m[SILHOUETTE], "0.6", "{:.2f}")
    bars.set_xlabel("mean silhouette")
    gain, low, high = m["silhouette, conv2 less conv1"]
    set_finding(
        figure,
        f"From conv1 to conv2 the silhouette of the digits' classes changes by {gain:+.2f} "
        f"[{low:+.2f}, {high:+.2f}] ({result.n} digits)",
    )
    return {"mnist_pca.png": figure}


def draw_correlations(axes: Axes, measured: dict, layer: str) -> None:
    """Draw the correlations of components (rows) with attributes, and within digits."""
    overall, within = (
        np.array([[r[0] for r in row.values()] for row in measured[title][layer].values()])
        for title in ("correlation", WITHIN)
    )  # (components, attributes) each
    axes.imshow(overall, cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    for (k, q), r in np.ndenumerate(overall):
        color = "white" if abs(r) > 0.7 else "black"
        text = f"{r:+z.2f}\n({within[k, q]:+z.2f})"
        axes.text(q, k, text, ha="center", va="center", fontsize=SMALL + 1, color=color)
    axes.set_xticks(range(len(QUALITIES)), [name.replace(" ", "\n") for name in QUALITIES])
    axes.set_yticks(range(len(overall)), [str(k + 1) for k in range(len(overall))])
    axes.tick_params(length=0, labelsize=SMALL + 1)
    axes.set_ylabel("component")
    caption(axes, f"{layer}: correlation r (within a digit)", 40)
