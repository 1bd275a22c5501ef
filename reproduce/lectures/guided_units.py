"""One unit of layer 5, three ways back to pixels: the deconvnet, guided back-propagation, the gradient.

Springenberg et al. 2015, Fig. 3, beside Zeiler & Fergus. All three go down through the same filters and switches; they differ
in what a ReLU lets pass: what is positive coming down (deconvnet), what was positive going up (gradient), or what is both
(guided). Which of them shows what excites the unit? The quarter of its field in which a way back has most of its energy is
kept, all else made grey, and the unit asked again. A unit answers most to the middle of its field, whatever stands there, so a
way back must do better than the quarter around it.
"""

import torch
import torch.nn.functional as F

import zfnet
from reproduce.core.claims import above, verdict
from reproduce.core.figure import SAMPLES, Figure, Result
from zfnet.analysis.faithfulness import descending_ranks, rank_correlation
from zfnet.analysis.intervals import mean_interval
from zfnet.attribution.guided import unit_gradient
from zfnet.plot import enlarge, new_figure, photograph, projection_image, show
from zfnet.receptive_field import cut

DECONVNET, GUIDED, GRADIENT = "deconvnet", "guided back-propagation", "gradient"
RANDOM, MIDDLE = "at random", "the middle"
LAYER = "conv5"
FIGURE = Figure(
    id="guided_units",
    title="Units of layer 5 by the deconvnet, by guided back-propagation and by the gradient",
    claim="The quarter of its field that the deconvnet shows keeps more of a unit's activation than a quarter at random and "
    "than the middle; that of guided back-propagation keeps more than the deconvnet's, and more than the gradient's.",
    inputs=("model", "images", "top"),
    seed=36,
    time_budget=9,
    config={
        "layer": LAYER,
        "features": 100,
        "features of samples": 12,
        "shown": 5,
        "cell": 8,
        "share": 0.25,
    },
    network="chain",
)
BETTER = ((DECONVNET, RANDOM), (DECONVNET, MIDDLE), (GUIDED, DECONVNET), (GUIDED, GRADIENT))


def compute(ctx) -> Result:
    config, found = FIGURE.config, ctx.top[LAYER]
    generator = torch.Generator().manual_seed(FIGURE.seed)
    alive = torch.where(found.value[:, 0] > 0)[0]
    count = config["features of samples" if ctx.corpus == SAMPLES else "features"]
    chosen = alive[torch.randperm(len(alive), generator=generator)[:count]].sort().values
    x = ctx.images.batch(found.index[chosen, 0]).to(ctx.device)
    units = (LAYER, chosen.to(ctx.device), found.position[chosen, 0].to(ctx.device))
    p = zfnet.project(ctx.model, x, *units)
    back = {DECONVNET: p.pixels} | {
        way: unit_gradient(ctx.model, x, *units, guided=way == GUIDED).pixels
        for way in (GUIDED, GRADIENT)
    }
    energy = {way: by_cell(pixels.square().sum(1)) for way, pixels in back.items()}
    inside = in_field(p.box, energy[GRADIENT])
    size = zfnet.trace(ctx.model, x[:1], until=LAYER).receptive_field(LAYER).size
    energy[RANDOM] = torch.rand(inside.shape, generator=generator).to(x)
    energy[MIDDLE] = nearness(p.corner + size / 2, inside)
    kept = {way: most(of, inside, generator) for way, of in energy.items()}
    shares = {
        way: answers(ctx.model, x * enlarged(mask, x), units) / p.activation
        for way, mask in kept.items()
    }

    def mean(values: torch.Tensor) -> list[float]:
        return mean_interval(values.cpu().numpy().astype(float), seed=FIGURE.seed)

    gains = {f"{one} less {other}": mean(shares[one] - shares[other]) for one, other in BETTER}
    measured = {
        "share of the activation that is kept": {
            way: mean(values) for way, values in shares.items()
        },
        "gain": gains,
        "rank correlation of the energies in the field": {
            f"{one}, {other}": mean(agreement(energy[one], energy[other], inside))
            for one, other in ((DECONVNET, GUIDED), (DECONVNET, GRADIENT), (GUIDED, GRADIENT))
        },
    }
    claims, said = verdict({name: above(gain) for name, gain in gains.items()})
    note = (
        f"The strongest image of each of {len(chosen)} features of layer 5, drawn at random; means with 95 % intervals over "
        f"features. Kept are the cells of {config['cell']} x {config['cell']} pixels with most energy, {config['share']:.0%} "
        "of the receptive field; all else is the mean grey. Energy: the squared signal, over colours and pixels."
    )
    some = torch.linspace(0, len(chosen) - 1, min(len(chosen), config["shown"])).round().long()
    corner = p.corner[some].clamp(0, x.shape[-1] - size)
    arrays = {
        f"{way}.pixels": cut(pixels[some], corner, size).cpu().numpy()
        for way, pixels in back.items()
    }
    arrays |= {
        "patches": cut(x[some], corner, size).cpu().numpy(),
        "kept": cut((x * enlarged(kept[GUIDED], x))[some], corner, size).cpu().numpy(),
        "features": chosen[some].numpy(),
        "share": shares[GUIDED][some].cpu().numpy(),
    }
    return Result(arrays, measured | {"claims": claims}, said, n=len(chosen), note=note)


