"""`zfnet.benchmark` from end to end: tables, controls, resume, and bad input."""

import csv
import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import zfnet
from tests.benchmarking.networks import SIDE, disc_mask, gradient_x_input, image_batch, small_net
from zfnet.benchmarking import METRICS, Metric, metric_agreement, rank_agreement
from zfnet.data.dataset import Images
from zfnet.graph import UnsupportedNetwork


@pytest.fixture
def model():
    return small_net()


def dataset(model, n=6, masks=True):
    x = image_batch(n)
    labels = model(x).argmax(1).tolist()
    return [(x[i], labels[i], *([disc_mask(n)[i]] if masks else [])) for i in range(n)]


def halves(model, x, target):
    return x.clamp_min(0)


METHODS = {"mine": gradient_x_input, "halves": halves, "saliency": "saliency"}


def test_table_has_all_metrics_and_controls(model):
    table = zfnet.benchmark(model, METHODS, dataset(model), [*METRICS, "speed", "memory"], batch=4)
    controls = ["random map", "center", "edge detector", "true mask"]
    assert table.methods == [*METHODS, *controls]
    assert table.metrics == [*METRICS, "speed", "memory"]
    assert [row.method for row in table.rows if row.control][:: len(table.metrics)] == controls
    for row in table.rows:
        values = table.values[row.method, row.metric]
        valid = values[np.isfinite(values)]
        assert row.n == len(valid)
        if row.n > 1:
            assert row.mean == pytest.approx(valid.mean())
            assert row.low <= row.mean + 1e-12
            assert row.high >= row.mean - 1e-12
    assert table.row("mine", "memory").mean > 0
    assert table.row("mine", "speed").mean > 0
    assert table.info["images"] == 6
    assert table.info["empty_masks"] == 0


def test_controls_have_known_scores(model):
    table = zfnet.benchmark(
        model,
        ["saliency"],
        dataset(model, 40),
        ["pointing", "energy", "cascading", "sensitivity_n"],
    )
    share = float(disc_mask().float().mean())
    assert table.row("true mask", "pointing").mean == 1
    assert table.row("true mask", "energy").mean == 1
    assert table.row("center", "pointing").mean == 1  # the mask covers the center
    assert table.row("random map", "energy").mean == pytest.approx(share, abs=0.02)
    for control in ("center", "edge detector", "true mask"):
        assert table.row(control, "cascading").mean == pytest.approx(1)
    assert abs(table.row("random map", "cascading").mean) < 0.1


def test_batch_does_not_change_deterministic_scores(model):
    tables = [
        zfnet.benchmark(
            model, METHODS, dataset(model), ["pointing", "energy", "completeness"], batch=b
        )
        for b in (1, 4, 100)
    ]
    for key in tables[0].values:
        for table in tables[1:]:
            np.testing.assert_allclose(
                tables[0].values[key], table.values[key], rtol=1e-4, atol=1e-5
            )


def test_csv_pandas_and_plot(model, tmp_path):
    table = zfnet.benchmark(model, METHODS, dataset(model), ["pointing", "deletion", "speed"])
    text = table.to_csv(tmp_path / "results.csv")
    assert (tmp_path / "results.csv").read_text() == text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == len(table.rows)
    assert float(rows[0]["mean"]) == pytest.approx(table.rows[0].mean, rel=1e-5)
    frame = table.to_pandas()
    assert frame.set_index(["method", "metric"]).loc[("mine", "deletion"), "n"] == 6
    axes = table.plot().axes
    assert [a.get_title() for a in axes] == ["pointing", "deletion", "speed"]
    assert [t.get_text() for t in axes[0].get_yticklabels()][-1] == "mine"
    assert "deletion" in str(table).splitlines()[0]


def test_speed_is_measured_after_a_warm_up(model):
    calls = []

    def counted(model, x, target):
        calls.append(len(x))
        return gradient_x_input(model, x, target)

    tables = [
        zfnet.benchmark(model, {"m": counted}, dataset(model), ["speed"], controls=False, batch=b)
        for b in (3, 6)
    ]
    assert calls == [1, 3, 3, 1, 6]
    several, single = (table.row("m", "speed") for table in tables)
    assert several.low <= several.mean <= several.high
    assert np.isnan(single.low)  # one batch has no interval


