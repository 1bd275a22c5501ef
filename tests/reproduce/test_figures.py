"""Figures: cache, declared inputs, records and verdicts; slow tests run every figure."""

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
from PIL import Image

import zfnet
from reproduce.__main__ import main
from reproduce.core.annotations import covered_energy, covering_positions, position_groups
from reproduce.core.context import Context, UndeclaredInputError
from reproduce.core.corpora import imagenette
from reproduce.core.discovery import discover
from reproduce.core.figure import Figure, Result
from reproduce.core.record import Record, environment, read_record
from reproduce.core.run import run
from reproduce.paper import (
    boxed_images,
    dog_faces,
    fig2_features,
    fig5_invariance,
    fig7_occlusion,
    fig8_parts,
    tab1_correspondence,
)
from reproduce.paper.boxed_images import BOXES, MIN_POSITIONS, choose_images
from reproduce.paper.fig7_occlusion import HIDDEN, SHOWN
from reproduce.site import atlas
from tests.conftest import ROOT
from zfnet.data.cache import DataError
from zfnet.occlusion import occluder_boxes
from zfnet.plot import mosaic, new_figure, projection_image, write_figure
from zfnet.training.constraints import share_fc6


def script(compute=None, inputs=("model",), calls=None):
    """Return a small figure script."""

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


def test_incompressible_picture_is_saved_below_the_size_limit(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 3), dtype=np.uint8)
    module = script()

    def draw(result):
        figure = new_figure(7, 7)
        figure.subplots().imshow(noise)
        return {"noise.jpg": figure}

    module.draw = draw
    run(module, Context("imagenet65k", None), tmp_path)
    picture = tmp_path / "samples" / "small" / "noise.jpg"
    figure = draw(None)["noise.jpg"]
    write_figure(figure, tmp_path / "better.jpg", quality=78)
    assert (tmp_path / "better.jpg").stat().st_size > 400_000
    assert picture.stat().st_size <= 400_000


