"""Occlusion maps against a slow loop, and against drawn scenes whose answer is known."""

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
        assert boxes[-2, 0, 2] < height  # no window more than is needed


@pytest.fixture(scope="module")
def small():
    return random_he(zfnet.zfnet(6, norm="lrn", channels=(6, 7, 8, 8, 5), fc_units=8, size=64))


@pytest.mark.reference
@pytest.mark.parametrize(
    ("size", "stride", "fill"), [(16, 16, 0.0), (20, 12, 0.5), (63, 63, 0.0), (33, 7, -1.0)]
)
def test_equals_one_position_at_a_time(small, size, stride, fill):
    x = torch.randn(2, 3, 64, 64)
    o = occlude(small, x, [4, 1], size=size, stride=stride, fill=fill, batch=5)
    rows, columns = o.boxes.shape[:2]
    assert o.probability.shape == (2, rows, columns)
    for n in range(2):
        channel = int(zfnet.trace(small, x[n : n + 1])["conv5"][0].amax((1, 2)).argmax())
        assert o.channel[n] == channel
        for r in range(rows):
            for c in range(columns):
                copy = x[n : n + 1].clone()
                copy[:, :, r * stride : r * stride + size, c * stride : c * stride + size] = fill
                t = zfnet.trace(small, copy)
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
    plain = zfnet.trace(small, x)
    torch.testing.assert_close(o.baseline.logit, plain.logits[[0, 1], [4, 1]])
    torch.testing.assert_close(o.baseline.activation, plain["conv5"][[0, 1], o.channel].sum((1, 2)))


@pytest.mark.reference
def test_one_image_has_no_leading_axis(small):
    x = torch.randn(1, 3, 64, 64)
    o = occlude(small, x, 2)
    assert o.logit.shape == o.label.shape == o.activation.shape == (5, 5)
    assert o.baseline.logit.ndim == o.channel.ndim == o.target.ndim == 0
    predicted = occlude(small, x, size=63, stride=63)
    assert predicted.target == predicted.baseline.label == small(x).argmax()


@pytest.mark.reference
def test_a_filling_may_be_a_picture(small):
    x = torch.randn(1, 3, 64, 64)
    same = occlude(small, x, 0, fill=x)
    torch.testing.assert_close(
        same.logit, same.baseline.logit.expand_as(same.logit), rtol=1e-4, atol=1e-5
    )


@pytest.mark.reference
def test_any_module_may_be_occluded():
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
    """A residual block, which returns maps."""

    def forward(self, x):
        return x + x.relu()


