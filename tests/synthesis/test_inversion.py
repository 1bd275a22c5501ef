"""Inversion against a hand-computed loss, an invertible linear code, and several networks."""

import pytest
import torch
from torch import nn

import zfnet
from tests.networks import SIZE, he, resnet18, small_zfnet
from zfnet.feature_extraction import feature_extractor
from zfnet.graph import UnknownLayer
from zfnet.synthesis.inversion import invert


def images(n=2, size=SIZE, seed=1, scale=1.0):
    return scale * torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_loss_equals_the_paper_by_hand():
    model, x, start = small_zfnet(), images(), images(seed=2)
    code = zfnet.trace(model, x)["conv4"]
    i = invert(
        model, code, start, layer="conv4", alpha=4, bound=0.3, beta=3, variation=0.2, steps=1
    )
    start_code = zfnet.trace(model, start)["conv4"]
    for n in range(2):
        expected = float((start_code[n] - code[n]).norm() ** 2 / code[n].norm() ** 2) + 0.3 * float(
            (start[n] ** 4).mean()
        )
        rows, columns = (
            start[n, :, 1:, :-1] - start[n, :, :-1, :-1],
            start[n, :, :-1, 1:] - start[n, :, :-1, :-1],
        )
        expected += 0.2 * float(torch.hypot(rows, columns).pow(3).mean())
        assert float(i.history[0, n]) == pytest.approx(expected, rel=1e-4)


def test_exact_code_has_no_error():
    model, x = small_zfnet(), images()
    code = feature_extractor(model, x, ("fc7",))(x)[
        "fc7"
    ].detach()  # bitwise: Adam amplifies any difference to a full step
    i = invert(model, code, x, layer="fc7", bound=0, variation=0, steps=3)
    assert float(i.error.max()) == 0
    assert torch.equal(i.pixels, x)


def test_invertible_code_recovers_the_image():
    model = nn.Sequential()
    model.add_module("conv1", nn.Conv2d(3, 3, 1))
    nn.init.orthogonal_(he(model).conv1.weight)
    x = images(size=8)
    i = invert(
        model,
        feature_extractor(model, x, ("conv1",))(x)["conv1"].detach(),
        images(size=8, seed=2),
        layer="conv1",
        bound=0,
        variation=0,
        steps=600,
        rate=0.1,
    )
    torch.testing.assert_close(i.pixels, x, atol=1e-2, rtol=0)
    assert float(i.error.max()) < 1e-4


@pytest.mark.parametrize("layer", ["conv1", "conv3", "conv5", "fc7", "fc8"])
def test_error_decreases_and_equals_the_distance_of_codes(layer):
    model, x, start = small_zfnet(), images(), images(seed=2, scale=0.1)
    code = zfnet.trace(model, x)[layer]
    i = invert(model, code, start, layer=layer, bound=0, variation=0, steps=40)
    assert (i.error < 0.6 * i.history[0]).all()
    distance = (zfnet.trace(model, i.pixels)[layer] - code).flatten(1).norm(dim=1) / code.flatten(
        1
    ).norm(dim=1)
    torch.testing.assert_close(i.error, distance**2, rtol=1e-3, atol=1e-6)


def test_bound_limits_pixels_and_variation_smooths():
    model, x = small_zfnet(), images()
    code, start = zfnet.trace(model, x)["conv2"], images(seed=2, scale=2.0)
    options = {"layer": "conv2", "steps": 60, "rate": 0.3}
    free, bound, smooth = (
        invert(model, code, start, bound=b, variation=v, **options)
        for b, v in ((0, 0), (10, 0), (0, 10))
    )
    assert float(bound.pixels.abs().max()) < 0.6 * float(free.pixels.abs().max())
    change = [
        float((i.pixels[..., 1:] - i.pixels[..., :-1]).square().mean()) for i in (free, smooth)
    ]
    assert change[1] < 0.3 * change[0]


def test_batch_does_not_change_images():
    model, x, start = small_zfnet().double(), images(3).double(), images(3, seed=2).double()
    code = zfnet.trace(model, x)["conv3"]
    batched, single = (invert(model, code, start, layer="conv3", steps=5, batch=b) for b in (3, 1))
    torch.testing.assert_close(batched.pixels, single.pixels, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(batched.history, single.history)


@pytest.mark.parametrize(
    ("build", "size", "layer"), [(resnet18, 40, "layer2.1"), (lambda: he(zfnet.mnist()), 28, "fc3")]
)
def test_networks_and_images_do_not_change(build, size, layer):
    model = build().train()
    x = images(1, size)
    code = feature_extractor(model, x, (layer,))(x)[layer].detach()
    i = invert(model, code, images(1, size, seed=2), layer=layer, steps=20)
    assert float(i.error) < float(i.history[0])
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(module.training and not module._forward_hooks for module in model.modules())


def test_invalid_arguments_are_rejected():
    model, x = small_zfnet(), images()
    code = zfnet.trace(model, x)["conv3"]
    with pytest.raises(ValueError, match="code of conv3 must be"):
        invert(model, code[:1], x, layer="conv3")
    with pytest.raises(ValueError, match="finite"):
        invert(model, code * torch.inf, x, layer="conv3")
    with pytest.raises(ValueError, match="the code of conv3 is zero in image 1"):
        invert(model, torch.cat([code[:1], 0 * code[1:]]), x, layer="conv3")
    with pytest.raises(ValueError, match="alpha and beta above 0"):
        invert(model, code, x, layer="conv3", beta=0)
    with pytest.raises(UnknownLayer, match="conv9"):
        invert(model, code, x, layer="conv9")
