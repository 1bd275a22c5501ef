"""Random crops, flips and colors of training batches, computed on the network's device."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from zfnet.data.images import MEAN, STD
from zfnet.training.config import Augment
from zfnet.training.distributed import SINGLE_PROCESS, DistributedContext
from zfnet.training.feed import to_device


def augment(
    raw: Tensor,
    size: int,
    options: Augment,
    generator: torch.Generator,
    distributed: DistributedContext = SINGLE_PROCESS,
    boxes: Tensor | None = None,
) -> Tensor:
    """Crop, flip and recolor a batch at random, on its device, and standardize it.

    Args:
        raw: (N, S, S, 3) uint8 squares; with several processes, this process's share of the batch.
        size: Side of the crops in pixels.
        options: Which crops, flips and colors; see `zfnet.training.config.Augment`.
        generator: CPU generator. All processes draw the numbers of the whole batch from it.
        distributed: The processes that share the batch.
        boxes: (N, 4) crops to use instead of random ones, as `random_boxes` returns them.

    Returns:
        (N, 3, size, size) float32, channels last.
    """
    n, side = len(raw), raw.shape[1]
    total, share = n * distributed.size, slice(distributed.rank, None, distributed.size)
    if boxes is not None:
        x = crop(raw, boxes, size)
    elif options.crops == "paper":  # section 3: corners and center, with and without flip
        flip = ((torch.rand(total, generator=generator) < 0.5) & options.flip)[share]
        far = side - size  # the last offset
        corners = torch.tensor([(0, 0), (0, far), (far, 0), (far, far), (far // 2, far // 2)])
        corner = corners[torch.randint(5, (total,), generator=generator)[share]].tolist()
        x = torch.stack(
            [image[t : t + size, l : l + size] for image, (t, l) in zip(raw, corner, strict=True)]
        )
        x = x.permute(0, 3, 1, 2).float()
        x = torch.where(to_device(flip, x.device).view(n, 1, 1, 1), x.flip(3), x)
    else:
        x = crop(raw, random_boxes(total, options, generator)[share], size)
    uniform = torch.rand(3, total, 1, generator=generator) * 2 - 1
    saturation, contrast, brightness = (options.color * uniform)[:, share]
    tint = (options.color * (torch.rand(total, 3, generator=generator) - 0.5))[share]
    x = recolor(x, saturation, contrast, brightness + tint)
    return x.contiguous(memory_format=torch.channels_last)


def random_boxes(n: int, options: Augment, generator: torch.Generator) -> Tensor:
    """Draw n random crops of a square that spans [-1, 1] in both directions.

    Args:
        n: Number of crops.
        options: Scale, aspect and flip; see `zfnet.training.config.Augment`.
        generator: CPU generator.

    Returns:
        (n, 4) float32: center x, center y, half width, half height. A negative half width mirrors
        the crop.
    """
    flip = (torch.rand(n, generator=generator) < 0.5) & options.flip
    scale = torch.empty(n).uniform_(*options.scale, generator=generator)
    stretch = (
        torch.empty(n).uniform_(-1, 1, generator=generator).mul(math.log(options.aspect) / 2).exp()
    )
    width, height = (scale * stretch).clamp_max(1), (scale / stretch).clamp_max(1)
    x, y = torch.rand(2, n, generator=generator) * 2 - 1
    return torch.stack(
        [x * (1 - width), y * (1 - height), torch.where(flip, -width, width), height], 1
    )


def crop(raw: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Resample one box of each square, bilinearly, without antialiasing.

    Args:
        raw: (N, S, S, 3) uint8 squares.
        boxes: (N, 4) on the CPU, as `random_boxes` returns them.
        size: Side of the crops in pixels.

    Returns:
        (N, 3, size, size) float32, values from 0 to 255.
    """
    line = (2 * torch.arange(size) + 1) / size - 1  # pixel centers of a crop, from -1 to 1
    across = boxes[:, 2:3] * line + boxes[:, 0:1]  # (N, size)
    down = boxes[:, 3:4] * line + boxes[:, 1:2]
    grid = torch.broadcast_tensors(
        to_device(across, raw.device)[:, None, :], to_device(down, raw.device)[:, :, None]
    )
    x = raw.permute(0, 3, 1, 2).float()
    return F.grid_sample(x, torch.stack(grid, -1), padding_mode="reflection", align_corners=False)


def recolor(x: Tensor, saturation: Tensor, contrast: Tensor, shift: Tensor) -> Tensor:
    r"""Standardize pixels and change their colors: (1 + c) (g + (1 + s) (z - g)) + shift.

    z is the standardized pixel, g the mean of its channels. All of it is linear in the pixel, so it
    takes three passes over memory. Step by step it would take eleven.

    Args:
        x: (N, 3, H, W) pixels from 0 to 255.
        saturation: (N, 1), s.
        contrast: (N, 1), c.
        shift: (N, 3), or (N, 1) for all channels.

    Returns:
        (N, 3, H, W).
    """
    # z = scale x + offset, (3,) each
    scale, offset = 1 / (255 * torch.tensor(STD)), -torch.tensor(MEAN) / torch.tensor(STD)
    pixel_weight = (1 + contrast) * (1 + saturation)  # (N, 1), of z
    gray_weight = -(1 + contrast) * saturation  # (N, 1), of g
    constant = to_device(pixel_weight * offset + gray_weight * offset.mean() + shift, x.device)
    gain = to_device(pixel_weight * scale, x.device)  # (N, 3)
    y = torch.addcmul(constant[:, :, None, None], x, gain[:, :, None, None])
    # (N, 1, 3) @ (N, 3, H W) -> (N, 1, H, W)
    gray = to_device(gray_weight * scale / 3, x.device)[:, None] @ x.flatten(2)
    return y.add_(gray.view(len(x), 1, *x.shape[2:]))
