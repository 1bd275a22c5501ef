"""DeepDream against a slow loop, on several kinds of networks; wrong arguments."""

import pytest
import torch
from torch import nn

from tests.networks import SIZE, resnet18, small_zfnet
from zfnet.graph import UnknownLayer
from zfnet.synthesis.base import clip, pixel_range
from zfnet.synthesis.dream import dream


def images(n, seed=1, size=(SIZE, SIZE)):
    return clip(0.5 * torch.randn(n, 3, *size, generator=torch.Generator().manual_seed(seed)))


def forward_to(model, layer, x):
    for name, module in model.named_children():
        x = module(x)
        if name == layer:
            return x
    raise AssertionError(layer)


@pytest.mark.parametrize("channel", [None, 4, [1, 4]])
def test_two_steps_by_hand(channel):
    model, x = small_zfnet().double(), images(2).double()
    d = dream(model, x, "conv3", channel=channel, octaves=1, steps=2, rate=0.05, jitter=0)
    channels = (
        slice(None) if channel is None else [channel] if isinstance(channel, int) else channel
    )
    for n in range(2):
        point = x[n : n + 1].clone()
        for _ in range(2):
            point.requires_grad_()
            maps = forward_to(model, "relu3", point)[:, channels]
            (0.5 * (maps**2).mean()).backward()
            shifted = point.detach() + 0.05 * point.grad / point.grad.abs().mean()
            low, high = pixel_range(shifted)
            point = shifted.clamp(low, high)
        torch.testing.assert_close(d.pixels[n : n + 1], point)
        assert float(d.before[n]) == pytest.approx(
            float((forward_to(model, "relu3", x[n : n + 1])[:, channels] ** 2).detach().mean())
        )
        assert float(d.after[n]) == pytest.approx(
            float((forward_to(model, "relu3", point)[:, channels] ** 2).detach().mean())
        )


def test_octaves_keep_the_detail_of_the_image():
    model, x = small_zfnet(), images(2)
    unchanged = dream(model, x, "conv2", octaves=3, steps=2, rate=1e-9)
    torch.testing.assert_close(unchanged.pixels, x, rtol=0, atol=1e-6)  # only changes are upsampled
    d = dream(model, x, "conv2", octaves=3, steps=4)
    assert (d.after > 1.5 * d.before).all()
    low, high = pixel_range(d.pixels)
    assert ((d.pixels >= low) & (d.pixels <= high)).all()
    torch.testing.assert_close(d.before, unchanged.before)


def test_more_octaves_give_coarser_patterns():
    """Changes at a smaller size are smoother."""

    def roughness(octaves):
        change = dream(small_zfnet(), images(2), "conv2", octaves=octaves, steps=6).pixels - images(
            2
        )
        return float((change[..., 1:] - change[..., :-1]).square().mean() / change.square().mean())

    assert roughness(4) < roughness(1)


def test_batch_does_not_change_images_or_state():
    model, x = small_zfnet().double().train(), images(3).double()
    state, original = torch.random.get_rng_state(), x.clone()
    batched, single = (dream(model, x, "conv3", octaves=2, steps=3, batch=b) for b in (3, 1))
    torch.testing.assert_close(batched.pixels, single.pixels)
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(x, original)
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    reseeded = dream(
        model, x, "conv3", octaves=2, steps=3, generator=torch.Generator().manual_seed(5)
    )
    assert not torch.equal(reseeded.pixels, batched.pixels)


def test_non_square_images_and_residual_networks():
    x = images(1, size=(64, 80))
    d = dream(resnet18(), x, "layer2.1", octaves=2, steps=3)
    assert d.pixels.shape == x.shape
    assert float(d.after) > float(d.before)


@pytest.mark.parametrize(
    "options", [{"octaves": 0}, {"steps": 0}, {"zoom": 1.0}, {"jitter": -1}, {"rate": 0.0}, {"batch": 0}, {"zoom": float("nan")}, {"channel": 99}, {"channel": []},
     {"channel": 1.5}]
)  # fmt: skip
def test_invalid_options_are_rejected(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        dream(small_zfnet(), images(1), "conv2", **options)


def test_unusable_layers_and_images_are_rejected():
    with pytest.raises(UnknownLayer):
        dream(small_zfnet(), images(1), "conv9")
    with pytest.raises(ValueError, match="fc7 has no feature maps"):
        dream(small_zfnet(), images(1), "fc7")
    with pytest.raises(ValueError, match="RGB"):
        dream(
            nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 36, 3)),
            torch.randn(1, 1, 8, 8),
            "conv1",
        )
    with pytest.raises(ValueError, match="float32 or float64"):
        dream(small_zfnet().bfloat16(), images(1).bfloat16(), "conv1")
    inactive = small_zfnet()
    inactive.conv2.bias.data.fill_(-1e3)
    with pytest.raises(ValueError, match="conv2 is inactive in image 0"):
        dream(inactive, images(1), "conv2")
    for octaves in (4, 12):  # 1/8 of 64 pixels is too small for the network
        with pytest.raises(ValueError, match="does not fit the network"):
            dream(small_zfnet(), images(1), "conv5", octaves=octaves, zoom=2.0)
