"""Figures: the cache, the declared inputs, the record; and, slowly, every figure at sample scale."""

import hashlib
import itertools
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import zfnet
from reproduce.__main__ import main
from reproduce.core.annotations import covered_energy, covering_positions, position_groups
from reproduce.core.claims import explain, verdict
from reproduce.core.context import Context, UndeclaredInputError
from reproduce.core.corpora import imagenette
from reproduce.core.discovery import discover
from reproduce.core.figure import Figure, Result
from reproduce.core.record import Record, environment, read_record
from reproduce.core.run import run
from reproduce.paper import (
    boxed_images,
    class_shares,
    dog_faces,
    feature_tiles,
    fig2_features,
    fig5_claims,
    fig5_invariance,
    fig7_claims,
    fig7_occlusion,
    fig8_parts,
    part_masks,
    tab1_claims,
    tab1_correspondence,
)
from reproduce.paper.boxed_images import BOXES, choose_images, measurable_kinds
from reproduce.paper.fig7_claims import HIDDEN, MAP, PROBABILITY, SHOWN
from reproduce.site import atlas
from tests.conftest import ROOT
from zfnet.data.cache import DataError
from zfnet.occlusion import occluder_boxes
from zfnet.plot import mosaic, new_figure, projection_image, write_figure
from zfnet.receptive_field import ReceptiveField
from zfnet.training.constraints import share_fc6


def script(compute=None, inputs=("model",), calls=None):
    """A small figure script."""

    def draw(result):
        figure = new_figure(2, 2)
        figure.subplots().imshow(result.arrays["values"])
        return {"small.png": figure}

    def default(ctx):
        if calls is not None:
            calls.append(1)
        return Result({"values": np.arange(4.0).reshape(2, 2)}, {"answer": 42}, "reproduced", n=1)

    module = SimpleNamespace(
        FIGURE=Figure("small", "Small", "It is small.", inputs, seed=0, time_budget=1), compute=compute or default, draw=draw,
        __file__=__file__,
    )  # fmt: skip
    return module


def test_a_picture_that_hardly_compresses_is_kept_small(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 3), dtype=np.uint8)
    made = script()

    def draw(result):
        figure = new_figure(7, 7)
        figure.subplots().imshow(noise)
        return {"noise.jpg": figure}

    made.draw = draw
    run(made, Context("imagenet65k", None), tmp_path)
    picture = tmp_path / "samples" / "small" / "noise.jpg"
    figure = draw(None)["noise.jpg"]
    write_figure(figure, tmp_path / "better.jpg", quality=78)
    assert (tmp_path / "better.jpg").stat().st_size > 400_000
    assert picture.stat().st_size <= 400_000


