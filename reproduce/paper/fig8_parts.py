"""Figure 8: the images of the correspondence experiment, with one part masked at a time.

The paper's claim: in frontal pictures of dogs the right eye, the left eye and the nose can each be
masked, by squares of one size, and so can random parts. Table 1 then asks whether the network
changes alike in every image. Each row is one image: unmasked; without its right eye, left eye,
nose; and without three random parts of the head.
"""

import torch
from matplotlib.figure import Figure as Picture
from torch import Tensor

from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.core.page import WIDTH, new_page, set_finding
from reproduce.paper.dog_faces import FILL, MASK, PARTS, load_faces
from zfnet.analysis.correspondence import mask_parts, part_boxes, random_points
from zfnet.plot import enlarge, mosaic, photograph, show

FIGURE = Figure(
    id="fig8",
    title="Images for the correspondence experiments",
    claim="In each frontal dog the right eye, the left eye and the nose are masked one at a time, "
    "and random parts of the same size.",
    inputs=("images",),
    seed=8,
    time_budget=10,
    paper={"images": 5},
    config={"size": MASK, "fill": FILL, "shown": 5, "random": 3},
    files=("faces.yaml",),
    version=3,
)
FEWEST = 5  # images, as in the paper
OWN = "masks that cover their part and no other, %"
NONE = "random masks that cover the middle of no part, %"
EYES = "distance between the eyes, in mask widths"


def compute(ctx: Context) -> Result:
    config, faces = FIGURE.config, load_faces(ctx)
    if not faces.names:
        note = f"The corpus has none of the annotated images. {faces.missing}"
        return Result({}, {"images": 0}, "not run", n=0, note=note)
    shown, size = config["shown"], config["size"]
    names, x = faces.names[:shown], faces.x[:shown]
    points, heads = faces.points[:shown], faces.heads[:shown]
    generator = torch.Generator().manual_seed(FIGURE.seed)
    random = random_points(heads, points, size, config["random"], generator)
    masks = torch.cat([points.transpose(0, 1), random])  # (6, N, 2): the parts, then random ones
    images = [x, *(mask_parts(x, middle, size, config["fill"]) for middle in masks)]
    covers_own_only, covers_none = _coverage(masks, points, (x.shape[-2], x.shape[-1]))
    eyes = (points[:, 0] - points[:, 1]).double().norm(dim=1) / size  # (N,)
    measured = {
        "images": len(names),
        "masks per image": len(masks),
        OWN: covers_own_only,
        NONE: covers_none,
        "share of the view that a mask covers, %": 100 * size**2 / x[0, 0].numel(),
        EYES: {"smallest": float(eyes.min()), "largest": float(eyes.max())},
    }
    arrays = {"masked": torch.stack(images, 1).numpy()}  # (N, 7, 3, 224, 224)
    note = (
        "Masked photographs: the figure prepares Table 1. The first annotated images by name. "
        f"Random masks may cover the edge of a part. {faces.missing}"
    )
    finding = (
        f"The right eye, the left eye, the nose and {config['random']} random parts are masked in "
        f"each of {len(names)} photographs, for Table 1."
    )
    verdict, reason = judge(measured)
    return Result(arrays, measured, verdict, len(names), note, finding=finding, reason=reason)


def _coverage(masks: Tensor, points: Tensor, view: tuple[int, int]) -> tuple[float, float]:
    """The percentages of masks that cover only their own part, and of random ones without any."""
    boxes = part_boxes(masks, FIGURE.config["size"], *view)[:, :, None]  # (6, N, 1, 4)
    covers = ((points >= boxes[..., :2]) & (points < boxes[..., 2:])).all(-1)  # (6, N, 3)
    count = len(PARTS)
    covers_own_only = (covers[:count] == torch.eye(count)[:, None]).all(-1)
    covers_none = (~covers[count:]).all(-1)
    return 100 * float(covers_own_only.float().mean()), 100 * float(covers_none.float().mean())


def judge(measured: dict) -> tuple[str, str]:
    """The verdict and its reason; the masks of at least five images must cover their part only."""
    if measured["images"] < FEWEST:
        return "not comparable", (
            f"The paper has {FEWEST} images, and this corpus has {measured['images']}."
        )
    if min(measured[OWN], measured[NONE]) == 100:
        return "by construction", ""
    return "differs", (
        f"Of the masks of parts, {measured[OWN]:.0f} % cover their part and no other; of the "
        f"random masks, {measured[NONE]:.0f} % cover the middle of no part."
    )


def draw(result: Result) -> dict[str, Picture]:
    if not result.arrays:
        return {}
    masked = result.arrays["masked"]  # (N, 7, 3, 224, 224)
    columns, side, gap = masked.shape[1], 150, 4
    tiles = enlarge(photograph(masked.reshape(-1, *masked.shape[2:])), side)
    figure = new_page(len(masked) * WIDTH / columns + 0.6)
    axes = figure.subplots()
    show(axes, mosaic(tiles, columns, gap=gap))
    titles = ["image", *PARTS, *["random part"] * (columns - 1 - len(PARTS))]
    for n, title in enumerate(titles):
        axes.text(n * (side + gap) + side / 2, -6, title, ha="center", va="bottom", fontsize=8)
    set_finding(figure, result.finding)
    return {"fig8.jpg": figure}
