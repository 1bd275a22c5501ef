"""Gradient attributions against Captum, zennit and finite differences."""

import copy

import captum.attr
import pytest
import torch
import torch.nn.functional as F
import torchvision
import zennit.attribution
import zennit.composites
from torch import nn

import zfnet
from tests.networks import BUILD, SIZE, Rectified, out_of_place, small_zfnet, two_images
from zfnet.attribution.base import Attribution, gradient
from zfnet.attribution.gradients import gradient_x_input, integrated_gradients, saliency, smoothgrad
from zfnet.attribution.guided import deconvnet, guided_backprop, unit_gradient
from zfnet.graph import UnsupportedNetwork

RELUS = {
    "module": nn.ReLU(), "in-place module": nn.ReLU(inplace=True), "F.relu": F.relu, "torch.relu": torch.relu,
    "method": lambda x: x.relu(), "in place": lambda x: x.relu_(), "F.relu in place": lambda x: F.relu(x, inplace=True),
    "clamp": lambda x: x.clamp(min=0), "clamp_min": lambda x: x.clamp_min(0), "clamp in place": lambda x: x.clamp_(min=0),
}  # fmt: skip
OTHER_ACTIVATIONS = {
    "leaky": lambda x: F.leaky_relu(x, 0.1), "gelu": F.gelu, "sigmoid": torch.sigmoid, "relu6": F.relu6,
    "mask": lambda x: x * (x > 0), "float mask": lambda x: x * (x > 0).float(), "where": lambda x: torch.where(x > 0, x, 0.0),
    "maximum": lambda x: torch.maximum(x, torch.zeros(())), "half the sum": lambda x: (x + x.abs()) / 2,
    "threshold": lambda x: F.threshold(x, 0, 0), "two sides": lambda x: x.clamp(0, 6), "clamp at 1": lambda x: x.clamp(min=1),
    "masked_fill": lambda x: x.masked_fill(x < 0, 0), "a slice in place": lambda x: (x[:, :3].relu_(), x)[1],
}  # fmt: skip

# The deconvnet handles these as ReLUs: it rectifies the signal.
RECTIFIERS = ("leaky", "relu6", "threshold", "two sides")


@pytest.fixture(scope="module", params=list(BUILD))
def network(request):
    return BUILD[request.param]()


@pytest.fixture(scope="module")
def x(network):
    return two_images(network)


TARGET = torch.tensor([3, 7])


def close(actual, expected, tolerance=1e-5):
    assert actual.shape == expected.shape
    assert expected.abs().max() > 0
    torch.testing.assert_close(
        actual,
        expected.detach(),
        rtol=tolerance,
        atol=tolerance * float(expected.detach().abs().max()),
    )


@pytest.mark.parametrize(
    ("method", "oracle", "options"),
    [
        (saliency, captum.attr.Saliency, {"abs": False}), (gradient_x_input, captum.attr.InputXGradient, {}),
        (guided_backprop, captum.attr.GuidedBackprop, {}), (deconvnet, captum.attr.Deconvolution, {}),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings(
    "ignore:Setting backward hooks", "ignore:Input Tensor", "ignore:.*non-full backward hook"
)
def test_gradient_methods_equal_captum(network, x, method, oracle, options):
    expected = oracle(out_of_place(network)).attribute(
        x.clone().requires_grad_(), target=TARGET, **options
    )
    a = method(network, x, TARGET)
    close(a.pixels, expected)
    reduced = (
        a.pixels.sum(1, keepdim=True)
        if method is gradient_x_input
        else a.pixels.abs().amax(1, keepdim=True)
    )
    assert torch.equal(a.map, reduced)
    assert (a.method, a.target.tolist(), a.state) == (method.__name__, [3, 7], ("ok", "ok"))


@pytest.mark.parametrize(
    ("method", "composite"),
    [(guided_backprop, zennit.composites.GuidedBackprop), (deconvnet, zennit.composites.DeconvNet)],
)
def test_guided_methods_equal_zennit(network, x, method, composite):
    with zennit.attribution.Gradient(out_of_place(network), composite()) as attributor:
        _, expected = attributor(x.clone().requires_grad_(), torch.eye(10)[TARGET])
    close(method(network, x, TARGET).pixels, expected)


def test_integrated_gradients_equal_captum_and_are_complete(network, x):
    """Use float64, as rounding of the interpolated points would flip some ReLUs."""
    network, x = copy.deepcopy(network).double(), x.double()
    options = {"n_steps": 6, "method": "riemann_middle"}
    base = torch.randn(
        1, 3, *x.shape[2:], generator=torch.Generator().manual_seed(2), dtype=x.dtype
    )
    expected = captum.attr.IntegratedGradients(network).attribute(
        x, base.expand_as(x), TARGET, **options
    )
    a = integrated_gradients(network, x, TARGET, steps=6, baseline=base, batch=4)
    close(a.pixels, expected)
    with torch.no_grad():
        change = (network(x) - network(base.expand_as(x))).gather(1, TARGET[:, None])[:, 0]
    torch.testing.assert_close(a.map.sum((1, 2, 3)) + a.residual, change, rtol=1e-4, atol=1e-4)


def test_completeness_improves_with_steps():
    network, x = (
        small_zfnet("lrn"),
        torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)),
    )
    fine = integrated_gradients(network, x, TARGET, steps=200, batch=20)
    coarse = integrated_gradients(network, x, TARGET, steps=2)
    assert fine.residual.abs().max() < 0.02 * coarse.pixels.abs().sum((1, 2, 3)).min()
    assert fine.residual.abs().sum() < coarse.residual.abs().sum()