def test_figure_is_computed_once_and_again_if_its_files_are_damaged(tmp_path):
    calls = []
    module, context = script(calls=calls), Context("imagenet65k", None)
    first = run(module, context, tmp_path)
    second = run(module, context, tmp_path)
    assert (first.cached, second.cached, len(calls)) == (False, True, 1)
    folder = tmp_path / "samples" / "small"
    (folder / "small.png").unlink()
    assert not run(module, context, tmp_path).cached
    assert len(calls) == 1  # drawn again from the saved arrays
    content = (folder / "arrays.npz").read_bytes()
    (folder / "arrays.npz").write_bytes(content[: len(content) // 2])
    (folder / "result.json").write_text("{")
    run(module, context, tmp_path)
    assert len(calls) == 2
    run(module, context, tmp_path, force=True)
    assert len(calls) == 3
    assert not list(folder.glob(".*"))


def test_smaller_scale_replaces_a_larger_one_only_with_force(tmp_path):
    context = Context("imagenet65k", None)

    versions = itertools.count(1)

    def run_at(scale: str, force: bool = False) -> tuple[str, bool]:
        module = script(
            lambda ctx: Result(
                {"values": np.eye(2)}, {"scale": scale}, "reproduced", n=1, note=scale, scale=scale
            )
        )
        module.FIGURE = replace(module.FIGURE, version=next(versions))  # a different key
        outcome = run(module, context, tmp_path, force)
        return outcome.record.scale, outcome.cached

    assert [run_at("smoke"), run_at("subset"), run_at("smoke"), run_at("paper")] == [
        ("smoke", False), ("subset", False), ("subset", True), ("paper", False)
    ]  # fmt: skip
    assert run_at("smoke", force=True) == ("smoke", False)


def test_record_contains_measurements_and_inputs(tmp_path):
    run(script(), Context("imagenet65k", None), tmp_path)
    record = json.loads((tmp_path / "samples" / "small" / "result.json").read_text())
    assert record["measured"] == {"answer": 42}
    assert len(record["inputs"]["checkpoint"]) == 64
    assert {"commit", "torch", "python", "device"} <= set(record["environment"])
    assert {"scale", "verdict", "n", "seed", "seconds", "key", "config"} <= set(record)
    assert str(tmp_path) not in json.dumps(record)


def test_undeclared_input_is_an_error(tmp_path):
    def compute(ctx):
        return Result({"values": np.zeros((2, 2))}, {"n": len(ctx.images)}, "reproduced", n=1)

    with pytest.raises(UndeclaredInputError, match="images"):
        run(script(compute, inputs=("model",)), Context("imagenet65k", None), tmp_path)


def test_unknown_verdict_is_rejected():
    with pytest.raises(ValueError, match="great"):
        record(verdict="great")


def record(**changes):
    values = {
        "id": "fig0", "title": "T", "claim": "C", "scale": "samples", "verdict": "partial", "measured": {}, "paper": {}, "n": 1, "seed": 0,
        "note": "", "inputs": {"corpus": "samples"}, "config": {}, "key": "k", "files": ["a.png"], "seconds": 1.0,
        "environment": {"commit": "c", "torch": "t", "python": "p", "device": "d"},
    }  # fmt: skip
    return Record(**values | changes)


def test_annotated_boxes_are_inside_the_image():
    import yaml

    marks = yaml.safe_load(BOXES.read_text())
    hashes = marks.pop("sha256")
    assert set(hashes) == {name for row in marks["imagenet"] for name in row["images"]}
    for rows in marks.values():
        for row in rows:
            for boxes in row["images"].values():
                for top, left, bottom, right in (box for group in boxes.values() for box in group):
                    assert 0 <= top < bottom <= 224
                    assert 0 <= left < right <= 224


def test_mosaic_and_projection_contrast():
    tiles = np.stack([np.full((2, 3, 3), v) for v in (0.1, 0.2, 0.3)])
    sheet = mosaic(tiles, 2, gap=1)
    assert sheet.shape == (5, 7, 3)
    assert sheet[0, 0, 0] == pytest.approx(0.1)
    assert sheet[3, 0, 0] == pytest.approx(0.3)
    assert sheet[2, 0, 0] == 1
    values = np.zeros((2, 3, 8, 8), dtype=np.float32)
    values[0, 0, 2, 2], values[0, 1, 3, 3] = 4, -4
    picture = projection_image(values)
    assert picture[0, 2, 2, 0] == pytest.approx(1)
    assert picture[0, 3, 3, 1] == pytest.approx(0)
    assert (picture[1] == 0.5).all()


def test_every_script_has_a_docstring_and_a_time_budget():
    scripts = discover()
    assert {"fig1", "fig2", "fig3", "fig5", "fig7", "fig8", "tab1"} <= set(scripts)
    for module in scripts.values():
        assert module.__doc__
        assert module.FIGURE.time_budget > 0
        assert len(Path(module.__file__).read_text().splitlines()) <= 300
    budgets = [module.FIGURE.time_budget for module in scripts.values() if not module.FIGURE.manual]
    assert sum(budgets) + atlas.TIME_BUDGET <= 360  # seconds: six minutes


def test_fig3_reproduces_the_architecture(tmp_path):
    outcome = run(discover()["fig3"], Context("imagenet65k", None), tmp_path)
    assert outcome.record.verdict == "reproduced"
    assert outcome.record.measured["conv1"] == "110 x 110 x 96"
    assert "The drawing shows the paper's network. Unlike" in outcome.record.note
    assert "network has 1,024 units in layer 6, 1,024 units in layer 7" in outcome.record.note


def test_committed_results_are_complete():
    folders = [
        p.parent
        for p in (ROOT / "figures").glob("*/*/result.json")
        if p.parent.parent.name != "samples"
    ]
    assert folders
    for folder in folders:
        record = read_record(folder)
        assert record is not None
        for name in record.files:
            assert (folder / name).stat().st_size <= (
                400_000 if name.endswith(".jpg") else 1_000_000
            )
            with Image.open(folder / name) as image:
                assert min(image.size) > 200


def children_seconds():
    """Return the CPU seconds of all finished child processes."""
    resource = pytest.importorskip("resource")
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


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
def test_unknown_figure_or_folder_is_reported_on_one_line(arguments, message, monkeypatch, capsys):
    # Restore the setting that the command changes.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", torch.backends.cudnn.allow_tf32)
    monkeypatch.setattr(sys, "argv", ["reproduce", *arguments])
    assert main() == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_list_names_every_figure():
    process = command("reproduce", "list")
    assert process.returncode == 0
    assert all(name in process.stdout for name in discover())


@pytest.mark.slow
def test_all_figures_run_on_the_samples_and_from_the_cache(tmp_path):
    before = children_seconds()
    process = command("reproduce", "all", "--out", str(tmp_path))
    assert process.returncode == 0, process.stderr
    # The budget of `make figures`: six minutes on two cores.
    assert children_seconds() - before <= 2 * 360
    automatic = [name for name, module in discover().items() if not module.FIGURE.manual]
    for name in automatic:
        record = read_record(tmp_path / "samples" / name)
        assert record is not None
        assert re.search(
            rf"^{name}\s+{record.scale}\s+{record.verdict}", process.stdout, re.MULTILINE
        )
    assert re.search(r"^atlas +samples +[\d.]+ +\d+$", process.stdout, re.MULTILINE)
    assert 'href="atlas/index.html"' in (tmp_path / "samples" / "index.html").read_text()
    second = command("reproduce", "all", "--out", str(tmp_path))
    assert second.stdout.count("cached") == len(automatic)


@pytest.mark.slow
def test_all_figures_run_on_an_image_folder(tree, tmp_path):
    process = command("reproduce", "all", "--data", str(tree / "val"), "--out", str(tmp_path))
    assert process.returncode == 2
    assert "n03000000" in process.stderr  # the network has no such class
    (tree / "val" / "n03000000").rename(tree / "val" / "n02112018")
    process = command("reproduce", "all", "--data", str(tree), "--out", str(tmp_path))
    assert process.returncode == 0, process.stderr
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


def test_every_annotated_box_is_covered_at_some_position():
    import yaml

    boxes = occluder_boxes(
        224, 224, fig7_occlusion.FIGURE.config["size"], fig7_occlusion.FIGURE.config["stride"]
    )
    marks = yaml.safe_load(BOXES.read_text())
    assert {name for row in marks["imagenet"] for name in row["images"]} == set(marks["sha256"])
    for rows in (marks["imagenet"], marks["samples"]):
        for images in rows:
            for groups in images["images"].values():
                for kind, group in groups.items():
                    assert all(
                        covering_positions(boxes, {kind: [box]})[kind].any() for box in group
                    )


TOO_FEW = MIN_POSITIONS - 1


def row(
    dog, face, elsewhere=0.0, map_dog=-10.0, map_face=-20.0, shown=-30.0, hidden=1.0, positions=None
):
    change = {"dog": dog, "face": face, "elsewhere": elsewhere}
    activation = {"dog": map_dog, "face": map_face, "elsewhere": 0.0, SHOWN: shown, HIDDEN: hidden}
    changes = {"logit change": change, "probability change": change}
    counts = dict.fromkeys(activation, MIN_POSITIONS) | (positions or {})
    return {
        "class": "Afghan hound",
        "strongest map's change, %": activation,
        "positions": counts,
    } | changes


def test_differences_from_the_paper_are_listed(tmp_path):
    torch.manual_seed(0)
    model = zfnet.zfnet(3, channels=(8, 8, 8, 8, 8), fc_units=16, norm="batch")
    zfnet.save(model, tmp_path / "free.safetensors")
    share_fc6(model)
    zfnet.save(model, tmp_path / "tied.safetensors", precision="int8")
    free, shared = (
        Context(str(tmp_path / f"{name}.safetensors"), None) for name in ("free", "tied")
    )
    assert (free.shared_fc6, shared.shared_fc6) == (False, True)
    common = "Unlike the paper's, this network has"
    units = ", ".join(
        [f"8 maps in layer {n}" for n in range(1, 6)]
        + ["16 units in layer 6", "16 units in layer 7"]
    )
    assert free.differences_from_paper == f"{common} {units}, no contrast normalisation. "
    assert shared.differences_from_paper.startswith(
        f"{common} {units}, a first dense layer that sees only each map's mean"
    )

    def differences(network):
        zfnet.save(network, tmp_path / "other.safetensors")
        return Context(str(tmp_path / "other.safetensors"), None).differences_from_paper

    assert differences(zfnet.zfnet(3)) == ""
    assert differences(zfnet.zfnet(3, drop_layers=(6,))) == f"{common} no layer 6. "
    assert "is not the paper's, but alexnet" in differences(
        zfnet.alexnet(3, channels=(8, 8, 8, 8, 8), fc_units=16)
    )


def test_fig5_with_shared_fc6_is_at_most_partial():
    numbers = responses()
    assert fig5_invariance.judge(numbers, shared_fc6=True)[1] == "partial"
    assert (
        fig5_invariance.judge(
            responses(reach=5, abrupt=True, stable=False, peaks="away"), shared_fc6=True
        )[1]
        == "differs"
    )
    claims, _ = fig5_invariance.judge(numbers, has_symmetric=False)
    assert not any("symmetric" in claim for claim in claims)


def test_fig7_has_testable_images_for_every_row():
    import yaml

    minimum, marks = MIN_POSITIONS, yaml.safe_load(BOXES.read_text())
    for row in marks["imagenet"]:
        kinds = ["elsewhere"] + ["face"] * (row["wnid"] == "n02088094")
        occluders = occluder_boxes(
            224, 224, fig7_occlusion.FIGURE.config["size"], fig7_occlusion.FIGURE.config["stride"]
        )
        counts = [position_groups(occluders, boxes) for boxes in row["images"].values()]
        assert any(
            all(kind in groups and groups[kind].sum() >= minimum for kind in kinds)
            for groups in counts
        )


class BrightnessClassifier:
    """A network whose confidence in each class grows with the brightness of the image."""

    wnids = classes = ("n02112018", "n02974003", "n02088094", "n0")

    def __call__(self, x):
        logits = x.mean((1, 2, 3))[:, None].repeat(1, 4)
        logits[:, 3] = 0  # a constant logit, so that the other probabilities can change
        return logits


def test_fig7_chooses_the_most_probable_testable_image(monkeypatch):
    names = [
        "n02112018_12134.JPEG",
        "n02112018_1150.JPEG",
        "n02112018_10476.JPEG",
        "n02088094_10737.JPEG",
        "n02088094_233.JPEG",
    ]

    def chosen_images(order):
        pixels = {
            name: torch.full((1, 3, 224, 224), float(len(order) - order.index(name)))
            for name in order
        }
        images = SimpleNamespace(batch=lambda i: pixels[names[i[0]]])
        monkeypatch.setattr(
            boxed_images,
            "find_annotated",
            lambda ctx, hashes: ({name: i for i, name in enumerate(names)}, ""),
        )
        ctx = SimpleNamespace(
            model=BrightnessClassifier(), images=images, corpus="tree", device="cpu"
        )
        return [row[0] for row in choose_images(ctx)]

    # The first image of each class has too few positions outside its boxes.
    assert chosen_images(names) == ["n02112018_1150.JPEG", "n02088094_233.JPEG"]
    assert chosen_images(names[::-1]) == ["n02112018_10476.JPEG", "n02088094_233.JPEG"]


def test_covered_energy_by_hand():
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
        ([row(-1.0, 0.5)], "reproduced"), ([row(-1.0, -0.5)], "partial"), ([row(-1.0, 0.5, elsewhere=-2.0)], "partial"),
        ([row(-1.0, 0.5, map_face=-5.0)], "partial"), ([row(-1.0, 0.5, shown=-1.0, hidden=-2.0)], "partial"),
        ([row(1.0, -0.5, map_face=-5.0, shown=1.0)], "differs"), ([], "not comparable"),
        ([row(-1.0, 0.5) | {"class": "cup"}], "not comparable"), ([row(-1.0, 0.5, positions={"face": TOO_FEW})], "not comparable"),
        ([row(-1.0, 0.5), row(1.0, 0.5, positions={"elsewhere": TOO_FEW})], "reproduced"),
    ],
)  # fmt: skip
def test_fig7_verdict(rows, verdict):
    assert fig7_occlusion.judge(rows)[1] == verdict


