"""Style transfer and texture synthesis: match the Gram matrices of another image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zfnet.data import no_progress
from zfnet.feature_extraction import Reader, feature_extractor
from zfnet.graph import layer_names
from zfnet.synthesis.base import check_nonzero, clip, descend, relative_distance, total_variation
from zfnet.validation import check_input

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5")


@dataclass(frozen=True, eq=False)
class StyleTransfer:
    """N images with the content of one image and the style of another.

    Distances are squared, and relative to the squared norm of their target: 0 for equal maps or
    Gram matrices.

    Attributes:
        pixels: Valid images (N, 3, H, W) in the network's input convention.
        history: The loss before each step (steps, N).
        content: The distance from the content (N,); None for a texture.
        style: The distance from the style (N,) by layer.
    """

    pixels: Tensor
    history: Tensor
    content: Tensor | None
    style: dict[str, Tensor]


def gram(maps: Tensor) -> Tensor:
    r"""Return the Gram matrices of feature maps: $G_{ij} = \frac{1}{M} \sum_m F_{im} F_{jm}$.

    Gatys et al. 2016, eq. 3. We divide by the number M of positions, so that images of different
    sizes are comparable.

    Args:
        maps: Feature maps F (N, C, h, w).

    Returns:
        Gram matrices (N, C, C).

    Raises:
        ValueError: If maps come from a dense layer.

    Example:
        >>> gram(torch.ones(1, 2, 4, 4))[0].tolist()
        [[1.0, 1.0], [1.0, 1.0]]
    """
    if maps.ndim != 4:
        raise ValueError(
            f"Gram matrices need feature maps (N, C, h, w) of a convolutional layer, "
            f"got {tuple(maps.shape)}"
        )
    features = maps.flatten(2)  # (N, C, M)
    return features @ features.mT / features.shape[2]


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
    r"""Render the content of one image in the style of another, by gradient descent on the pixels.

    $\frac{\|F(x) - F(p)\|^2}{\|F(p)\|^2} + \frac{w}{L} \sum_l \frac{\|G_l(x) -
    G_l(a)\|^2}{\|G_l(a)\|^2} + v \, TV(x)$ with the maps F of the content layer and the Gram
    matrices G of L style layers. Gatys, Ecker & Bethge 2016, eq. 1-7. Their distances are not
    relative, so their weights depend on the network. They start L-BFGS from noise, and replace max
    pooling by average pooling. We start Adam from the content, keep the network's pooling, and keep
    pixels valid.

    Without content, a texture is synthesized: Gatys, Ecker & Bethge 2015.

    Args:
        model: Any network.
        content: Content images p (N, 3, H, W), or None for a texture.
        style: Style images a (N or 1, 3, h, w); their size may differ.
        content_layer: A layer name, or a module path in a network with branches.
        style_layers: Convolutional layers.
        weight: The weight w of the style.
        variation: The weight v of the total variation.
        start: The initial images (N, 3, H, W); None for the content. A texture needs noise.
        steps: The number of steps.
        rate: The initial learning rate, in units of input.
        batch: The number of images per forward pass. It does not change an image.
        progress: A progress bar such as `tqdm.tqdm`.

    Returns:
        The images and their distances from content and style.

    Raises:
        ValueError: If an argument is wrong, or a layer is zero in an image.
        UnknownLayer: If the network has no such layer.
        UnsupportedNetwork: If no gradient reaches the pixels.

    Example:
        >>> import zfnet
        >>> x = torch.rand(2, 3, 28, 28)
        >>> s = style_transfer(
        ...     zfnet.mnist(), x[:1], x[1:], content_layer="conv2", style_layers="conv1", steps=2
        ... )
        >>> s.pixels.shape
        torch.Size([1, 3, 28, 28])
    """
    start, style_layers = content if start is None else start, layer_names(style_layers)
    if start is None:
        raise ValueError("a texture without content needs start (N, 3, H, W), such as noise")
    _check_images(model, content, style, start)
    if batch < 1 or min(weight, variation) < 0 or not style_layers:
        raise ValueError(
            f"batch must be at least 1, weight and variation 0 or more, style_layers not empty; "
            f"got {batch}, {weight}, {variation} and {style_layers}"
        )
    layers = style_layers if content is None else (content_layer, *style_layers)
    read = feature_extractor(model, start, tuple(dict.fromkeys(layers)))
    results = []
    for rows in torch.arange(len(start), device="cpu").split(batch):
        distances = _distance_function(
            read,
            None if content is None else content[rows],
            style[rows] if len(style) > 1 else style,
            content_layer,
            style_layers,
        )

        def loss(x: Tensor, step: int, distances=distances) -> Tensor:
            from_content, from_style = distances(x)
            style_loss = torch.stack(list(from_style.values())).mean(0)
            return from_content + weight * style_loss + variation * total_variation(x)

        def after(x: Tensor, step: int) -> Tensor:
            return clip(x)

        x = clip(start[rows])
        pixels, history = descend(loss, x, steps=steps, rate=rate, after=after, progress=progress)
        with torch.no_grad():
            results.append((pixels, history.T, *distances(pixels)))
    pixels, history, from_content, from_style = zip(*results, strict=True)
    return StyleTransfer(
        torch.cat(pixels),
        torch.cat(history).T,
        None if content is None else torch.cat(from_content),
        {layer: torch.cat([part[layer] for part in from_style]) for layer in style_layers},
    )


def _check_images(model: nn.Module, content: Tensor | None, style: Tensor, start: Tensor) -> None:
    """Raise ValueError unless the images fit the network and each other."""
    for images in (start, style) if content is None else (content, style, start):
        check_input(model, images)
    if len(style) not in (1, len(start)) or (content is not None and start.shape != content.shape):
        raise ValueError(
            f"style must be one image or one per image ({len(start)}), and start have the shape of "
            f"the content; got {tuple(style.shape)} and {tuple(start.shape)}"
        )


def _distance_function(
    read: Reader,
    content: Tensor | None,
    style: Tensor,
    content_layer: str,
    style_layers: Sequence[str],
) -> Callable[[Tensor], tuple[Tensor, dict[str, Tensor]]]:
    """Return a function from images to their distances from content (N,) and style, by layer."""
    with torch.no_grad():
        maps = None if content is None else read(content)[content_layer]
        style_maps = read(style)
        grams = {layer: gram(style_maps[layer]) for layer in style_layers}
    if maps is not None:
        check_nonzero(maps, f"{content_layer} of the content")
    for layer, matrices in grams.items():
        check_nonzero(matrices, f"{layer} of the style")

    def distances(x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        features = read(x)
        from_content = x.new_zeros(len(x))
        if maps is not None:
            from_content = relative_distance(features[content_layer], maps)
        from_style = {
            layer: relative_distance(gram(features[layer]), grams[layer]) for layer in style_layers
        }
        return from_content, from_style

    return distances
