"""Occlusion maps against a slow loop, and on drawn scenes with known objects."""

import pytest
import torch
import torchvision
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

import zfnet
from tests.conftest import narrow_vgg11, random_he
from zfnet.graph import UnsupportedNetwork
from zfnet.occlusion import occlude, occluder_boxes


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 70), st.integers(1, 20))
def test_every_pixel_is_covered(height, width, size, stride):
    assume(stride <= size < max(height, width))
    boxes = occluder_boxes(height, width, size, stride)
    covered = torch.zeros(height, width, dtype=torch.bool)
    for top, left, bottom, right in boxes.view(-1, 4).tolist():
        assert 0 <= top < bottom <= height
        assert 0 <= left < right <= width
        covered[top:bottom, left:right] = True
    assert covered.all()
    assert boxes[-1, -1, 2:].tolist() == [height, width]
    if boxes.shape[0] > 1:
        assert boxes[-2, 0, 2] < height  # no redundant window


@pytest.fixture(scope="module")
def model():
    return random_he(zfnet.zfnet(6, norm="lrn", channels=(6, 7, 8, 8, 5), fc_units=8, size=64))


@pytest.mark.reference
@pytest.mark.parametrize(
    ("size", "stride", "fill"), [(16, 16, 0.0), (20, 12, 0.5), (63, 63, 0.0), (33, 7, -1.0)]
)
def test_occlusion_equals_a_loop_over_positions(model, size, stride, fill):
    x = torch.randn(2, 3, 64, 64)
    o = occlude(model, x, [4, 1], size=size, stride=stride, fill=fill, batch=5)
    rows, columns = o.boxes.shape[:2]
    assert o.probability.shape == (2, rows, columns)
    for n in range(2):
        channel = int(zfnet.trace(model, x[n : n + 1])["conv5"][0].amax((1, 2)).argmax())
        assert o.channel[n] == channel
        for r in range(rows):
            for c in range(columns):
                occluded = x[n : n + 1].clone()
                occluded[:, :, r * stride : r * stride + size, c * stride : c * stride + size] = (
                    fill
                )
                t = zfnet.trace(model, occluded)
                torch.testing.assert_close(
                    o.activation[n, r, c], t["conv5"][0, channel].sum(), rtol=1e-4, atol=1e-4
                )
                torch.testing.assert_close(
                    o.logit[n, r, c], t.logits[0, (4, 1)[n]], rtol=1e-4, atol=1e-5
                )
                torch.testing.assert_close(
                    o.probability[n, r, c], t.logits[0].softmax(0)[(4, 1)[n]], rtol=1e-4, atol=1e-6
                )
                assert o.label[n, r, c] == t.logits[0].argmax()
    unoccluded = zfnet.trace(model, x)
    torch.testing.assert_close(o.baseline.logit, unoccluded.logits[[0, 1], [4, 1]])
    torch.testing.assert_close(
        o.baseline.activation, unoccluded["conv5"][[0, 1], o.channel].sum((1, 2))
    )


@pytest.mark.reference
def test_one_image_has_no_leading_axis(model):
    x = torch.randn(1, 3, 64, 64)
    o = occlude(model, x, 2)
    assert o.logit.shape == o.label.shape == o.activation.shape == (5, 5)
    assert o.baseline.logit.ndim == o.channel.ndim == o.target.ndim == 0
    predicted = occlude(model, x, size=63, stride=63)
    assert predicted.target == predicted.baseline.label == model(x).argmax()


@pytest.mark.reference
def test_fill_may_be_an_image(model):
    x = torch.randn(1, 3, 64, 64)
    unchanged = occlude(model, x, 0, fill=x)
    torch.testing.assert_close(
        unchanged.logit, unchanged.baseline.logit.expand_as(unchanged.logit), rtol=1e-4, atol=1e-5
    )


@pytest.mark.reference
def test_occlusion_works_for_networks_that_are_not_chains():
    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None, num_classes=5).train()
    o = occlude(model, torch.randn(2, 3, 64, 64), 1, size=32, stride=32)
    assert o.activation is None
    assert o.channel is None
    assert o.baseline.activation is None
    assert o.logit.shape == (2, 2, 2)
    assert model.training
    assert occlude(
        narrow_vgg11(), torch.randn(1, 3, 64, 64), 1, size=63, stride=63
    ).activation.shape == (2, 2)


class Block(nn.Module):
    """A residual block that returns maps, not logits."""

    def forward(self, x):
        return x + x.relu()