def test_smoothgrad_equals_captum_without_noise_in_any_batch(network, x):
    options = {"samples": 5, "sigma": 0.1}
    batch1, batch3 = (
        smoothgrad(
            network, x, TARGET, **options, batch=b, generator=torch.Generator().manual_seed(5)
        )
        for b in (1, 3)
    )
    close(batch1.pixels, batch3.pixels)
    tunnel = captum.attr.NoiseTunnel(captum.attr.Saliency(network))
    expected = tunnel.attribute(x, nt_samples=3, stdevs=0.0, target=TARGET, abs=False)
    close(smoothgrad(network, x, TARGET, samples=3, sigma=0).pixels, expected)
    assert not torch.allclose(batch1.pixels, expected, rtol=0.1)


def test_smoothgrad_by_hand():
    """Average the gradients of noisy copies; scale the noise by the range of each image."""
    model, x = (
        small_zfnet(),
        torch.stack([torch.rand(3, SIZE, SIZE), 10 * torch.rand(3, SIZE, SIZE)]),
    )
    expected = []
    for n, image in enumerate(x):
        # All images get the same noise, so maps do not depend on the other images.
        generator = torch.Generator().manual_seed(9)
        deviation = 0.2 * (image.max() - image.min())
        copies = torch.stack(
            [image + deviation * torch.randn(3, SIZE, SIZE, generator=generator) for _ in range(4)]
        )
        expected.append(gradient(model, copies, [1, 2][n])[0].mean(0))
    a = smoothgrad(
        model, x, [1, 2], samples=4, sigma=0.2, generator=torch.Generator().manual_seed(9)
    )
    close(a.pixels, torch.stack(expected))
    state = torch.random.get_rng_state()
    second = smoothgrad(model, x, [1, 2], samples=4, sigma=0.2)
    assert torch.equal(second.map, smoothgrad(model, x, [1, 2], samples=4, sigma=0.2).map)
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("method", [gradient_x_input, integrated_gradients, saliency])
def test_maps_are_detached_from_the_callers_graph(method):
    x = torch.randn(1, 3, SIZE, SIZE, requires_grad=True)
    a = method(small_zfnet(), x, 1)
    assert not a.map.requires_grad
    assert not a.pixels.requires_grad
    assert x.grad is None


