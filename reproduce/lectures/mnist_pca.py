"""MNIST: the principal components of what the network makes of a digit, after its first and its second layer.

The lectures colour the digits by class in the plane of the first two components, see the classes move apart from layer to
layer, and guess what the components mean: slant, verticality, curved tops. Here both are numbers. The clusters' quality is
the mean silhouette of the whole representation, and of the plane that is drawn. Each component is correlated with the three
qualities, measured on the picture (zfnet/analysis/shapes.py). The guess holds for a quality if it makes up a quarter of what
one of the first three components says: |r| above 0.5 beyond its interval. Classes differ in every quality, so that
a component that only tells classes apart correlates with all: correlations within a digit, class means removed, say more.
"""

import numpy as np
import torch

import zfnet
from reproduce.core.claims import above, verdict
from reproduce.core.digits import grey
from reproduce.core.figure import Figure, Result
from zfnet.analysis.embedding import nearest_centroid, pca, silhouette
from zfnet.analysis.intervals import correlation_interval, mean_interval
from zfnet.analysis.shapes import curved_top, slant, verticality
from zfnet.plot import new_figure

FIGURE = Figure(
    id="mnist_pca",
    title="Digits in the plane of the principal components, after conv1 and conv2",
    claim="The classes are further apart after the second layer than after the first; the leading components are slant, "
    "verticality and curved tops.",
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


def compute(ctx) -> Result:
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
    every: dict[str, np.ndarray] = {}
    for layer, maps in features.items():
        found = pca(maps, FIGURE.config["components"])
        every[layer] = silhouette(maps, labels).numpy()
        plane = silhouette(found.codes[:, :2], labels).numpy()
        right = 100 * nearest_centroid(maps, labels).double().numpy()
        values = (
            *(mean_interval(v, seed=FIGURE.seed) for v in (every[layer], plane, right)),
            (100 * found.explained_variance_ratio).tolist(),
        )
        for name, value in zip(names, values, strict=True):
            measured[name][layer] = value
        if layer in LAYERS:
            arrays[layer] = found.codes.numpy()
    measured["silhouette, conv2 less conv1"] = mean_interval(
        every["conv2"] - every["conv1"], seed=FIGURE.seed
    )
    for title, centred in (("correlation", False), ("correlation within a digit", True)):
        measured[title] = {
            layer: {
                f"component {k + 1}": {
                    name: correlate(code, q, labels.numpy(), centred)
                    for name, q in qualities.items()
                }
                for k, code in enumerate(arrays[layer].T)
            }
            for layer in LAYERS
        }
    claims, said = judge(measured)
    missing = int(np.isnan(qualities["curved top"]).sum())
    note = (
        f"{len(x)} digits that the network was not trained on; 95 % intervals by bootstrap over them. Rectified maps before "
        f"pooling. {missing} digits are too narrow to have a top. A component's sign is arbitrary."
    )
    return Result(
        arrays,
        measured | {"claims": claims},
        said,
        n=len(x),
        note=note,
        scale=ctx.dataset("digits").scale,
    )


def correlate(
    code: np.ndarray, quality: np.ndarray, labels: np.ndarray, centred: bool
) -> list[float]:
    """Pearson's r of two qualities of the images (n,), with its interval; `centred` takes out the means of the classes."""
    known = np.isfinite(quality)
    a, b, labels = code[known].astype(float), quality[known].astype(float), labels[known]
    if centred:
        for label in np.unique(labels):
            a[labels == label] -= a[labels == label].mean()
            b[labels == label] -= b[labels == label].mean()
    return correlation_interval(a, b, seed=FIGURE.seed)


def judge(m: dict) -> tuple[dict[str, str], str]:
    """Reproduced if the classes part and each quality is found in a component; partial if some of that holds."""
    held = {
        "the classes are further apart after conv2 than after conv1": above(
            m["silhouette, conv2 less conv1"]
        )
    }
    for quality in QUALITIES:
        found = [parts[quality] for layer in LAYERS for parts in m["correlation"][layer].values()]
        held[f"one of the first three components is {quality}"] = any(
            min(abs(low), abs(high)) > FIGURE.config["least correlation"] and low * high > 0
            for _, low, high in found
        )
    return verdict(held)


def draw(result: Result):
    figure = new_figure(9.8, 7.3)
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.7, 1))
    labels = result.arrays["labels"]
    for axes, layer in zip(top.subplots(1, 2), LAYERS, strict=True):
        codes = result.arrays[layer]
        for digit in range(10):
            x, y = codes[labels == digit, :2].T
            axes.scatter(x, y, s=22, marker=f"${digit}$", color=f"C{digit}", linewidths=0.2)
        whole, plane = (result.measured[name][layer][0] for name in list(result.measured)[2:4])
        axes.set_title(
            f"after {layer}: silhouette {whole:.2f}, of this plane {plane:.2f}", fontsize=10
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
    axes.set_title("quality of the clusters: mean silhouette", fontsize=9)
    return {"mnist_pca.png": figure}


def table(axes, measured: dict, layer: str) -> None:
    """The correlations of the components (rows) with the qualities (columns), and below each that within a digit."""
    both = [
        np.array([list(r.values()) for r in measured[t][layer].values()])
        for t in list(measured)[-3:-1]
    ]  # (3, 3, 3) each
    axes.imshow(both[0][..., 0], cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    for (k, q), r in np.ndenumerate(both[0][..., 0]):
        _, low, high = both[0][k, q]
        text = f"{r:+z.2f}\n[{low:+z.2f}, {high:+z.2f}]\nwithin: {both[1][k, q, 0]:+z.2f}"
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
    axes.set_yticks(range(len(both[0])), [f"comp. {k + 1}" for k in range(len(both[0]))])
    axes.tick_params(length=0)
    axes.set_title(f"{layer}: correlations, and those within a digit", fontsize=9)