def test_fig2_verdict():
    rng = np.random.default_rng(0)

    def judge_means(*means):
        # These give a standard error of 0.01.
        jackknifed = np.array(means) + rng.normal(0, 0.01 / 50**0.5, (50, 5))
        return fig2_features.judge(fig2_features.rises(np.array(means), jackknifed))

    assert judge_means(0.2, 0.3, 0.4, 0.5, 0.6)[1] == "reproduced"
    assert judge_means(0.2, 0.2, 0.2, 0.2, 0.2)[1] == "not comparable"  # the interval contains 0
    assert judge_means(0.2, 0.5, 0.3, 0.5, 0.6)[1] == "partial"
    assert judge_means(0.6, 0.5, 0.4, 0.3, 0.2)[1] == "differs"
    assert judge_means(0.2, float("nan"), 0.4, 0.5, 0.6) == ({}, "not comparable")
    labels = np.array([[1] * 9, [1, 1, 1, 2, 2, 3, 4, 5, 6]])
    assert fig2_features.purity(labels).tolist() == [1, 3 / 9]


def test_fig2_standard_error_counts_classes_not_features():
    """Features that share their images have the standard error of a single feature."""
    values = np.random.default_rng(0).normal(size=30)
    jackknifed = (values.sum() - values) / 29
    assert fig2_features.standard_error(jackknifed) == pytest.approx(values.std(ddof=1) / 30**0.5)
    rng = np.random.default_rng(1)
    independent, shared = (
        rng.integers(0, 500, (400, 9)),
        np.tile(rng.integers(0, 500, (1, 9)), (400, 1)),
    )
    shared[:, :3] = shared[0, 0]
    means, jackknifed = fig2_features.jackknife({"conv1": independent, "conv5": shared})
    assert means == pytest.approx([fig2_features.purity(independent).mean(), 3 / 9])
    assert jackknifed.shape == (50, 2)
    independent_error, shared_error = fig2_features.standard_error(jackknifed)
    assert shared_error > 5 * independent_error
    rise, low, high = fig2_features.rises(means, jackknifed[:, :2])["layer 2 less layer 1"]
    assert (rise, (high - low) / (2 * 1.96)) == pytest.approx(
        (means[1] - means[0], fig2_features.standard_error(jackknifed[:, 1] - jackknifed[:, 0]))
    )