def test_saliency_equals_finite_differences():
    model = small_zfnet("lrn").double()
    x = torch.randn(
        1, 3, SIZE, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    a, step = saliency(model, x, 4), 1e-6
    for c, row, column in ((0, 3, 5), (1, 30, 40), (2, 63, 63)):
        ends = []
        for sign in (-1, 1):
            moved = x.clone()
            moved[0, c, row, column] += sign * step
            ends.append(float(model(moved)[0, 4].detach()))
        assert float(a.pixels[0, c, row, column]) == pytest.approx(
            (ends[1] - ends[0]) / (2 * step), rel=1e-4, abs=1e-7
        )
        assert float(a.map[0, 0, row, column]) == float(a.pixels[0, :, row, column].abs().max())


def backward_by_hand(model, x, target, rule):
    """Compute the backward pass of `Rectified` layer by layer, with a rule for its ReLUs."""
    z1 = model.conv1(x)
    pooled, switches = F.max_pool2d(model.relu(z1.clone()), 2, return_indices=True)
    z2 = model.conv2(pooled)
    signal = model.fc.weight[target][:, :, None, None].expand_as(z2) / z2[0, 0].numel()
    signal = torch.nn.grad.conv2d_input(pooled.shape, model.conv2.weight, rule(signal, z2))
    signal = F.max_unpool2d(signal, switches, 2, output_size=z1.shape)
    return torch.nn.grad.conv2d_input(x.shape, model.conv1.weight, rule(signal, z1), 2)


@pytest.mark.parametrize("relu", RELUS.values(), ids=list(RELUS))
def test_every_kind_of_relu_is_handled(relu):
    model, x = (
        Rectified(relu),
        torch.randn(2, 3, 21, 25, generator=torch.Generator().manual_seed(1)),
    )
    target = torch.tensor([0, 2])
    with torch.no_grad():
        guided = backward_by_hand(model, x, target, lambda r, f: r.relu() * (f > 0))
        deconvolved = backward_by_hand(model, x, target, lambda r, f: r.relu())
        gradient_pixels = backward_by_hand(model, x, target, lambda r, f: r * (f > 0))
    close(guided_backprop(model, x, target).pixels, guided)
    close(deconvnet(model, x, target).pixels, deconvolved)
    close(saliency(model, x, target).pixels, gradient_pixels)
    assert not torch.allclose(guided, gradient_pixels, rtol=0.1)


@pytest.mark.parametrize("name", OTHER_ACTIVATIONS)
@pytest.mark.parametrize("method", [guided_backprop, deconvnet])
def test_other_nonlinearities_are_rejected(name, method):
    model, x = Rectified(OTHER_ACTIVATIONS[name]), torch.randn(1, 3, 21, 21)
    saliency(model, x)
    if method is deconvnet and name in RECTIFIERS:
        pytest.skip("rectified by the deconvnet; see the next test")
    with pytest.raises(UnsupportedNetwork, match="need ReLUs"):
        method(model, x)


@pytest.mark.parametrize("name", RECTIFIERS)
def test_deconvnet_rectifies_at_other_rectifiers(name):
    model = Rectified(OTHER_ACTIVATIONS[name])
    x = torch.randn(2, 3, 21, 25, generator=torch.Generator().manual_seed(1))
    target = torch.tensor([0, 2])
    with torch.no_grad():
        expected = backward_by_hand(model, x, target, lambda r, f: r.relu())
    close(deconvnet(model, x, target).pixels, expected)


@pytest.mark.parametrize("method", [guided_backprop, deconvnet])
def test_linear_operations_of_any_layout_are_accepted(method):
    """The mean of channels_last maps records a strided view; 1 - x records a subtraction."""

    class ReversedSubtraction(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

        def forward(self, x):
            return self.fc(F.adaptive_avg_pool2d(1 - torch.relu(self.conv(x)), 1).flatten(1))

    torch.manual_seed(0)
    model, x = ReversedSubtraction(), torch.randn(2, 3, 20, 20)
    strided = method(model, x.contiguous(memory_format=torch.channels_last), 1)
    close(strided.pixels, method(model, x, 1).pixels)
    resnet = torchvision.models.resnet18(num_classes=5).eval()
    assert method(
        resnet, torch.randn(1, 3, 64, 64).contiguous(memory_format=torch.channels_last), 1
    ).state == ("ok",)


def test_deconvnet_skips_normalization_and_guided_backprop_does_not():
    """With LRN, the deconvnet equals `zfnet.project` of a logit and differs from Captum."""
    model, x = (
        small_zfnet("lrn"),
        torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)),
    )
    for norm in (module for name, module in model.named_children() if name.startswith("norm")):
        norm.alpha = 5.0  # make normalization strong
    target = model(x).argmax(1)
    a = deconvnet(model, x, target)
    projected = zfnet.project(model, x, "fc8", target)
    assert (
        projected.activation > 0
    ).all()  # the projection of a negative logit has the opposite sign
    close(a.pixels * projected.activation.view(-1, 1, 1, 1), projected.pixels)
    expected = captum.attr.Deconvolution(out_of_place(model)).attribute(
        x.clone().requires_grad_(), target=target
    )
    assert float(F.cosine_similarity(a.pixels.flatten(1), expected.flatten(1)).max()) < 0.99
    expected = captum.attr.GuidedBackprop(out_of_place(model)).attribute(
        x.clone().requires_grad_(), target=TARGET
    )
    close(guided_backprop(model, x, TARGET).pixels, expected)


