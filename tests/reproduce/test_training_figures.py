"""Figures 4 and 6 and bench_train on tiny trainings; what they measure, on arrays made by hand."""

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
from reproduce.paper import (
    ablation_images,
    ablations,
    fig4_evolution,
    fig6_filters,
    fig6_pictures,
    filter_claims,
    filter_statistics,
    filter_training,
    settling,
    trained_rows,
)
from zfnet.training.config import parse

SMALL = {
    "model": {"norm": "batch", "channels": [4, 6, 6, 6, 6], "fc_units": 12, "size": 64},
    "optim": {"batch": 8, "lr": 0.05, "schedule": "one_cycle", "clip_rms": 0.0},
    "augment": {"crops": "resized"},
    "stages": [{"epochs": 4, "size": 64, "side": 73}],
    "snapshots": [1, 2, 4],
    "precision": "float32",
}


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Narrow networks and three short epochs, for Tables 2 and 3 and Figures 4 and 6."""
    plan = ablations.Plan("subset", 2, 4, 103, 90, 3, 4, 1e-2, "float32", 1, 0, 1)
    monkeypatch.setitem(fig6_filters.PLANS, "subset", plan)
    monkeypatch.setitem(ablations.PLANS, "subset", plan)
    config = yaml.safe_load(ablations.RECIPE.read_text())
    config["model"] |= {"fc_units": 12, "channels": [4, 4, 4, 4, 4]}
    (tmp_path / "narrow.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.setattr(ablations, "RECIPE", tmp_path / "narrow.yaml")
    return plan


def test_figure_4_follows_the_zfnet_of_table_3(tree, tmp_path, tiny):
    context = Context("imagenet65k", str(tree))
    before = run(discover()["fig4"], context, tmp_path / "out").record
    assert (before.verdict, before.measured) == ("not run", {})
    assert "run tab3 first" in before.note
    images = ablation_images.load_images(context, tiny)
    trained_rows.train_row(context, tiny, images, *ablations.FOLLOWED)
    record = run(discover()["fig4"], context, tmp_path / "out").record
    assert (record.scale, record.n, record.files) == ("subset", 16, ["fig4.jpg"])
    epochs = record.measured["epochs"]
    assert (epochs[0] < 1, epochs[-1]) == (True, 3)  # from within the first epoch to the last
    medians = record.measured[fig4_evolution.SETTLED]
    assert list(medians) == [f"conv{i}" for i in range(1, 6)]
    curves = record.measured["correlation with the final responses, mean, by snapshot"]
    assert all(values[-1] == 1 or np.isnan(values[-1]) for values in curves.values())


def test_snapshots_are_log_spaced_and_the_papers_at_its_scale():
    assert ablations.snapshots(ablations.PLANS["paper"]) == (1, 2, 5, 10, 20, 30, 40, 64)
    epochs = ablations.snapshots(ablations.PLANS["subset"])
    assert (epochs[0], epochs[-1]) == (0.05, 12)
    ratios = np.divide(epochs[1:], epochs[:-1])
    assert ratios == pytest.approx(240 ** (1 / 14), rel=0.01)


def test_a_feature_settles_where_its_correlation_stays_high():
    epochs = [0.1, 1.0, 10.0, 100.0]
    correlations = np.array([
        [0.95, 0.0, 0.95, 0.0], [0.95, 0.8, 0.2, 0.0], [0.99, 1.0, 0.95, 0.0], [1.0, 1.0, 1.0, 1.0],
    ])  # fmt: skip
    settled = settling.settling_epochs(correlations, epochs, 0.9)
    assert settled == pytest.approx([0.1, 10**0.5, 10 ** (0.7 / 0.75), 10**1.9])


def test_correlation_is_pearsons_and_unknown_without_final_responses():
    rng = torch.Generator().manual_seed(0)
    first, last = torch.randn(2, 30, 3, generator=rng)
    first[:, 1] = 0  # without responses at the snapshot
    last[:, 2] = 1  # without responses at the end
    r = settling.correlate(first, last)
    assert r[:2] == pytest.approx([np.corrcoef(first[:, 0], last[:, 0])[0, 1], 0])
    assert np.isnan(r[2])


def test_figure_6_trains_three_networks_once(tree, tmp_path, tiny, monkeypatch):
    context = Context("imagenet65k", str(tree))
    record = run(discover()["fig6"], context, tmp_path / "out").record
    assert (record.scale, record.verdict, record.n, record.files) == (
        "subset",
        "not comparable",
        6,
        ["fig6.jpg"],
    )
    ratio = record.measured[filter_claims.BY_EPOCH]
    assert {name: len(values) for name, values in ratio.items()} == dict.fromkeys(
        filter_claims.RUNS, 3
    )
    energy = record.measured["energy of layer 1's filters in low, middle, high frequencies, %"]
    assert all(sum(bands) == pytest.approx(100) for bands in energy.values())
    largest = record.measured["largest RMS of a filter of layer 1"]
    assert record.measured[fig6_pictures.LIMIT] == pytest.approx(
        largest[filter_claims.FREE] / 2, rel=0.05
    )
    assert largest[filter_claims.OURS] <= 1.001 * record.measured[fig6_pictures.LIMIT]
    # Five steps train no filter: each is its own start, although its RMS is not small.
    untrained = record.measured["filters of layer 1 that never trained"]
    assert untrained[filter_claims.FREE] == untrained["AlexNet"] == 4
    monkeypatch.setattr(trained_rows, "train", lambda *a, **k: pytest.fail("trained again"))
    again = run(discover()["fig6"], context, tmp_path / "out", force=True).record
    assert again.measured == record.measured


def test_a_filters_energy_lies_where_it_oscillates():
    at = np.arange(64)
    waves = [
        np.cos(2 * np.pi * f * at)[None, :] * np.ones((64, 1)) for f in (1 / 64, 10 / 64, 31 / 64)
    ]
    filters = np.stack([np.stack([w] * 3) for w in waves])
    np.testing.assert_allclose(
        filter_statistics.band_shares(filters, (0.1, 0.25)), np.eye(3), atol=1e-9
    )
    checks = np.where((at[:, None] + at) % 2, 1.0, -1.0)[None, None].repeat(
        3, 1
    )  # a chessboard: the highest there is
    assert filter_statistics.band_shares(checks, (0.125,))[0, 1] == pytest.approx(1)


def test_filters_of_another_size_have_the_same_spectrum_where_they_look_alike():
    """Of one texture a window of 7 pixels shows more middle frequencies than one of 11, which can resolve its low ones."""
    rng, at = np.random.default_rng(0), np.arange(11)
    angle, phase = 2 * np.pi * rng.random((2, 200, 1, 1))
    waves = np.cos(
        2 * np.pi * 0.06 * (np.cos(angle) * at[:, None] + np.sin(angle) * at) + phase
    )  # below 0.1 cycles a pixel
    large = waves[:, None].repeat(3, 1)
    small = filter_statistics.center(large)
    assert small.shape == (200, 3, 7, 7)
    assert np.array_equal(small, large[..., 2:9, 2:9])
    whole, cut = (
        filter_statistics.band_shares(filters, (0.1, 0.25))[:, 1].mean()
        for filters in (large, small)
    )
    assert cut > 1.2 * whole
    low = {
        f"{name}.filters": lambda _, of=of: of[None]
        for name, of in zip(filter_claims.RUNS, (small, large, small), strict=True)
    }
    low |= {
        f"{name}.initial": lambda _, of=of: rng.normal(size=of.shape)
        for name, of in zip(filter_claims.RUNS, (small, large, small), strict=True)
    }
    assert (
        judged(low).measured["claims"][
            "ZFNet's layer-1 filters have more energy in middle frequencies than AlexNet's"
        ]
        == "undecided"
    )


def test_counts_are_told_apart_only_where_chance_does_not_explain_them():
    assert filter_statistics.larger_share(20, 96, 2, 96) is True
    assert filter_statistics.larger_share(2, 96, 20, 96) is False
    assert filter_statistics.larger_share(1, 96, 0, 96) is None


def test_figure_6_of_one_living_map_decides_nothing_there():
    result = judged({"AlexNet.high": lambda high: high[:1]})
    assert (
        result.measured["claims"][
            "AlexNet's layer-2 projections have more energy in high frequencies than ZFNet's"
        ]
        == "undecided"
    )


def test_a_filter_that_keeps_its_initial_weights_never_trained():
    rng = np.random.default_rng(0)
    initial = rng.normal(0, 0.01, (4, 3, 7, 7))
    learned = rng.normal(0, 0.01, (4, 3, 7, 7))
    weights = np.array([0, 0.5, 2, 10])[:, None, None, None]  # shares of 0, 1/5, 4/5, almost all
    filters = 0.5 * (initial + weights * learned)  # half as large, as by weight decay
    assert filter_statistics.untrained(filters, initial).tolist() == [True, True, False, False]
    assert not filter_statistics.flat(filters).any()
    filters[3] *= 1e-3
    assert filter_statistics.flat(filters).tolist() == [False, False, False, True]


def test_interior_units_see_no_padding(tree):
    torch.manual_seed(0)
    model = zfnet.alexnet(3, channels=(4, 4, 4, 4, 4), fc_units=8, size=96).eval()
    images = zfnet.load_folder(tree / "train", side=96, size=96)
    with torch.no_grad():
        top = filter_training.interior_top(model, images, "conv2", 3)
        t = zfnet.trace(model, images.batch(np.arange(len(images))))
    field = t.receptive_field("conv2")
    start = field.offset + field.stride * top.position
    assert start.min() >= 0
    assert (start + field.size).max() <= 96
    starts = field.offset + field.stride * np.arange(t["conv2"].shape[-1])
    rows = np.flatnonzero((starts >= 0) & (starts + field.size <= 96))
    inside = t["conv2"][:, :, rows[0] : rows[-1] + 1, rows[0] : rows[-1] + 1]
    assert torch.equal(top.value, inside.amax((2, 3)).topk(3, dim=0).values.T)
    for c in range(4):
        i, (row, column) = top.index[c, 0], top.position[c, 0]
        assert t["conv2"][i, c, row, column] == top.value[c, 0]


def test_dominance_is_the_largest_over_the_median():
    filters = np.ones((2, 5, 3, 7, 7))
    filters[1, 3] *= 12
    assert filter_statistics.dominance(filters) == [pytest.approx(1), pytest.approx(12)]


def judged(changed):
    """Figure 6's judgment of three networks of 20 classes, some arrays changed."""
    rng = np.random.default_rng(0)
    tile = filter_training.TILE
    found = {
        "filters": 0.01 * rng.normal(size=(2, 5, 3, 7, 7)), "initial": 0.01 * rng.normal(size=(5, 3, 7, 7)), "epochs": np.array([1.0, 2]),
        "dead.conv1": np.zeros(5, bool), "dead.conv2": np.zeros(5, bool), "high": rng.random(5),
        "projections": rng.random((5, 9, tile, tile, 3)), "patches": rng.random((5, 9, tile, tile, 3)), "channels": np.arange(5),
        "error": np.array(70.0), "diverged": np.array(""),
    }  # fmt: skip
    arrays = {
        f"{name}.{key}": values for name in filter_claims.RUNS for key, values in found.items()
    }
    changed = {key: change(arrays[key]) for key, change in changed.items()}
    return fig6_filters.judge(arrays | changed, 0.02, ablations.PLANS["subset"], 9, 20)