def responses(reach=0.5, abrupt=False, stable=True, peaks=True):
    """Return synthetic curves of 40 images, ten of which show a symmetric object.

    Distances of layer 1 jump to 0.8; those of layer 7 grow linearly to `reach`.
    """
    rng = np.random.default_rng(0)
    arrays = {
        "averaged": np.arange(30),
        "symmetric": np.arange(30, 40),
        "reference": rng.uniform(0.4, 0.6, 40),
    }
    for family in ("translation", "scale", "rotation"):
        x = fig5_invariance.grid(family)
        magnitude = (
            abs(x)
            if family == "translation"
            else np.log(x)
            if family == "scale"
            else np.minimum(x, 360 - x)
        )
        growth = magnitude / magnitude.max() if not abrupt else (magnitude > 0).astype(float)
        noise = rng.normal(0, 0.005, (40, len(x)))
        arrays[f"{family}.conv1"] = (magnitude > 0) * 0.8 + noise * (magnitude > 0)
        arrays[f"{family}.fc7"] = reach * growth + noise
        retained = np.full(len(x), 0.9 if (family != "rotation") == stable else 0.3)
        arrays[f"{family}.probability"] = arrays["reference"][:, None] * retained + noise
    if peaks:  # at or between quarter turns, for the symmetric object or for all images
        quarter_turns = np.isin(fig5_invariance.grid("rotation"), (90, 180, 270))
        arrays["rotation.probability"][0 if peaks == "of all" else 30 :] += 0.2 * (
            ~quarter_turns if peaks == "away" else quarter_turns
        )
    return fig5_invariance.measure(arrays)


