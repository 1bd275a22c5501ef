"""Adapters for explainers of Captum, pytorch-grad-cam and torch-cam."""

import captum.attr
import pytest
import torch

import zfnet
from tests.benchmarking.networks import gradient_x_input, image_batch, small_net
from zfnet.analysis.faithfulness import rank_correlation
from zfnet.benchmarking import from_captum, from_grad_cam, from_torchcam
from zfnet.benchmarking.sanity import randomize, restored

LAYER = 3  # the last ReLU before pooling


@pytest.fixture
def model():
    return small_net(channels=3)


@pytest.fixture
def x():
    return image_batch(channels=3)


def test_captum_class_and_object(model, x):
    expected = gradient_x_input(model, x, model(x).argmax(1))
    for explainer in (captum.attr.InputXGradient, captum.attr.InputXGradient(model)):
        a = zfnet.explain(model, x, from_captum(explainer))
        torch.testing.assert_close(a.pixels, expected)
        torch.testing.assert_close(a.map, expected.sum(1, keepdim=True))
        assert a.method == "InputXGradient"


def test_captum_options_and_layers(model, x):
    steps = from_captum(captum.attr.IntegratedGradients, n_steps=16, method="riemann_middle")
    expected = zfnet.explain(model, x, "integrated_gradients", steps=16)
    torch.testing.assert_close(
        zfnet.explain(model, x, steps).map, expected.map, rtol=1e-3, atol=1e-5
    )
    layer = from_captum(lambda m: captum.attr.LayerGradCam(m, m[LAYER]), relu_attributions=True)
    grad_cam = zfnet.explain(model, x, "grad_cam")
    torch.testing.assert_close(zfnet.explain(model, x, layer).map, grad_cam.map)


def test_grad_cam_function_and_object(model, x):
    grad_cam = pytest.importorskip("pytorch_grad_cam")
    expected = zfnet.explain(model, x, "grad_cam").map
    build = lambda m: grad_cam.GradCAM(m, [m[LAYER]])  # noqa: E731
    hooks = len(model[LAYER]._forward_hooks)
    actual = zfnet.explain(model, x, from_grad_cam(build)).map
    assert len(model[LAYER]._forward_hooks) == hooks
    assert rank_correlation(expected, actual).min() > 0.99
    with build(model) as cam:
        assert torch.equal(zfnet.explain(model, x, from_grad_cam(cam)).map, actual)


def test_torchcam_function_and_object(model, x):
    methods = pytest.importorskip("torchcam.methods")
    expected = zfnet.explain(model, x, "grad_cam").map
    build = lambda m: methods.GradCAM(m, str(LAYER))  # noqa: E731
    raw = zfnet.explain(model, x, from_torchcam(build, normalized=False)).map
    torch.testing.assert_close(raw, expected)
    assert not model[LAYER]._forward_hooks
    with build(model) as extractor:
        method = from_torchcam(extractor, normalized=False)
        assert torch.equal(zfnet.explain(model, x, method).map, raw)


def test_explainer_of_another_network_is_rejected(model, x):
    method = from_captum(captum.attr.Saliency(small_net(channels=3)))
    with pytest.raises(ValueError, match="Saliency was built for another network"):
        zfnet.explain(model, x, method)


def test_explainer_object_uses_randomized_weights(model, x):
    """Randomization changes weights in place, so explainer objects remain valid."""
    method = from_captum(captum.attr.InputXGradient(model))
    trained = zfnet.explain(model, x, method, 1).map
    with restored(model):
        randomize(model, model[-1], torch.Generator().manual_seed(0), head=False)
        randomized = zfnet.explain(model, x, method, 1).map
    assert not torch.allclose(trained, randomized)
    assert torch.equal(zfnet.explain(model, x, method, 1).map, trained)


def test_all_packages_in_one_benchmark(model, x):
    grad_cam, torchcam = (
        pytest.importorskip("pytorch_grad_cam"),
        pytest.importorskip("torchcam.methods"),
    )
    methods = {
        "captum": from_captum(captum.attr.Saliency),
        "pytorch-grad-cam": from_grad_cam(lambda m: grad_cam.GradCAM(m, [m[LAYER]])),
        "torch-cam": from_torchcam(lambda m: torchcam.GradCAM(m, str(LAYER))),
    }
    data = [(image, int(label)) for image, label in zip(x, model(x).argmax(1), strict=True)]
    table = zfnet.benchmark(model, methods, data, ["deletion", "sanity"], controls=False)
    assert table.methods == list(methods)
    assert all(row.n == 4 for row in table.rows if row.metric == "deletion")
    first, second = (
        table.values["pytorch-grad-cam", "cascading"],
        table.values["torch-cam", "cascading"],
    )
    assert abs(first - second).max() < 0.05  # the same method with different resizing
