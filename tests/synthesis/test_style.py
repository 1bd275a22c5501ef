"""Style transfer and its building blocks against slow versions; batches and several networks."""

import pytest
import torch
from torch import nn

import zfnet
from tests.conftest import random_he
from tests.networks import SIZE, he, resnet18, small_zfnet
from zfnet.data.images import MEAN, STD
from zfnet.feature_extraction import feature_extractor
from zfnet.graph import UnknownLayer
from zfnet.synthesis.base import clip, descend, pixel_range, total_variation
from zfnet.synthesis.style import gram, style_transfer


def images(n, *size, seed=1):
    return clip(
        torch.randn(n, 3, *(size or (SIZE, SIZE)), generator=torch.Generator().manual_seed(seed))
    )


def test_gram_matrices_by_hand():
    maps = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    for n in range(2):
        for i in range(3):
            for j in range(3):
                assert float(gram(maps)[n, i, j]) == pytest.approx(
                    float((maps[n, i] * maps[n, j]).sum()) / 20, abs=1e-5
                )
    shuffled = maps.flatten(2)[
        ..., torch.randperm(20, generator=torch.Generator().manual_seed(1))
    ].view(2, 3, 4, 5)
    torch.testing.assert_close(gram(shuffled), gram(maps))  # the order of positions does not matter


def test_loss_equals_a_slow_version():
    model, content, style = small_zfnet(), images(2), images(1, 48, 80, seed=2)
    s = style_transfer(
        model,
        content,
        style,
        weight=3,
        variation=0.5,
        steps=2,
        content_layer="conv3",
        start=images(2, seed=3),
    )
    x, p = (zfnet.trace(model, each) for each in (images(2, seed=3), content))
    a, signal = {}, style
    for (
        name,
        module,
    ) in model.named_children():  # an image of another size does not fit the dense layers
        if name == "flatten":
            break
        signal = module(signal).detach()
        if name.startswith("relu"):
            a[f"conv{name[4:]}"] = signal
    for n in range(2):
        expected = float(((x["conv3"][n] - p["conv3"][n]) ** 2).sum() / (p["conv3"][n] ** 2).sum())
        for layer in ("conv1", "conv2", "conv3", "conv4", "conv5"):
            f, g = x[layer][n].flatten(1), a[layer][0].flatten(1)
            gram_x, gram_style = f @ f.T / f.shape[1], g @ g.T / g.shape[1]
            expected += 3 / 5 * float(((gram_x - gram_style) ** 2).sum() / (gram_style**2).sum())
        image = x.x[n]
        for c in range(3):
            steps = torch.hypot(
                image[c, 1:, :-1] - image[c, :-1, :-1], image[c, :-1, 1:] - image[c, :-1, :-1]
            )
            expected += 0.5 * float(steps.mean()) / 3
        assert float(s.history[0, n]) == pytest.approx(expected, rel=1e-4)
    end = zfnet.trace(model, s.pixels)
    content_loss = (end["conv3"] - p["conv3"]).square().sum((1, 2, 3)) / p["conv3"].square().sum(
        (1, 2, 3)
    )
    torch.testing.assert_close(s.content, content_loss)
    assert set(s.style) == set(a)


def test_equal_style_changes_nothing_and_another_style_is_approached():
    model, content, style = small_zfnet(), images(2), images(2, seed=2).sign() * 0.5
    unchanged = style_transfer(model, content, content, variation=0.0, steps=3)
    assert float(unchanged.history.max()) < 1e-9
    assert float(unchanged.content.max()) < 1e-9
    s = style_transfer(model, content, style, weight=1e3, variation=0.0, steps=40)
    initial = style_transfer(model, content, style, weight=1e3, variation=0.0, steps=1, rate=1e-9)
    for layer, loss in s.style.items():
        assert (loss < 0.5 * initial.style[layer]).all(), layer
    low, high = pixel_range(s.pixels)
    assert ((s.pixels >= low) & (s.pixels <= high)).all()


def test_batch_does_not_change_images():
    model, content, style = small_zfnet().double(), images(3).double(), images(3, seed=2).double()
    state = torch.random.get_rng_state()
    batched, single = (style_transfer(model, content, style, steps=5, batch=b) for b in (3, 1))
    # In float32, Adam amplifies rounding.
    torch.testing.assert_close(batched.pixels, single.pixels, rtol=1e-6, atol=1e-6)
    assert batched.history.shape == single.history.shape == (5, 3)
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("build", "size", "layers"),
    [
        (resnet18, 40, ("conv1", "layer1.1", "layer3.0")), (lambda: random_he(zfnet.mnist(norm="none")), 28, ("conv1", "conv2")),
        (lambda: he(zfnet.mnist()), 28, ("conv1", "conv2")),
    ],
)  # fmt: skip
def test_networks_and_images_do_not_change(build, size, layers):
    model = build().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    s = style_transfer(
        model,
        images(1, size, size),
        images(1, size, size, seed=2),
        content_layer=layers[-1],
        style_layers=layers,
        steps=12,
    )
    assert float(s.history[-1]) < 0.9 * float(s.history[0])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(module.training and not module._forward_hooks for module in model.modules())


