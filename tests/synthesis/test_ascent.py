"""Gradient ascent against closed forms on linear networks and slow versions of its regularizers."""

import math

import pytest
import torch
from torch import nn

import zfnet
from tests.networks import SIZE, he, resnet18, small_zfnet
from zfnet.graph import UnknownLayer
from zfnet.synthesis.ascent import ascend
from zfnet.synthesis.base import blur, clip, pixel_range, total_variation
from zfnet.synthesis.fourier import color_root, to_frequencies, to_image


def noise(n=2, size=SIZE, scale=0.1):
    return scale * torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(1))


def linear(size=6, classes=4):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * size * size, classes))
    return he(model)


def test_pixels_of_a_linear_network_reach_black_or_white():
    model = linear()
    a = ascend(model, torch.zeros(4, 3, 6, 6), [0, 1, 2, 3], steps=150, rate=0.2)
    low, high = pixel_range(a.pixels)
    weight = model[1].weight.view(4, 3, 6, 6)
    expected = torch.where(weight > 0, high.expand_as(weight), low.expand_as(weight))
    torch.testing.assert_close(a.pixels, expected.detach())
    torch.testing.assert_close(
        a.activation, (weight * expected).sum((1, 2, 3)).detach() + model[1].bias.detach()
    )


def test_decay_on_a_linear_network_has_a_closed_form():
    """For an image of n elements, w x - l |x|^2 / n is largest at x = n w / (2 l)."""
    model, n = linear(), 3 * 6 * 6
    a = ascend(model, torch.zeros(1, 3, 6, 6), 2, steps=400, rate=0.05, decay=n / 2 * 0.5)
    expected = clip(model[1].weight[2].view(1, 3, 6, 6) / 0.5).detach()
    assert float(expected.abs().max()) < float(pixel_range(expected)[1].min())  # nothing is clipped
    torch.testing.assert_close(a.pixels, expected, atol=2e-3, rtol=1e-2)


