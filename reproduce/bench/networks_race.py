"""The race of occlusion on several networks, with the bound by counted operations.

The bound is how many times fewer multiply-adds the incremental pass needs than whole passes
(`zfnet.fast.cost.count`). No exact method that recomputes whole windows can be faster than whole
passes by more, unless it computes faster, too. The weights are random: they do not change the time.
"""

from __future__ import annotations

import csv
import io

import torch
from torch import Tensor, nn

import zfnet
from reproduce.bench.comparison import CAPTUM, OURS, PLAIN, ZENNIT
from reproduce.bench.occlusion_race import occlusion
from zfnet.fast.incremental import plan_occlusion
from zfnet.occlusion import occluder_boxes

BOUND, SHARE = "bound by counted operations", "Captum over ours, share of the bound"
NAMES = {"vgg16": "VGG-16", "resnet18": "ResNet-18", "resnet50": "ResNet-50", "alexnet": "AlexNet"}
NAMES |= {"our alexnet": "our AlexNet", "zfnet": "our ZFNet"}


def build(name: str) -> nn.Module:
    """A network of NAMES with random weights, in evaluation mode."""
    from torchvision.models import get_model  # slow, and `reproduce list` imports this file

    torch.manual_seed(0)
    if name == "our alexnet":
        return zfnet.alexnet(1000).eval()
    if name == "zfnet":
        return zfnet.zfnet(1000, fc_units=1024).eval()
    return get_model(name, weights=None).eval()


def race_networks(x: Tensor, config: dict, device: str) -> dict[str, dict]:
    """Race ours against the other methods on each network, for one image x (1, 3, H, W)."""
    entries = {}
    for name in config["networks"]:
        model = build(name).to(device)
        entry = occlusion(model, x, config | config["network race"], device)
        entry[BOUND] = counted_bound(model, x, config["size"], config["stride"])
        if f"{CAPTUM} over {OURS}" in entry:
            entry[SHARE] = entry[f"{CAPTUM} over {OURS}"][0] / entry[BOUND]
        entries[NAMES[name]] = entry
    return entries


@torch.no_grad()
def counted_bound(model: nn.Module, x: Tensor, size: int, stride: int) -> float:
    """How many times fewer multiply-adds the incremental pass of a network needs."""
    boxes = occluder_boxes(x.shape[2], x.shape[3], size, stride).view(-1, 4)
    return plan_occlusion(model, x, boxes.to(x.device))[2].bound


def network_goals(entries: dict[str, dict], goals: dict[str, float], share: float) -> dict:
    """Whether each network reaches its goal.

    `goals` holds the least of Captum's time over ours for some networks. The others have to reach a
    `share` of their bound.
    """
    reached = {}
    for name, entry in entries.items():
        ratio = entry.get(f"{CAPTUM} over {OURS}", [0.0])[0]
        if name in goals:
            reached[f"{name}: Captum over ours at least {goals[name]:g}"] = ratio >= goals[name]
        else:
            goal = f"{name}: Captum over ours at least {share:.0%} of the bound"
            reached[goal] = ratio >= share * entry[BOUND]
    return reached


def as_csv(entries: dict[str, dict]) -> str:
    """The table with networks as columns: seconds (medians), ratios, bound and differences."""
    rows = [f"{name}, seconds" for name in (OURS, PLAIN, CAPTUM, ZENNIT)]
    rows += [f"{name} over {OURS}" for name in (PLAIN, CAPTUM, ZENNIT)] + [BOUND, SHARE]
    rows += [f"{name}, largest relative difference" for name in (PLAIN, CAPTUM, ZENNIT)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["", *entries])
    for row in rows:
        writer.writerow([row, *(_cell(entry.get(row)) for entry in entries.values())])
    return text.getvalue()


def _cell(value: float | list[float] | None) -> str:
    """The median of [median, least, most], or a number; empty where nothing was measured."""
    if value is None:
        return ""
    return f"{value[0] if isinstance(value, list) else value:.4g}"