def test_interrupted_benchmark_continues(model, tmp_path):
    path, calls = tmp_path / "progress.jsonl", []

    def counted(model, x, target):
        calls.append(len(x))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return gradient_x_input(model, x, target)

    def run(resume):
        return zfnet.benchmark(
            model, {"m": counted}, dataset(model), ["deletion"], batch=2, resume=resume
        )

    with pytest.raises(KeyboardInterrupt):
        run(path)
    path.write_text(path.read_text() + '{"key": "inter')
    resumed = run(path)
    assert len(calls) == 4  # two batches before the interrupt, one after it
    complete = run(None)
    for row, other in zip(resumed.rows, complete.rows, strict=True):
        assert (row.method, row.mean, row.low) == (other.method, other.mean, other.low)
    run(path)
    assert len(calls) == 7  # the three batches of the run without a file
    with torch.no_grad():
        model[-1].weight.mul_(2)
    run(path)
    assert len(calls) == 10  # other weights invalidate the saved scores
    assert all(
        json.loads(line)["key"] for line in path.read_text().splitlines() if '"inter' not in line
    )


def test_constant_and_not_finite_maps_are_counted(model):
    def partly_invalid(model, x, target):
        maps = gradient_x_input(model, x, target)
        maps[0] = torch.nan
        maps[1] = 3.0
        maps[2, 0, 0, 0] = torch.inf
        return maps

    table = zfnet.benchmark(
        model, {"broken": partly_invalid}, dataset(model), ["pointing", "deletion", "cascading"]
    )
    row = table.row("broken", "pointing")
    assert (row.constant, row.not_finite, row.n, row.images) == (1, 2, 6, 6)
    share = float(disc_mask(1).float().mean())
    assert table.values["broken", "pointing"][:3].tolist() == pytest.approx([share] * 3)
    assert table.row("broken", "deletion").n == 6
    assert table.row("broken", "cascading").n == 3  # a constant map has no ranks
    assert np.isnan(table.values["broken", "cascading"][:3]).all()


def test_empty_masks_are_counted(model):
    data = dataset(model)
    data[2] = (*data[2][:2], torch.zeros(SIDE, SIDE, dtype=torch.bool))
    table = zfnet.benchmark(model, METHODS, data, ["pointing", "energy", "deletion"], batch=4)
    assert table.info["empty_masks"] == 1
    assert [table.row("mine", m).n for m in table.metrics] == [5, 5, 6]


def test_methods_that_do_not_apply_are_skipped(model):
    def unsupported(model, x, target):
        raise UnsupportedNetwork("this network has no pooling head")

    table = zfnet.benchmark(model, {"a": unsupported, "mine": halves}, dataset(model), ["deletion"])
    assert table.skipped == {"a": "this network has no pooling head"}
    assert table.methods[0] == "mine"


def test_custom_metrics_and_metric_options(model):
    mean = Metric("mean of the map", lambda case: case.map.mean((1, 2, 3)), "")
    pointing = METRICS["pointing"].with_options(tolerance=20)
    table = zfnet.benchmark(model, METHODS, dataset(model), [mean, pointing])
    assert table.row("halves", "mean of the map").mean > 0
    assert table.row("halves", "pointing").mean == 1  # all pixels are within 20 pixels of the mask
    wrong_shape = Metric("bad", lambda case: case.map)
    with pytest.raises(ValueError, match=r"metric bad must return \(6,\), got \(6, 1, 12, 12\)"):
        zfnet.benchmark(model, METHODS, dataset(model), [wrong_shape])


def test_correct_only_keeps_correctly_classified_images(model):
    data = [
        (x, label if i % 2 else (label + 1) % 5)
        for i, (x, label) in enumerate(dataset(model, masks=False))
    ]
    table = zfnet.benchmark(model, {"m": halves}, data, ["deletion"], correct_only=True)
    assert (table.info["images"], table.info["candidates"]) == (3, 6)
    mislabeled = [(x, (label + 1) % 5) for x, label in dataset(model, masks=False)]
    with pytest.raises(ValueError, match="classifies none correctly"):
        zfnet.benchmark(model, {"m": halves}, mislabeled, ["deletion"], correct_only=True)


