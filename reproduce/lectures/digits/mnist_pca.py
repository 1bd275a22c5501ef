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

import zfnet
from reproduce.core.claims import above, verdict
from reproduce.core.context import Context
from reproduce.core.digits import grey
from reproduce.core.figure import Figure, Result
from zfnet.analysis.embedding import nearest_centroid, pca, silhouette
from zfnet.analysis.intervals import correlation_interval, mean_interval
from zfnet.analysis.shapes import curved_top, slant, verticality
from zfnet.plot import new_figure

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


def compute(ctx: Context) -> Result:
    test = ctx.dataset("digits").test
    chosen = np.linspace(0, len(test) - 1, min(len(test), FIGURE.config["digits"])).astype(int)
    x, labels = test.batch(chosen), torch.from_numpy(test.labels[chosen])
    traces = [zfnet.trace(ctx.dataset("digits").model, part) for part in x.split(100)]
    features = {"pixels": grey(x)} | {
        name: torch.cat([t[name] for t in traces]) for name in (*LAYERS, "fc3")
    }
    qualities = {name: measure(grey(x)).numpy() for name, measure in QUALITIES.items()}
    arrays = {"labels": labels.numpy()}
    measured: dict = {"digits": len(x), "accuracy, %": ctx.dataset("digits").accuracy}
    names = (
        "silhouette",
        "silhouette of the first two components",
        "nearest to the mean of their class, %",
        "variance, %",
    )
    measured |= {name: {} for name in names}
    silhouettes: dict[str, np.ndarray] = {}
    for layer, maps in features.items():
        components = pca(maps, FIGURE.config["components"])
        silhouettes[layer] = silhouette(maps, labels).numpy()
        plane = silhouette(components.codes[:, :2], labels).numpy()
        hits = 100 * nearest_centroid(maps, labels).double().numpy()
        values = (
            *(mean_interval(v, seed=FIGURE.seed) for v in (silhouettes[layer], plane, hits)),
            (100 * components.explained_variance_ratio).tolist(),
        )
        for name, value in zip(names, values, strict=True):
            measured[name][layer] = value
        if layer in LAYERS:
            arrays[layer] = components.codes.numpy()
    measured["silhouette, conv2 less conv1"] = mean_interval(
        silhouettes["conv2"] - silhouettes["conv1"], seed=FIGURE.seed
    )
    for title, centered in (("correlation", False), ("correlation within a digit", True)):
        measured[title] = {
            layer: {
                f"component {k + 1}": {
                    name: correlate(code, q, labels.numpy(), centered)
                    for name, q in qualities.items()
                }
                for k, code in enumerate(arrays[layer].T)
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
    return Result(
        arrays,
        measured | {"claims": claims},
        outcome,
        n=len(x),
        note=note,
        scale=ctx.dataset("digits").scale,
    )


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
    figure = new_figure(9.8, 7.3)
    top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.7, 1)).flat
    labels = result.arrays["labels"]
    for axes, layer in zip(top.subplots(1, 2), LAYERS, strict=True):
        codes = result.arrays[layer]
        for digit in range(10):
            x, y = codes[labels == digit, :2].T
            axes.scatter(x, y, s=22, marker=f"${digit}$", color=f"C{digit}", linewidths=0.2)
        full, plane = (result.measured[name][layer][0] for name in list(result.measured)[2:4])
        axes.set_title(
            f"after {layer}: silhouette {full:.2f}, of this plane {plane:.2f}", fontsize=10
        )
        share = result.measured["variance, %"][layer]
        axes.set_xlabel(f"component 1 ({share[0]:.0f} % of the variance)")
        axes.set_ylabel(f"component 2 ({share[1]:.0f} %)")
        axes.set_xticks([])
        axes.set_yticks([])
    panels = bottom.subplots(1, 3, width_ratios=(1, 1, 0.95))
    for axes, layer in zip(panels, LAYERS, strict=False):
        table(axes, result.measured, layer)
    axes, quality = panels[2], result.measured["silhouette"]
    mean, low, high = np.array(list(quality.values())).T
    axes.bar(
        range(len(mean)),
        mean,
        yerr=(mean - low, high - mean),
        color=["0.75", "C0", "C0", "0.75"],
        width=0.6,
    )
    axes.set_xticks(range(len(mean)), list(quality))
    axes.set_title("mean silhouette", fontsize=9)
    return {"mnist_pca.png": figure}


def table(axes, measured: dict, layer: str) -> None:
    """Draw the correlations of components (rows) with attributes, overall and within digits."""
    tables = [
        np.array([list(r.values()) for r in measured[t][layer].values()])
        for t in list(measured)[-3:-1]
    ]  # (3, 3, 3) each
    axes.imshow(tables[0][..., 0], cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    for (k, q), r in np.ndenumerate(tables[0][..., 0]):
        _, low, high = tables[0][k, q]
        text = f"{r:+z.2f}\n[{low:+z.2f}, {high:+z.2f}]\nwithin: {tables[1][k, q, 0]:+z.2f}"
        axes.text(
            q,
            k,
            text,
            ha="center",
            va="center",
            fontsize=7,
            color="white" if abs(r) > 0.7 else "black",
        )
    axes.set_xticks(range(len(QUALITIES)), list(QUALITIES))
    axes.set_yticks(range(len(tables[0])), [f"comp. {k + 1}" for k in range(len(tables[0]))])
    axes.tick_params(length=0)
    axes.set_title(f"{layer}: correlations, and those within a digit", fontsize=9)
