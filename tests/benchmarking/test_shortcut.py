"""Shortcut scenes, in which only a tag predicts the class; functions as explanation methods."""

import numpy as np
import pytest
import torch

import zfnet
from tests.benchmarking.networks import gradient_x_input, image_batch, small_net
from zfnet.benchmarking import load_shortcut_scenes
from zfnet.benchmarking.shortcut import draw_shortcut_scene
from zfnet.data.scenes import draw_scene


def test_tag_predicts_the_class_and_is_in_every_crop():
    colors = {}
    for index in range(30):
        scene, tag = draw_shortcut_scene(index, 128, seed=5)
        assert scene.label == index % 10
        assert not (tag & scene.mask).any()
        rows, columns = np.nonzero(tag)
        # A crop of 112 from 128 pixels contains the tag.
        assert min(rows.min(), columns.min()) >= 16
        assert max(rows.max(), columns.max()) < 112
        center_color = tuple(scene.image[int(rows.mean()), int(columns.mean())])
        assert colors.setdefault(scene.label, center_color) == center_color
    assert len(set(colors.values())) == 10


def test_shapes_are_random_unless_plausible_is_set():
    for index in range(20):
        scene, tag = draw_shortcut_scene(index, 64, seed=6, plausible=True)
        same = draw_scene(index, 64, 6, index % 10)
        assert np.array_equal(scene.image[~tag], same.image[~tag])
    masks = [draw_shortcut_scene(i, 64, seed=6)[0].mask for i in range(20)]
    same = [np.array_equal(m, draw_scene(i, 64, 6, i % 10).mask) for i, m in enumerate(masks)]
    assert 0 <= sum(same) < 10


def test_masks_of_tag_and_object():
    tags = load_shortcut_scenes(10, size=56, side=64)
    objects = load_shortcut_scenes(10, size=56, side=64, mask="object")
    assert np.array_equal(tags.pixels, objects.pixels)
    assert not (tags.masks & objects.masks).any()
    assert (tags.masks.sum((1, 2)) == 49).all()
    assert tags.digest != objects.digest
    with pytest.raises(ValueError, match="mask must be 'tag' or 'object'"):
        load_shortcut_scenes(10, mask="label")


def test_explain_accepts_a_function():
    model, x = small_net(channels=3), image_batch(channels=3)
    a = zfnet.explain(model, x, gradient_x_input, target=2)
    expected = zfnet.explain(model, x, "gradient_x_input", target=2)
    torch.testing.assert_close(a.pixels, expected.pixels)
    torch.testing.assert_close(a.map, expected.map)
    assert a.method == "gradient_x_input"
    assert zfnet.explain(model, x, lambda m, x, t: x[:, :1]).pixels is None
    with torch.no_grad():  # explain enables gradients for the function
        torch.testing.assert_close(zfnet.explain(model, x, gradient_x_input, 2).map, a.map)
    with pytest.raises(ValueError, match=r"must return a map \(4, 1, 12, 12\) or values"):
        zfnet.explain(model, x, lambda m, x, t: x[0])
    with pytest.raises(ValueError, match="target must be a class from 0 to 4"):
        zfnet.explain(model, x, gradient_x_input, target=7)
