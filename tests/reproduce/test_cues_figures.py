"""Cues, attributes, mistakes, keypoints, boxes and the video: hand-computed numbers, verdicts."""

import hashlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

import zfnet
from reproduce.core.annotations import find_annotated
from reproduce.core.context import Context
from reproduce.core.figure import SAMPLES
from reproduce.core.run import run
from reproduce.lectures import outlines, predictions
from reproduce.lectures.attribution import boxes, localisation, video
from reproduce.lectures.features import mistake_comparison, mistakes
from reproduce.lectures.invariance import (
    attribute_values,
    attributes,
    class_comparison,
    cue_conflict,
    keypoints,
    parts_shape_texture,
    single_cues,
)
from reproduce.lectures.kinds import kind_table
from tests.conftest import random_he
from zfnet.data.dataset import Images
from zfnet.data.scenes import draw_scene


def test_outline_segments_the_object_in_a_box():
    """Compare with the exact masks of drawn scenes and of a disc on a uniform background."""
    row, column = np.mgrid[:56, :56]
    disc = (row - 26) ** 2 + (column - 30) ** 2 < 14**2
    flat = np.where(disc[..., None], (0.8, 0.2, 0.1), (0.2, 0.4, 0.7))
    assert (outlines.outline(flat, (8, 8, 46, 50)) == disc).mean() > 0.99
    scores = []
    for number in range(12):
        scene = draw_scene(number, 112, seed=3)
        top, left, bottom, right = scene.box
        outline = outlines.outline(
            scene.image / 255, (max(top - 4, 0), max(left - 4, 0), bottom + 4, right + 4)
        )
        # Outlines fill the hole of a ring by design.
        mask = scene.mask if scene.label != 4 else outline
        scores.append((outline & mask).sum() / (outline | mask).sum())
    assert np.mean(scores) > 0.7


def test_outlines_of_a_uniform_image_and_at_another_size():
    assert outlines.outline(np.full((20, 20, 3), 0.5), (5, 5, 15, 15)).sum() > 0
    image = np.zeros((112, 112, 3))
    image[32:80, 32:80] = (0.9, 0.6, 0.1)
    outline = outlines.outline_centered(image, 56)
    assert outline.shape == (112, 112)
    assert outline[40:72, 40:72].all()
    assert not outline[:24].any()
    assert outlines.polygon_overlap(image, [[32, 32], [32, 79], [79, 79], [79, 32]], outline) > 0.9


def test_annotations_are_complete():
    marks = outlines.object_annotations()
    assert len(marks["outlines"]) >= 200
    assert len(marks["boxes"]) >= 150
    assert set(marks["polygons"]) <= set(marks["outlines"])
    assert all(
        len(h) == 64
        for h in [*marks["outlines"].values(), *(m["sha256"] for m in marks["boxes"].values())]
    )
    for top, left, bottom, right in (mark["box"] for mark in marks["boxes"].values()):
        assert 0 <= top < bottom <= 224
        assert 0 <= left < right <= 224
    assert all(
        0 <= v < 224 for polygon in marks["polygons"].values() for point in polygon for v in point
    )


def test_annotated_files_are_matched_by_hash(tree):
    (tree / "val" / "n03000000").rename(tree / "val" / "n02112018")
    context = Context("imagenet65k", str(tree))
    correct_file, other_file = sorted((tree / "val" / "n02088094").iterdir())[:2]
    hashes = {
        correct_file.name: hashlib.sha256(correct_file.read_bytes()).hexdigest(),
        other_file.name: "0" * 64,
        "n0_0.JPEG": "0" * 64,
    }
    index, note = find_annotated(context, hashes)
    assert list(index) == [correct_file.name]
    assert context.images.names[index[correct_file.name]].endswith(correct_file.name)
    assert note == f"Left out: 1 absent, {other_file.name} (another file of that name)."
    # Imagenette has none of the annotated images.
    downloaded = SimpleNamespace(data="imagenette", images=context.images)
    assert find_annotated(downloaded, hashes) == ({}, "Left out: 3 absent.")


def test_partners_are_a_permutation_with_other_classes():
    target = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, 4, 5])
    order = cue_conflict.partners(target, torch.Generator().manual_seed(0))
    assert sorted(order.tolist()) == list(range(10))
    assert (target[order] != target).all()
    with pytest.raises(ValueError, match="too few classes"):
        cue_conflict.partners(torch.tensor([0, 0, 0, 1]), torch.Generator())


