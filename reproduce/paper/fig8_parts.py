"""Figure 8: the images of the correspondence experiment, with one part masked at a time.

The paper's claim: in frontal pictures of dogs the right eye, the left eye and the nose can each be masked alone, by squares
of one size, and random parts of the same size beside them; Table 1 then asks whether the network is changed alike in every
image. Each row is one image: as it is; without its right eye, left eye, nose; and without three random parts of the head.
"""

import torch

from reproduce.core.figure import Figure, Result
from reproduce.paper.dog_faces import PARTS, load_faces
from zfnet.analysis.correspondence import mask_parts, part_boxes, random_points
from zfnet.plot import enlarge, mosaic, new_figure, photograph, show

FIGURE = Figure(
    id="fig8",
    title="Images for the correspondence experiments",
    claim="Of each frontal dog the right eye, the left eye and the nose are masked alone, and random parts of the same size.",
    inputs=("images",),
    seed=8,
    time_budget=10,
    paper={"images": 5},
    config={"size": 37, "fill": 0.0, "shown": 5, "random": 3},  # a sixth of the view; mean grey
    files=("faces.yaml",),
)


def compute(ctx) -> Result:
    names, x, points, heads, missing = load_faces(ctx)
    if not names:
        return Result(
            {},
            {"images": 0},
            "not run",
            n=0,
            note=f"The corpus has none of the annotated images. {missing}",
        )
    names, x, points, heads = (
        found[: FIGURE.config["shown"]] for found in (names, x, points, heads)
    )
    size = FIGURE.config["size"]
    generator = torch.Generator().manual_seed(FIGURE.seed)
    random = random_points(heads, points, size, FIGURE.config["random"], generator)
    every = torch.cat(
        [points.transpose(0, 1), random]
    )  # (6, N, 2): the parts, then the random ones
    masked = torch.stack(
        [x] + [mask_parts(x, where, size, FIGURE.config["fill"]) for where in every], 1
    )  # (N, 7, 3, 224, 224)
    boxes = part_boxes(every, size, *x.shape[-2:])[:, :, None]  # (6, N, 1, 4)
    covers = ((points >= boxes[..., :2]) & (points < boxes[..., 2:])).all(
        -1
    )  # (6, N, 3): which mask covers which part
    measured = {
        "images": len(names),
        "masks of an image": len(every),
        "masks that cover their own part and no other, %": 100
        * float((covers[:3] == torch.eye(3)[:, None]).all(-1).float().mean()),
        "random masks that cover the middle of none, %": 100
        * float((~covers[3:]).all(-1).float().mean()),
        "share of the view that a mask covers, %": 100 * size**2 / x[0, 0].numel(),
        "eye to eye, in masks": {
            name: float((p[0] - p[1]).double().norm() / size)
            for name, p in zip(names, points, strict=True)
        },
    }
    verdict = judge(measured)
    return Result(
        {"masked": masked.numpy()},
        measured,
        verdict,
        n=len(names),
        note=f"The first annotated images by name; random masks may cover the rim of a part. {missing}",
    )


def judge(m: dict) -> str:
    """Reproduced if every mask covers its own part alone, of five images or more; with fewer there is nothing to compare."""
    if m["images"] < 5:
        return "not comparable"
    right = (
        m["masks that cover their own part and no other, %"],
        m["random masks that cover the middle of none, %"],
    )
    return "reproduced" if min(right) == 100 else "partial" if max(right) > 0 else "differs"


def draw(result: Result):
    if not result.arrays:
        return {}
    masked = result.arrays["masked"]  # (N, 7, 3, 224, 224)
    columns, side, gap = masked.shape[1], 150, 4
    tiles = enlarge(photograph(masked.reshape(-1, *masked.shape[2:])), side)
    figure = new_figure(columns * 1.35, len(masked) * 1.35 + 0.25)
    axes = figure.subplots()
    show(axes, mosaic(tiles, columns, gap=gap))
    titles = ["image", *PARTS, *["random part"] * (columns - 4)]
    for n, title in enumerate(titles):
        axes.text(n * (side + gap) + side / 2, -6, title, ha="center", va="bottom", fontsize=8)
    return {"fig8.jpg": figure}
