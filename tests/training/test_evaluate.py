"""Top-1 and top-5 error with one crop or ten, compared with a slow loop."""

import numpy as np
import pytest
import torch
from torch import nn

import zfnet
from zfnet.data.dataset import Images
from zfnet.data.images import standardize
from zfnet.graph import UnsupportedNetwork
from zfnet.networks import imagenet_wnids
from zfnet.training.evaluate import evaluate, forward


def test_the_scenes_network_reaches_95_percent(scenes_net, scenes_val):
    scores = evaluate(scenes_net, scenes_val)
    assert scores.n == 500
    assert scores.top1 <= 5.0


def test_pooling_before_relu_gives_equal_outputs_and_gradients():
    torch.manual_seed(0)
    model = zfnet.zfnet(6, fc_units=16, size=96, norm="batch", dropout=0.0)
    x = torch.randn(2, 3, 96, 96)
    gradients = []
    for function in (model, lambda x: forward(model, x)):
        model.zero_grad()
        y = function(x)
        y.square().sum().backward()
        gradients.append((y, model.conv1.weight.grad.clone(), model.conv3.weight.grad.clone()))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert forward(model, torch.randn(2, 3, 64, 64)).shape == (2, 6)


def test_ten_crops_and_class_names(scenes_net, scenes_val):
    scores = evaluate(scenes_net, scenes_val, views=10, limit=100)
    assert (scores.views, scores.n) == (10, 100)
    assert scores.top1 < 40  # corner crops cut some objects
    renamed = zfnet.load_scenes(100, seed=1, size=112, side=128).aligned(
        scenes_net.wnids[::-1], scenes_net.classes[::-1]
    )
    assert (
        evaluate(scenes_net, renamed).top1
        == evaluate(scenes_net, zfnet.load_scenes(100, seed=1, size=112, side=128)).top1
    )


def test_ten_crops_equal_a_slow_loop(scenes_net, scenes_val):
    wrong = 0
    for i in np.linspace(0, len(scenes_val) - 1, 60).astype(int).tolist():
        square = standardize(scenes_val.raw([i]).permute(0, 3, 1, 2))
        crops = torch.cat(
            [
                square[..., top : top + 112, left : left + 112]
                for top, left in ((0, 0), (0, 16), (16, 0), (16, 16), (8, 8))
            ]
        )
        wrong += int(
            scenes_net(torch.cat([crops, crops.flip(3)])).softmax(1).mean(0).argmax()
            != scenes_val.labels[i]
        )
    assert evaluate(scenes_net, scenes_val, views=10, limit=60).top1 == pytest.approx(
        100 * wrong / 60
    )


def test_wrong_options_are_rejected(scenes_net, scenes_val):
    for options in ({"views": 3}, {"precision": "fp16"}):
        with pytest.raises(ValueError, match="views must be 1 or 10"):
            evaluate(scenes_net, scenes_val, **options)


class BrightestChannel(nn.Module):
    """Return the mean of each color channel as logits; further outputs are constant and lower."""

    def __init__(self, outputs=3):
        super().__init__()
        self.outputs = outputs
        self.sides = set()

    def forward(self, x):
        if isinstance(side := x.shape[-1], int):  # not while torch.fx traces
            self.sides.add(side)
        return torch.cat([x.mean((2, 3)), torch.full((len(x), self.outputs - 3), -9.0)], 1)


def colored(wnids):
    """Return nine 64-pixel images: image i is brightest in channel i % 3 and has label i % 3."""
    pixels = np.full((9, 64, 64, 3), 40, np.uint8)
    for i in range(9):
        pixels[i, ..., i % 3] = 200
    return Images(
        pixels, np.arange(9) % 3, wnids, wnids, [str(i) for i in range(9)], "colored", size=56
    )


def test_any_network_with_logits_is_evaluated():
    images, model = colored(["red", "green", "blue"]), BrightestChannel()
    assert evaluate(model, images, wnids=["red", "green", "blue"]).top1 == 0
    assert evaluate(model, images, wnids=["green", "red", "blue"]).top1 == pytest.approx(200 / 3)
    assert model.sides == {56}  # crops are not resized
    model.wnids, model.size = ["blue", "green", "red"], 48
    assert evaluate(model, images, views=10).top1 == pytest.approx(200 / 3)
    assert model.sides == {56, 48}


def test_network_without_wnids_uses_the_imagenet_order():
    model = BrightestChannel(1000)
    assert evaluate(model, colored(list(imagenet_wnids()))).top1 == 0
    with pytest.raises(ValueError, match=r"BrightestChannel has no `wnids`: pass wnids="):
        evaluate(model, colored([*imagenet_wnids()[:-1], "n99999999"]))
    with pytest.raises(ValueError, match="the network has 7 outputs, but there are 1000 wnids"):
        evaluate(BrightestChannel(7), colored(list(imagenet_wnids())))


def test_torchvision_network_equals_a_slow_loop(scenes_val):
    from zfnet.networks import load_network

    model = load_network("torchvision:squeezenet1_1", "random")
    wnids = list(imagenet_wnids()[: len(scenes_val.wnids)])
    images = scenes_val.aligned(scenes_val.wnids, scenes_val.classes).subset(range(20))
    images = Images(
        images.pixels, images.labels, wnids, wnids, images.names, "renamed", 112, images.rows
    )
    with torch.inference_mode():
        x = torch.nn.functional.interpolate(
            images.batch(range(20)), (224, 224), mode="bilinear", antialias=True
        )
        top5 = model(x).topk(5).indices
    wrong = sum(
        int(label) not in row for label, row in zip(images.labels, top5.tolist(), strict=True)
    )
    assert evaluate(model, images).top5 == pytest.approx(5 * wrong)


def test_network_without_logits_is_rejected():
    images = colored(["red", "green", "blue"])
    with pytest.raises(UnsupportedNetwork, match="must return logits"):
        evaluate(nn.Conv2d(3, 3, 1), images, wnids=images.wnids)
