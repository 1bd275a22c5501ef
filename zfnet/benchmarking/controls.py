"""Control maps with a known answer, in every table: random, center, edges and the true mask."""

from __future__ import annotations

import hashlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zfnet.attribution.custom import Method

RANDOM, CENTER, EDGES, MASK = "random map", "center", "edge detector", "true mask"


def random_map(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """Return uniform noise (N, 1, H, W), another for each image and each network.

    It passes the randomization tests and is useless.
    """
    weights = sum(float(p.detach().double().sum()) for p in model.parameters())
    maps = []
    for image in x.detach().cpu():
        sha = hashlib.sha256(image.contiguous().numpy().tobytes() + repr(weights).encode())
        generator = torch.Generator().manual_seed(int.from_bytes(sha.digest()[:7], "big"))
        maps.append(torch.rand(1, *image.shape[1:], generator=generator))
    return torch.stack(maps).to(x)


def center(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """Return a cone around the image's center, the same for all images.

    Photographs have their object there, so a method must beat it.
    """
    rows, columns = (torch.arange(n, device=x.device) - (n - 1) / 2 for n in x.shape[2:])
    cone = -(rows[:, None] ** 2 + columns**2).sqrt()
    cone = cone - cone.min()
    return cone.to(x).expand(len(x), 1, *x.shape[2:]).clone()


def edge_detector(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """Return the size of the Sobel gradient of the gray image.

    It looks like many attributions, and knows nothing of the network: Adebayo et al. 2018.
    """
    gray = F.pad(x.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    sobel = torch.tensor([[1.0, 2, 1], [0, 0, 0], [-1, -2, -1]]).to(x)
    down, across = (F.conv2d(gray, k[None, None]) for k in (sobel, sobel.T.contiguous()))
    return (down.square() + across.square()).sqrt()


def true_mask(mask: Tensor | None) -> Method:
    """Return a method that returns these masks (N, H, W) as maps of the first images."""

    def method(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        assert mask is not None
        return mask[: len(x), None].to(x)

    return method


CONTROLS = {RANDOM: random_map, CENTER: center, EDGES: edge_detector}