def test_both_implementations_of_the_deconvnet_agree():
    """Compare the explicit deconvnet of a chain with the rule on the autograd graph."""
    model, x = BUILD["vgg11"](), torch.randn(1, 3, SIZE, SIZE)
    recorded, _ = gradient(model, x, 3, rule=lambda incoming, outgoing: incoming.clamp_min(0))
    close(deconvnet(model, x, 3).pixels, recorded)


def test_batches_and_targets():
    model, x = (
        small_zfnet(),
        torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)),
    )
    predicted = model(x).argmax(1)
    for method in (saliency, integrated_gradients, smoothgrad, guided_backprop, deconvnet):
        assert method(model, x[:1]).target.tolist() == predicted[:1].tolist()
    batched = saliency(model, x)
    assert batched.target.tolist() == predicted.tolist()
    single = torch.cat([saliency(model, x[n : n + 1], int(predicted[n])).map for n in range(3)])
    close(batched.map, single)
    assert torch.equal(saliency(model, x, [1]).map, saliency(model, x, torch.tensor([1, 1, 1])).map)


def test_networks_and_their_gradients_do_not_change():
    model = BUILD["resnet18"]()
    model.train()
    model.layer1.eval()
    model.fc.weight.requires_grad_(False)
    for p in model.parameters():
        p.grad = torch.ones_like(p) if p.requires_grad else None
    modes = [m.training for m in model.modules()]
    parameters = [(p.clone(), p.requires_grad) for p in model.parameters()]
    x = torch.randn(2, 3, SIZE, SIZE)
    original = x.clone()
    for context in (torch.enable_grad(), torch.no_grad(), torch.inference_mode()):
        with context:
            for method in (saliency, guided_backprop, deconvnet):
                assert method(model, x).map.shape == (2, 1, SIZE, SIZE)
            smoothgrad(model, x, samples=2)
            integrated_gradients(model, x, steps=2)
    with pytest.raises(ValueError, match="target must be a class from 0 to 9"):
        guided_backprop(model, x, 10)
    assert torch.equal(x, original)
    assert not x.requires_grad
    assert [m.training for m in model.modules()] == modes
    assert all(
        torch.equal(p, q) and p.requires_grad == r
        for p, (q, r) in zip(model.parameters(), parameters, strict=True)
    )
    assert all(bool((p.grad == 1).all()) for p in model.parameters() if p.requires_grad)
    assert hooks(model) == 0


def hooks(model):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


def test_memory_is_bounded_by_batch():
    sizes = []

    class Counting(Rectified):
        def forward(self, x):
            sizes.append(len(x))
            return super().forward(x)

    model, x = Counting(F.relu), torch.randn(2, 3, 21, 21)
    smoothgrad(model, x, samples=50)
    integrated_gradients(model, x, steps=50)
    assert max(sizes) <= 8
    smoothgrad(model, x, samples=50, batch=50)
    assert max(sizes) == 50


def test_uninformative_maps_are_reported():
    model, x = Rectified(F.relu), torch.randn(2, 3, 21, 21)
    model.conv1.bias.data.fill_(-1e6)  # all units are inactive
    assert saliency(model, x).state == ("all zero", "all zero")
    model = Rectified(F.relu)
    model.fc.weight.data[1] = float("nan")
    assert saliency(model, x, 1).state == ("not finite", "not finite")
    mixed = Attribution(
        torch.tensor([0.0, 1.0]).view(2, 1, 1, 1), None, "by hand", torch.tensor([0, 0])
    )
    assert mixed.state == ("all zero", "ok")


