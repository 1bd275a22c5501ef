"""Image cues against hand-computed pixels and decisions, and on a network trained on shapes."""

import numpy as np
import pytest
import torch

from tests.networks import resnet18, small_zfnet
from zfnet.analysis.cues import (
    apply_mask,
    cover_parts,
    join_tiles,
    shuffle_parts,
    silhouettes,
    split_tiles,
    texture_patches,
)
from zfnet.analysis.decisions import confidence, cue_conflict
from zfnet.data.images import to_pixels
from zfnet.graph import UnsupportedNetwork


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def unique_pixels(n=2, side=12):
    """Return images in which every pixel has a different value."""
    return torch.arange(n * 3 * side * side, dtype=torch.float32).reshape(n, 3, side, side)


def test_tiles_are_in_reading_order_and_join_tiles_inverts_split_tiles():
    x = unique_pixels()
    tiles = split_tiles(x, 3)
    assert tiles.shape == (2, 9, 3, 4, 4)
    for tile in range(9):
        top, left = 4 * (tile // 3), 4 * (tile % 3)
        assert torch.equal(tiles[:, tile], x[:, :, top : top + 4, left : left + 4])
    assert torch.equal(join_tiles(tiles), x)


def test_shuffle_parts_permutes_the_tiles_of_each_image_independently():
    x = unique_pixels(3)
    result = shuffle_parts(x, 3, generator())
    orders = []
    for image, shuffled in zip(x, result, strict=True):
        tile_numbers = {
            tuple(t.flatten().tolist()): i for i, t in enumerate(split_tiles(image[None], 3)[0])
        }
        orders.append(
            [tile_numbers[tuple(t.flatten().tolist())] for t in split_tiles(shuffled[None], 3)[0]]
        )
    assert all(sorted(order) == list(range(9)) for order in orders)
    assert len(set(map(tuple, orders))) == 3
    assert list(range(9)) not in orders
    assert torch.equal(result, shuffle_parts(x, 3, generator()))
    assert not torch.equal(result, shuffle_parts(x, 3, generator(1)))
    assert torch.equal(shuffle_parts(x, 1, generator()), x)


def test_permutations_of_parts_are_uniform():
    x = unique_pixels(1, 2).expand(6000, -1, -1, -1)
    first = shuffle_parts(x, 2, generator())[:, 0].flatten(1)
    orders, counts = np.unique(first.numpy(), axis=0, return_counts=True)
    assert len(orders) == 24
    assert abs(counts - 250).max() < 5 * 250**0.5


@pytest.mark.parametrize("share", [0, 0.25, 0.5, 1])
def test_cover_parts_covers_the_given_share(share):
    x = unique_pixels(4, 16) + 1
    result = cover_parts(x, 4, share, generator(), fill=-1.0)
    covered = (split_tiles(result, 4) == -1).flatten(2)
    assert torch.equal(covered.all(2), covered.any(2))
    assert covered.all(2).sum(1).tolist() == [round(16 * share)] * 4
    assert torch.equal(torch.where(result == -1, x, result), x)
    if share in (0.25, 0.5):
        assert len({tuple(row) for row in covered.all(2).tolist()}) > 1


def test_silhouettes_are_black_on_white():
    mask = torch.zeros(2, 4, 5, dtype=torch.bool)
    mask[0, 1:3, 2:] = mask[1, 0, 0] = True
    result = to_pixels(silhouettes(mask))
    assert result.shape == (2, 3, 4, 5)
    torch.testing.assert_close(
        result, (~mask)[:, None].expand(-1, 3, -1, -1).float(), atol=1e-6, rtol=0
    )


def test_texture_patches_come_from_the_object():
    x, mask = unique_pixels(2, 12), torch.zeros(2, 12, 12, dtype=torch.bool)
    mask[0, 3:9, 2:8] = True
    mask[1, 5:8, :] = True  # thinner than a patch: the patches that it covers most are used
    textures = texture_patches(x, mask, 4, generator())
    assert textures.shape == x.shape
    corners = []
    for n in range(2):
        corners.append(set())
        for patch in split_tiles(textures[n : n + 1], 3)[0]:
            top, left = divmod(int(patch[0, 0, 0]) - int(x[n, 0, 0, 0]), 12)
            assert torch.equal(patch, x[n, :, top : top + 4, left : left + 4])
            corners[n].add((top, left))
    assert all(3 <= top <= 5 and 2 <= left <= 4 for top, left in corners[0])
    assert all(top in (4, 5) for top, _ in corners[1])
    assert min(len(textures) for textures in corners) > 3
    assert torch.equal(textures, texture_patches(x, mask, 4, generator()))


def test_apply_mask_by_hand():
    x, mask = unique_pixels(1, 4), torch.eye(4, dtype=torch.bool)[None]
    for region in (mask, ~mask):
        masked = apply_mask(x, region, fill=7.5)
        for r in range(4):
            for c in range(4):
                assert masked[0, :, r, c].tolist() == (
                    x[0, :, r, c].tolist() if region[0, r, c] else [7.5] * 3
                )


def test_cue_conflict_by_hand():
    logits = torch.tensor([[9.0, 1, 0, 5], [1, 9, 0, 5], [0, 1, 2, 9], [0, 1, 2, 9], [5, 9, 8, 0]])
    shape, texture = torch.tensor([0, 0, 2, 0, 0]), torch.tensor([1, 1, 0, 2, 2])
    all_classes = cue_conflict(logits, shape, texture)
    assert all_classes.shape.tolist() == [True, False, False, False, False]
    assert all_classes.texture.tolist() == [False, True, False, False, False]
    assert all_classes.texture_share[0] == 0.5
    # Leave out class 3, which images 2 and 3 are assigned to.
    some_classes = cue_conflict(logits, shape, texture, classes=[0, 1, 2])
    assert some_classes.shape.tolist() == [True, False, True, False, False]
    assert some_classes.texture.tolist() == [False, True, False, True, False]
    mean, low, high = some_classes.texture_share
    assert mean == 0.5
    assert 0.1 < low < 0.2 < 0.8 < high < 0.9
    assert cue_conflict(logits[4:], shape[4:], texture[4:]).texture_share == []
    with pytest.raises(ValueError, match="must be among `classes`"):
        cue_conflict(logits, shape, texture, classes=[0, 1])
    with pytest.raises(ValueError, match="a class for its shape"):
        cue_conflict(logits, shape, shape)


@pytest.mark.parametrize("build", [small_zfnet, resnet18])
def test_confidence_equals_softmax_in_any_batch(build):
    model = build()
    x, target = torch.randn(5, 3, 64, 64, generator=generator()), [3, 1, 4, 1, 5]
    model.train()
    result = confidence(model, x, target, batch=2)
    assert model.training
    model.eval()
    with torch.no_grad():
        logits = model(x)
    torch.testing.assert_close(result.logits, logits, rtol=1e-4, atol=1e-4)
    for n, t in enumerate(target):
        assert float(result.probability[n]) == pytest.approx(
            float(logits[n].softmax(0)[t]), rel=1e-3
        )
        assert float(result.logit[n]) == pytest.approx(float(logits[n, t]), rel=1e-3, abs=1e-4)
    assert torch.equal(result.label, logits.argmax(1))
    before = x.clone()
    confidence(torch.nn.Sequential(torch.nn.ReLU(inplace=True), model), x, target)
    assert torch.equal(x, before)  # an in-place first module changes a copy
    assert torch.equal(
        confidence(model, x, None).probability, confidence(model, x, result.label).probability
    )


def test_invalid_arguments_are_rejected():
    x, mask = torch.zeros(2, 3, 12, 12), torch.ones(2, 12, 12, dtype=torch.bool)
    with pytest.raises(ValueError, match="5 x 5 tiles does not divide an image of 12 x 12"):
        shuffle_parts(x, 5, generator())
    with pytest.raises(ValueError, match=r"in \[0, 1\], got 1.5"):
        cover_parts(x, 3, 1.5, generator())
    with pytest.raises(ValueError, match="5 does not divide 12 x 12"):
        texture_patches(x, mask, 5, generator())
    with pytest.raises(ValueError, match=r"must be bool \(2, 12, 12\)"):
        apply_mask(x, mask[:1])
    with pytest.raises(ValueError, match="must be bool"):
        silhouettes(mask.float())
    with pytest.raises(ValueError, match="batch must be at least 1"):
        confidence(small_zfnet(), torch.zeros(1, 3, 64, 64), 0, batch=0)
    with pytest.raises(UnsupportedNetwork, match="must return logits"):
        confidence(torch.nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 8, 8), 0)
    mask[1] = False
    with pytest.raises(ValueError, match="empty in image 1"):
        silhouettes(mask)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_generators_of_any_device_work():
    x, mask = unique_pixels(2, 12).cuda(), torch.ones(2, 12, 12, dtype=torch.bool).cuda()
    for device in ("cpu", "cuda"):
        rng = torch.Generator(device).manual_seed(0)
        for result in (
            shuffle_parts(x, 3, rng),
            cover_parts(x, 3, 0.5, rng),
            texture_patches(x, mask, 4, rng),
        ):
            assert result.device == x.device


def test_network_trained_on_shapes_uses_the_shape(scenes_net, scenes_val):
    """In the scenes, only the outline predicts the class; without it, accuracy is near chance."""
    index, border = np.arange(200), (scenes_val.masks.shape[1] - 112) // 2
    x = scenes_val.batch(index)
    mask = torch.from_numpy(
        scenes_val.masks[index][:, border : border + 112, border : border + 112]
    )
    target = torch.from_numpy(scenes_val.labels[index])
    cues = {
        "image": x, "object": apply_mask(x, mask), "ground": apply_mask(x, ~mask), "silhouette": silhouettes(mask),
        "texture": texture_patches(x, mask, 14, generator()), "parts": shuffle_parts(x, 4, generator()),
    }  # fmt: skip
    accuracy = {
        name: float((confidence(scenes_net, images, target).label == target).float().mean())
        for name, images in cues.items()
    }
    assert accuracy["image"] > 0.8
    assert accuracy["silhouette"] > 0.4
    assert accuracy["object"] > accuracy["parts"] + 0.3
    assert max(accuracy["texture"], accuracy["parts"]) < 0.35
