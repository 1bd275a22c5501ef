"""Figures 4 and 6 and bench_train on short trainings; their measures on synthetic arrays."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

import reproduce.bench.bench_train as bench
import zfnet
from reproduce.core.context import Context
from reproduce.core.discovery import discover
from reproduce.core.run import run
from reproduce.paper import ablations, fig4_evolution, fig6_filters, filter_statistics, trained_rows
from zfnet.cli import main
from zfnet.data.cache import DataError
from zfnet.training.config import parse

SMALL = {
    "model": {"norm": "batch", "channels": [4, 6, 6, 6, 6], "fc_units": 12, "size": 64},
    "optim": {"batch": 8, "lr": 0.05, "schedule": "one_cycle", "clip_rms": 0.0},
    "augment": {"crops": "resized"},
    "stages": [{"epochs": 4, "size": 64, "side": 73}],
    "snapshots": [1, 2, 4],
    "precision": "float32",
}


def test_figure_4_from_a_run_with_snapshots(tree, tmp_path):
    (tmp_path / "run.yaml").write_text(json.dumps(SMALL))
    assert (
        main(
            [
                "train",
                str(tmp_path / "run.yaml"),
                "--data",
                str(tree),
                "--out",
                str(tmp_path / "run"),
                "--device",
                "cpu",
            ]
        )
        == 0
    )
    context = Context(str(tmp_path / "run" / "model.safetensors"), str(tree))
    record = run(discover()["fig4"], context, tmp_path / "out").record
    assert (record.scale, record.verdict, record.n, record.files) == (
        "smoke",
        "not comparable",
        24,
        ["fig4.jpg"],
    )
    medians = record.measured["epoch from which the top image stays, median"]
    assert list(medians) == [f"conv{i}" for i in range(1, 6)]
    assert all(1 <= epoch <= 4 for epoch in medians.values())
    assert all(
        len(t) == 2 and min(t) > 0
        for t in record.measured["filters' turn, degrees an epoch, between snapshots"].values()
    )
    assert record.inputs["snapshots"] != "absent"
    # The network was not trained on this class.
    (tree / "train" / "n02088094").rename(tree / "train" / "n04000000")
    images, classes = fig4_evolution.training_images(context, context.model)
    assert (len(images), classes) == (16, 3)
    assert not any("n04000000" in name for name in images.names)
    for folder in list((tree / "train").iterdir()):
        folder.rename(folder.with_name("x" + folder.name))
    with pytest.raises(DataError, match="none of its folders is a class"):
        fig4_evolution.training_images(context, context.model)


def test_figure_4_scale_depends_on_classes_and_images():
    sizes = [(1000, 1000, 10_000), (100, 1000, 10_000), (1000, 1000, 9_999)]
    assert [fig4_evolution.scale_of(*size) for size in sizes] == ["subset", "smoke", "smoke"]


def test_figure_4_without_snapshots_is_not_run(tree, tmp_path):
    record = run(discover()["fig4"], Context("imagenet65k", str(tree)), tmp_path).record
    assert (record.verdict, record.measured, record.inputs["snapshots"]) == (
        "not run",
        {},
        "absent",
    )


def test_settling_epochs_and_filter_angles_by_hand():
    # Shape (snapshots, features).
    index = np.array([[7, 1, 5, 2], [3, 1, 5, 9], [3, 1, 6, 2], [3, 1, 5, 2]])
    assert fig4_evolution.settling(index, [1, 2, 5, 20]).tolist() == [2, 1, 20, 5]
    east, north = torch.tensor([[1.0, 0], [2, 0]]), torch.tensor([[0.0, 3], [5, 0]])
    assert fig4_evolution.turning([east, north, north], [2, 5, 9]) == [
        pytest.approx(45 / 3),
        pytest.approx(0),
    ]


@pytest.fixture
def short_training(tmp_path, monkeypatch):
    plan = ablations.Plan("subset", 2, 4, 103, 90, 3, 4, 1e-2, "float32", 1, 0, 1)
    monkeypatch.setitem(fig6_filters.PLANS, ("subset", "cpu"), plan)
    config = yaml.safe_load(ablations.RECIPE.read_text())
    config["model"] |= {"fc_units": 12, "channels": [4, 4, 4, 4, 4]}
    (tmp_path / "narrow.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.setattr(ablations, "RECIPE", tmp_path / "narrow.yaml")


def test_figure_6_trains_three_networks_once(tree, tmp_path, short_training, monkeypatch):
    context = Context("imagenet65k", str(tree))
    record = run(discover()["fig6"], context, tmp_path / "out").record
    assert (record.scale, record.verdict, record.n, record.files) == (
        "subset",
        "not comparable",
        6,
        ["fig6.jpg"],
    )
    ratio = record.measured["largest RMS of layer 1 over the median, by epoch"]
    assert {name: len(values) for name, values in ratio.items()} == dict.fromkeys(
        fig6_filters.RUNS, 3
    )
    energy = record.measured["energy of layer 1's filters in low, middle, high frequencies, %"]
    assert all(sum(bands) == pytest.approx(100) for bands in energy.values())
    monkeypatch.setattr(trained_rows, "train", lambda *a, **k: pytest.fail("trained again"))
    second = run(discover()["fig6"], context, tmp_path / "out", force=True).record
    assert second.measured == record.measured


def test_band_shares_of_waves_by_hand():
    positions = np.arange(64)
    waves = [
        np.cos(2 * np.pi * f * positions)[None, :] * np.ones((64, 1))
        for f in (1 / 64, 10 / 64, 31 / 64)
    ]
    filters = np.stack([np.stack([w] * 3) for w in waves])
    np.testing.assert_allclose(
        filter_statistics.band_shares(filters, (0.1, 0.25)), np.eye(3), atol=1e-9
    )
    # A checkerboard has the highest frequency.
    checkerboard = np.where((positions[:, None] + positions) % 2, 1.0, -1.0)[None, None].repeat(
        3, 1
    )
    assert filter_statistics.band_shares(checkerboard, (0.125,))[0, 1] == pytest.approx(1)


def test_band_shares_compare_filters_at_a_common_size():
    """A 7-pixel window of a texture has more energy in middle frequencies than an 11-pixel one."""
    rng, positions = np.random.default_rng(0), np.arange(11)
    angle, phase = 2 * np.pi * rng.random((2, 200, 1, 1))
    # 0.06 cycles per pixel, which is below 0.1.
    waves = np.cos(
        2 * np.pi * 0.06 * (np.cos(angle) * positions[:, None] + np.sin(angle) * positions) + phase
    )
    large = waves[:, None].repeat(3, 1)
    small = filter_statistics.center(large)
    assert small.shape == (200, 3, 7, 7)
    assert np.array_equal(small, large[..., 2:9, 2:9])
    large_share, small_share = (
        filter_statistics.band_shares(filters, (0.1, 0.25))[:, 1].mean()
        for filters in (large, small)
    )
    assert small_share > 1.2 * large_share
    changes = {
        f"{name}.filters": lambda _, filters=filters: filters[None]
        for name, filters in zip(fig6_filters.RUNS, (small, large, small), strict=True)
    }
    assert (
        judge_figure6(changes).measured["claims"][
            "ZFNet's filters hold more of the middle frequencies"
        ]
        == "undecided"
    )


def test_larger_share_is_undecided_for_chance_differences():
    assert filter_statistics.larger_share(20, 96, 2, 96) is True
    assert filter_statistics.larger_share(2, 96, 20, 96) is False
    assert filter_statistics.larger_share(1, 96, 0, 96) is None


def test_figure_6_with_one_active_map_is_undecided():
    result = judge_figure6({"AlexNet.high": lambda high: high[:1]})
    assert (
        result.measured["claims"]["AlexNet's layer-2 projections hold more of the high ones"]
        == "undecided"
    )


def test_dominance_is_the_largest_rms_over_the_median():
    filters = np.ones((2, 5, 3, 7, 7))
    filters[1, 3] *= 12
    assert filter_statistics.dominance(filters) == [pytest.approx(1), pytest.approx(12)]


def judge_figure6(changed):
    """Judge Figure 6 for random filters with half the RMS limit; `changed` replaces arrays."""
    rng = np.random.default_rng(0)
    synthetic = {
        "filters": 0.5 * fig6_filters.FIGURE.config["limit"] * rng.normal(size=(2, 5, 3, 7, 7)),
        "dead.conv1": np.zeros(5, bool), "dead.conv2": np.zeros(5, bool),
        "high": rng.random(5), "projections": rng.normal(size=(5, 3, 9, 9)), "error": np.array(70.0), "diverged": np.array(""),
    }  # fmt: skip
    arrays = {
        f"{name}.{key}": values for name in fig6_filters.RUNS for key, values in synthetic.items()
    }
    changed = {key: change(arrays[key]) for key, change in changed.items()}
    return fig6_filters.judge(arrays | changed, ablations.PLANS["subset"], 9, 20)


def largest_times(factor):
    def change(filters):
        filters = filters.copy()
        filters[-1, (filters[-1] ** 2).mean((1, 2, 3)).argmax()] *= factor
        return filters

    return change


CLIPPED = {"ZFNet, not clipped.filters": largest_times(3)}


@pytest.mark.parametrize(
    ("unclipped", "clipped", "expected"),
    [(1 + 1e-7, 1, "undecided"), (1.5, 1, "undecided"), (3, 1, "holds"), (3, 4, "does not hold")],
)
def test_claim_is_undecided_if_clipping_had_no_effect(unclipped, clipped, expected):
    """On a GPU, two equal trainings differ by rounding."""
    result = judge_figure6(
        {
            "ZFNet, not clipped.filters": largest_times(unclipped),
            "ZFNet.filters": largest_times(clipped),
        }
    )
    assert (
        result.measured["claims"]["without clipping the largest filter stands out more"] == expected
    )
    assert ("(a) does not differ from (c)" in result.note) == (expected == "undecided")


def test_figure_6_requires_networks_better_than_chance():
    assert judge_figure6(CLIPPED).verdict == "partial"
    untrained = judge_figure6(CLIPPED | {"AlexNet.error": lambda _: np.array(94.0)})
    assert (untrained.verdict, untrained.measured["val top-1, %"]["AlexNet"]) == (
        "not comparable",
        6.0,
    )
    assert "not 3 times as good as chance" in untrained.note
    assert judge_figure6({}).verdict == "not comparable"  # all undecided
    diverged = judge_figure6(
        CLIPPED
        | {"ZFNet, not clipped.diverged": lambda _: np.array("the loss is nan at epoch 2, step 9")}
    )
    assert (
        "Up to the last good epoch: ZFNet, not clipped: the loss is nan at epoch 2, step 9."
        in diverged.note
    )


def test_figure_6_reports_divergence_before_the_first_epoch(
    tree, tmp_path, short_training, monkeypatch
):
    # No other test has this plan in the cache.
    plan = replace(fig6_filters.PLANS["subset", "cpu"], lr=1e3)
    monkeypatch.setitem(fig6_filters.PLANS, ("subset", "cpu"), plan)
    monkeypatch.setattr(
        "zfnet.training.loop.train_step", lambda *args: (torch.tensor(torch.nan), torch.tensor(0))
    )
    record = run(discover()["fig6"], Context("imagenet65k", str(tree)), tmp_path / "out").record
    assert (record.verdict, record.measured, record.files) == ("not comparable", {}, [])
    assert record.note.startswith("Nothing to analyze: ZFNet, limit 0: ")


def test_figure_6_with_a_dead_second_layer_is_drawn_but_undecided():
    result = judge_figure6(
        {"AlexNet.high": lambda high: high[:0], "AlexNet.projections": lambda p: p[:0]}
    )
    assert (
        result.measured["claims"]["AlexNet's layer-2 projections hold more of the high ones"]
        == "undecided"
    )
    assert list(fig6_filters.draw(result)) == ["fig6.jpg"]


def test_bench_train_measures_rates_and_ratios(tmp_path, monkeypatch):
    config = {"batch": 3, "size": 64, "side": 73, "steps": 2, "repeats": 2, "precision": "float32"}
    monkeypatch.setitem(bench.FIGURE.config, "cpu", config)
    narrow_config = parse(SMALL | {"snapshots": []})
    monkeypatch.setattr(bench, "load_config", lambda path: narrow_config)
    record = run(discover()["bench_train"], Context("imagenet65k", None), tmp_path).record
    measured = record.measured
    rates = {name: values for name, values in measured.items() if name.endswith("images/s")}
    assert len(rates) == 11
    # The claim is tested on every device.
    assert bench.SHARE in bench.FIGURE.config["goals"]["cuda"]
    # From torchvision's documentation.
    assert measured["parameters"][bench.TORCHVISION] == 61_100_840
    assert all(0 < low <= median <= high for median, low, high in rates.values())
    assert 0 < measured["time of reading and augmenting over a step's"][0] < 1
    median, low, high = measured["photographs over random tensors"]
    assert low <= median <= high
    goal = measured["goals"]["photographs over random tensors: at least 0.9"]
    assert goal == ("reached" if median >= 0.9 else "not reached")
    assert record.verdict == ("reproduced" if median >= 0.9 else "differs")
    assert record.files == ["bench_train.png"]


def test_without_a_compiler_the_uncompiled_loops_are_timed(tree, monkeypatch):
    images = zfnet.load_folder(tree / "train", side=73, size=64)
    settings, config = {"batch": 8, "size": 64, "side": 73}, parse(SMALL | {"snapshots": []})
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    loops, reason = bench.compilable(config, images, settings, torch.device("cpu"))
    assert (set(loops), reason) == ({"photographs, compiled", "random tensors, compiled"}, "")

    def failing_compile(function, **options):
        def call(*arguments):
            raise RuntimeError("no C compiler\nin many lines")

        return call

    monkeypatch.setattr(torch, "compile", failing_compile)
    assert bench.compilable(config, images, settings, torch.device("cpu")) == (
        {},
        "RuntimeError: no C compiler",
    )


def test_accuracy_equals_evaluate(tree, tmp_path):
    # The wnid of a class of the network.
    (tree / "val" / "n03000000").rename(tree / "val" / "n02088238")
    context = Context("imagenet65k", str(tree))
    record = run(discover()["accuracy"], context, tmp_path).record
    for views, name in ((1, "1 crop"), (10, "10 crops")):
        scores = zfnet.evaluate(context.model, context.images, views=views)
        for k, error in ((1, scores.top1), (5, scores.top5)):
            assert record.measured[f"top-{k} accuracy, %"][name][0] == pytest.approx(100 - error)
    assert record.n == 9
    assert (
        run(discover()["accuracy"], Context("imagenet65k", None), tmp_path).record.verdict
        == "not run"
    )