def by_cell(values: torch.Tensor) -> torch.Tensor:
    """Means over the cells of images (N, H, W): (N, rows, columns)."""
    return F.avg_pool2d(values[:, None], FIGURE.config["cell"])[:, 0]


def in_field(box: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """Which cells (N, rows, columns) have their middle in the boxes (N, 4)."""
    top, left, bottom, right = box.T[..., None, None]
    row, column = (
        FIGURE.config["cell"] * (torch.arange(n, device=box.device) + 0.5) for n in cells.shape[1:]
    )
    return (row[:, None] >= top) & (row[:, None] < bottom) & (column >= left) & (column < right)


def nearness(middle: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """How near cells (N, rows, columns) are to a point of their image (N, 2) in pixels: 1 there, falling to 0."""
    row, column = (
        FIGURE.config["cell"] * (torch.arange(n, device=middle.device) + 0.5)
        for n in cells.shape[1:]
    )
    return 1 / (
        1 + torch.hypot(row[:, None] - middle[:, 0, None, None], column - middle[:, 1, None, None])
    )


def agreement(one: torch.Tensor, other: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """The rank correlation of two energies (N, rows, columns) over the cells inside: (N,)."""
    rows = zip(one.double(), other.double(), inside, strict=True)
    return torch.cat([rank_correlation(a[cells][None], b[cells][None]) for a, b, cells in rows])


def most(energy: torch.Tensor, inside: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The share of the cells inside that have most energy: (N, rows, columns) bool."""
    place = descending_ranks(
        energy.where(inside, energy.new_tensor(-1.0)).flatten(1), generator
    ).view(inside.shape)
    return place < (FIGURE.config["share"] * inside.sum((1, 2))).round()[:, None, None]


def enlarged(mask: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A mask of cells (N, rows, columns) as one of pixels, like x: (N, 1, H, W)."""
    cell = FIGURE.config["cell"]
    pixels = mask.repeat_interleave(cell, 1).repeat_interleave(cell, 2)[:, None].to(x)
    return F.pad(pixels, (0, x.shape[3] - pixels.shape[3], 0, x.shape[2] - pixels.shape[2]))


def answers(model, x: torch.Tensor, units: tuple) -> torch.Tensor:
    """What each unit says to its image: (N,)."""
    layer, channel, position = units
    parts = [zfnet.trace(model, part, until=layer)[layer] for part in x.split(20)]
    return torch.cat(parts)[
        torch.arange(len(x), device=x.device), channel, position[:, 0], position[:, 1]
    ]


def draw(result: Result):
    a = result.arrays
    rows, side = len(a["features"]), 160
    figure = new_figure(9.4, 1.95 * rows + 0.3)
    grid = figure.subplots(rows, 5, squeeze=False)
    kept = 100 * FIGURE.config["share"]
    titles = ["what it sees", DECONVNET, GUIDED, GRADIENT, f"{kept:g} % kept by guided"]
    for row, panels in enumerate(grid):
        back = [
            projection_image(a[f"{way}.pixels"][row : row + 1])
            for way in (DECONVNET, GUIDED, GRADIENT)
        ]
        pictures = [
            photograph(a["patches"][row : row + 1]),
            *back,
            photograph(a["kept"][row : row + 1]),
        ]
        for panel, picture, title in zip(panels, pictures, titles, strict=True):
            show(panel, enlarge(picture, side)[0], title if row == 0 else "")
        panels[0].text(
            -8,
            side / 2,
            f"feature {a['features'][row]}",
            rotation=90,
            ha="right",
            va="center",
            fontsize=9,
        )
        panels[4].text(
            side + 6,
            side / 2,
            f"{100 * a['share'][row]:.0f} % of the activation",
            rotation=90,
            va="center",
            fontsize=8,
        )
    return {"guided_units.jpg": figure}