def test_correct_images_of_a_tree_are_found_by_folder_name():
    """Folders sort in another order than the outputs; labels count also where the predicted class is explained."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, SIDE, SIDE, 3)).astype(np.uint8)
    model: Any = small_net(channels=3)
    model.wnids = list("bcdea")
    names = [str(i) for i in range(6)]
    images = Images(pixels, np.zeros(6, dtype=int), "abcde", "abcde", names, "", size=SIDE)
    predicted = model(images.batch(range(6))).argmax(1).numpy()
    images = replace(images, labels=(predicted + 1) % 5)
    options = {"target": "predicted", "correct_only": True}
    table = zfnet.benchmark(model, {"m": halves}, images, ["deletion"], **options)
    assert table.info["images"] == 6


def test_predicted_targets_need_no_labels(model):
    data = [(x, -1) for x, _ in dataset(model, masks=False)]
    with pytest.raises(
        ValueError, match="image 0 has label -1, but the network's outputs are 0 to 4"
    ):
        zfnet.benchmark(model, {"m": halves}, data, ["deletion"])
    table = zfnet.benchmark(model, {"m": halves}, data, ["deletion"], target="predicted")
    expected = zfnet.benchmark(model, {"m": halves}, dataset(model, masks=False), ["deletion"])
    assert table.row("m", "deletion").mean == expected.row("m", "deletion").mean


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": {"mine": lambda m, x, t: x[:, :, :5]}}, r"mine must return a map \(6, 1, 12, 12\) or values"),
        ({"methods": {"mine": lambda m, x, t: None}}, "mine must return .* got NoneType"),
        ({"methods": ["saliencies"]}, "unknown methods: saliencies; available: saliency"),
        ({"methods": [halves, halves]}, "two methods have the same name"),
        ({"methods": {"mine": object()}}, "mine: not a function .* from_captum"),
        ({"methods": []}, "no methods"),
        ({"metrics": ["pointer"]}, "unknown metrics: pointer; available: pointing"),
        ({"metrics": ["pointing", "pointing"]}, "each metric must be given once"),
        ({"metrics": []}, "at least one"),
        ({"target": "other"}, "target must be 'auto', 'label' or 'predicted'"),
        ({"limit": 0}, "limit must be at least 1"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"data": 5}, "data must be one of scenes"),
        ({"data": [(torch.zeros(1, SIDE, SIDE),)] * 3}, r"item 0 must be \(x, label\) or"),
        ({"data": [(torch.zeros(1, SIDE, SIDE), 0, torch.ones(5, 5))]}, r"masks \(1, 5, 5\) do not fit"),
        ({"data": [(torch.zeros(1, SIDE, SIDE), 0)]}, "pointing need masks"),
        ({"data": [(torch.zeros(1, SIDE, SIDE), 9)], "metrics": ["deletion"]}, "image 0 has label 9"),
    ],
)  # fmt: skip
def test_invalid_arguments_are_rejected(model, change, message):
    arguments = {"methods": METHODS, "data": dataset(model), "metrics": ["pointing"]}
    with pytest.raises(ValueError, match=message):
        zfnet.benchmark(model, **(arguments | change))


def test_network_does_not_change(model):
    model.train()
    original = {k: v.clone() for k, v in model.state_dict().items()}
    zfnet.benchmark(model, METHODS, dataset(model), ["sanity", "deletion"])
    assert model.training
    assert all(torch.equal(v, original[k]) for k, v in model.state_dict().items())


def test_rank_agreement(model):
    table = zfnet.benchmark(
        model, METHODS, dataset(model), ["deletion", "insertion"], controls=False
    )
    assert rank_agreement([table, table], "deletion").tolist() == [[1, 1], [1, 1]]
    agreement = metric_agreement(table, ["deletion", "insertion"])
    assert agreement.shape == (2, 2)
    assert agreement[0, 1] == agreement[1, 0]
    single_method = zfnet.benchmark(model, ["saliency"], dataset(model), ["deletion"])
    with pytest.raises(ValueError, match="at least two common methods"):
        rank_agreement([table, single_method], "deletion")
