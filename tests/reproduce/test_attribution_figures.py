"""Lecture figures on attribution, and the faithfulness benchmark: verdicts and helpers."""

import numpy as np
import pytest
import torch
import yaml

from reproduce.bench import faithfulness
from reproduce.core.annotations import covering_positions
from reproduce.core.context import Context
from reproduce.core.run import run
from reproduce.lectures.attribution import attributions, occluders, polar_bear
from zfnet.data.images import to_pixels
from zfnet.occlusion import occluder_boxes
from zfnet.plot import attribution_image


def test_polar_bear_boxes_are_valid_and_covered():
    boxes = occluder_boxes(
        224, 224, polar_bear.FIGURE.config["size"], polar_bear.FIGURE.config["stride"]
    )
    annotated = yaml.safe_load(polar_bear.BOXES.read_text())
    assert len(annotated) == 10
    assert sum("snow" in groups for groups in annotated.values()) >= 3
    for groups in annotated.values():
        assert set(groups) <= set(polar_bear.KINDS) - {"elsewhere"}
        for top, left, bottom, right in (box for group in groups.values() for box in group):
            assert 0 <= top < bottom <= 224
            assert 0 <= left < right <= 224
        positions = covering_positions(boxes, groups)
        assert all(positions[kind].any() for kind in groups)


@pytest.mark.parametrize(
    ("drops", "verdict"),
    [
        ([{"face": 2.0, "fur": 1.0, "snow": 0.1}], "reproduced"), ([{"face": 2.0, "fur": 1.0, "snow": 1.5}], "partial"),
        ([{"face": 2.0, "fur": 1.0, "snow": 0.1, "elsewhere": 1.5}], "partial"),
        ([{"face": -1.0, "fur": -0.5, "snow": 0.1}], "differs"), ([{"face": 2.0, "fur": 1.0}], "not comparable"),
        ([{"face": 2.0, "fur": 1.0, "snow": 0.1}, {"fur": -1.0}], "partial"),
    ],
)  # fmt: skip
def test_polar_bear_verdict(drops, verdict):
    assert polar_bear.judge([{"elsewhere": 0.0} | drop for drop in drops])[1] == verdict
    if not any("elsewhere" in drop for drop in drops):  # no region to compare with
        assert polar_bear.judge(drops)[1] == "not comparable"


def test_polar_bear_is_not_run_on_samples(tmp_path):
    outcome = run(polar_bear, Context("imagenet65k", None), tmp_path)
    assert outcome.record.verdict == "not run"
    assert outcome.record.files == []


def test_occluder_fillings():
    x = torch.randn(2, 3, 60, 60, generator=torch.Generator().manual_seed(0))
    filled = occluders.fillings(x)
    assert list(filled) == list(occluders.FILLINGS)
    assert all(t.shape == x.shape for t in filled.values())
    assert (filled["mean gray"] == 0).all()
    torch.testing.assert_close(to_pixels(filled["black"]), torch.zeros(x.shape), atol=1e-6, rtol=0)
    assert float(filled["noise"].std()) == pytest.approx(1, abs=0.05)
    assert torch.equal(occluders.fillings(x)["noise"], filled["noise"])
    uniform = torch.full((1, 3, 60, 60), 0.7)
    torch.testing.assert_close(occluders.blur(uniform, 8.0), uniform)
    point = torch.zeros(1, 3, 61, 61)
    point[:, :, 30, 30] = 1
    blurred = occluders.blur(point, 4.0)[0, 0]
    offset = torch.arange(61.0) - 30
    expected = torch.exp(-(offset[:, None] ** 2 + offset**2) / 32)
    torch.testing.assert_close(
        blurred[20:41, 20:41], (expected / expected.sum())[20:41, 20:41], rtol=0.02, atol=1e-6
    )


@pytest.mark.parametrize(
    ("correlation", "blur", "verdict"),
    [(0.9, 0.1, "reproduced"), (0.9, 2.0, "partial"), (0.2, 0.1, "partial"), (0.2, 2.0, "differs")],
)
def test_occluder_verdict(correlation, blur, verdict):
    drops = {kind: {"mean": 1.0, "largest": 2.0} for kind in occluders.FILLINGS[:-1]} | {
        "blurred": {"mean": blur, "largest": 1.0}
    }
    row = {
        "fall of the logit": drops,
        "rank correlation of the maps": {"mean gray, black": 0.95, "black, noise": correlation},
    }
    assert occluders.judge([row])[1] == verdict


