"""Metrics against those of Quantus and Captum on the same inputs."""

import copy

import numpy as np
import pytest
import torch
from captum.metrics import sensitivity_max

from tests.benchmarking.networks import (
    disc_mask,
    gradient_x_input,
    image_batch,
    make_case,
    small_net,
)
from zfnet.analysis.faithfulness import descending_ranks, replacement_curve
from zfnet.benchmarking.consistency import _removals, completeness, max_sensitivity, sensitivity_n
from zfnet.benchmarking.localization import energy, pointing
from zfnet.benchmarking.removal import deletion, impute, road
from zfnet.benchmarking.sanity import cascading

quantus = pytest.importorskip("quantus")
RAW = {"abs": False, "normalise": False, "disable_warnings": True}


def score(metric, case, maps=None, **options):
    """Call a metric of Quantus with the images and maps of a case."""
    arrays = {
        "x_batch": case.x.numpy(), "y_batch": case.target.numpy(),
        "a_batch": (case.map if maps is None else maps).numpy(),
    }  # fmt: skip
    if case.mask is not None:
        arrays["s_batch"] = case.mask[:, None].numpy()
    return metric(
        model=case.model, channel_first=True, device="cpu", batch_size=8, **arrays, **options
    )


def test_pointing_equals_quantus():
    case = make_case(mask=disc_mask())
    expected = score(quantus.PointingGame(**RAW), case)
    assert pointing(case).tolist() == [float(v) for v in expected]
    bright = make_case(lambda model, x, target: disc_mask()[:, None] * 1.0, mask=disc_mask())
    assert score(quantus.PointingGame(**RAW), bright) == [True] * 4
    assert pointing(bright).tolist() == [1.0] * 4


def test_energy_is_relevance_mass_accuracy_of_the_positive_part():
    case = make_case(mask=disc_mask())
    expected = score(quantus.RelevanceMassAccuracy(**RAW), case, case.map.clamp_min(0))
    assert energy(case).tolist() == pytest.approx(expected, rel=1e-5)


