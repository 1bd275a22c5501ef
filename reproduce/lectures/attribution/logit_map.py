"""What covering each part of a photograph does to the logit of its class.

The lectures show the third row of the paper's Figure 7 (a hound beside people) with the logit in
place of the probability. The softmax hides by how much the evidence for a class changes: the
probability also depends on all other classes. Covering the dog should lower the logit. Covering the
people's faces should raise it, because a face is evidence against a dog.
"""

import numpy as np
from matplotlib.figure import Figure as Picture

import zfnet
from reproduce.core.annotations import DISTRACTOR, position_groups
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.paper.boxed_images import (
    SIZE,
    STRIDE,
    BoxedImage,
    box_arrays,
    choose_images,
    measurable_kinds,
    show_boxes,
    show_occlusion_map,
)
from zfnet.occlusion import Occlusion
from zfnet.plot import new_figure, photograph, show

FIGURE = Figure(
    id="logit_map",
    title="The logit under an occluder",
    claim="Covering the object lowers its class's logit, more than covering elsewhere. Covering "
    "the faces beside a hound raises it.",
    inputs=("model", "images"),
    seed=7,
    time_budget=15,
    config={"size": SIZE, "stride": STRIDE, "fill": 0.0},
    files=("../../paper/fig7_boxes.yaml",),
    manual=True,
)
LOWERS = "covering the object lowers its class's logit more than covering other places"
RAISES = "covering the faces raises the hound's logit, more than elsewhere"


def compute(ctx: Context) -> Result:
    config = FIGURE.config
    arrays: dict[str, np.ndarray] = {}
    measured: dict = {}
    images = choose_images(ctx, config["size"], config["stride"])
    for number, image in enumerate(images):
        o = zfnet.occlude(ctx.model, image.x, image.target, **config, progress=ctx.progress)
        measured[image.name] = _measure(ctx, image, o)
        row = {
            "logit": o.logit.cpu().numpy(),
            "probability": o.probability.cpu().numpy(),
            "x": image.x.cpu().numpy(),
            **box_arrays(image),
        }
        arrays |= {f"{number}.{name}": values for name, values in row.items()}
    claims, summary = judge(list(measured.values()))
    note = (
        f"The photographs of Figure 7, an occluder of {config['size']} pixels in steps of "
        f"{config['stride']}. Means over the positions that cover a kind of box, and that touch no "
        f"box ('elsewhere'). {ctx.differences_from_paper}"
    )
    return Result(arrays, measured | {"claims": claims}, summary, n=len(images), note=note)


def _measure(ctx: Context, image: BoxedImage, o: Occlusion) -> dict:
    groups = position_groups(o.boxes, image.boxes)
    change = (o.logit - o.baseline.logit).cpu()
    return {
        "class": ctx.model.classes[image.target],
        "predicted": ctx.model.classes[int(o.baseline.label)],
        "logit": float(o.baseline.logit),
        "largest fall": -float(change.min()),
        "largest rise": float(change.max()),
        "testable": sorted(measurable_kinds(groups, FIGURE.config["stride"])),
        "logit change": {k: float(change[m].mean()) for k, m in groups.items() if m.any()},
    }


def judge(rows: list[dict]) -> tuple[dict[str, str], str]:
    """Count for each claim the photographs in which it holds."""
    tests: dict[str, list[bool]] = {LOWERS: [], RAISES: []}
    for row in rows:
        change, kinds = row["logit change"], set(row["testable"])
        if "elsewhere" not in kinds:
            continue
        for kind in kinds - {DISTRACTOR, "elsewhere"}:
            tests[LOWERS].append(change[kind] < min(0.0, change["elsewhere"]))
        if {DISTRACTOR, "dog"} <= kinds:
            tests[RAISES].append(change[DISTRACTOR] > max(0.0, change["elsewhere"]))
    claims = {
        name: f"{sum(results)} of {len(results)}" for name, results in tests.items() if results
    }
    results = [result for of_claim in tests.values() for result in of_claim]
    if not all(tests.values()):
        return claims, "not comparable"
    return claims, "reproduced" if all(results) else "partial" if any(results) else "differs"


def draw(result: Result) -> dict[str, Picture]:
    names = [name for name in result.measured if name != "claims"]
    size, stride = FIGURE.config["size"], FIGURE.config["stride"]
    figure = new_figure(8.4, 2.1 * len(names) + 0.5)
    grid = figure.subplots(len(names), 3, squeeze=False, width_ratios=(1, 1.2, 1.2))
    for number, (axes, name) in enumerate(zip(grid, names, strict=True)):
        entry = result.measured[name]
        a = {key: result.arrays[f"{number}.{key}"] for key in ("x", "kinds", "objects")}
        show(axes[0], photograph(a["x"])[0], entry["class"])
        show_boxes(axes[0], a, size, FIGURE.config["fill"])
        side = a["x"].shape[-1]
        logit = result.arrays[f"{number}.logit"]
        title = (
            f"logit: {entry['logit']:.1f} uncovered, from {logit.min():.1f} to {logit.max():.1f}"
        )
        show_occlusion_map(axes[1], logit, title, size, stride, side)
        probability = result.arrays[f"{number}.probability"]
        limits = (0.0, float(probability.max()))
        show_occlusion_map(axes[2], probability, "probability", size, stride, side, limits)
    claims = result.measured["claims"]
    finding = "What the gray square does to the logit of each photograph's class"
    if LOWERS in claims:
        finding = (
            f"Covering the object lowers the logit of its class in {claims[LOWERS]} photographs"
        )
    figure.suptitle(finding, fontsize=10)
    return {"logit_map.jpg": figure}