@pytest.mark.parametrize(
    ("curves", "failing_claim", "verdict"),
    [
        ({}, None, "reproduced"), ({"reach": 50}, "small transform", "partial"), ({"abrupt": True}, "quasi-linear", "partial"),
        ({"stable": False}, "more stable", "partial"), ({"peaks": False}, "symmetric", "partial"), ({"peaks": "of all"}, "symmetric", "partial"),
        ({"reach": 5, "abrupt": True, "stable": False, "peaks": "away"}, "", "differs"),
    ],
)  # fmt: skip
def test_fig5_verdict(curves, failing_claim, verdict):
    claims, actual = fig5_invariance.judge(responses(**curves))
    assert actual == verdict
    for claim, state in claims.items():
        # Without peaks, or with equal peaks, the interval contains 0.
        failed = "undecided" if failing_claim == "symmetric" else "does not hold"
        assert state == (
            failed if failing_claim is not None and failing_claim in claim else "holds"
        ), claim


def test_tab1_statistics_and_verdict():
    rng = np.random.default_rng(0)
    sets = rng.uniform(size=(3, 8, 8))
    sets = (sets + sets.transpose(0, 2, 1)) * (1 - np.eye(8)) / 2
    one = sets[0]
    expected = np.mean([one[i, j] for i in range(8) for j in range(8) if i != j])
    mean, low, high = tab1_correspondence.paired(one)
    assert mean == pytest.approx(expected)
    assert low < expected < high
    repeated = tab1_correspondence.repeated(sets)
    means = np.array([s[np.triu_indices(8, 1)].mean() for s in sets])
    # Resample five of eight images and one of three sets.
    assert repeated[0] == pytest.approx(means.mean(), abs=0.02)
    assert 0 < repeated[1] < 0.3
    # A single set leaves nothing to resample.
    assert tab1_correspondence.repeated(sets[:1, :5, :5]) == [pytest.approx(one[:5, :5].sum() / 20)]

    def numbers(random, relocated=0.1, layer7=1.0):
        gains = dict(zip((*dog_faces.PARTS, "all three parts"), random, strict=True))
        return {
            "layer 5, random less the part": {part: [v, v - 0.01, v + 0.01] for part, v in gains.items()},
            "layer 5, another's place less the part": {"all three parts": [relocated, relocated - 0.01, relocated + 0.01]},
            "layer 5, parts below random, %": [10.0, 9.0, 11.0], "layer 7, parts below random, %": [layer7, 0.0, 2.0],
            tab1_correspondence.SMALLER: [10.0 - layer7, 9.0 - layer7, 11.0 - layer7],
        }  # fmt: skip

    judge = tab1_correspondence.judge
    assert judge(numbers((0.1, 0.1, 0.1, 0.1)))[1] == "reproduced"
    # The interval of the nose contains 0.
    assert judge(numbers((0.1, 0.1, 0.005, 0.1)))[1] == "partial"
    assert judge(numbers((0.1, 0.1, 0.1, 0.1), relocated=0.0))[1] == "partial"
    assert judge(numbers((0.1, 0.1, 0.1, 0.1), layer7=20.0))[1] == "partial"
    # The main claim is undecided.
    assert judge(numbers((0.1, 0.0, 0.0, 0.005)))[1] == "not comparable"
    assert judge(numbers((0.1, -0.1, -0.1, -0.03)))[1] == "differs"
    assert judge(numbers((0.1, 0.1, 0.005, 0.1)))[0]["layer 5: so is the nose"] == "undecided"
    # Three images with two masks: the first is at two positions, the second at one.
    positions = torch.tensor([[[0, 0], [9, 9]], [[3, 4], [9, 9]], [[0, 0], [9, 9]]])

    assert tab1_correspondence.mean_distance(positions) == pytest.approx((5 + 0 + 5) / 3 / 2)


