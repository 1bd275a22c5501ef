"""Units of layer 5 by the deconvnet, by guided backpropagation, and by the gradient.

Springenberg et al. (2015, Fig. 3) and Zeiler & Fergus. All three use the same filters and
switches. They differ in what a ReLU passes in the backward pass: positive signals (deconvnet),
signals at positive activations (gradient), or both (guided). Which of them shows what activates
the unit? All but the quarter of the receptive field with the most energy is set to gray, and the
activation is measured again. A unit responds most to the center of its receptive field, so a
method must also beat the central quarter.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

import zfnet
from reproduce.core.claims import above, verdict
from reproduce.core.context import Context
from reproduce.core.figure import SAMPLES, Figure, Result
from reproduce.core.page import caption, new_page, set_finding
from zfnet.analysis.faithfulness import descending_ranks, rank_correlation
from zfnet.analysis.intervals import mean_interval
from zfnet.attribution.guided import unit_gradient
from zfnet.plot import enlarge, photograph, projection_image, show
from zfnet.receptive_field import cut

DECONVNET, GUIDED, GRADIENT = "deconvnet", "guided backpropagation", "gradient"
RANDOM, MIDDLE = "at random", "the middle"
LAYER = "conv5"
FIGURE = Figure(
    id="guided_units",
    title="Units of layer 5 by the deconvnet, by guided backpropagation and by the gradient",
    claim="The quarter of the receptive field with most deconvnet energy keeps more of a unit's "
    "activation than a random quarter and than the center. Guided backpropagation keeps more than "
    "the deconvnet and than the gradient.",
    inputs=("model", "images", "top"),
    seed=36,
    time_budget=9,
    config={
        "layer": LAYER,
        "features": 100,
        "features of samples": 12,
        "shown": 3,
        "cell": 8,
        "share": 0.25,
    },
    version=2,
    network="layers",
)
COMPARISONS = ((DECONVNET, RANDOM), (DECONVNET, MIDDLE), (GUIDED, DECONVNET), (GUIDED, GRADIENT))


def compute(ctx: Context) -> Result:
    config, strongest = FIGURE.config, ctx.top[LAYER]
    generator = torch.Generator().manual_seed(FIGURE.seed)
    active = torch.where(strongest.value[:, 0] > 0)[0]
    count = config["features of samples" if ctx.corpus == SAMPLES else "features"]
    features = active[torch.randperm(len(active), generator=generator)[:count]].sort().values
    x = ctx.images.batch(strongest.index[features, 0]).to(ctx.device)
    units = (LAYER, features.to(ctx.device), strongest.position[features, 0].to(ctx.device))
    p = zfnet.project(ctx.model, x, *units)
    signals = {DECONVNET: p.pixels} | {
        method: unit_gradient(ctx.model, x, *units, guided=method == GUIDED).pixels
        for method in (GUIDED, GRADIENT)
    }
    energy = {method: cell_means(pixels.square().sum(1)) for method, pixels in signals.items()}
    inside = in_field(p.box, energy[GRADIENT])
    size = zfnet.trace(ctx.model, x[:1], until=LAYER).receptive_field(LAYER).size
    energy[RANDOM] = torch.rand(inside.shape, generator=generator).to(x)
    energy[MIDDLE] = centrality(p.corner + size / 2, inside)
    shares = {}
    for method, values in energy.items():
        mask = strongest_cells(values, inside, generator)
        shares[method] = activations(ctx.model, x * to_pixel_mask(mask, x), units) / p.activation
    measured = measure(shares, energy, inside)
    claims, outcome = verdict({name: above(gain) for name, gain in measured["gain"].items()})
    shown = torch.linspace(0, len(features) - 1, min(len(features), config["shown"])).round().long()
    corner = p.corner[shown].clamp(0, x.shape[-1] - size)
    arrays = {
        f"{method}.pixels": cut(pixels[shown], corner, size).cpu().numpy()
        for method, pixels in signals.items()
    }
    arrays |= {"patches": cut(x[shown], corner, size).cpu().numpy()}
    arrays |= {"features": features[shown].numpy()}
    arrays |= {f"{method}.share": shares[method][shown].cpu().numpy() for method in signals}
    note = (
        f"The strongest image of each of {len(features)} features of layer 5, a random sample; "
        f"means with 95 % intervals over features. The {config['share']:.0%} of the receptive "
        f"field with most energy is kept, in cells of {config['cell']} x {config['cell']} pixels; "
        "the rest is mean gray. Energy is the squared signal, summed over colors and pixels."
    )
    measured["features shown"] = [f"{LAYER}/{i}" for i in features[shown].tolist()]
    return Result(arrays, measured | {"claims": claims}, outcome, n=len(features), note=note)


def measure(
    shares: dict[str, torch.Tensor], energy: dict[str, torch.Tensor], inside: torch.Tensor
) -> dict[str, Any]:
    """Means over units.

    Args:
        shares: The share of the activation that is kept (N,) by method.
        energy: The energy of cells (N, rows, columns) by method.
        inside: The cells in the receptive field (N, rows, columns) bool.
    """

    def mean(values: torch.Tensor) -> list[float]:
        return mean_interval(values.cpu().numpy().astype(float), seed=FIGURE.seed)

    pairs = ((DECONVNET, GUIDED), (DECONVNET, GRADIENT), (GUIDED, GRADIENT))
    return {
        "share of the activation that is kept": {
            method: mean(values) for method, values in shares.items()
        },
        "gain": {
            f"{one} less {other}": mean(shares[one] - shares[other]) for one, other in COMPARISONS
        },
        "rank correlation of the energies in the field": {
            f"{one}, {other}": mean(correlation(energy[one], energy[other], inside))
            for one, other in pairs
        },
    }


def cell_means(values: torch.Tensor) -> torch.Tensor:
    """Means over the cells of images (N, H, W): (N, rows, columns)."""
    return F.avg_pool2d(values[:, None], FIGURE.config["cell"])[:, 0]


def in_field(box: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """Which cells (N, rows, columns) have their center in the boxes (N, 4)."""
    top, left, bottom, right = box.T[..., None, None]
    row, column = (
        FIGURE.config["cell"] * (torch.arange(n, device=box.device) + 0.5) for n in cells.shape[1:]
    )
    return (row[:, None] >= top) & (row[:, None] < bottom) & (column >= left) & (column < right)


def centrality(middle: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """Return how close cells (N, rows, columns) are to a point (N, 2) in pixels, from 1 to 0."""
    row, column = (
        FIGURE.config["cell"] * (torch.arange(n, device=middle.device) + 0.5)
        for n in cells.shape[1:]
    )
    return 1 / (
        1 + torch.hypot(row[:, None] - middle[:, 0, None, None], column - middle[:, 1, None, None])
    )


def correlation(one: torch.Tensor, other: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """The rank correlation of two energies (N, rows, columns) over the cells inside, (N,)."""
    rows = zip(one.double(), other.double(), inside, strict=True)
    return torch.cat([rank_correlation(a[cells][None], b[cells][None]) for a, b, cells in rows])


def strongest_cells(
    energy: torch.Tensor, inside: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """The share of the cells inside with most energy, as a mask (N, rows, columns)."""
    place = descending_ranks(
        energy.where(inside, energy.new_tensor(-1.0)).flatten(1), generator
    ).view(inside.shape)
    return place < (FIGURE.config["share"] * inside.sum((1, 2))).round()[:, None, None]


def to_pixel_mask(mask: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A mask of cells (N, rows, columns) as a mask of the pixels of x, (N, 1, H, W)."""
    cell = FIGURE.config["cell"]
    pixels = mask.repeat_interleave(cell, 1).repeat_interleave(cell, 2)[:, None].to(x)
    return F.pad(pixels, (0, x.shape[3] - pixels.shape[3], 0, x.shape[2] - pixels.shape[2]))


