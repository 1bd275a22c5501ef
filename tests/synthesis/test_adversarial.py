"""Attacks against closed forms on linear networks, finite differences, and their constraints."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import zfnet
from tests.networks import SIZE, he, resnet18, small_zfnet
from zfnet.data.images import STD, to_pixels
from zfnet.graph import UnsupportedNetwork
from zfnet.synthesis.adversarial import fgsm, pgd, rubbish
from zfnet.synthesis.ascent import ascend
from zfnet.synthesis.base import clip
from zfnet.synthesis.deepfool import BOUNDARY_MARGIN, deepfool
from zfnet.synthesis.perturbation import gray_level, loss_gradient

LEVEL = 1 / (255 * torch.tensor(STD).view(3, 1, 1))


def images(n=4, size=SIZE, seed=1):
    return clip(0.5 * torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed)))


def linear(classes=2, size=6):
    model = he(nn.Sequential(nn.Flatten(), nn.Linear(3 * size * size, classes)))
    model[1].weight.data *= 0.05
    return model


def test_gray_level_is_one_of_255():
    x = 0.2 * images(1)
    torch.testing.assert_close(
        255 * (to_pixels(x + gray_level(x)) - to_pixels(x)), torch.ones_like(x), atol=1e-3, rtol=0
    )


def test_fgsm_changes_a_linear_logit_by_epsilon_times_the_l1_norm():
    model, x = linear(), 0.2 * images(size=6)
    w = (model[1].weight[1] - model[1].weight[0]).view(3, 6, 6).detach()
    gap = lambda x: (model(x)[:, 1] - model(x)[:, 0]).detach()  # noqa: E731
    a = fgsm(model, x, epsilon=3.0)
    sides = 1 - 2 * a.label.float()  # towards the other class
    torch.testing.assert_close(
        gap(a.pixels) - gap(x), sides * 3 * float((w.abs() * LEVEL).sum()), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(
        a.pixels, x + sides.view(-1, 1, 1, 1) * 3 * LEVEL * w.sign(), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(a.linf, torch.full((4,), 3.0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        a.norm, torch.full((4,), 3.0 * (3 * 36) ** 0.5), rtol=1e-4, atol=1e-3
    )


def test_attacks_on_a_linear_network_succeed_above_its_linf_distance():
    model, x = linear(), 0.2 * images(size=6)
    w = (model[1].weight[1] - model[1].weight[0]).view(3, 6, 6).detach()
    gap = (model(x)[:, 1] - model(x)[:, 0]).detach().abs()
    for n, needed in enumerate((gap / (w.abs() * LEVEL).sum()).tolist()):
        assert not bool(fgsm(model, x[n : n + 1], epsilon=0.97 * needed).success)
        assert bool(fgsm(model, x[n : n + 1], epsilon=1.03 * needed).success)
        assert bool(pgd(model, x[n : n + 1], epsilon=1.03 * needed, steps=6).success)
        # PGD takes steps of epsilon / 4 and stops early.
        result = pgd(model, x[n : n + 1], epsilon=2.4 * needed, steps=8)
        assert float(result.linf) == pytest.approx(1.2 * needed, rel=1e-3)


@pytest.mark.parametrize("classes", [2, 5])
def test_deepfool_on_a_linear_network_finds_the_nearest_boundary(classes):
    """For weights W in pixels, the distance from class y to k is |logit gap| / |W_k - W_y|."""
    model, x = linear(classes), 0.2 * images(24, size=6)
    logits = model(x).detach()
    weight = (
        (model[1].weight.view(classes, 3, 6, 6) / torch.tensor(STD).view(3, 1, 1))
        .flatten(1)
        .detach()
    )
    label = logits.argmax(1)
    a = deepfool(model, x, overshoot=1e-4)
    for n, y in enumerate(label.tolist()):
        other_classes = [k for k in range(classes) if k != y]
        distances = [
            float((logits[n, y] - logits[n, k]) / (weight[k] - weight[y]).norm())
            for k in other_classes
        ]
        assert float(a.norm[n]) == pytest.approx(255 * (min(distances) + BOUNDARY_MARGIN), rel=1e-3)
        assert int(a.predicted[n]) == other_classes[distances.index(min(distances))]
    assert a.success.all()
    if classes > 2:
        assert (
            a.predicted != logits.topk(2).indices[:, 1]
        ).any()  # the second most probable class is not always the nearest


def test_deepfool_steps_beyond_the_boundary():
    """Equal logits predict the lower class, so a step onto the boundary is not enough."""
    model, x = linear(), 0.2 * images(8, size=6)
    gap = (model(x)[:, 1] - model(x)[:, 0]).detach()
    model[1].bias.data[0] += gap.max() + 0.1
    assert (model(x).argmax(1) == 0).all()
    assert deepfool(model, x, overshoot=0.0, steps=20).success.all()


def test_loss_gradient_equals_finite_differences():
    model, x = small_zfnet("lrn").double(), images(2).double()
    label = torch.tensor([3, 7])
    pixel_gradient, _ = loss_gradient(model, x, label)
    loss = lambda x: F.cross_entropy(model(x), label, reduction="none").detach()  # noqa: E731
    for c, row, column in ((0, 3, 5), (1, 30, 40), (2, 63, 63)):
        losses = []
        for sign in (-1, 1):
            shifted = x.clone()
            shifted[:, c, row, column] += sign * 1e-6
            losses.append(loss(shifted))
        torch.testing.assert_close(
            pixel_gradient[:, c, row, column], (losses[1] - losses[0]) / 2e-6, rtol=1e-4, atol=1e-8
        )


def test_perturbed_images_are_valid_and_within_epsilon():
    model, x = small_zfnet(), 2 * images()  # many pixels are black or white
    x = (to_pixels(x) - torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1)) / torch.tensor(STD).view(
        3, 1, 1
    )
    random = torch.Generator().manual_seed(3)
    for a in (
        fgsm(model, x, epsilon=2.5),
        pgd(model, x, epsilon=2.5, steps=4, generator=random),
        pgd(model, x, epsilon=2.5, target=3),
    ):
        assert float(a.linf.max()) <= 2.5 + 1e-3
        levels = 255 * (
            a.pixels * torch.tensor(STD).view(3, 1, 1)
            + torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1)
        )
        assert -1e-3 <= float(levels.min()) <= float(levels.max()) <= 255.001
        p = model(a.pixels).softmax(1)
        assert torch.equal(a.predicted, p.argmax(1))
        torch.testing.assert_close(a.probability, p.amax(1).detach())
        assert torch.equal(
            a.success, a.predicted != a.label if a.target is None else a.predicted == 3
        )


def test_pgd_is_stronger_than_fgsm():
    model, x = small_zfnet(), images(12)
    fgsm_result, pgd_result = fgsm(model, x, epsilon=4.0), pgd(model, x, epsilon=4.0, steps=12)
    assert int(pgd_result.success.sum()) >= int(fgsm_result.success.sum())
    target = model(x).topk(3).indices[:, 2]
    targeted_fgsm, targeted_pgd = (
        fgsm(model, x, epsilon=8.0, target=target),
        pgd(model, x, epsilon=8.0, steps=20, target=target),
    )
    assert int(targeted_pgd.success.sum()) > int(targeted_fgsm.success.sum())
    assert int(targeted_pgd.success.sum()) >= 8
    assert (deepfool(model, x).norm < 2.0 * pgd_result.norm)[pgd_result.success].all()


def test_misclassified_images_do_not_change():
    model, x = small_zfnet(), images()
    wrong_labels = (model(x).argmax(1) + 1) % 10
    for a in (
        fgsm(model, x, epsilon=4.0, label=wrong_labels),
        deepfool(model, x, label=wrong_labels),
        fgsm(model, x, epsilon=4.0, target=model(x).argmax(1)),
    ):
        assert a.success.all()
        assert torch.equal(a.pixels, x)
    a = deepfool(model, x)
    assert a.success.all()
    single = deepfool(model, x, batch=1)
    torch.testing.assert_close(a.norm, single.norm, rtol=1e-3, atol=1e-3)
    assert float(a.norm.max()) < 255 * 5  # far below the norm of a change from black to white


def test_rubbish_is_classified_with_high_confidence():
    model, x = small_zfnet(), 0.1 * images()
    state = torch.random.get_rng_state()
    # Skip class 1, for which this random network never has a high probability.
    a = rubbish(model, x, [2, 3, 4, 3], steps=150, rate=0.1)
    assert a.success.all()
    initial = model(x).softmax(1)[range(4), [2, 3, 4, 3]].detach()
    assert (a.probability > initial + 0.3).all()
    assert float(a.probability.max()) > 0.99
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize(("build", "size"), [(resnet18, 40), (lambda: he(zfnet.mnist()), 28)])
def test_networks_and_images_do_not_change(build, size):
    model = build().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = images(2, size)
    for a in (
        fgsm(model, x, epsilon=1.0),
        pgd(model, x, epsilon=4.0, target=1),
        deepfool(model, x),
        rubbish(model, x, 0, steps=5),
    ):
        assert a.pixels.isfinite().all()
    assert deepfool(model, x).success.all()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(module.training for module in model.modules())


def test_attacks_work_in_inference_mode():
    model, x, label = small_zfnet(), images(2), torch.tensor([1, 2])
    for attack in (
        lambda x, y: fgsm(model, x, epsilon=2.0, label=y),
        lambda x, y: pgd(model, x, epsilon=2.0, target=y),
        lambda x, y: deepfool(model, x, steps=3),
        lambda x, y: rubbish(model, x, y, steps=2),
    ):
        expected = attack(x.clone().requires_grad_(), label)
        assert not expected.pixels.requires_grad
        assert not expected.norm.requires_grad
        with torch.inference_mode():
            result = attack(x.clone(), label.clone())
        torch.testing.assert_close(result.pixels, expected.pixels)


def test_network_that_detaches_the_gradient_is_rejected():
    class DetachingNetwork(nn.Module):
        def forward(self, x):
            return x.detach().flatten(1)[:, :4]

    x = images(2, 8)
    for attack in (
        lambda m: fgsm(m, x, epsilon=1),
        lambda m: deepfool(m, x),
        lambda m: rubbish(m, x, 1),
        lambda m: ascend(m, x, 1),
    ):
        with pytest.raises(UnsupportedNetwork, match="no gradient"):
            attack(DetachingNetwork())


def test_invalid_arguments_are_rejected():
    model, x = small_zfnet(), images()
    with pytest.raises(ValueError, match="epsilon must be 0 to 255"):
        fgsm(model, x, epsilon=-1)
    with pytest.raises(ValueError, match="class from 0 to 9"):
        pgd(model, x, epsilon=1, target=10)
    with pytest.raises(ValueError, match="candidates"):
        deepfool(model, x, candidates=0)
    with pytest.raises(ValueError, match="3 targets for 4 images"):
        fgsm(model, x, epsilon=1, label=[1, 2, 3])
    with pytest.raises(ValueError, match="size must be"):
        pgd(model, x, epsilon=1, size=-1.0)
    with pytest.raises(ValueError, match="needs a target class"):
        rubbish(model, x, None)
    for attack in (fgsm, deepfool):
        options = {"epsilon": 1.0} if attack is fgsm else {}
        with pytest.raises(ValueError, match=r"outside \[black, white\]"):
            attack(model, 5 * x, **options)
        with pytest.raises(ValueError, match="must be RGB"):
            attack(model, x[:, :1], **options)
