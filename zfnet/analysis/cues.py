"""What does the network use: parts, their arrangement, outline, texture? Images with one cue left, or with two at odds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zfnet.analysis.intervals import wilson
from zfnet.attribution.base import Target, forward
from zfnet.data.images import standardize
from zfnet.forward import evaluating
from zfnet.validation import check_input, resolve_target


def tiles(x: Tensor, grid: int) -> Tensor:
    """Cut images (N, C, H, W) into grid x grid tiles, in reading order: (N, grid grid, C, H / grid, W / grid).

    Raises ValueError where the grid does not divide the image.
    """
    n, channels, height, width = x.shape
    if grid < 1 or height % grid or width % grid:
        raise ValueError(
            f"a grid of {grid} x {grid} tiles does not divide an image of {height} x {width} pixels"
        )
    cut = x.reshape(n, channels, grid, height // grid, grid, width // grid)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(
        n, grid * grid, channels, height // grid, width // grid
    )


def assemble(pieces: Tensor) -> Tensor:
    """Lay tiles (N, grid grid, C, h, w) out in reading order: (N, C, grid h, grid w), the inverse of `tiles`."""
    n, count, channels, height, width = pieces.shape
    grid = round(count**0.5)
    laid = pieces.reshape(n, grid, grid, channels, height, width).permute(0, 3, 1, 4, 2, 5)
    return laid.reshape(n, channels, grid * height, grid * width)


def shuffle_parts(x: Tensor, grid: int, generator: torch.Generator) -> Tensor:
    """Cut each image (N, C, H, W) into grid x grid tiles and lay them out in a random order of its own: like x.

    Every part is still there, where it was among others is not (Zhang & Zhu 2019, "Interpreting adversarially trained
    convolutional neural networks": patch-shuffled images). Orders are uniform; of two tiles a side, one in 24 is the
    image itself. Raises ValueError as `tiles`.
    """
    pieces = tiles(x, grid)
    order = (
        torch.rand(pieces.shape[:2], generator=generator, device=generator.device)
        .argsort(1)
        .to(x.device)
    )
    return assemble(pieces[torch.arange(len(x), device=x.device)[:, None], order])


def cover_parts(
    x: Tensor, grid: int, share: float, generator: torch.Generator, fill: float = 0.0
) -> Tensor:
    """Cover a random `share` of the grid x grid tiles of each image (N, C, H, W) with `fill` (0 is mean grey): like x.

    The number of tiles is rounded, and the same in every image; places are its own. Parts stay where they are, and some are
    gone: the counterpart of `shuffle_parts` (Zeiler & Fergus, section 4.2, cover one square).
    Raises ValueError as `tiles`, or for a share outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the covered share of the tiles must be from 0 to 1, got {share}")
    pieces = tiles(x, grid)
    rank = (
        torch.rand(pieces.shape[:2], generator=generator, device=generator.device)
        .argsort(1)
        .argsort(1)
        .to(x.device)
    )
    gone = rank < round(share * grid * grid)
    return assemble(torch.where(gone[:, :, None, None, None], fill, pieces))


def silhouettes(mask: Tensor) -> Tensor:
    """The object's outline alone: mask (N, H, W) bool as network inputs (N, 3, H, W), the object black on white.

    Geirhos et al. 2019, "ImageNet-trained CNNs are biased towards texture", section 2. Raises ValueError where it is no mask.
    """
    check_mask(mask)
    return standardize(torch.where(mask, 0, 255).to(torch.uint8)[:, None].expand(-1, 3, -1, -1))


def texture_alone(x: Tensor, mask: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """The object's texture alone: images (N, 3, H, W) paved with squares of `side` pixels drawn at random from the object.

    The squares are those that the object, mask (N, H, W) bool, covers wholly; where there is none, those that it covers most.
    No outline and no arrangement above `side` pixels is left, and no ground (after Gatys, Ecker & Bethge 2017, "Texture and
    art with deep neural networks", and Brendel & Bethge 2019, whose images are texturised by patches or by their statistics).
    Raises ValueError where mask and x do not fit, or `side` does not divide the image.
    """
    check_mask(mask, x)
    n, channels, height, width = x.shape
    if side < 1 or height % side or width % side:
        raise ValueError(f"squares of {side} pixels do not pave an image of {height} x {width}")
    covered = F.avg_pool2d(mask[:, None].double(), side, 1)[
        :, 0
    ]  # of the square with its corner there
    places, columns = covered.flatten(1), covered.shape[-1]
    allowed = places >= places.amax(1, keepdim=True).clamp_max(1) - 1e-9
    count = (height // side) * (width // side)
    weights = allowed.to(generator.device).double()
    drawn = torch.multinomial(weights, count, replacement=True, generator=generator).to(
        x.device
    )  # (N, count)
    reach = torch.arange(side, device=x.device)
    row = (drawn // columns)[:, :, None] + reach  # (N, count, side)
    column = (drawn % columns)[:, :, None] + reach
    picked = x[
        torch.arange(n, device=x.device)[:, None, None, None], :, row[..., None], column[:, :, None]
    ]  # (N, M, s, s, C)
    down, across = height // side, width // side
    laid = picked.reshape(n, down, across, side, side, channels).permute(0, 5, 1, 3, 2, 4)
    return laid.reshape(n, channels, height, width)


def keep(x: Tensor, mask: Tensor, fill: float = 0.0) -> Tensor:
    """Images (N, C, H, W) with `fill` (0 is mean grey) where mask (N, H, W) bool is not: like x. Raises ValueError."""
    check_mask(mask, x)
    return torch.where(mask[:, None], x, fill)


def check_mask(mask: Tensor, x: Tensor | None = None) -> None:
    """Raise ValueError where a mask is not (N, H, W) bool, does not fit the images, or leaves an image without an object."""
    wanted = "(N, H, W)" if x is None else str((len(x), *x.shape[2:]))
    if (
        mask.dtype != torch.bool
        or mask.ndim != 3
        or (x is not None and mask.shape != (len(x), *x.shape[2:]))
    ):
        raise ValueError(f"the mask must be bool {wanted}, got {mask.dtype} {tuple(mask.shape)}")
    if not mask.flatten(1).any(1).all():
        raise ValueError(
            f"the mask is empty in image {int((~mask.flatten(1).any(1)).nonzero()[0])}"
        )


@dataclass(frozen=True, eq=False)
class Confidence:
    """What the network makes of N images: the `probability` and `logit` of each one's class (N,), and the `logits` (N, K)."""

    probability: Tensor
    logit: Tensor
    logits: Tensor

    @property
    def label(self) -> Tensor:
        """The predicted classes (N,)."""
        return self.logits.argmax(1)


def confidence(model: nn.Module, x: Tensor, target: Target, *, batch: int = 50) -> Confidence:
    """Pass x (N, C, H, W) through a network that returns logits, `batch` at once, and keep what it says of the classes.

    `target` is a class, one for each image, or None: the predicted ones.
    Raises ValueError for a bad x, batch or target, UnsupportedNetwork where the answer is not logits.
    """
    check_input(model, x)
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    with evaluating(model), torch.no_grad():
        logits = torch.cat([forward(model, part)[1] for part in x.split(batch)])
    chosen = resolve_target(target, logits)[:, None]
    return Confidence(
        logits.softmax(1).gather(1, chosen)[:, 0], logits.gather(1, chosen)[:, 0], logits
    )


@dataclass(frozen=True, eq=False)
class Decisions:
    """Decisions on N images in which two cues are at odds: `shape` and `texture` (N,) bool; the others went to neither class.

    `texture_share` is [T / (T + S), low, high], with Wilson's 95 % interval; it is empty where no decision fell to either.
    """

    shape: Tensor
    texture: Tensor

    @property
    def texture_share(self) -> list[float]:
        for_texture, either = int(self.texture.sum()), int(self.texture.sum() + self.shape.sum())
        return [for_texture / either, *wilson(for_texture, either)] if either else []


def decisions(
    logits: Tensor, shape: Tensor, texture: Tensor, among: Sequence[int] | Tensor | None = None
) -> Decisions:
    r"""Whether images whose outline is of one class and whose texture of another go to the first or to the second.

    The decision is $\arg\max_k z_k$ of logits (N, K), over all classes or those `among` which the experiment asks; `shape` and
    `texture` (N,) are the classes of the two cues. The texture share is $T / (T + S)$, of the decisions for either.
    Geirhos et al. 2019, "ImageNet-trained CNNs are biased towards texture", section 2 (its shape bias is 1 less this).
    Raises ValueError where the cues of an image agree, or are not among the classes.
    """
    if shape.shape != texture.shape or len(shape) != len(logits) or (shape == texture).any():
        raise ValueError("each image needs a class of its shape and another of its texture")
    if among is not None:
        asked = torch.as_tensor(among, device=logits.device)
        if not (torch.isin(shape, asked) & torch.isin(texture, asked)).all():
            raise ValueError("the classes of shape and texture must be among those asked")
        logits = torch.full_like(logits, -torch.inf).index_copy(1, asked, logits[:, asked])
    label = logits.argmax(1)
    return Decisions(label == shape, label == texture)