def largest_times(factor):
    def change(filters):
        filters = filters.copy()
        filters[-1, (filters[-1] ** 2).mean((1, 2, 3)).argmax()] *= factor
        return filters

    return change


CLIPPED = {"ZFNet, not clipped.filters": largest_times(3)}


@pytest.mark.parametrize(
    ("free", "ours", "word"),
    [(1 + 1e-7, 1, "undecided"), (3, 1, "holds"), (3, 4, "does not hold")],
)
def test_figure_6_compares_the_largest_filter_with_and_without_clipping(free, ours, word):
    """On a GPU two trainings that should be one differ by rounding."""
    result = judged(
        {"ZFNet, not clipped.filters": largest_times(free), "ZFNet.filters": largest_times(ours)}
    )
    assert result.measured["claims"]["the largest filter stands out more without clipping"] == word


def test_figure_6_counts_filters_that_never_trained_as_dead():
    alexnet = np.random.default_rng(1).normal(size=(5, 3, 7, 7))
    result = judged(
        {
            "AlexNet.initial": lambda _: alexnet,
            "AlexNet.filters": lambda _: np.stack([alexnet, alexnet]),
        }
    )
    assert result.measured[filter_claims.DEAD] == {
        "ZFNet, not clipped": 0, "AlexNet": 5, "ZFNet": 0,
    }  # fmt: skip
    assert (
        result.measured["claims"]["AlexNet has more dead filters in layer 1 than ZFNet"] == "holds"
    )
    assert "(b) AlexNet:\n5 of 5 filters dead" in [
        axes.get_title() for axes in fig6_filters.draw(result)["fig6.jpg"].axes
    ]


