"""Random crops, flips and colour: what a training batch goes through on its device, so that no loader limits the network."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from zfnet.config import Augment
from zfnet.data.feed import sent
from zfnet.data.images import standardise
from zfnet.parallel import ALONE, Team


def augment(raw: Tensor, size: int, options: Augment, generator: torch.Generator, team: Team = ALONE) -> Tensor:
    """Random crops, flips and colour for a batch on its device: (N, S, S, 3) uint8 -> (N, 3, size, size) standardised.

    Of a `team`, `raw` is this process's share of a batch, for which the random numbers are drawn as a whole.
    """
    n, side = len(raw), raw.shape[1]
    whole, mine = n * team.size, slice(team.rank, None, team.size)
    flip = ((torch.rand(whole, generator=generator) < 0.5) & options.flip)[mine]
    if options.crops == "paper":  # section 3: corners and centre, with and without flip
        far = side - size
        corners = torch.tensor([(0, 0), (0, far), (far, 0), (far, far), (far // 2, far // 2)])
        places = corners[torch.randint(5, (whole,), generator=generator)[mine]].tolist()
        x = torch.stack([image[t : t + size, l : l + size] for image, (t, l) in zip(raw, places, strict=True)])
        x = standardise(x.permute(0, 3, 1, 2))
        x = torch.where(sent(flip, x.device).view(n, 1, 1, 1), x.flip(3), x)
    else:
        low, high = options.scale
        scale = torch.empty(whole).uniform_(low, high, generator=generator)[mine]
        stretch = torch.empty(whole).uniform_(-1, 1, generator=generator)[mine].mul(math.log(options.aspect) / 2).exp()
        width, height = (scale * stretch).clamp_max(1), (scale / stretch).clamp_max(1)
        shift = (torch.rand(2, whole, generator=generator) * 2 - 1)[:, mine]
        zero = torch.zeros(n)
        theta = torch.stack(  # (N, 2, 3): where in the image, from -1 to 1, each pixel of the crop lies
            [torch.stack([torch.where(flip, -width, width), zero, shift[0] * (1 - width)], 1),
             torch.stack([zero, height, shift[1] * (1 - height)], 1)], 1
        )  # fmt: skip
        grid = F.affine_grid(sent(theta, raw.device), [n, 3, size, size], align_corners=False)
        x = F.grid_sample(raw.permute(0, 3, 1, 2).float(), grid, padding_mode="reflection", align_corners=False)
        x = standardise(x)
    if options.colour:
        amount = sent((options.colour * (torch.rand(3, whole, 1, 1, 1, generator=generator) * 2 - 1))[:, mine], x.device)
        tint = sent((options.colour * (torch.rand(whole, 3, 1, 1, generator=generator) - 0.5))[mine], x.device)
        grey = x.mean(1, keepdim=True)
        x = grey + (x - grey) * (1 + amount[0])  # saturation
        x = x * (1 + amount[1]) + amount[2] + tint  # contrast, brightness, colour shift
    return x.contiguous(memory_format=torch.channels_last)
