"""Random crops, flips and colour: what a training batch goes through on its device, so that no loader limits the network."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from zfnet.config import Augment
from zfnet.data.feed import sent
from zfnet.data.images import MEAN, STD
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
        x = x.permute(0, 3, 1, 2).float()
        x = torch.where(sent(flip, x.device).view(n, 1, 1, 1), x.flip(3), x)
    else:
        low, high = options.scale
        scale = torch.empty(whole).uniform_(low, high, generator=generator)[mine]
        stretch = torch.empty(whole).uniform_(-1, 1, generator=generator)[mine].mul(math.log(options.aspect) / 2).exp()
        width, height = (scale * stretch).clamp_max(1), (scale / stretch).clamp_max(1)
        shift = (torch.rand(2, whole, generator=generator) * 2 - 1)[:, mine]
        line = (2 * torch.arange(size) + 1) / size - 1  # the middles of a crop's pixels, from -1 to 1, and in the image:
        across = torch.where(flip, -width, width)[:, None] * line + (shift[0] * (1 - width))[:, None]  # (N, size)
        down = height[:, None] * line + (shift[1] * (1 - height))[:, None]
        places = torch.broadcast_tensors(sent(across, raw.device)[:, None, :], sent(down, raw.device)[:, :, None])
        x = raw.permute(0, 3, 1, 2).float()
        x = F.grid_sample(x, torch.stack(places, -1), padding_mode="reflection", align_corners=False)
    saturation, contrast, brightness = (options.colour * (torch.rand(3, whole, 1, generator=generator) * 2 - 1))[:, mine]
    tint = (options.colour * (torch.rand(whole, 3, generator=generator) - 0.5))[mine]
    return recoloured(x, saturation, contrast, brightness + tint).contiguous(memory_format=torch.channels_last)


def recoloured(x: Tensor, saturation: Tensor, contrast: Tensor, shift: Tensor) -> Tensor:
    r"""Standardise pixels x (N, 3, H, W) from 0 to 255 and change their colours: (1 + c) (g + (1 + s) (z - g)) + shift.

    z is the standardised pixel, g the mean of its channels; `saturation` s and `contrast` c are (N, 1), `shift` (N, 3). All of
    it is linear in the pixel: three passes over memory, where the steps one by one take eleven.
    """
    scale, offset = 1 / (255 * torch.tensor(STD)), -torch.tensor(MEAN) / torch.tensor(STD)  # (3,): z = scale x + offset
    own, grey = (1 + contrast) * (1 + saturation), -(1 + contrast) * saturation  # (N, 1): the weights of z and of g
    constant = sent(own * offset + grey * offset.mean() + shift, x.device)
    y = torch.addcmul(constant[:, :, None, None], x, sent(own * scale, x.device)[:, :, None, None])
    return y.add_((sent(grey * scale / 3, x.device)[:, None] @ x.flatten(2)).view(len(x), 1, *x.shape[2:]))