class BeginsInPlace(nn.Module):
    """A network that overwrites its input, and is no chain of modules."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 6, 3), nn.Linear(6, 5)

    def forward(self, x):
        x -= 0.5
        return self.fc(self.conv(x).relu().mean((2, 3)))


@pytest.mark.reference
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_a_network_that_overwrites_its_input_leaves_the_callers_alone(order):
    chain = [
        nn.ReLU(inplace=True),
        nn.Conv2d(3, 6, 3),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ]
    for model in (BeginsInPlace(), nn.Sequential(*chain, nn.Linear(6, 5))):
        x = torch.randn(2, 3, 32, 32).contiguous(memory_format=order)
        given = x.clone()
        o = occlude(model, x, 1, size=16, stride=16)
        assert torch.equal(x, given)
        expected = [model(x.clone())[:, 1]]
        for top, left, bottom, right in o.boxes.view(-1, 4).tolist():
            covered = x.clone()
            covered[:, :, top:bottom, left:right] = 0
            expected.append(model(covered)[:, 1])
        ours = torch.cat([o.baseline.logit[:, None], o.logit.flatten(1)], 1)
        torch.testing.assert_close(ours, torch.stack(expected, 1).detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.reference
def test_wrong_requests(small):
    x = torch.randn(1, 3, 64, 64)
    with pytest.raises(ValueError, match="does not fit the network"):
        occlude(small, torch.randn(1, 3, 97, 97), 0)
    with pytest.raises(ValueError, match="does not fit the network"):
        occlude(torchvision.models.resnet18(num_classes=5), torch.randn(1, 1, 64, 64), 0)
    with pytest.raises(UnsupportedNetwork, match="must return logits"):
        occlude(nn.Sequential(Block(), nn.Identity()), x, 0)
    with pytest.raises(ValueError, match="class_index"):
        occlude(small, x, "dog")
    with pytest.raises(ValueError, match="stride of 20 with an occluder of 16"):
        occlude(small, x, 0, size=16, stride=20)
    with pytest.raises(ValueError, match="class from 0 to 5"):
        occlude(small, x, 6)
    with pytest.raises(ValueError, match="3 targets for 1 images"):
        occlude(small, x, [0, 1, 2])
    with pytest.raises(ValueError, match="batch must be"):
        occlude(small, x, 0, batch=0)
    for wrong in (1.7, True, 1j):
        with pytest.raises(ValueError, match="whole numbers"):
            occlude(small, x, wrong)
    with pytest.raises(ValueError, match="target must be whole numbers"):
        occlude(small, x, [None])
    with pytest.raises(ValueError, match="size must be at least 1"):
        occlude(small, x, 0, size=0)


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
def test_a_network_must_return_logits_alone(kind):
    """No field is chosen silently."""
    with pytest.raises(
        UnsupportedNetwork, match=f"Fields must return logits .*got {kind.__name__}"
    ):
        occlude(Fields(kind), torch.randn(1, 3, 16, 16), 0, size=8, stride=8)


@pytest.mark.reference
def test_images_of_another_size_are_refused_with_the_layer():
    """A dense layer of a network with branches fits one size of image."""
    model = nn.Sequential(Block(), nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(2 * 14 * 14, 5))
    assert occlude(model, torch.randn(1, 3, 16, 16), 0, size=8, stride=8).logit.shape == (2, 2)
    with pytest.raises(ValueError, match=r"x \(1, 3, 20, 16\) does not fit the network"):
        occlude(model, torch.randn(1, 3, 20, 16), 0, size=8, stride=8)


def test_covering_a_scenes_object_lowers_its_logit(scenes_net, scenes_val):
    """A known answer: the drop is where the object is, and covering the ground does little."""
    chosen = [
        i for i in range(30) if scenes_net(scenes_val.batch([i])).argmax() == scenes_val.labels[i]
    ]
    o = occlude(scenes_net, scenes_val.batch(chosen), scenes_val.labels[chosen], size=24, stride=8)
    mask = torch.from_numpy(scenes_val.masks[chosen])[:, 8:-8, 8:-8].float()
    share = (
        torch.stack(
            [mask[:, t:b, l:r].sum((1, 2)) for t, l, b, r in o.boxes.view(-1, 4).tolist()], 1
        )
        / mask.sum((1, 2))[:, None]
    )
    drop = (o.baseline.logit[:, None, None] - o.logit).flatten(1)
    on, off = drop[share > 0.5].mean(), drop[share == 0].mean()
    assert on > 2 * abs(off)  # 3 with some numbers of threads, a little less with others
    assert on > 0


def test_a_filling_fits_or_is_refused(small):
    x = torch.randn(1, 3, 64, 64)
    color = occlude(small, x, 0, fill=torch.tensor([1.0, 2.0, 3.0]))
    picture = occlude(
        small, x, 0, fill=torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1).expand(3, 64, 64)
    )
    torch.testing.assert_close(color.logit, picture.logit)
    with pytest.raises(ValueError, match="does not broadcast"):
        occlude(small, x, 0, fill=torch.zeros(2))
    with pytest.raises(ValueError, match="not finite"):
        occlude(small, x, 0, fill=float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        occlude(small, x * float("inf"), 0)
    with pytest.raises(ValueError, match="size must be a whole number"):
        occlude(small, x, 0, size=8.5, stride=4)
