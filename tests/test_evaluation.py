"""Top-1 and top-5 error: one crop or ten, equal to a slow loop, at any resolution."""

import numpy as np
import pytest
import torch

import zfnet
from zfnet.data.images import standardise
from zfnet.evaluation import evaluate, forward


def test_the_scenes_network_reaches_95_percent(scenes_net, scenes_val):
    scores = evaluate(scenes_net, scenes_val)
    assert scores.n == 500
    assert scores.top1 <= 5.0


def test_pooling_before_rectifying_changes_nothing():
    torch.manual_seed(0)
    model = zfnet.zfnet(6, fc=16, size=96, norm="batch", dropout=0.0)
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


def test_ten_crops_and_folder_names(scenes_net, scenes_val):
    ten = evaluate(scenes_net, scenes_val, views=10, limit=100)
    assert (ten.views, ten.n) == (10, 100)
    assert ten.top1 < 40  # corners cut some objects
    renamed = zfnet.load_scenes(100, seed=1, size=112, side=128).aligned(scenes_net.wnids[::-1], scenes_net.classes[::-1])
    assert evaluate(scenes_net, renamed).top1 == evaluate(scenes_net, zfnet.load_scenes(100, seed=1, size=112, side=128)).top1


def test_ten_crops_equal_a_slow_loop(scenes_net, scenes_val):
    wrong = 0
    for i in np.linspace(0, len(scenes_val) - 1, 60).astype(int).tolist():
        square = standardise(scenes_val.raw([i]).permute(0, 3, 1, 2))
        crops = torch.cat([square[..., t : t + 112, l : l + 112] for t, l in ((0, 0), (0, 16), (16, 0), (16, 16), (8, 8))])
        wrong += int(scenes_net(torch.cat([crops, crops.flip(3)])).softmax(1).mean(0).argmax() != scenes_val.labels[i])
    assert evaluate(scenes_net, scenes_val, views=10, limit=60).top1 == pytest.approx(100 * wrong / 60)


def test_an_evaluation_of_other_views_is_refused(scenes_net, scenes_val):
    for options in ({"views": 3}, {"precision": "fp16"}):
        with pytest.raises(ValueError, match="views must be 1 or 10"):
            evaluate(scenes_net, scenes_val, **options)