def test_deletion_is_pixel_flipping():
    case = make_case()
    steps = 12
    metric = quantus.PixelFlipping(features_in_step=12, perturb_baseline=0.0, **RAW)
    # Quantus omits the first point.
    expected = np.array(score(metric, case, softmax=True))
    curve = replacement_curve(case.model, case.x, 0.0, case.map, case.target, steps=steps)
    np.testing.assert_allclose(curve[:, 1:], expected, atol=1e-6)
    area = np.trapezoid(curve.numpy(), dx=1 / steps, axis=1)
    assert deletion(case, steps=steps).tolist() == pytest.approx(area.tolist(), rel=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_imputation_equals_quantus(channels):
    from quantus.functions.perturb_func import noisy_linear_imputation

    x = image_batch(1, channels)[0]
    rank = descending_ranks(
        torch.rand(1, 144, generator=torch.Generator().manual_seed(0)), torch.Generator()
    )
    for removed in (1, 30, 130):
        hole = (rank[0] < removed).view(12, 12)
        expected = noisy_linear_imputation(
            x.double().numpy(), hole.flatten().nonzero()[:, 0].numpy(), noise=0.0
        )
        np.testing.assert_allclose(impute(x, hole).numpy(), expected, atol=1e-6)


def test_road_without_noise_equals_quantus():
    """Use one channel, as Quantus ranks the values of all channels separately."""
    model = small_net()
    model[-1].weight *= 20  # confident predictions that change when evidence is removed
    case = make_case(model=model, x=3 * image_batch(8))
    percentages = [5, 20, 40, 60, 80, 95]
    metric = quantus.ROAD(percentages=percentages, noise=0.0, **RAW)
    expected = score(metric, case)  # accuracy over images, per percentage
    scores = road(case, shares=tuple(p / 100 for p in percentages), noise=0.0)
    assert float(scores.mean()) == pytest.approx(np.mean(list(expected.values())))
    assert 0 < float(scores.mean()) < 1


def test_sensitivity_n_of_one_size_is_faithfulness_correlation(monkeypatch):
    case, share, runs = make_case(), 0.25, 10
    masks, _ = _removals(case, (share,), runs)
    subsets = (masks[0, i].nonzero()[:, 0].numpy() for i in range(runs) for _ in case.x)
    monkeypatch.setattr(np.random, "choice", lambda *args, **kwargs: next(subsets))
    metric = quantus.FaithfulnessCorrelation(
        nr_runs=runs, subset_size=36, perturb_baseline=0.0, return_aggregate=False, **RAW
    )
    expected = score(metric, case, softmax=False)
    assert sensitivity_n(case, shares=(share,), subsets=runs).tolist() == pytest.approx(
        expected, abs=1e-5
    )


def noises(case, radius, samples):
    generator = case.generator()
    return [
        radius * (2 * torch.rand(case.x.shape[1:], generator=generator) - 1).expand_as(case.x)
        for _ in range(samples)
    ]


def test_max_sensitivity_equals_quantus_and_captum_for_equal_noise():
    case, radius, samples = make_case(), 0.2, 3
    sensitivity = max_sensitivity(case, radius=radius, samples=samples)
    samples_of_noise = noises(case, radius, samples)

    noise_iterator = iter(samples_of_noise)
    metric = quantus.MaxSensitivity(
        nr_samples=samples,
        perturb_func=lambda arr, indices, **k: arr + next(noise_iterator).flatten(1).numpy(),
        **RAW,
    )

    def explain(model, inputs, targets, **kwargs):
        return gradient_x_input(model, torch.as_tensor(inputs), torch.as_tensor(targets)).numpy()

    expected = score(metric, case, explain_func=explain)
    assert sensitivity.tolist() == pytest.approx(list(expected), rel=1e-4)

    def explain_tuple(inputs):  # Captum passes a tuple, and expects one
        (x,) = inputs if isinstance(inputs, tuple) else (inputs,)
        return (gradient_x_input(case.model, x, case.target),)

    def add(noise):  # Captum passes the radius to functions of two arguments
        return lambda x: x + noise

    captum = [
        sensitivity_max(explain_tuple, case.x, add(n), n_perturb_samples=1)
        for n in samples_of_noise
    ]
    assert sensitivity.tolist() == pytest.approx(torch.stack(captum).amax(0).tolist(), rel=1e-4)


def test_completeness_is_zero_where_quantus_is_satisfied():
    """Quantus tests exact equality of floats; ours is the difference in logits."""
    weight = torch.randn(1, 12, 12, generator=torch.Generator().manual_seed(2))

    class Linear(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(weight.round())

        def forward(self, x):
            score = (x * self.weight).sum((1, 2, 3))
            return torch.stack([score, -score], 1)

    case = make_case(model=Linear().eval(), x=image_batch().round())  # sums of integers are exact
    metric = quantus.Completeness(perturb_baseline=0.0, **RAW)
    assert all(score(metric, case, softmax=False))
    assert completeness(case).tolist() == [0.0] * 4
    assert not any(score(metric, make_case(), softmax=False))
    assert (completeness(make_case()) > 0.01).all()


def test_cascading_equals_mprt_on_the_same_random_networks(monkeypatch):
    """Use the same random networks, and correct for a second difference.

    Quantus also averages over the trained network, whose correlation is 1.
    """
    from quantus.helpers.model.pytorch_model import PyTorchModel

    from zfnet.analysis.faithfulness import randomize_layers

    case = make_case(lambda model, x, target: gradient_x_input(model, x, target).abs())

    def networks(self, order="top_down", seed=42):
        for name, model in randomize_layers(case.model, case.generator()):
            yield name, PyTorchModel(copy.deepcopy(model), softmax=False)

    monkeypatch.setattr(PyTorchModel, "get_random_layer_generator", networks)

    def explain(model, inputs, targets, **kwargs):
        maps = gradient_x_input(model, torch.as_tensor(inputs), torch.as_tensor(targets))
        return maps.abs().numpy()

    metric = quantus.MPRT(return_average_correlation=True, skip_layers=False, **RAW)
    with_trained = np.array(score(metric, case, explain_func=explain))  # 4 layers and the network
    expected = (5 * with_trained - 1) / 4
    assert cascading(case, points=4).tolist() == pytest.approx(list(expected), abs=1e-5)