def test_painting_is_cached(cache, monkeypatch):
    model = random_he(zfnet.zfnet(4, norm="none", channels=(4, 6, 6, 6, 4), fc_units=8, size=64))
    model.info = {"sha256": "a network of this test"}
    x = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    style, options = torch.tensor([1, 2, 0]), {"side": 48, "steps": 2, "rate": 0.1, "weight": 10.0}
    monkeypatch.setattr(cue_conflict, "CHUNK", 2)
    painted, distance = cue_conflict.paint(
        model, x, style, progress=lambda items, **_: items, **options
    )
    assert distance.shape == (3,)
    assert (distance > 0).all()
    assert painted.shape == x.shape
    assert float((painted - x).abs().mean()) > 0.01
    monkeypatch.setattr(cue_conflict, "style_transfer", None)  # the cache is used from here on
    cached, cached_distance = cue_conflict.paint(
        model, x, style, progress=lambda items, **_: items, **options
    )
    assert torch.equal(cached, painted)
    assert torch.equal(cached_distance, distance)
    with pytest.raises(TypeError):
        cue_conflict.paint(model, x, style.roll(1), progress=lambda items, **_: items, **options)


def cue_numbers(texture=(60, 55, 65), gain=0.1, shuffled=0.2):
    return {
        "texture only minus outline only, probability": [gain, gain - 0.05, gain + 0.05],
        "parts shuffled 4 x 4 minus outline only, probability": [shuffled, shuffled - 0.05, shuffled + 0.05],
        "cue conflict": {"texture share, %": list(texture)},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "failing_claim", "expected"),
    [
        ({}, None, "reproduced"), ({"texture": (55, 45, 65)}, "most decisions", "partial"), ({"texture": ()}, "most decisions", "partial"),
        ({"gain": 0.01}, "texture alone", "partial"), ({"shuffled": 0.0}, "shuffled parts", "partial"),
        ({"texture": (20, 10, 30), "gain": -0.2, "shuffled": -0.1}, "", "differs"),
    ],
)  # fmt: skip
def test_cue_verdict(changes, failing_claim, expected):
    claims, actual = parts_shape_texture.judge(cue_numbers(**changes))
    assert actual == expected
    failed = "does not hold" if expected == "differs" else "undecided"
    for claim, state in claims.items():
        assert state == (
            failed if failing_claim is not None and failing_claim in claim else "holds"
        ), claim


def test_variants_keep_one_cue():
    x = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(2, 224, 224, dtype=torch.bool)
    masks[:, 64:160, 48:180] = True
    figure = parts_shape_texture.FIGURE
    kinds = single_cues.variants(x, masks, figure.config, figure.seed)
    assert {"image", "outline only", "texture only", "object only", "background only"} < set(kinds)
    assert all(images.shape == x.shape for images in kinds.values())
    assert torch.equal(kinds["object only"] + kinds["background only"], x)
    assert len(kinds["outline only"].unique()) == 6  # black and white, in three channels


def test_accuracy_within_classes_by_hand():
    # Class 0 is correct at 5 and 3 and wrong at 4: one of two pairs is in order.
    # Class 1 is correct at 2 and wrong at 2 and 1: one and a half pairs. Class 2 has no pair.
    values, labels = np.array([5.0, 3, 4, 2, 2, 1, 9]), np.array([0, 0, 0, 1, 1, 1, 2])
    correct = np.array([True, True, False, True, False, False, True])
    assert class_comparison.within_classes(values, correct, labels)[0] == pytest.approx(2.5 / 4)
    assert attribute_values.area([56, 0, 168, 112]) == 0.25


def test_attributes_and_mistakes_need_labels(tmp_path):
    for script in (attributes, mistakes, keypoints):
        outcome = run(script, Context("imagenet65k", None), tmp_path)
        assert (outcome.record.verdict, outcome.record.files) == ("not run", [])


# With few images, most claims are undecided.
JUDGED = ["reproduced", "partial", "differs", "not comparable"]


def random_predictions(n=40, seed=0):
    rng = np.random.default_rng(seed)
    probability = rng.dirichlet(np.ones(6), n)
    return predictions.Predictions(
        probability, rng.random((n, 5)).astype(np.float32), rng.integers(0, 6, n)
    )


def test_ranks_and_typical_images():
    predicted = random_predictions()
    for i, label in enumerate(predicted.labels):
        order = np.argsort(-predicted.probability[i])
        assert predicted.rank()[i] == 1 + list(order).index(label)
        assert predicted.correct[i] == (order[0] == label)
    for label in range(6):
        members = np.flatnonzero(predicted.labels == label)
        unit = [c / np.linalg.norm(c) for c in predicted.codes[members]]
        cosine = [float(u @ np.mean(unit, 0)) for u in unit]
        assert mistakes.typical_image(predicted, label) == members[int(np.argmax(cosine))]
    assert mistakes.one_per_class(
        np.array([4, 2, 7, 1]), np.array([9, 3, 5, 5, 5, 9, 9, 3])
    ).tolist() == [4, 7]