def test_invalid_arguments_are_rejected():
    model, x = small_zfnet(), torch.randn(2, 3, SIZE, SIZE)
    with pytest.raises(ValueError, match="float batch"):
        saliency(model, x[0])
    with pytest.raises(ValueError, match="3 targets for 2 images"):
        saliency(model, x, [1, 2, 3])
    with pytest.raises(ValueError, match="whole numbers"):
        saliency(model, x, torch.tensor([0.5, 1]))
    with pytest.raises(ValueError, match="share of the image's range"):
        smoothgrad(model, x, sigma=-1)
    with pytest.raises(ValueError, match="at least 1, got 0 and 8"):
        smoothgrad(model, x, samples=0)
    with pytest.raises(ValueError, match="at least 1, got 50 and 0"):
        integrated_gradients(model, x, batch=0)
    with pytest.raises(ValueError, match=r"baseline \(7, 1, 1\) does not broadcast"):
        integrated_gradients(model, x, baseline=torch.zeros(7))
    with pytest.raises(UnsupportedNetwork, match="must return logits"):
        saliency(nn.Conv2d(3, 4, 3), x)
    for detach in (lambda m, v: m(v.detach()), lambda m, v: m(v).detach()):

        class Detaching(nn.Module):
            def __init__(self, detach=detach):
                super().__init__()
                self.inner, self.detach = small_zfnet(), detach

            def forward(self, v):
                return self.detach(self.inner, v)

        with pytest.raises(UnsupportedNetwork, match="forward pass detaches it"):
            saliency(Detaching(), x)


def backpropagate_unit(model, x, layer, channel, position, guided):
    """Backpropagate layer by layer through ReLU masks; `guided` drops negative gradients."""
    signals, names = [x], []
    for name, module in model.named_children():
        signals.append(module(signals[-1]))
        names.append(name)
        if name == f"relu{layer[-1]}":
            break
    signal = torch.zeros_like(signals[-1])
    signal[(0, channel, *position)] = 1
    for name, input, output in zip(
        reversed(names), reversed(signals[:-1]), reversed(signals[1:]), strict=True
    ):
        module = model.get_submodule(name)
        if name.startswith("relu"):
            signal = signal * (output > 0)
            signal = signal.clamp_min(0) if guided else signal
        else:
            point = input.detach().requires_grad_()
            (signal,) = torch.autograd.grad(module(point), point, signal)
    return signal


@pytest.mark.parametrize("guided", [True, False])
def test_unit_gradient_equals_a_loop_over_layers(guided):
    model = small_zfnet()
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    for layer in ("conv1", "conv3", "conv5"):
        p = unit_gradient(model, x, layer, torch.tensor([2, 5]), guided=guided)
        by_deconvnet = zfnet.project(model, x, layer, torch.tensor([2, 5]))
        assert torch.equal(p.position, by_deconvnet.position)
        assert torch.equal(p.box, by_deconvnet.box)
        for n, channel in enumerate((2, 5)):
            expected = backpropagate_unit(
                model, x[n : n + 1], layer, channel, p.position[n].tolist(), guided
            )
            torch.testing.assert_close(p.pixels[n : n + 1], expected, rtol=1e-4, atol=1e-6)
        cropped = unit_gradient(model, x, layer, torch.tensor([2, 5]), guided=guided, crop=True)
        assert (
            cropped.pixels.shape
            == zfnet.project(model, x, layer, torch.tensor([2, 5]), crop=True).pixels.shape
        )
        # The gradient is zero outside the crop.
        assert float(cropped.pixels.abs().sum()) == pytest.approx(
            float(p.pixels.abs().sum()), rel=1e-4
        )


def test_unit_gradient_equals_captum():
    model = small_zfnet()
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(4))
    for guided, method in (
        (True, captum.attr.NeuronGuidedBackprop(model, model.relu4)),
        (False, captum.attr.NeuronGradient(model, model.relu4)),
    ):
        p = unit_gradient(model, x, "conv4", 7, guided=guided)
        expected = method.attribute(x.clone().requires_grad_(), (7, *p.position[0].tolist()))
        torch.testing.assert_close(p.pixels, expected.detach(), rtol=1e-4, atol=1e-6)


def test_unit_gradients_in_batches_and_of_dense_layers():
    model = small_zfnet()
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    batched = unit_gradient(model, x, "conv5", torch.arange(5), batch=2)
    assert batched.pixels.shape == (5, 3, 64, 64)
    for n in range(5):
        torch.testing.assert_close(
            batched.pixels[n : n + 1], unit_gradient(model, x, "conv5", n).pixels
        )
    logit = unit_gradient(model, x, "fc8", 3, guided=False, crop=True)
    torch.testing.assert_close(logit.pixels, zfnet.explain(model, x, "saliency", 3).pixels)
    with torch.inference_mode():
        assert torch.equal(
            unit_gradient(model, x, "conv5", torch.arange(5), batch=2).pixels, batched.pixels
        )
    with pytest.raises(IndexError):
        unit_gradient(model, x, "conv5", 99)
    with pytest.raises(ValueError, match="batch must be at least 1"):
        unit_gradient(model, x, "conv5", 1, batch=0)