@pytest.mark.parametrize(
    ("layer", "position"),
    [
        ("conv2", "mean"),
        ("conv3", "max"),
        ("conv5", "center"),
        ("conv4", (1, 2)),
        ("fc6", "mean"),
        (None, "mean"),
    ],
)
def test_activations_equal_the_trace(layer, position):
    model, x = small_zfnet(), noise()
    target = torch.tensor([3, 7])
    a = ascend(model, x, target, layer=layer, position=position, steps=25)
    assert (a.activation > a.history[0]).all()
    assert a.history.shape == (25, 2)
    for pixels, activation in ((x, a.history[0]), (a.pixels, a.activation)):
        t = zfnet.trace(model, pixels)
        values = (t.logits if layer is None else t[layer])[torch.arange(2), target]
        if values.ndim > 1:
            center = [n // 2 for n in values.shape[1:]]
            cell = center if position == "center" else position
            values = (
                values.amax((1, 2))
                if position == "max"
                else values[:, cell[0], cell[1]]
                if position != "mean"
                else None
            )
        if values is not None:  # a mean is computed before the ReLU
            torch.testing.assert_close(
                activation if layer is None else activation.relu(), values, rtol=1e-3, atol=1e-4
            )
    if position == "mean" and layer == "conv2":
        a = ascend(model, x, target, layer=layer, rectified=True, steps=25)
        # Inactive channels have no gradient.
        assert ((a.activation > a.history[0]) == (a.history[0] > 0)).all()
        assert torch.equal(a.pixels[a.history[0] == 0], x[a.history[0] == 0])
        assert (a.history[0] == 0).tolist() == [False, True]
        torch.testing.assert_close(
            a.activation, zfnet.trace(model, a.pixels)[layer][torch.arange(2), target].mean((1, 2))
        )


def test_units_are_one_hot_directions():
    model, x = small_zfnet().double(), noise().double()
    unit = torch.eye(24)[[4, 9]]
    by_unit, by_direction = (
        ascend(model, x, target, layer="conv3", steps=6) for target in ([4, 9], unit)
    )
    assert torch.equal(by_unit.pixels, by_direction.pixels)
    mixed = ascend(
        model,
        x[:1].expand(3, -1, -1, -1),
        torch.stack([unit[0], unit[1], 2 * unit[0] - unit[1]]),
        layer="conv3",
        steps=1,
    )
    torch.testing.assert_close(mixed.history[0, 2], 2 * mixed.history[0, 0] - mixed.history[0, 1])


def test_to_image_inverts_to_frequencies():
    colors = torch.tensor([[0.6, 0.2, 0.1], [0.2, 0.7, 0.1], [0.1, 0.2, 0.8]])
    low, high = pixel_range(torch.zeros(1, 3, 1, 1))
    x = low + (high - low) * (
        0.05 + 0.9 * torch.rand(2, 3, 12, 17, generator=torch.Generator().manual_seed(0))
    )
    torch.testing.assert_close(
        to_image(to_frequencies(x, colors), (12, 17), colors), x, atol=1e-4, rtol=1e-4
    )
    # A coefficient of 1 at f cycles per pixel is a wave of amplitude 2 / (f sqrt(pixels)).
    point = torch.zeros(1, 3, 16, 9, 2)
    # The two coefficients of a real wave of two cycles in 16 rows.
    point[0, 0, 2, 0, 0], point[0, 0, 14, 0, 0] = (1.0, 1.0)
    image = (to_image(point, (16, 16), torch.eye(3)) - low) / (high - low)
    wave = 2 / (2 / 16 * 16) * torch.cos(2 * math.pi * 2 * torch.arange(16) / 16)
    torch.testing.assert_close(
        image[0, 0], wave.sigmoid()[:, None].expand(16, 16), atol=1e-5, rtol=1e-4
    )
    assert (image[0, 1:] - 0.5).abs().max() < 1e-5


def test_frequency_parametrization_gives_smoother_valid_images():
    model, x = small_zfnet(), torch.zeros(2, 3, SIZE, SIZE)
    by_pixels, by_frequencies = (
        ascend(model, x, [3, 7], layer="conv2", steps=40, frequency=f) for f in (False, True)
    )
    low, high = pixel_range(x)
    for a in (by_pixels, by_frequencies):
        assert (a.activation > a.history[0]).all()
        assert ((a.pixels >= low) & (a.pixels <= high)).all()
    roughness = [
        total_variation(a.pixels) / a.pixels.flatten(1).std(1) for a in (by_pixels, by_frequencies)
    ]
    assert (roughness[1] < roughness[0]).all()


def test_color_root_is_the_root_of_the_covariance():
    root = torch.tensor([[1.0, 0.3, 0.2], [0.3, 0.8, 0.1], [0.2, 0.1, 0.6]])
    white = torch.randn(4, 3, 200, 200, generator=torch.Generator().manual_seed(0))
    estimated = color_root(torch.einsum("dc,nchw->ndhw", root, white))
    torch.testing.assert_close(estimated, root, atol=0.01, rtol=0)
    with pytest.raises(ValueError, match="the same color"):
        color_root(torch.zeros(1, 3, 4, 4))


def test_variation_and_blur_smooth_images():
    model, x = small_zfnet(), noise(scale=1.0)
    options = {"layer": "conv2", "steps": 30}
    free = ascend(model, x, 3, **options)
    for regularized in (
        ascend(model, x, 3, variation=1e3, **options),
        ascend(model, x, 3, blur_sigma=1.0, **options),
    ):
        assert (total_variation(regularized.pixels) < 0.8 * total_variation(free.pixels)).all()
    zero_network = linear()
    zero_network[1].weight.data.zero_()  # without gradients, only the blur changes the image
    x = clip(noise(1, 6, 1.0))
    assert torch.equal(ascend(zero_network, x, 0, blur_sigma=0.7, steps=3).pixels, x)
    torch.testing.assert_close(
        ascend(zero_network, x, 0, blur_sigma=0.7, steps=8).pixels, blur(blur(x, 0.7), 0.7)
    )


def test_jitter_spreads_the_optimized_pattern():
    """Without jitter, one patch changes; with jitter, its neighborhood changes, too."""
    model = nn.Sequential()
    model.add_module("conv1", nn.Conv2d(3, 2, 3, padding=1))
    he(model)
    x = torch.zeros(1, 3, 15, 15)
    fixed, jittered = (
        ascend(model, x, 1, layer="conv1", position=(7, 7), steps=60, jitter=j) for j in (0, 2)
    )
    changed = [(a.pixels != 0).any(1)[0].nonzero() for a in (fixed, jittered)]
    assert (changed[0].min(0).values.tolist(), changed[0].max(0).values.tolist()) == (
        [6, 6],
        [8, 8],
    )
    assert (changed[1].min(0).values.tolist(), changed[1].max(0).values.tolist()) == (
        [4, 4],
        [10, 10],
    )


def test_images_depend_on_the_generator_only():
    model, x = small_zfnet().double(), noise(3).double()
    state = torch.random.get_rng_state()
    batched, single = (
        ascend(model, x, [1, 2, 3], steps=6, jitter=3, frequency=True, batch=b) for b in (3, 1)
    )
    torch.testing.assert_close(batched.pixels, single.pixels)
    torch.testing.assert_close(batched.history, single.history)
    reseeded = ascend(
        model,
        x,
        [1, 2, 3],
        steps=6,
        jitter=3,
        frequency=True,
        generator=torch.Generator().manual_seed(5),
    )
    assert not torch.allclose(reseeded.pixels, batched.pixels)
    assert torch.equal(state, torch.random.get_rng_state())


def test_ascend_works_in_inference_mode():
    model, x, colors = small_zfnet(), noise(), 0.5 * torch.eye(3)
    options = {"layer": "conv3", "frequency": True, "jitter": 2, "steps": 3}
    expected = ascend(model, x, torch.eye(24)[3], colors=colors, **options)
    with torch.inference_mode():
        result = ascend(model, x.clone(), torch.eye(24)[3], colors=colors.clone(), **options)
    torch.testing.assert_close(result.pixels, expected.pixels)


@pytest.mark.parametrize(
    ("build", "size", "layer"),
    [
        (resnet18, 40, "layer2.1"),
        (resnet18, 40, None),
        (lambda: he(zfnet.mnist()), 28, "conv2"),
        (lambda: he(zfnet.mnist()), 28, None),
    ],
)
def test_networks_and_images_do_not_change(build, size, layer):
    model = build().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    a = ascend(model, noise(2, size), [0, 3], layer=layer, steps=15)
    assert (a.activation > a.history[0]).all()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(module.training and not module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        (0, {"batch": 0}, "batch"), (0, {"decay": -1.0}, "regularizers"), (0, {"blur_sigma": 1.0, "frequency": True}, "blur_sigma applies to pixels"),
        (0, {"colors": torch.eye(3)}, "colors requires"), (24, {}, "a unit from 0 to 23"), ([1, 2, 3], {}, "one per image for 2 images"),
        (torch.zeros(23), {}, "direction"), (torch.full((24,), torch.nan), {}, "direction must be finite"), (0, {"steps": -1}, "steps"), (0, {"position": "edge"}, "position must be"), (0, {"position": (99, 0)}, "position must be"), (0, {"steps": 0}, "steps"),
    ],
)  # fmt: skip
def test_invalid_arguments_are_rejected(target, options, message):
    with pytest.raises(ValueError, match=message):
        ascend(small_zfnet(), noise(), target, **{"layer": "conv3", "steps": 2} | options)
    with pytest.raises(ValueError, match="must be RGB"):
        ascend(small_zfnet(), noise()[:, :1], 0)
    with pytest.raises(UnknownLayer, match="conv9"):
        ascend(small_zfnet(), noise(), 0, layer="conv9")


def test_half_precision_is_rejected():
    model = zfnet.mnist().eval().half()
    with pytest.raises(ValueError, match="float32 or float64"):
        ascend(model, torch.zeros(1, 3, 28, 28).half(), 1, steps=2)