def test_fig8_skips_and_names_unusable_images(tree):
    """Missing images, and other files with the same name, are named; the correct file is used."""
    import yaml

    (tree / "val" / "n03000000").rename(tree / "val" / "n02112018")
    marks = next(iter(yaml.safe_load(dog_faces.FACES.read_text())["imagenet"].values()))
    folder = tree / "val" / "n02088094"
    correct_file, other_file = sorted(folder.iterdir())[:2]
    annotated = {
        correct_file.name: marks | {"sha256": hashlib.sha256(correct_file.read_bytes()).hexdigest()},
        other_file.name: marks, "n0_0.JPEG": marks,
    }  # fmt: skip
    file = tree / "faces.yaml"
    file.write_text(yaml.safe_dump({"imagenet": annotated}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dog_faces, "FACES", file)
        context = Context("imagenet65k", str(tree))
        names, x, points, heads, note = dog_faces.load_faces(context)
        assert fig8_parts.compute(context).verdict == "not comparable"
        assert tab1_correspondence.compute(context).verdict == "not run"
    assert names == [correct_file.name]
    assert (x.shape, points.shape, heads.shape) == ((1, 3, 224, 224), (1, 3, 2), (1, 4))
    assert note == f"Left out: 1 absent, {other_file.name} (another file of that name)."
    assert points[0].tolist() == [marks[part] for part in dog_faces.PARTS]


@pytest.mark.parametrize(
    ("images", "own_part", "no_part", "verdict"),
    [
        (5, 100, 100, "reproduced"),
        (2, 100, 100, "not comparable"),
        (5, 80, 100, "partial"),
        (5, 0, 0, "differs"),
    ],
)
def test_fig8_verdict(images, own_part, no_part, verdict):
    numbers = {
        "masks that cover their own part and no other, %": own_part,
        "random masks that cover the middle of none, %": no_part,
    }
    assert fig8_parts.judge({"images": images} | numbers) == verdict


def test_folder_named_samples_is_a_separate_corpus(tmp_path):
    assert Context("imagenet65k", str(tmp_path / "samples")).corpus == "samples-folder"
    assert Context("imagenet65k", str(tmp_path / "ImageNet" / "val")).corpus == "imagenet"


def test_failed_imagenette_download_leaves_no_files(tmp_path, monkeypatch):
    monkeypatch.setenv("ZFNET_CACHE", str(tmp_path))
    corrupted = [True]

    def download(root, split, size, download):
        (Path(root) / "imagenette2-320" / "val").mkdir(parents=True)
        if corrupted:
            raise RuntimeError("File not found or corrupted.")

    monkeypatch.setattr("torchvision.datasets.Imagenette", download)
    with pytest.raises(DataError, match="could not download Imagenette"):
        imagenette()
    assert list(tmp_path.iterdir()) == []
    corrupted.clear()
    assert (imagenette() / "val").is_dir()


def test_cpu_and_gpu_records_have_different_identities():
    figure = discover()["tab3"].FIGURE
    identity = [
        Context("imagenet65k", None, device).identity(figure)
        for device in ("cpu", "cuda", "cuda:1")
    ]
    assert identity[0] != identity[1] == identity[2]


def test_records_name_the_commit_of_their_sources(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(
            ["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout.strip()

    monkeypatch.setattr("reproduce.core.record.REPOSITORY", tmp_path)
    for folder in ("zfnet", "figures"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file").write_text("original")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "one")
    commit = git("rev-parse", "HEAD")
    (tmp_path / "figures" / "file").write_text("a new result")
    assert environment("cpu")["commit"] == commit
    (tmp_path / "zfnet" / "file").write_text("another source")
    assert environment("cpu")["commit"] == f"{commit}-dirty"