class ModifiesItsInput(nn.Module):
    """A network that is not a chain and modifies its input in place."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 6, 3), nn.Linear(6, 5)

    def forward(self, x):
        x -= 0.5
        return self.fc(self.conv(x).relu().mean((2, 3)))


@pytest.mark.reference
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_networks_that_modify_their_input_get_a_copy(order):
    chain = [
        nn.ReLU(inplace=True),
        nn.Conv2d(3, 6, 3),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ]
    for model in (ModifiesItsInput(), nn.Sequential(*chain, nn.Linear(6, 5))):
        x = torch.randn(2, 3, 32, 32).contiguous(memory_format=order)
        original = x.clone()
        o = occlude(model, x, 1, size=16, stride=16)
        assert torch.equal(x, original)
        expected = [model(x.clone())[:, 1]]
        for top, left, bottom, right in o.boxes.view(-1, 4).tolist():
            covered = x.clone()
            covered[:, :, top:bottom, left:right] = 0
            expected.append(model(covered)[:, 1])
        logits = torch.cat([o.baseline.logit[:, None], o.logit.flatten(1)], 1)
        torch.testing.assert_close(logits, torch.stack(expected, 1).detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.reference
def test_invalid_arguments_are_rejected(model):
    x = torch.randn(1, 3, 64, 64)
    with pytest.raises(ValueError, match="does not fit the network"):
        occlude(model, torch.randn(1, 3, 97, 97), 0)
    with pytest.raises(ValueError, match="does not fit the network"):
        occlude(torchvision.models.resnet18(num_classes=5), torch.randn(1, 1, 64, 64), 0)
    with pytest.raises(UnsupportedNetwork, match="must return logits"):
        occlude(nn.Sequential(Block(), nn.Identity()), x, 0)
    with pytest.raises(ValueError, match="class_index"):
        occlude(model, x, "dog")
    with pytest.raises(ValueError, match="stride of 20 with an occluder of 16"):
        occlude(model, x, 0, size=16, stride=20)
    with pytest.raises(ValueError, match="class from 0 to 5"):
        occlude(model, x, 6)
    with pytest.raises(ValueError, match="3 targets for 1 images"):
        occlude(model, x, [0, 1, 2])
    with pytest.raises(ValueError, match="batch must be"):
        occlude(model, x, 0, batch=0)
    for target in (1.7, True, 1j):
        with pytest.raises(ValueError, match="whole numbers"):
            occlude(model, x, target)
    with pytest.raises(ValueError, match="target must be whole numbers"):
        occlude(model, x, [None])
    with pytest.raises(ValueError, match="size must be at least 1"):
        occlude(model, x, 0, size=0)


class Fields(nn.Module):
    """A network that returns its logits in a tuple or dictionary, as segmentation networks do."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.conv, self.fc = kind, nn.Conv2d(3, 6, 3), nn.Linear(6, 5)

    def forward(self, x):
        logits = self.fc(self.conv(x).relu().mean((2, 3)))
        return {"out": logits} if self.kind is dict else (logits, logits)


@pytest.mark.reference
@pytest.mark.parametrize("kind", [tuple, dict])
def test_network_must_return_only_logits(kind):
    """No entry of a tuple or dictionary is chosen silently."""
    with pytest.raises(
        UnsupportedNetwork, match=f"Fields must return logits .*got {kind.__name__}"
    ):
        occlude(Fields(kind), torch.randn(1, 3, 16, 16), 0, size=8, stride=8)


@pytest.mark.reference
def test_images_of_a_wrong_size_are_an_error():
    """The dense layer of a network with branches fits a single image size."""
    model = nn.Sequential(Block(), nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(2 * 14 * 14, 5))
    assert occlude(model, torch.randn(1, 3, 16, 16), 0, size=8, stride=8).logit.shape == (2, 2)
    with pytest.raises(ValueError, match=r"x \(1, 3, 20, 16\) does not fit the network"):
        occlude(model, torch.randn(1, 3, 20, 16), 0, size=8, stride=8)


def test_occluding_the_object_of_a_scene_lowers_the_logit(scenes_net, scenes_val):
    """The logit drops where the occluder covers the object, and changes little elsewhere."""
    correct = [
        i for i in range(30) if scenes_net(scenes_val.batch([i])).argmax() == scenes_val.labels[i]
    ]
    o = occlude(
        scenes_net, scenes_val.batch(correct), scenes_val.labels[correct], size=24, stride=8
    )
    mask = torch.from_numpy(scenes_val.masks[correct])[:, 8:-8, 8:-8].float()
    share = (
        torch.stack(
            [
                mask[:, top:bottom, left:right].sum((1, 2))
                for top, left, bottom, right in o.boxes.view(-1, 4).tolist()
            ],
            1,
        )
        / mask.sum((1, 2))[:, None]
    )
    drop = (o.baseline.logit[:, None, None] - o.logit).flatten(1)
    on_object, off_object = drop[share > 0.5].mean(), drop[share == 0].mean()
    assert on_object > 2 * abs(off_object)  # about 3, depending on the number of threads
    assert on_object > 0


def test_fill_must_broadcast_and_be_finite(model):
    x = torch.randn(1, 3, 64, 64)
    color = occlude(model, x, 0, fill=torch.tensor([1.0, 2.0, 3.0]))
    image = occlude(model, x, 0, fill=torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1).expand(3, 64, 64))
    torch.testing.assert_close(color.logit, image.logit)
    with pytest.raises(ValueError, match="does not broadcast"):
        occlude(model, x, 0, fill=torch.zeros(2))
    with pytest.raises(ValueError, match="not finite"):
        occlude(model, x, 0, fill=float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        occlude(model, x * float("inf"), 0)
    with pytest.raises(ValueError, match="size must be a whole number"):
        occlude(model, x, 0, size=8.5, stride=4)