def test_a_figure_is_made_once_and_again_when_something_is_missing(tmp_path):
    calls = []
    made, context = script(calls=calls), Context("imagenet65k", None)
    first = run(made, context, tmp_path)
    again = run(made, context, tmp_path)
    assert (first.cached, again.cached, len(calls)) == (False, True, 1)
    folder = tmp_path / "samples" / "small"
    (folder / "small.png").unlink()
    assert not run(made, context, tmp_path).cached
    assert len(calls) == 1  # drawn again from the arrays that were kept
    whole = (folder / "arrays.npz").read_bytes()
    (folder / "arrays.npz").write_bytes(whole[: len(whole) // 2])
    (folder / "result.json").write_text("{")
    run(made, context, tmp_path)
    assert len(calls) == 2
    run(made, context, tmp_path, force=True)
    assert len(calls) == 3
    assert not list(folder.glob(".*"))


def test_a_smaller_scale_replaces_a_larger_one_only_by_force(tmp_path):
    context = Context("imagenet65k", None)

    versions = itertools.count(1)

    def made(scale: str, force: bool = False) -> tuple[str, bool]:
        other = script(
            lambda ctx: Result(
                {"values": np.eye(2)}, {"scale": scale}, "reproduced", n=1, note=scale, scale=scale
            )
        )
        other.FIGURE = replace(other.FIGURE, version=next(versions))  # another key
        outcome = run(other, context, tmp_path, force)
        return outcome.record.scale, outcome.cached

    assert [made("smoke"), made("subset"), made("smoke"), made("paper")] == [
        ("smoke", False), ("subset", False), ("subset", True), ("paper", False)
    ]  # fmt: skip
    assert made("smoke", force=True) == ("smoke", False)


def test_the_record_says_what_was_measured_from_what(tmp_path):
    run(script(), Context("imagenet65k", None), tmp_path)
    record = json.loads((tmp_path / "samples" / "small" / "result.json").read_text())
    assert record["measured"] == {"answer": 42}
    assert len(record["inputs"]["checkpoint"]) == 64
    assert {"commit", "torch", "python", "device"} <= set(record["environment"])
    assert {"scale", "verdict", "n", "seed", "seconds", "key", "config"} <= set(record)
    assert str(tmp_path) not in json.dumps(record)


def test_an_undeclared_input_is_an_error(tmp_path):
    def compute(ctx):
        return Result({"values": np.zeros((2, 2))}, {"n": len(ctx.images)}, "reproduced", n=1)

    with pytest.raises(UndeclaredInputError, match="images"):
        run(script(compute, inputs=("model",)), Context("imagenet65k", None), tmp_path)


def test_a_verdict_is_one_of_six():
    with pytest.raises(ValueError, match="great"):
        record(verdict="great")


def record(**changes):
    values = {
        "id": "fig0", "title": "T", "claim": "C", "scale": "samples", "verdict": "partial", "measured": {}, "paper": {}, "n": 1, "seed": 0,
        "note": "", "inputs": {"corpus": "samples"}, "config": {}, "key": "k", "files": ["a.png"], "seconds": 1.0,
        "environment": {"commit": "c", "torch": "t", "python": "p", "device": "d"},
    }  # fmt: skip
    return Record(**values | changes)


def test_the_annotated_boxes_lie_in_the_image():
    import yaml

    marks = yaml.safe_load(BOXES.read_text())
    hashes = marks.pop("sha256")
    assert set(hashes) == {name for row in marks["imagenet"] for name in row["images"]}
    for rows in marks.values():
        for row in rows:
            for boxes in row["images"].values():
                for top, left, bottom, right in (box for kinds in boxes.values() for box in kinds):
                    assert 0 <= top < bottom <= 224
                    assert 0 <= left < right <= 224


def test_mosaic_and_contrast():
    tiles = np.stack([np.full((2, 3, 3), v) for v in (0.1, 0.2, 0.3)])
    sheet = mosaic(tiles, 2, gap=1)
    assert sheet.shape == (5, 7, 3)
    assert sheet[0, 0, 0] == pytest.approx(0.1)
    assert sheet[3, 0, 0] == pytest.approx(0.3)
    assert sheet[2, 0, 0] == 1
    values = np.zeros((2, 3, 8, 8), dtype=np.float32)
    values[0, 0, 2, 2], values[0, 1, 3, 3] = 4, -4
    shown = projection_image(values)
    assert shown[0, 2, 2, 0] == pytest.approx(1)
    assert shown[0, 3, 3, 1] == pytest.approx(0)
    assert (shown[1] == 0.5).all()


def test_every_script_states_its_claim_and_its_budget():
    scripts = discover()
    assert {"fig1", "fig2", "fig3", "fig5", "fig7", "fig8", "tab1"} <= set(scripts)
    for module in scripts.values():
        assert module.__doc__
        assert module.FIGURE.time_budget > 0
        assert len(Path(module.__file__).read_text().splitlines()) <= 300
    everyday = [
        module.FIGURE.time_budget for module in scripts.values() if not module.FIGURE.manual
    ]
    assert sum(everyday) + atlas.TIME_BUDGET <= 360  # six minutes


def test_fig3_is_the_papers(tmp_path):
    outcome = run(discover()["fig3"], Context("imagenet65k", None), tmp_path)
    assert outcome.record.verdict == "by construction"
    assert outcome.record.measured["conv1"] == "110 x 110 x 96"
    assert "The drawing shows the paper's network. Unlike" in outcome.record.note
    assert "network has 1,024 units in layer 6, 1,024 units in layer 7" in outcome.record.note


def test_the_committed_results_are_whole():
    folders = [
        p.parent
        for p in (ROOT / "figures").glob("*/*/result.json")
        if p.parent.parent.name != "samples"
    ]
    assert folders
    for folder in folders:
        stored = read_record(folder)
        assert stored is not None
        for name in stored.files:
            assert (folder / name).stat().st_size <= (
                400_000 if name.endswith(".jpg") else 1_000_000
            )
            with Image.open(folder / name) as image:
                assert min(image.size) > 200


def children_seconds():
    """The processor's seconds of all processes that were started here and have ended."""
    resource = pytest.importorskip("resource")
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def command(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "fig99"], "no figure fig99; did you mean fig9? available: fig1"),
        (["run", "fig2", "--data", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_a_wrong_figure_or_tree_is_one_line(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(
        torch.backends.cudnn, "allow_tf32", torch.backends.cudnn.allow_tf32
    )  # the command changes it
    monkeypatch.setattr(sys, "argv", ["reproduce", *arguments])
    assert main() == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_the_list_names_every_figure():
    listed = command("reproduce", "list")
    assert listed.returncode == 0
    assert all(name in listed.stdout for name in discover())


@pytest.mark.slow
def test_all_figures_at_sample_scale_and_from_the_cache(tmp_path):
    before = children_seconds()
    done = command("reproduce", "all", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert (
        children_seconds() - before <= 2 * 360
    )  # six minutes of two cores, the time that `make figures` may take
    everyday = [name for name, module in discover().items() if not module.FIGURE.manual]
    for name in everyday:
        stored = read_record(tmp_path / "samples" / name)
        assert stored is not None
        assert re.search(rf"^{name}\s+{stored.scale}\s+{stored.verdict}", done.stdout, re.MULTILINE)
    assert re.search(r"^atlas +samples +[\d.]+ +\d+$", done.stdout, re.MULTILINE)
    assert 'href="atlas/index.html"' in (tmp_path / "samples" / "index.html").read_text()
    again = command("reproduce", "all", "--out", str(tmp_path))
    assert again.stdout.count("cached") == len(everyday)


@pytest.mark.slow
def test_all_figures_on_a_tree_of_images(tree, tmp_path):
    done = command("reproduce", "all", "--data", str(tree / "val"), "--out", str(tmp_path))
    assert done.returncode == 2
    assert "n03000000" in done.stderr  # a folder that the network has no output for
    (tree / "val" / "n03000000").rename(tree / "val" / "n02112018")
    done = command("reproduce", "all", "--data", str(tree), "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert read_record(tmp_path / "tree" / "fig2").scale == "subset"


def test_where_says_which_positions_cover_what():
    boxes = occluder_boxes(224, 224, 48, 8)
    covered = covering_positions(
        boxes, {"dog": [[100, 100, 200, 200]], "face": [[0, 28, 14, 54], [90, 90, 110, 110]]}
    )
    for r, c in ((0, 0), (0, 4), (10, 10), (15, 15), (12, 12), (22, 22)):
        top, left, bottom, right = boxes[r, c].tolist()

        def share(box, top=top, left=left, bottom=bottom, right=right):
            overlap = max(0, min(bottom, box[2]) - max(top, box[0])) * max(
                0, min(right, box[3]) - max(left, box[1])
            )
            return overlap / min(48 * 48, (box[2] - box[0]) * (box[3] - box[1]))

        dog, face = (
            share((100, 100, 200, 200)),
            max(share((0, 28, 14, 54)), share((90, 90, 110, 110))),
        )
        assert covered["dog"][r, c] == (dog >= 0.5 and dog >= face)
        assert covered["face"][r, c] == (face >= 0.5 and face >= dog)
        assert covered["elsewhere"][r, c] == (dog == face == 0)
    assert all(positions.any() for positions in covered.values())


def test_every_annotated_box_is_tested_by_some_position():
    import yaml

    boxes = occluder_boxes(
        224, 224, fig7_occlusion.FIGURE.config["size"], fig7_occlusion.FIGURE.config["stride"]
    )
    marks = yaml.safe_load(BOXES.read_text())
    assert {name for row in marks["imagenet"] for name in row["images"]} == set(marks["sha256"])
    for rows in (marks["imagenet"], marks["samples"]):
        for images in rows:
            for kinds in images["images"].values():
                for kind, some in kinds.items():
                    assert all(covering_positions(boxes, {kind: [box]})[kind].any() for box in some)


def row(
    dog, face, elsewhere=0.0, map_dog=-10.0, map_face=-20.0, shown=-30.0, hidden=1.0, without=()
):
    """A row of Figure 7; `without` are kinds of boxes with too few positions."""
    activation = {"dog": map_dog, "face": map_face, "elsewhere": 0.0, SHOWN: shown, HIDDEN: hidden}
    return {
        PROBABILITY: {"dog": dog, "face": face, "elsewhere": elsewhere},
        MAP: activation,
        "testable": [kind for kind in activation if kind not in without],
    }


def test_what_a_network_has_otherwise_than_the_papers_is_read_off_it(tmp_path):
    torch.manual_seed(0)
    model = zfnet.zfnet(3, channels=(8, 8, 8, 8, 8), fc_units=16, norm="batch")
    zfnet.save(model, tmp_path / "free.safetensors")
    share_fc6(model)
    zfnet.save(model, tmp_path / "tied.safetensors", precision="int8")
    free, tied = (Context(str(tmp_path / f"{name}.safetensors"), None) for name in ("free", "tied"))
    assert (free.shared_fc6, tied.shared_fc6) == (False, True)
    common = "Unlike the paper's, this network has"
    units = ", ".join(
        [f"8 maps in layer {n}" for n in range(1, 6)]
        + ["16 units in layer 6", "16 units in layer 7"]
    )
    assert free.differences_from_paper == f"{common} {units}, no contrast normalization. "
    assert tied.differences_from_paper.startswith(
        f"{common} {units}, a first dense layer that sees only the mean of each map"
    )

    def departures(network):
        zfnet.save(network, tmp_path / "other.safetensors")
        return Context(str(tmp_path / "other.safetensors"), None).differences_from_paper

    assert departures(zfnet.zfnet(3)) == ""
    assert departures(zfnet.zfnet(3, drop_layers=(6,))) == f"{common} no layer 6. "
    assert "is not the paper's, but alexnet" in departures(
        zfnet.alexnet(3, channels=(8, 8, 8, 8, 8), fc_units=16)
    )


@pytest.mark.parametrize(
    ("shared", "before", "after"),
    [
        (True, "reproduced", "partial"),
        (True, "differs", "differs"),
        (False, "reproduced", "reproduced"),
    ],
)
def test_fig5_of_a_network_whose_layer_6_sees_no_positions_is_partial(shared, before, after):
    judged, reason = fig5_claims.limit_verdict(before, "", shared)
    assert (judged, bool(reason)) == (after, before != after)


def test_fig5_without_a_symmetric_object_claims_nothing_about_it():
    claims, _ = judge_fig5(responses(), has_symmetric=False)
    assert not any("symmetric" in claim for claim in claims)


def test_each_row_of_fig7_has_images_on_which_its_claims_can_be_tested():
    import yaml

    config, marks = fig7_occlusion.FIGURE.config, yaml.safe_load(BOXES.read_text())
    occluders = occluder_boxes(224, 224, config["size"], config["stride"])
    testable = {}
    for row in marks["imagenet"]:
        for name, boxes in row["images"].items():
            groups = position_groups(occluders, boxes)
            if {"elsewhere", *boxes} <= measurable_kinds(groups, config["stride"]):
                testable.setdefault(row["row"], []).append(name)
    assert {name: len(images) >= 1 for name, images in testable.items()} == dict.fromkeys(
        ("Pomeranian", "car wheel", "hound next to people"), True
    )
    assert len(testable["hound next to people"]) >= 3
    assert "n02112018_12134.JPEG" not in testable["Pomeranian"]  # its head fills the photograph


class Sure:
    """A network that is the surer of every class, the brighter the image is."""

    wnids = classes = ("n02112018", "n02974003", "n02087394", "n02088466", "n0")

    def __call__(self, x):
        logits = x.mean((1, 2, 3))[:, None].repeat(1, 5)
        logits[:, 4] = 0  # another class, so that the others' probability can grow
        logits[x[:, 0, 0, 0] < 0, 3] = 9  # takes an image with a mark for a bloodhound
        return logits


def test_fig7_takes_a_recognized_image_of_those_that_can_test_its_claims(monkeypatch):
    names = [
        "n02112018_12134.JPEG",
        "n02112018_1150.JPEG",
        "n02112018_10476.JPEG",
        "n02087394_19858.JPEG",
        "n02088466_7191.JPEG",
    ]

    def chosen(order, marked=()):
        pixels = {
            name: torch.full((1, 3, 224, 224), float(len(order) - order.index(name)))
            for name in order
        }
        for name in marked:
            pixels[name][:, :, 0, 0] = -1.0
        images = SimpleNamespace(batch=lambda i: pixels[names[i[0]]])
        monkeypatch.setattr(
            boxed_images,
            "find_annotated",
            lambda ctx, hashes: ({name: i for i, name in enumerate(names)}, ""),
        )
        ctx = SimpleNamespace(model=Sure(), images=images, corpus="tree", device="cpu")
        return [row[0] for row in choose_images(ctx)]

    # The first Pomeranian leaves no room beside its head. The first class wins among equals, so the
    # network recognizes no hound here but the marked one.
    assert chosen(names)[0] == "n02112018_1150.JPEG"
    assert chosen(names)[1] == "n02087394_19858.JPEG"  # the surest
    assert chosen(names, marked=names[4:])[1] == "n02088466_7191.JPEG"  # the recognized


def test_a_projection_is_covered_by_its_share_of_energy():
    pixels = torch.zeros(3, 224, 224)
    pixels[0, 100, 100], pixels[2, 10, 200] = 2.0, -1.0
    shares = covered_energy(pixels, boxes := occluder_boxes(224, 224, 48, 8))
    for box, share in zip(boxes.view(-1, 4).tolist(), shares.flatten().tolist(), strict=True):
        inside = [
            t <= r < b and l <= c < right
            for t, l, b, right in [box]
            for r, c in ((100, 100), (10, 200))
        ]
        assert share == pytest.approx(0.8 * inside[0] + 0.2 * inside[1])


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        ([row(-1.0, 0.5)], "reproduced"), ([row(-1.0, 0.5, elsewhere=-2.0)], "partial"),
        ([row(-1.0, 0.5, map_face=-5.0)], "partial"), ([row(-1.0, 0.5, shown=-1.0, hidden=-2.0)], "partial"),
        ([row(1.0, -0.5, map_face=-5.0, shown=1.0)], "differs"), ([], "not comparable"),
        ([row(-1.0, 0.5, without=("dog",))], "not comparable"), ([row(-1.0, 0.5, without=("face",))], "not comparable"),
        ([row(-1.0, 0.5), row(1.0, 0.5, without=("elsewhere",))], "reproduced"),
    ],
)  # fmt: skip
def test_fig7s_verdict_follows_its_claims(rows, verdict):
    claims, judged, reason = fig7_claims.judge({f"row {i}": row for i, row in enumerate(rows)})
    assert judged == verdict
    assert (reason == "") == (verdict == "reproduced")
    if verdict in ("partial", "differs"):
        failed = [of for of in claims.values() if of != "1 of 1"]
        assert reason.count("row 0: ") + reason.count("Row 0: ") == len(failed)


def test_fig7s_reason_has_the_numbers_of_what_failed():
    _, _, reason = fig7_claims.judge({"a hound": row(-0.5, 0.1, map_dog=-8.2, map_face=-5.0)})
    assert reason == (
        "A hound: covering the face changes the strongest map by -5 %, covering the dog by -8 %."
    )


def test_fig2_is_judged_by_the_coherence_of_patches_and_projections():
    above, open_, below = [0.2, 0.1, 0.3], [0.1, -0.1, 0.3], [-0.2, -0.3, -0.1]

    def judged(*intervals):
        named = {f"conv{i}, patches": of for i, of in enumerate(intervals)}
        judgments, evidence = fig2_features.judge(named)
        return verdict(judgments)[1], explain(judgments, evidence)

    assert judged(above, above) == ("reproduced", "")
    assert judged(above, open_)[0] == "partial"
    assert judged(open_, open_)[0] == "not comparable"
    assert judged(below, open_) == (
        "differs",
        "The coherence of conv0's patches differs from that of shuffled ones by -0.20 [-0.30, "
        "-0.10]; the coherence of conv1's patches differs from that of shuffled ones by +0.10 "
        "[-0.10, +0.30] (undecided).",
    )


def test_coherence_is_of_the_pattern_and_not_of_the_color():
    rng = torch.Generator().manual_seed(0)
    patterns = torch.randn(20, 1, 3, 24, 24, generator=rng).expand(-1, 9, -1, -1, -1)
    colors = torch.randn(20, 9, 3, 1, 1, generator=rng)
    alike, shuffled = feature_tiles.coherence(patterns + 5 * colors, seed=0)
    assert alike == pytest.approx(1, abs=1e-4)
    assert shuffled.mean() == pytest.approx(8 / 179, abs=0.02)  # pairs of one feature, by chance
    noise = torch.randn(20, 9, 3, 24, 24, generator=rng)
    alike, shuffled = feature_tiles.coherence(noise, seed=0)
    assert abs(alike.mean() - shuffled.mean()) < 0.02


def test_a_filters_patches_are_those_most_like_it():
    """The cosine by hand; a patch that is saturated, faint or without response does not count."""
    torch.manual_seed(0)
    x, weight = 0.5 * torch.randn(1, 3, 20, 20), torch.randn(4, 3, 7, 7)
    x[..., :8, :8] = -2.5  # black
    x[..., 12:, 12:] = 0.01  # nearly gray
    field = ReceptiveField(size=7, stride=2, offset=-1)
    maps = F.conv2d(x, weight, stride=2, padding=1).relu()
    cosines = feature_tiles._cosine(x, weight, maps, field)
    patch = x[0, :, 5:12, 7:14]  # of row 3, column 4
    cosine = F.cosine_similarity(patch.flatten()[None], weight.flatten(1))
    active = maps[0, :, 3, 4] > 0
    assert cosines[0, active, 3, 4] == pytest.approx(cosine[active], abs=1e-5)
    assert (cosines[0, ~active, 3, 4] == -1).all()
    assert (cosines[0, :, 0, 0] == -1).all()
    assert (cosines[0, :, -2, -2] == -1).all()


def test_fig2s_standard_error_counts_classes_and_not_features():
    """Of 400 features with the same few images the error is that of one feature; jackknifed means have their deviation."""
    values = np.random.default_rng(0).normal(size=30)
    left_out = (values.sum() - values) / 29
    assert class_shares.standard_error(left_out) == pytest.approx(values.std(ddof=1) / 30**0.5)
    rng = np.random.default_rng(1)
    own, shared = rng.integers(0, 500, (400, 9)), np.tile(rng.integers(0, 500, (1, 9)), (400, 1))
    shared[:, :3] = shared[0, 0]
    means, left_out = class_shares.jackknife({"conv1": own, "conv5": shared})
    assert means == pytest.approx([class_shares.purity(own).mean(), 3 / 9])
    assert left_out.shape == (50, 2)
    first, last = class_shares.standard_error(left_out)
    assert last > 5 * first
    rise, low, high = class_shares.rises(means, left_out[:, :2])["layer 1 to layer 2"]
    assert (rise, (high - low) / (2 * 1.96)) == pytest.approx(
        (means[1] - means[0], class_shares.standard_error(left_out[:, 1] - left_out[:, 0]))
    )


FIG5 = fig5_invariance.FIGURE.config


def responses(reach=0.5, bent=False, stable=True, peaks=True):
    """Made-up curves of 40 images, ten of a symmetric object: layer 1 jumps to 0.8, layer 7 grows evenly to `reach`."""
    rng = np.random.default_rng(0)
    arrays = {
        "averaged": np.arange(30),
        "symmetric": np.arange(30, 40),
        "reference": rng.uniform(0.4, 0.6, 40),
    }
    for family in ("translation", "scale", "rotation"):
        x = fig5_claims.transform_grids(FIG5)[family]
        moved = (
            abs(x)
            if family == "translation"
            else np.log(x)
            if family == "scale"
            else np.minimum(x, 360 - x)
        )
        straight = moved / moved.max() if not bent else (moved > 0).astype(float)
        noise = rng.normal(0, 0.005, (40, len(x)))
        arrays[f"{family}.conv1"] = (moved > 0) * 0.8 + noise * (moved > 0)
        arrays[f"{family}.fc7"] = reach * straight + noise
        kept = np.full(len(x), 0.9 if (family != "rotation") == stable else 0.3)
        arrays[f"{family}.probability"] = arrays["reference"][:, None] * kept + noise
    if peaks:  # of the symmetric object, or of all; or the symmetric object's lie between the quarter turns
        at = np.isin(fig5_claims.transform_grids(FIG5)["rotation"], (90, 180, 270))
        arrays["rotation.probability"][0 if peaks == "of all" else 30 :] += 0.2 * (
            ~at if peaks == "away" else at
        )
    return fig5_claims.measure(arrays, FIG5, 0)


def judge_fig5(measured, has_symmetric=True):
    judgments, evidence = fig5_claims.judge(measured, FIG5, has_symmetric)
    assert evidence.keys() == judgments.keys()
    return verdict(judgments)


@pytest.mark.parametrize(
    ("curves", "broken", "expected"),
    [
        ({}, None, "reproduced"), ({"reach": 50}, "small transform", "partial"), ({"bent": True}, "almost linearly", "partial"),
        ({"stable": False}, "more stable", "partial"), ({"peaks": False}, "symmetric", "partial"), ({"peaks": "of all"}, "symmetric", "partial"),
        ({"reach": 5, "bent": True, "stable": False, "peaks": "away"}, "", "differs"),
    ],
)  # fmt: skip
def test_fig5s_verdict_follows_its_claims(curves, broken, expected):
    claims, outcome = judge_fig5(responses(**curves))
    assert outcome == expected
    for claim, state in claims.items():
        fails = (
            "undecided" if broken == "symmetric" else "does not hold"
        )  # no peak, or all alike: the interval holds 0
        assert state == (fails if broken is not None and broken in claim else "holds"), claim


def test_tab1s_statistics_and_verdict():
    rng = np.random.default_rng(0)
    sets = rng.uniform(size=(3, 8, 8))
    sets = (sets + sets.transpose(0, 2, 1)) * (1 - np.eye(8)) / 2
    one = sets[0]
    expected = np.mean([one[i, j] for i in range(8) for j in range(8) if i != j])
    mean, low, high = tab1_correspondence.paired(one)
    assert mean == pytest.approx(expected)
    assert low < expected < high
    found = tab1_correspondence.repeated(sets)
    every = np.array([s[np.triu_indices(8, 1)].mean() for s in sets])
    assert found[0] == pytest.approx(
        every.mean(), abs=0.02
    )  # five of eight images, one of three sets
    assert 0 < found[1] < 0.3
    assert tab1_correspondence.repeated(sets[:1, :5, :5]) == [
        pytest.approx(one[:5, :5].sum() / 20)
    ]  # nothing to repeat

    def numbers(random, moved=0.1, layer7=1.0):
        gains = dict(zip((*dog_faces.PARTS, "all three parts"), random, strict=True))
        return {
            "layer 5: random parts minus the part": {part: [v, v - 0.01, v + 0.01] for part, v in gains.items()},
            "layer 5: another dog's place minus the part": {"all three parts": [moved, moved - 0.01, moved + 0.01]},
            tab1_claims.SMALLER: [10.0 - layer7, 9.0 - layer7, 11.0 - layer7],
        }  # fmt: skip

    def judge(measured):
        judgments, evidence = tab1_claims.judge_parts(measured)
        assert evidence.keys() == judgments.keys()
        return verdict(judgments, tab1_claims.MAIN)

    summary = tab1_claims.summarize(numbers((0.1, 0.1, 0.1, 0.1), moved=0.0))
    assert summary == (
        "Masking a part changes layer 5 no more alike from dog to dog than masking the place where "
        "another dog has it (difference in Δ: 0.000 [-0.010, 0.010]), and more alike than masking "
        "random parts (0.100 [0.090, 0.110])."
    )
    assert judge(numbers((0.1, 0.1, 0.1, 0.1)))[1] == "reproduced"
    assert judge(numbers((0.1, 0.1, 0.005, 0.1)))[1] == "partial"  # the nose's interval holds 0
    assert judge(numbers((0.1, 0.1, 0.1, 0.1), moved=0.0))[1] == "partial"
    assert judge(numbers((0.1, 0.1, 0.1, 0.1), layer7=20.0))[1] == "partial"
    assert judge(numbers((0.1, 0.0, 0.0, 0.005)))[1] == "not comparable"  # whatever else holds
    assert judge(numbers((0.1, -0.1, -0.1, -0.03)))[1] == "differs"
    assert (
        judge(numbers((0.1, 0.1, 0.005, 0.1)))[0][
            "layer 5: the nose is treated more alike than random parts"
        ]
        == "undecided"
    )
    places = torch.tensor(
        [[[0, 0], [9, 9]], [[3, 4], [9, 9]], [[0, 0], [9, 9]]]
    )  # three images, two masks: one in two places
    assert part_masks.mean_distance(places) == pytest.approx(
        (5 + 0 + 5) / 3 / 2
    )  # the other in one


def test_fig8_leaves_out_what_it_cannot_use(tree):
    """An annotated image that is absent, or another file of that name, is named; the right one is taken."""
    import yaml

    (tree / "val" / "n03000000").rename(tree / "val" / "n02112018")
    marks = next(iter(yaml.safe_load(dog_faces.FACES.read_text())["imagenet"].values()))
    folder = tree / "val" / "n02088094"
    good, other = sorted(folder.iterdir())[:2]
    annotated = {
        good.name: marks | {"sha256": hashlib.sha256(good.read_bytes()).hexdigest()},
        other.name: marks, "n0_0.JPEG": marks,
    }  # fmt: skip
    file = tree / "faces.yaml"
    file.write_text(yaml.safe_dump({"imagenet": annotated}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dog_faces, "FACES", file)
        context = Context("imagenet65k", str(tree))
        names, x, points, heads, said = dog_faces.load_faces(context)
        assert fig8_parts.compute(context).verdict == "not comparable"
        assert tab1_correspondence.compute(context).verdict == "not run"
    assert names == [good.name]
    assert (x.shape, points.shape, heads.shape) == ((1, 3, 224, 224), (1, 3, 2), (1, 4))
    assert said == f"Left out: 1 absent, {other.name} (another file of that name)."
    assert points[0].tolist() == [marks[part] for part in dog_faces.PARTS]


@pytest.mark.parametrize(
    ("images", "own", "none", "verdict"),
    [
        (5, 100, 100, "by construction"),
        (2, 100, 100, "not comparable"),
        (5, 80, 100, "differs"),
        (5, 0, 0, "differs"),
    ],
)
def test_fig8s_verdict(images, own, none, verdict):
    numbers = {
        fig8_parts.OWN: own,
        fig8_parts.NONE: none,
    }
    word, reason = fig8_parts.judge({"images": images} | numbers)
    assert word == verdict
    assert bool(reason) == (verdict != "by construction")


def test_a_tree_called_samples_is_not_the_sample_photographs(tmp_path):
    assert Context("imagenet65k", str(tmp_path / "samples")).corpus == "samples-folder"
    assert Context("imagenet65k", str(tmp_path / "ImageNet" / "val")).corpus == "imagenet"


def test_imagenette_is_downloaded_whole_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setenv("ZFNET_CACHE", str(tmp_path))
    broken = [True]

    def download(root, split, size, download):
        (Path(root) / "imagenette2-320" / "val").mkdir(parents=True)
        if broken:
            raise RuntimeError("File not found or corrupted.")

    monkeypatch.setattr("torchvision.datasets.Imagenette", download)
    with pytest.raises(DataError, match="could not download Imagenette"):
        imagenette()
    assert list(tmp_path.iterdir()) == []
    broken.clear()
    assert (imagenette() / "val").is_dir()


def test_a_gpu_does_not_take_over_what_a_cpu_measured():
    figure = discover()["tab3"].FIGURE
    identity = [
        Context("imagenet65k", None, device).identity(figure)
        for device in ("cpu", "cuda", "cuda:1")
    ]
    assert identity[0] != identity[1] == identity[2]


def test_a_result_names_the_commit_of_its_sources(tmp_path, monkeypatch):
    def git(*arguments):
        about = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(
            ["git", *about, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout.strip()

    monkeypatch.setattr("reproduce.core.record.REPOSITORY", tmp_path)
    for folder in ("zfnet", "figures"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file").write_text("as it was")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "one")
    commit = git("rev-parse", "HEAD")
    (tmp_path / "figures" / "file").write_text("a new result")
    assert environment("cpu")["commit"] == commit
    (tmp_path / "zfnet" / "file").write_text("another source")
    assert environment("cpu")["commit"] == f"{commit}-dirty"
