"""The pictures of parts_shape_texture: one cue left, its effect, and conflicting cues."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure as Picture

from reproduce.core.page import SMALL, interval_bars, label_row, new_page, set_finding, show_tiles
from reproduce.lectures.invariance.cue_numbers import TEXTURE_SHARE
from reproduce.lectures.invariance.single_cues import OUTLINE, TEXTURE
from zfnet.plot import LINES, enlarge

SIDE = 112  # pixels of an image with one cue left


def draw_variants(a: dict[str, np.ndarray], kinds: list[str], finding: str) -> Picture:
    """Draw images with one cue left: one row per image, one column per variant."""
    rows = np.stack([a[f"shown.{kind}"] for kind in kinds], 1) / 255  # (shown, kinds, H, W, 3)
    figure = new_page(0.78 * len(rows) + 0.8)
    for n, (panel, kind) in enumerate(zip(figure.subplots(1, len(kinds)), kinds, strict=True)):
        tiles = enlarge(rows[:, n].astype(np.float32), SIDE)
        show_tiles(panel, tiles, 1, kind.replace(OUTLINE, "silhouette only"), characters=10)
    figure.supxlabel("Each column leaves one cue of the image to the network.", fontsize=SMALL + 1)
    set_finding(figure, finding)
    return figure


def draw_probabilities(m: dict[str, Any], kinds: list[str], finding: str) -> Picture:
    """Draw the probability of the class for each variant."""
    figure = new_page(3.6)
    axes = figure.subplots()
    rows = {}
    for kind in kinds:
        name = kind.replace(OUTLINE, "silhouette only")
        rows[f"{name} ({m['top-1, %'][kind][0]:.0f} % correct)"] = m["probability of the class"][
            kind
        ]
    colors = [LINES[1] if kind in (OUTLINE, TEXTURE) else LINES[0] for kind in kinds]
    interval_bars(axes, rows, colors, "{:.2f}")
    axes.set_xlabel("probability of the class: mean, with 95 % interval")
    set_finding(figure, finding)
    return figure


def draw_conflict(a: dict[str, np.ndarray], conflict: dict[str, Any]) -> Picture:
    """Draw images with conflicting cues: shape, style, the painted image, and the decision."""
    pairs = len(a["decision"])
    figure = new_page(4.9)
    rows = {"shape of": "content", "style of": "style images", "painted": "painted"}
    for panel, (title, name) in zip(figure.subplots(3, 1), rows.items(), strict=True):
        tiles = enlarge((a[name] / 255).astype(np.float32), 150)
        labels = [str(text) for text in a["decision"]] if name == "painted" else ()
        show_tiles(panel, tiles, pairs, gap=4, labels=labels)
        label_row(panel, title)
    texture, shape = conflict["decisions for texture, for shape"]
    neither = conflict["pairs"] - texture - shape
    text = (
        f"Of {conflict['pairs']} painted images, {texture} are predicted as the class of the "
        f"texture, {shape} as that of the shape, and {neither} as neither"
    )
    if texture + shape:
        interval = " (texture: {:.0f} % of the first two, interval {:.0f} to {:.0f} %)"
        text += interval.format(*conflict[TEXTURE_SHARE])
    set_finding(figure, text)
    return figure