def test_predictions_are_cached(tree, cache):
    (tree / "val" / "n03000000").rename(tree / "val" / "n02112018")
    context = Context("imagenet65k", str(tree))
    predicted = predictions.predict_corpus(context, batch=4)
    t = zfnet.trace(context.model, context.images.batch(range(9)))
    np.testing.assert_allclose(predicted.probability, t.logits.softmax(1).numpy(), atol=2e-3)
    np.testing.assert_allclose(predicted.codes, t["fc7"].numpy(), atol=2e-2)
    assert predicted.labels.tolist() == context.images.labels.tolist()
    context.model.forward = None  # predictions now come from the cache
    assert np.array_equal(predictions.predict_corpus(context).codes, predicted.codes)
    counts = predictions.training_images(context)
    assert counts[context.model.wnids.index("n02088094")] == 8
    assert counts.sum() == 16  # the network has no class n03000000
    assert predictions.training_images(SimpleNamespace(data=None)) is None


@pytest.mark.parametrize(
    ("n", "kinds", "verdicts"),
    [(80, 6, ["not run"]), (300, 6, JUDGED), (300, 2, JUDGED), (80, 1, ["not run"])],
)
def test_too_few_images_or_classes_are_reported(n, kinds, verdicts, monkeypatch):
    predicted, rng = random_predictions(n), np.random.default_rng(1)
    predicted.labels[:] %= kinds
    pixels = torch.from_numpy(rng.integers(0, 256, (n, 3, 16, 16), dtype=np.uint8))
    names = [f"{i}.JPEG" for i in range(n)]
    images = Images(
        pixels.permute(0, 2, 3, 1).numpy(), predicted.labels, [], [], names, "few", size=16
    )
    model = SimpleNamespace(
        wnids=[str(i) for i in range(1000)], classes=[str(i) for i in range(1000)]
    )
    ctx = SimpleNamespace(
        corpus="few", data=None, images=images, model=model, progress=lambda items, **_: items
    )
    for script in (mistakes, attributes):
        monkeypatch.setattr(script, "predict_corpus", lambda ctx: predicted)
        result = script.compute(ctx)
        assert result.verdict in (verdicts if script is mistakes else JUDGED)
        assert bool(script.draw(result)) == (result.verdict != "not run")
        if script is mistakes and result.measured:
            assert {row["predicted class"] for row in result.measured["shown"].values()} == {
                str(k) for k in range(kinds)
            }


def test_kinds_of_classes_and_interval_of_a_difference():
    table = kind_table()
    names = list(zfnet.data.labels.imagenet_names())
    assert (
        table[names.index("Pomeranian")]
        == table[names.index("chow")]
        != table[names.index("tabby")]
    )
    first, second = np.array([True, True, True, False]), np.array([False, False, True, False])
    mean, low, high = mistake_comparison.difference(first, second)
    assert mean == 50
    assert low < 50 < high
    assert mistake_comparison.percent(first)[0] == 75


def test_keypoint_scores_by_hand():
    hits = np.zeros((3, 3, 2), dtype=bool)
    hits[0, 1], hits[2, 0, 0] = True, True
    hits[[0, 1, 2], [0, 1, 2]] = True  # pairs of an image with itself are ignored
    assert keypoints.pck(hits)[0] == pytest.approx(100 * 3 / 12)
    heads = torch.tensor([[0, 0, 100, 50], [20, 40, 70, 140]])
    points = torch.tensor([[[50, 25], [10, 0]], [[20, 40], [45, 90]]])
    transferred = keypoints.same_in_box(points, heads)
    assert transferred[0, 1].tolist() == [[45, 90], [25, 40]]
    assert transferred[1, 0].tolist() == [[0, 0], [50, 25]]
    torch.testing.assert_close(transferred[0, 0], points[0].float())
    positions = points[None].expand(2, -1, -1, -1).float()
    reach = torch.tensor([50, 50])
    three = torch.cat([points, points[:, :1]], 1)
    assert keypoints.swapped_eyes(positions, three, reach, 0.1) == 0
    assert keypoints.swapped_eyes(positions[:, :, [1, 0]], three, reach, 0.1) == 100