def test_figure_6_compares_only_networks_that_have_learnt():
    assert judged(CLIPPED).verdict == "partial"
    stuck = judged(CLIPPED | {"AlexNet.error": lambda _: np.array(94.0)})
    assert (stuck.verdict, stuck.measured["val top-1, %"]["AlexNet"]) == ("not comparable", 6.0)
    assert "not 3 times as good as chance" in stuck.reason
    assert judged({}).verdict == "not comparable"  # all undecided
    lost = judged(
        CLIPPED
        | {"ZFNet, not clipped.diverged": lambda _: np.array("the loss is nan at epoch 2, step 9")}
    )
    assert (
        "Up to the last good epoch: ZFNet, not clipped: the loss is nan at epoch 2, step 9."
        in lost.note
    )


def test_figure_6_says_when_a_training_diverges_before_its_first_epoch(
    tree, tmp_path, tiny, monkeypatch
):
    plan = replace(tiny, lr=1e3)  # a training that no other test keeps in the cache
    monkeypatch.setitem(fig6_filters.PLANS, "subset", plan)
    monkeypatch.setattr(
        "zfnet.training.step.train_step", lambda *args: (torch.tensor(torch.nan), torch.tensor(0))
    )
    record = run(discover()["fig6"], Context("imagenet65k", str(tree)), tmp_path / "out").record
    assert (record.verdict, record.measured, record.files) == ("not comparable", {}, [])
    assert record.note.startswith("Nothing to analyze: zfnet, limit 0: ")