def test_invalid_arguments_are_rejected():
    model, x = small_zfnet(), images(2)
    with pytest.raises(ValueError, match=r"one image or one per image \(2\)"):
        style_transfer(model, x, images(3))
    with pytest.raises(ValueError, match="start have the shape of the content"):
        style_transfer(model, x, x, start=images(2, 32, 32))
    with pytest.raises(ValueError, match="weight and variation 0 or more"):
        style_transfer(model, x, x, weight=-1)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        style_transfer(model, x, x, steps=0)
    with pytest.raises(ValueError, match="not finite"):
        style_transfer(model, x, x, start=x * torch.nan)
    with pytest.raises(ValueError, match="Gram matrices need feature maps"):
        style_transfer(model, x, x, style_layers=("conv1", "fc6"))
    inactive = small_zfnet()
    inactive.conv3.bias.data.fill_(-1e3)
    inactive.conv4.bias.data.fill_(-1.0)
    with pytest.raises(ValueError, match="conv4 of the content is zero in image 0"):
        style_transfer(inactive, x, x)
    with pytest.raises(ValueError, match="conv3 of the style is zero in image 0"):
        style_transfer(inactive, x, x, content_layer="conv2", style_layers=("conv2", "conv3"))
    with pytest.raises(UnknownLayer, match="conv9"):
        style_transfer(model, x, x, style_layers=("conv9",))
    with pytest.raises(ValueError, match="RGB"):
        pixel_range(torch.zeros(1, 1, 4, 4))


def test_pixel_range_and_total_variation():
    low, high = pixel_range(torch.zeros(1, 3, 2, 2))
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    torch.testing.assert_close(low.flatten() * std + mean, torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(high.flatten() * std + mean, torch.ones(3))
    assert torch.equal(clip(torch.full((1, 3, 2, 2), 9.0)), high.expand(1, 3, 2, 2))
    ramp = 3.0 * torch.arange(5)[:, None] + 4.0 * torch.arange(6)
    x = torch.stack([ramp.expand(3, 5, 6), torch.zeros(3, 5, 6)])
    torch.testing.assert_close(total_variation(x), torch.tensor([5.0, 0.0]), atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(
        total_variation(x, 2.0), torch.tensor([25.0, 0.0]), atol=2e-4, rtol=1e-4
    )


def test_descend_minimizes_each_row_independently():
    target = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    point, history = descend(
        lambda p, step: (p - target).square().sum(1), torch.zeros(3, 4), steps=300, rate=0.1
    )
    torch.testing.assert_close(point, target, atol=1e-2, rtol=0)
    assert history.shape == (300, 3)
    torch.testing.assert_close(history[0], target.square().sum(1))
    single, _ = descend(
        lambda p, step: (p - target[1:2]).square().sum(1), torch.zeros(1, 4), steps=300, rate=0.1
    )
    assert torch.equal(single, point[1:2])
    clamped, _ = descend(
        lambda p, step: (p - 9).square().sum(1),
        torch.zeros(1, 1),
        steps=99,
        rate=0.5,
        after=lambda p, step: p.clamp_max(2),
    )
    assert float(clamped) == 2
    # For a constant gradient, Adam's steps equal the rate, which decays: 5/5, 4/5, 3/5, 2/5, 1/5.
    linear, _ = descend(lambda p, step: p.sum(1), torch.zeros(1, 2), steps=5, rate=0.5)
    torch.testing.assert_close(linear, torch.full((1, 2), -1.5))
    with pytest.raises(ValueError, match="rate above 0"):
        descend(lambda p, step: p.sum(1), torch.zeros(1, 1), steps=1, rate=0.0)


def test_feature_extractor_equals_the_trace_and_passes_gradients():
    model, x = small_zfnet("lrn"), images(2).requires_grad_()
    read = feature_extractor(model, x.detach(), ("conv2", "fc7"))
    t = zfnet.trace(model, x.detach())
    features = read(x)
    assert set(features) == {"conv2", "fc7"}
    for layer, value in features.items():
        torch.testing.assert_close(value.detach(), t[layer], rtol=1e-4, atol=1e-5)
    assert float(torch.autograd.grad(features["fc7"].sum(), x)[0].abs().max()) > 0
    unrectified = feature_extractor(model, x.detach(), ("conv2",), rectified=False)(x)["conv2"]
    torch.testing.assert_close(
        nn.functional.relu(unrectified).detach(), t["conv2"], rtol=1e-4, atol=1e-5
    )
    assert float(unrectified.detach().min()) < 0


def test_texture_synthesis_omits_the_content_term():
    model, noise, style = small_zfnet(), images(2, seed=7), images(1, 48, 80, seed=2)
    t = style_transfer(
        model,
        None,
        style,
        start=noise,
        style_layers=("conv1", "conv3"),
        variation=0.0,
        weight=5,
        steps=30,
    )
    assert t.content is None
    maps = zfnet.trace(model, noise)
    target = feature_extractor(model, noise, ("conv1", "conv3"))(style)
    expected = (
        sum(
            ((gram(maps[n]) - gram(target[n])) ** 2).sum((1, 2)) / (gram(target[n]) ** 2).sum()
            for n in target
        )
        * 5
        / 2
    )
    torch.testing.assert_close(t.history[0], expected)
    assert set(t.style) == {"conv1", "conv3"}
    assert (t.history[-1] < 0.3 * t.history[0]).all()
    with pytest.raises(ValueError, match="needs start"):
        style_transfer(model, None, style)
    with pytest.raises(ValueError, match=r"one image or one per image \(2\)"):
        style_transfer(model, None, images(3), start=noise)