def activations(model, x: torch.Tensor, units: tuple) -> torch.Tensor:
    """The activation of each unit on its image, (N,)."""
    layer, channel, position = units
    parts = [zfnet.trace(model, part, until=layer)[layer] for part in x.split(20)]
    return torch.cat(parts)[
        torch.arange(len(x), device=x.device), channel, position[:, 0], position[:, 1]
    ]


def draw(result: Result) -> dict[str, Any]:
    a, side, rows = result.arrays, 160, len(result.arrays["features"])
    figure = new_page(2.15 * rows + 0.6)
    grid = figure.subplots(rows, 4, squeeze=False)
    for n, panels in enumerate(grid):
        show(panels[0], enlarge(photograph(a["patches"][n : n + 1]), side)[0])
        caption(panels[0], f"conv5/{a['features'][n]}: receptive field")
        for panel, method in zip(panels[1:], (DECONVNET, GUIDED, GRADIENT), strict=True):
            picture = projection_image(a[f"{method}.pixels"][n : n + 1])
            show(panel, enlarge(picture, side)[0])
            caption(panel, f"{method}: {a[f'{method}.share'][n]:.0%} kept", 36)
    kept = result.measured["share of the activation that is kept"]
    set_finding(
        figure,
        f"The quarter of the field with most energy keeps {kept[GUIDED][0]:.0%} of the activation "
        f"by guided backpropagation, {kept[DECONVNET][0]:.0%} by the deconvnet, "
        f"{kept[GRADIENT][0]:.0%} by the gradient, and {kept[RANDOM][0]:.0%} at random",
    )
    return {"guided_units.jpg": figure}
