"""The races of occlusion on small networks, and their tables on numbers made by hand."""

import csv
import io

import pytest
import torch
import torchvision

from reproduce.bench import bench_vgg19, networks_race
from reproduce.bench.comparison import CAPTUM, OURS, PLAIN, ZENNIT
from reproduce.bench.networks_race import BOUND, SHARE, as_csv, network_goals, race_networks
from reproduce.bench.speed_plot import draw_networks
from reproduce.core.context import Context
from reproduce.core.discovery import discover
from reproduce.core.run import run
from tests.conftest import narrow_vgg11
from tests.networks import he

CONFIG = {
    "batches": [2, 4], "repeats": 1, "size": 16, "stride": 16, "tuning stride": 16, "network race": {"repeats": 2},
    "networks": ["resnet18"],
}  # fmt: skip
ENTRY = {f"{name}, seconds": [2.0, 1.0, 3.0] for name in (OURS, PLAIN, CAPTUM, ZENNIT)}
ENTRY |= {f"{name} over {OURS}": [3.0, 2.0, 4.0] for name in (PLAIN, CAPTUM, ZENNIT)}
ENTRIES = {"VGG-16": ENTRY | {BOUND: 6.5, SHARE: 0.46}, "ResNet-18": ENTRY | {BOUND: 4.0}}


def test_networks_are_raced_and_their_results_compared(monkeypatch):
    model = he(torchvision.models.resnet18(num_classes=7))
    monkeypatch.setattr(networks_race, "build", lambda name: model)
    entry = race_networks(torch.randn(1, 3, 80, 80), CONFIG, "cpu")["ResNet-18"]
    assert 1 < entry[BOUND] < 3
    assert entry[SHARE] == entry[f"{CAPTUM} over {OURS}"][0] / entry[BOUND]
    for name in (PLAIN, CAPTUM, ZENNIT):
        assert entry[f"{name}, largest relative difference"] < 1e-4


def test_a_goal_is_a_ratio_or_a_share_of_the_bound():
    reached = network_goals(ENTRIES, {"VGG-16": 4.0}, 0.7)
    assert reached == {
        "VGG-16: Captum over ours at least 4": False,
        "ResNet-18: Captum over ours at least 70% of the bound": True,
    }


def test_the_table_has_networks_as_columns():
    header, *rows = csv.reader(io.StringIO(as_csv(ENTRIES)))
    assert header == ["", "VGG-16", "ResNet-18"]
    table = {name: values for name, *values in rows}
    assert table["ours, seconds"] == ["2", "2"]
    assert table[BOUND] == ["6.5", "4"]
    assert table[SHARE] == ["0.46", ""]


def test_the_picture_shows_every_ratio_and_bound():
    (axes,) = draw_networks(ENTRIES).axes
    assert [bar.get_height() for bar in axes.patches] == [3.0] * 6
    assert [line.get_ydata()[0] for line in axes.lines if len(line.get_ydata()) == 2][:2] == [
        6.5,
        4.0,
    ]
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {
        BOUND, *(f"{name} over {OURS}" for name in (PLAIN, CAPTUM, ZENNIT)),
    }  # fmt: skip


@pytest.mark.parametrize("is_trained", [False, True])
def test_bench_vgg19_times_all_positions_and_draws_a_trained_map(tmp_path, monkeypatch, is_trained):
    for name, value in {"stride": 32, "stride of others": 32, "tuning stride": 32}.items():
        monkeypatch.setitem(bench_vgg19.FIGURE.config, name, value)
    monkeypatch.setattr(bench_vgg19, "_network", lambda ctx: (narrow_vgg11(), is_trained))
    record = run(discover()["bench_vgg19"], Context("imagenet65k", None), tmp_path).record
    assert record.measured["weights"] == ("trained" if is_trained else "random")
    assert record.measured["plain, largest relative difference"] < 1e-4
    assert record.measured[BOUND] > 1.5
    assert record.measured[f"{CAPTUM} over {OURS}"] > 0
    assert record.files == ["bench_vgg19.png"]
    assert record.note.startswith("49 positions")


def test_without_weights_vgg19_is_random(monkeypatch):
    monkeypatch.setattr(torchvision.models, "vgg19", lambda weights: narrow_vgg11())
    model, is_trained = bench_vgg19._network(Context("imagenet65k", None))
    assert not is_trained
    assert not model.training