def test_figure_6_of_a_dead_second_layer_is_drawn_and_decides_nothing_there():
    names = ("high", "projections", "patches", "channels")
    result = judged({f"AlexNet.{name}": lambda values: values[:0] for name in names})
    assert (
        result.measured["claims"][
            "AlexNet's layer-2 projections have more energy in high frequencies than ZFNet's"
        ]
        == "undecided"
    )
    assert list(fig6_filters.draw(result)) == ["fig6.jpg"]


def test_bench_train_compares_what_it_says(tmp_path, monkeypatch):
    small = {"batch": 3, "size": 64, "side": 73, "steps": 2, "repeats": 2, "precision": "float32"}
    monkeypatch.setitem(bench.FIGURE.config, "cpu", small)
    narrow = parse(SMALL | {"snapshots": []})
    monkeypatch.setattr(bench, "load_config", lambda path: narrow)
    record = run(discover()["bench_train"], Context("imagenet65k", None), tmp_path).record
    measured = record.measured
    rates = {name: values for name, values in measured.items() if name.endswith("images/s")}
    assert len(rates) == 11
    assert bench.SHARE in bench.FIGURE.config["goals"]["cuda"]  # the claim, on every device
    assert measured["parameters"][bench.TORCHVISION] == 61_100_840  # of its documentation
    assert all(0 < least <= median <= most for median, least, most in rates.values())
    # In each repeat, the ratio of the two times is that of the two rates.
    photographs, loading = (
        measured[f"{name}, images/s"] for name in (bench.PHOTOGRAPHS, bench.DATA_LOADING)
    )
    median, least, most = measured["time of reading and augmenting over a step's"]
    assert photographs[1] / loading[2] <= least * 1.01
    assert least <= median <= most <= 1.01 * photographs[2] / loading[1]
    median, least, most = measured["photographs over random tensors"]
    assert least <= median <= most
    said = measured["goals"]["photographs over random tensors: at least 0.9"]
    assert said == ("reached" if median >= 0.9 else "not reached")
    assert record.verdict == ("reproduced" if median >= 0.9 else "differs")
    assert record.files == ["bench_train.png"]


def test_a_machine_that_cannot_compile_still_times_the_rest(tree, monkeypatch):
    images = zfnet.load_folder(tree / "train", side=73, size=64)
    of, config = {"batch": 8, "size": 64, "side": 73}, parse(SMALL | {"snapshots": []})
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    loops, why = bench.compilable(config, images, of, torch.device("cpu"))
    assert (set(loops), why) == ({"photographs, compiled", "random tensors, compiled"}, "")

    def broken(function, **options):
        def call(*arguments):
            raise RuntimeError("no C compiler\nin many lines")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    assert bench.compilable(config, images, of, torch.device("cpu")) == (
        {},
        "RuntimeError: no C compiler",
    )


def test_accuracy_is_what_evaluation_measures(tree, tmp_path):
    (tree / "val" / "n03000000").rename(
        tree / "val" / "n02088238"
    )  # a class that the network knows
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
