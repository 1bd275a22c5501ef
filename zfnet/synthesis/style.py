"""Style transfer, and texture synthesis: one picture's layout, or none, in another's texture, as the network sees them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zfnet.data import no_progress
from zfnet.feature_extraction import feature_extractor
from zfnet.graph import layer_names
from zfnet.synthesis.base import clip, descend, total_variation
from zfnet.validation import check_input

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5")


@dataclass(frozen=True, eq=False)
class StyleTransfer:
    """N images in which content and style are mixed.

    `pixels` (N, 3, H, W) are valid images in the network's input convention. `history` (steps, N) is the loss before each
    step. `content` (N,), None of a texture alone, and `style[layer]` (N,) are the distances left: relative, 0 for the same code
    or Gram matrix.
    """

    pixels: Tensor
    history: Tensor
    content: Tensor | None
    style: dict[str, Tensor]


def gram(maps: Tensor) -> Tensor:
    r"""Which features go together, wherever that is: $G_{ij} = \frac{1}{M} \sum_m F_{im} F_{jm}$, (N, C, h, w) to (N, C, C).

    Gatys et al. 2016, eq. 3, over the number M of positions, so that images of different sizes compare.
    Raises ValueError for a dense layer's vectors, which have no positions.
    """
    if maps.ndim != 4:
        raise ValueError(
            f"a Gram matrix is of maps (N, C, h, w), got {tuple(maps.shape)}: style layers are convolutional"
        )
    flat = maps.flatten(2)
    return flat @ flat.mT / flat.shape[2]


def style_transfer(
    model: nn.Module,
    content: Tensor | None,
    style: Tensor,
    *,
    content_layer: str = "conv4",
    style_layers: str | Sequence[str] = LAYERS,
    weight: float = 10.0,
    variation: float = 0.02,
    start: Tensor | None = None,
    steps: int = 200,
    rate: float = 0.05,
    batch: int = 8,
    progress: Callable = no_progress,
) -> StyleTransfer:
    r"""Paint the content of one image in the style of another, by descent on the pixels.

    $\frac{\|F(x) - F(p)\|^2}{\|F(p)\|^2} + \frac{w}{L} \sum_l \frac{\|G_l(x) - G_l(a)\|^2}{\|G_l(a)\|^2} + v \, TV(x)$: F the
    maps of `content_layer`, G the Gram matrices (`gram`) of L `style_layers`, w the `weight`, v the `variation`. Gatys,
    Ecker & Bethge 2016, eq. 1-7; there the distances are not relative, so that the weights depend on the network, and L-BFGS
    starts from noise. Here Adam starts from the content, unless `start` (N, 3, H, W) says else, and pixels stay valid. Gatys
    replaced VGG's max pooling by averages, which they found slightly more appealing; the network here keeps its own.
    With `content` None a texture is synthesised, the first term left out: Gatys, Ecker & Bethge 2015; `start` is then noise.

    `content` (N, 3, H, W) and `style` (N or 1, 3, h, w) are in the network's input convention; sizes may differ. Layers are
    those of `zfnet.trace`, or module paths in other networks. At most `batch` images are in memory.
    Raises ValueError for bad inputs or options, or a layer that is zero throughout; UnknownLayer, UnsupportedNetwork.
    """
    start, style_layers = content if start is None else start, layer_names(style_layers)
    if start is None:
        raise ValueError("a texture without content needs a start (N, 3, H, W), such as noise")
    for images in (start, style) if content is None else (content, style, start):
        check_input(model, images)
    if len(style) not in (1, len(start)) or (content is not None and start.shape != content.shape):
        raise ValueError(
            f"give one style or one for each of {len(start)} images, and a start of their shape; got {tuple(style.shape)} "
            f"and {tuple(start.shape)}"
        )
    if batch < 1 or min(weight, variation) < 0 or not style_layers:
        raise ValueError(
            f"batch must be at least 1, weights 0 or more: {batch}, {weight}, {variation}; layers not empty"
        )
    layers = tuple(
        dict.fromkeys(style_layers if content is None else (content_layer, *style_layers))
    )
    read = feature_extractor(model, start, layers)
    parts = []
    for rows in torch.arange(len(start)).split(batch):
        with torch.no_grad():
            goal = None if content is None else read(content[rows])[content_layer]
            grams = {
                name: gram(maps)
                for name, maps in read(style[rows if len(style) > 1 else [0]]).items()
                if name in style_layers
            }
        if goal is not None:
            check_goal(goal, f"what {content_layer} says to the content")
        for name, matrices in grams.items():
            check_goal(matrices, f"what {name} says to the style")

        def distances(x: Tensor, goal=goal, grams=grams) -> tuple[Tensor, dict[str, Tensor]]:
            found = read(x)
            far = x.new_zeros(len(x)) if goal is None else relative(found[content_layer], goal)
            return far, {name: relative(gram(found[name]), grams[name]) for name in style_layers}

        def loss(x: Tensor, step: int, distances=distances) -> Tensor:
            far, styles = distances(x)
            return (
                far
                + weight * torch.stack(list(styles.values())).mean(0)
                + variation * total_variation(x)
            )

        pixels, history = descend(
            loss,
            clip(start[rows]),
            steps=steps,
            rate=rate,
            after=lambda x, step: clip(x),
            progress=progress,
        )
        with torch.no_grad():
            parts.append((pixels, history.T, *distances(pixels)))
    pixels, history, far, styles = zip(*parts, strict=True)
    left = {name: torch.cat([part[name] for part in styles]) for name in style_layers}
    return StyleTransfer(
        torch.cat(pixels), torch.cat(history).T, None if content is None else torch.cat(far), left
    )


def check_goal(goal: Tensor, what: str) -> None:
    """Raise ValueError where one of N arrays is zero: nothing has a relative distance from it."""
    silent = ~goal.flatten(1).any(1)
    if silent.any():
        raise ValueError(
            f"{what} is zero throughout in image {int(silent.nonzero()[0])}: there is nothing to come near to"
        )


def relative(found: Tensor, goal: Tensor) -> Tensor:
    """The squared distance of each of N arrays from its goal, over the goal's squared norm: (N,)."""
    return (found - goal).flatten(1).square().sum(1) / goal.flatten(1).square().sum(1)