def test_video_measures_by_hand():
    maps = torch.zeros(3, 1, 20, 30)
    for n, (row, column) in enumerate([(4, 5), (10, 20), (15, 9)]):
        maps[n, 0, row - 1 : row + 2, column - 2 : column + 3] = 2.0
        maps[n, 0, 0, 0] = -50  # negative values have no mass
    assert video.center_of_mass(maps).tolist() == [[4, 5], [10, 20], [15, 9]]
    true = np.linspace(0, 90, 12)
    assert video.slope(true, 0.5 * true + 7) == pytest.approx([0.5, 0.5, 0.5])
    assert video.slope(true, np.full(12, 3.0))[0] == 0
    (row, column), wnid = video.cup_center((600, 400))
    # The box [0, 30, 188, 186] has its center at (94, 108). Add a border of 16 pixels, and scale
    # from a view of 256 pixels to the central 400 pixels of the photograph.
    assert (row, column) == (pytest.approx(110 / 256 * 400), pytest.approx(124 / 256 * 400 + 100))
    assert wnid == "n07920052"


def test_video_runs_on_the_samples(tmp_path):
    outcome = run(video, Context("imagenet65k", None), tmp_path)
    assert outcome.record.files == ["video.gif"]
    assert outcome.record.measured["class"] == "espresso"
    assert (tmp_path / SAMPLES / "video" / "video.gif").stat().st_size < 3_000_000


def test_declared_files_exist():
    for module in (attributes, keypoints, mistakes, parts_shape_texture, video):
        folder = Path(module.__file__).parent
        assert all((folder / name).is_file() for name in module.FIGURE.files)
    assert yaml.safe_load(outlines.ANNOTATED.read_text()).keys() == {
        "outlines",
        "polygons",
        "boxes",
    }


def test_boxes_of_masks_and_their_overlap():
    mask = np.zeros((20, 30), dtype=bool)
    mask[2:5, 3:9] = mask[10:18, 12:14] = True  # 18 and 16 pixels
    assert boxes.box_of(mask).tolist() == [2, 3, 5, 9]
    assert boxes.box_of(~mask & mask).tolist() == [0, 0, 20, 30]
    one, other = np.array([[0, 0, 10, 10], [0, 0, 4, 4]]), np.array([[5, 0, 15, 10], [6, 6, 9, 9]])
    np.testing.assert_allclose(boxes.overlap(one, other), [50 / 150, 0])
    assert localisation.percent(np.array([True, False, False, False]))[0] == 25


def test_segmentation_extends_a_map_to_the_object():
    row, column = np.mgrid[:64, :64]
    disc = (row - 24) ** 2 + (column - 36) ** 2 < 14**2
    pixels = np.where(disc[..., None], [0.9, 0.1, 0.1], [0.1, 0.3, 0.9])
    hot = np.exp(
        -((row - 24) ** 2 + (column - 36) ** 2) / 50.0
    )  # strongest in the middle of the disc, far from its edge
    box = boxes.segment_box(hot, pixels)
    truth = boxes.box_of(disc)[None]
    assert boxes.overlap(box[None], truth)[0] > 0.9  # the colors carry it to the edge
    blob = boxes.box_above(hot)
    assert blob.tolist() == boxes.box_of(hot > 0.2).tolist()
    assert boxes.overlap(blob[None], truth)[0] < 0.6
    assert boxes.segment_box(np.zeros((64, 64)), pixels).tolist() == [0, 0, 64, 64]


def test_the_single_box_is_chosen_on_the_other_images():
    small, whole = [80, 80, 144, 144], [0, 0, 224, 224]
    truth = np.array([small] * 4 + [whole])
    chosen = boxes.best_of_others(truth, 224)
    assert (boxes.overlap(chosen, truth) >= 0.5).tolist() == [True] * 4 + [False]
    # Of two images, each has the box that is correct for the other one.
    chosen = boxes.best_of_others(truth[3:], 224)
    assert (boxes.overlap(chosen, truth[:2:-1]) >= 0.5).all()
    assert (boxes.overlap(chosen, truth[3:]) < 0.5).all()


def test_the_pairs_shown_have_the_least_the_median_and_the_largest_error():
    points = torch.zeros(3, 1, 2)
    place = torch.zeros(3, 3, 1, 2)
    place[..., 0, 0] = torch.tensor([[99.0, 1, 2], [3, 99, 4], [5, 6, 99]])  # rows off
    pairs, errors = keypoints.example_pairs(place, points, torch.tensor([10, 10, 10]))
    assert pairs.tolist() == [[0, 1], [1, 2], [2, 1]]
    np.testing.assert_allclose(errors, [0.1, 0.4, 0.6])