def test_concentration_on_the_object_by_hand():
    inside = attributions.object_mask(
        {"dog": [[0, 0, 2, 2]], "face": [[2, 2, 4, 4]]}, torch.Size((4, 4))
    )
    assert inside.sum() == 4
    maps = torch.ones(2, 1, 4, 4)
    assert attributions.concentration(maps, inside.expand(2, 4, 4)) == pytest.approx(1)
    maps[1] = -inside.float()  # all on a quarter of the image
    assert attributions.concentration(maps, inside.expand(2, 4, 4)) == pytest.approx(2.5)
    assert attributions.concentration(maps, torch.zeros(2, 4, 4, dtype=torch.bool)) is None


def rows(share=2.0, guided=0.9):
    change = {"saliency": 0.5, "guided_backprop": guided, "deconvnet": 0.8}
    center = {"a map in the middle": {attributions.ON_OBJECT: 1.4}}
    return center | {
        name: {"raw": [0, 1], attributions.ON_OBJECT: share, attributions.NEXT: value}
        for name, value in change.items()
    }


@pytest.mark.parametrize(
    ("measured", "verdict"),
    [
        (rows(), "reproduced"),
        (rows(share=1.3), "partial"),
        (rows(guided=0.1), "partial"),
        (rows(share=None), "not comparable"),
    ],
)
def test_attribution_verdict(measured, verdict):
    assert attributions.judge(measured)[1] == verdict


def test_central_maps_score_on_a_central_object():
    maps, inside = attributions.central_maps(2, 64), torch.zeros(2, 64, 64, dtype=torch.bool)
    assert (float(maps.min()), maps.shape) == (0, (2, 1, 64, 64))
    inside[:, 20:44, 20:44] = True
    assert attributions.concentration(maps, inside) > 1.5
    assert attributions.concentration(maps, ~inside) < 1


def scores(
    deconvnet=(-5, -9, -1), occlusion=(20, 10, 30), cam=(20, 10, 30), guided=(0.3, 0.2, 0.4)
):
    better = {"deconvnet": deconvnet, "occlusion": occlusion, "grad_cam": cam}
    return {
        faithfulness.BETTER: better,
        faithfulness.LESS: {"guided_backprop": guided, "deconvnet": (0.3, 0.2, 0.4)},
    }


@pytest.mark.parametrize(
    ("measured", "failing_claim", "expected"),
    [
        (scores(), "", "reproduced"), (scores(deconvnet=(5, 1, 9)), "no better", "partial"),
        (scores(guided=(-0.3, -0.4, -0.2)), "guided_backprop changes less", "partial"),
        (scores(occlusion=(-3, -5, -1)), "occlusion points", "partial"), (scores(cam=(-3, -5, -1)), "grad_cam points", "partial"),
    ],
)  # fmt: skip
def test_faithfulness_verdict(measured, failing_claim, expected):
    claims, actual = faithfulness.judge(measured)
    assert actual == expected
    for claim, state in claims.items():
        assert state == (
            "does not hold" if failing_claim and failing_claim in claim else "holds"
        ), claim


def test_faithfulness_claims_are_undecided_if_intervals_contain_zero():
    claims, verdict = faithfulness.judge(
        scores((1, -2, 4), (1, -2, 4), (1, -2, 4), (0.0, -0.1, 0.1))
    )
    assert (list(claims.values()).count("undecided"), verdict) == (4, "partial")


def test_attribution_images_are_normalized_and_nan_is_gray():
    maps = np.zeros((4, 1, 10, 20), dtype=np.float32)
    maps[0, 0, :5] = 3.0  # half of the map has the largest value
    maps[1, 0, :5], maps[1, 0, 5:] = 2.0, -2.0
    maps[2, 0, 0] = np.nan
    images, scale = attribution_image(maps)
    assert images.shape == (4, 10, 20, 3)
    assert scale.tolist() == [3, 2, 0, 0]
    assert images[0, 0, 0].sum() > 2.4 > 0.2 > images[0, 9, 0].sum()  # yellow; black
    red, blue = images[1, 0, 0], images[1, 9, 0]
    assert red[0] > red[2]
    assert blue[2] > blue[0]
    assert (images[2, 0] == 0.5).all()
    assert np.allclose(images[2, 1:], images[3, 1:])
