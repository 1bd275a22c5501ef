"""Tables 2 and 3: training, caching and resuming on a small tree; claims of synthetic rows."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from reproduce.core.context import Context
from reproduce.core.discovery import discover
from reproduce.core.run import run
from reproduce.paper import ablations, tab2_errors, tab3_ablations, trained_rows
from reproduce.paper.ablations import ENSEMBLE, PLANS, ROWS, plan_for, recipe
from reproduce.paper.trained_rows import Row, ranks
from zfnet.data.dataset import Images
from zfnet.model import ARCHITECTURES
from zfnet.training.config import load_config

TINY = ablations.Plan("smoke", 2, 4, 73, 64, 2, 4, 1e-2, "float32", 1, 0, 1)


@pytest.fixture
def short_training(monkeypatch):
    """Train two epochs of two steps at 64 pixels."""
    monkeypatch.setitem(PLANS, "smoke", TINY)


@pytest.fixture
def narrow_networks(tmp_path, monkeypatch):
    """Reduce the width of every row."""
    config = yaml.safe_load(ablations.RECIPE.read_text())
    config["model"] |= {"fc_units": 12, "channels": [4, 4, 4, 4, 4]}
    (tmp_path / "narrow_networks.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.setattr(ablations, "RECIPE", tmp_path / "narrow_networks.yaml")
    narrow_rows = {
        n: {
            k: v // 256 if k == "fc_units" else (6, 8, 6) if k == "channels" else v
            for k, v in row.items()
        }
        for n, row in ROWS.items()
    }
    for name, row in narrow_rows.items():
        monkeypatch.setitem(ROWS, name, row)


def test_rows_differ_only_in_their_model_and_can_be_built():
    paper_config = load_config(ablations.RECIPE)
    assert (paper_config.model.norm, paper_config.model.fc_units, paper_config.model.dropout) == (
        "lrn",
        4096,
        0.5,
    )
    for plan in PLANS.values():
        configs = {name: recipe(plan, name, 3) for name in ROWS}
        assert len({str(c.model) for c in configs.values()}) == len(ROWS) == 12
        assert (
            len(
                {
                    str((c.seed, c.data, c.augment, c.optim, c.stages, c.precision))
                    for c in configs.values()
                }
            )
            == 1
        )
        for config in configs.values():
            options = {k: v for k, v in vars(config.model).items() if k != "arch"}
            with torch.device("meta"):
                model = ARCHITECTURES[config.model.arch](classes=10, **options)
            assert model.size == plan.size


def test_both_tables_share_trainings_and_resume(
    tree, tmp_path, short_training, narrow_networks, monkeypatch
):
    context = Context("imagenet65k", str(tree))
    original, calls = trained_rows.train, []

    def train_interrupted(config, *arguments, **options):
        calls.append(options["resume"])
        if len(calls) == 3:
            options["report"] = lambda status: (
                (_ for _ in ()).throw(KeyboardInterrupt) if status.epoch == 2 else None
            )
        return original(config, *arguments, **options)

    monkeypatch.setattr(trained_rows, "train", train_interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(discover()["tab3"], context, tmp_path / "out")
    record = run(discover()["tab3"], context, tmp_path / "out").record
    # The third training is resumed; the first two are not repeated.
    assert calls == [False, False, False, True, *[False] * 9]
    assert (record.scale, record.verdict, record.n) == ("smoke", "not comparable", 6)
    assert list(record.measured[tab3_ablations.ERROR]) == list(ROWS)
    assert record.measured["seeds"] == 1
    assert record.files == ["tab3.png"]
    monkeypatch.setattr(trained_rows, "train", lambda *a, **k: pytest.fail("trained again"))
    table2 = run(discover()["tab2"], context, tmp_path / "out").record
    assert set(table2.measured[tab2_errors.ERROR]) == {
        "AlexNet, the replica",
        "ZFNet",
        "ZFNet with wider layers 3-5 (b)",
    }
    assert (
        table2.measured[tab2_errors.ERROR]["ZFNet"][0]
        == record.measured[tab3_ablations.ERROR]["ZFNet"][1]
    )


def test_diverged_training_is_a_row_with_100_percent_error(
    tree, short_training, narrow_networks, monkeypatch
):
    context = Context("imagenet65k", str(tree))
    plan = replace(plan_for(context), lr=1e3)  # a plan that no other test has cached
    monkeypatch.setattr(
        "zfnet.training.loop.train_step", lambda *args: (torch.tensor(torch.nan), torch.tensor(0))
    )
    images = ablations.load_images(context, plan)
    diverged = trained_rows.train_row(context, plan, images, "ZFNet", 0)
    # Top-5 of three classes.
    assert (diverged.error(), diverged.error(5), diverged.about["log"]) == (100, 100, [])
    assert "not finite" in diverged.about["diverged"] or "the loss is" in diverged.about["diverged"]
    monkeypatch.setattr(trained_rows, "train", lambda *a, **k: pytest.fail("trained again"))
    second = trained_rows.train_row(context, plan, images, "ZFNet", 0)
    assert second.about == diverged.about
    rows = {name: [row(40.0)] for name in ROWS} | {"ZFNet": [diverged]}
    result = tab3_ablations.judge({name: [replace(r, label=diverged.label, rank=r.rank[: len(diverged.label)]) for r in group] for name, group in rows.items()}, TINY, tab3_ablations.FIGURE)  # fmt: skip
    assert f"ZFNet, seed 0: {diverged.about['diverged']}" in result.note
    assert "finished no epoch" in result.note


def test_without_images_the_tables_are_not_run(tmp_path):
    for name in ("tab2", "tab3"):
        record = run(discover()[name], Context("imagenet65k", None), tmp_path).record
        assert (record.verdict, record.measured, record.files) == ("not run", {}, [])
        assert record.paper


def row(error, seed=0, n=2000, train=30.0):
    """Return a row with this percentage of errors on 2,000 images of 20 classes."""
    rng = np.random.default_rng([seed, int(error * 10)])
    rank = np.ones(n, dtype=np.int64)
    rank[rng.permutation(n)[: int(n * error / 100)]] = 7
    train_rank = np.where(np.arange(n) < n * train / 100, 7, 1)
    label = np.arange(n) % 20
    probability = np.full((n, 20), 0.01, dtype=np.float32)
    probability[np.arange(n), np.where(rank > 1, (label + 1 + seed) % 20, label)] = (
        0.5 if seed else 0.4
    )
    info = {
        "diverged": "",
        "log": [{"images_per_second": 100.0}],
        "seconds": 36.0,
        "commit": "c",
        "device": "d",
        "precision": "float32",
    }
    return Row(rank, train_rank, probability, label, info)


def judge_table3(errors, seeds=3, scale="subset", fitted=None, **replaced):
    """Judge Table 3 for these errors; training errors are the paper's unless `fitted` has them."""
    train_errors = {
        name: errors[0] for name, errors in zip(ROWS, tab3_ablations.PAPER, strict=True)
    } | (fitted or {})
    rows = {
        name: [row(replaced.get(name, e), seed, train=train_errors[name]) for seed in range(seeds)]
        for name, e in zip(ROWS, errors, strict=True)
    }
    return tab3_ablations.judge(rows, replace(TINY, scale=scale), tab3_ablations.FIGURE)


def test_numbers_of_the_paper_reproduce_its_conclusions():
    paper = [errors[1] for errors in tab3_ablations.PAPER]
    result = judge_table3(paper)
    assert result.verdict == "reproduced"
    assert set(result.measured["claims"].values()) == {"holds"}
    assert judge_table3(paper, scale="smoke").verdict == "not comparable"
    assert result.measured["order of the rows, val top-1, Spearman"] == pytest.approx(1)
    costs, paper_costs = (
        result.measured["cost in val top-1, points, with its 95 % interval"],
        result.measured["the same in the paper"],
    )
    for name, (mean, low, high) in costs.items():
        assert low <= mean <= high
        assert mean == pytest.approx(paper_costs[name], abs=0.1), name
    assert result.measured["hours of training, all rows"] == pytest.approx(36 * 36 / 3600)


def test_claims_fail_for_other_numbers():
    paper = [errors[1] for errors in tab3_ablations.PAPER]
    claims = judge_table3(paper, ZFNet=45.0).measured["claims"]
    assert claims["ZFNet's error is below AlexNet's"] == "does not hold"
    claims = judge_table3(paper, **{"AlexNet without layers 6, 7": 70.0}).measured["claims"]
    assert claims["removing layers 6, 7 costs less than 0.5 of that"] == "does not hold"
    assert claims["removing layers 3, 4 costs less than 0.5 of that"] == "holds"
    claims = judge_table3(paper, **{"ZFNet, layers 6, 7 of 8192": 60.0}).measured["claims"]
    assert claims["the width of layers 6, 7 changes less than 0.25 of that"] == "does not hold"
    single_seed = judge_table3(paper, seeds=1, ZFNet=40.4).measured["claims"]
    # 0.1 points on 2,000 images.
    assert single_seed["ZFNet's error is below AlexNet's"] == "undecided"
    at_chance = judge_table3([94.0] * 12)
    assert (at_chance.verdict, at_chance.measured["claims"]) == ("not comparable", {})


def test_overfitting_means_less_training_and_more_validation_error():
    paper, claim = [errors[1] for errors in tab3_ablations.PAPER], "with wider layers 6, 7 too they overfit: less training error, more in validation"  # fmt: skip
    widest, wider = tab3_ablations.COSTS[tab3_ablations.WIDEST]
    results = {
        "holds": judge_table3(paper),
        "does not hold": judge_table3(paper, **{widest: 36.0}),
        "undecided": judge_table3(paper, seeds=1, **{widest: 37.6}),
    }
    assert {state: result.measured["claims"][claim] for state, result in results.items()} == {
        state: state for state in results
    }
    assert judge_table3(paper, fitted={widest: 30.0}).measured["claims"][claim] == "does not hold"
    assert (
        judge_table3(paper, fitted={widest: 18.8, wider: 18.8}).measured["claims"][claim]
        == "undecided"
    )


def test_training_error_uses_trained_images():
    labels = np.repeat(np.arange(3), (500, 6, 30))
    images = Images(
        np.zeros((1, 8, 8, 3), np.uint8),
        labels,
        ["a", "b", "c"],
        ["n1", "n2", "n3"],
        [""] * 536,
        "",
        8,
    )
    rows = trained_rows.epoch_rows(replace(TINY, per_class=5), images)
    assert np.bincount(labels[rows]).tolist() == [5, 5, 5]
    assert sorted(set(labels[rows[:8]])) == [0, 1, 2]  # a prefix contains all classes


def test_late_divergence_keeps_the_log_of_earlier_epochs(tree, short_training, tmp_path):
    context = Context("imagenet65k", str(tree))
    images = ablations.load_images(context, TINY)
    lines = [{"epoch": epoch, "images_per_second": speed} for epoch, speed in ((1, 4.0), (2, 2.0))]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    arrays, info = trained_rows.diverged_row(TINY, images, tmp_path)
    # An epoch has four images of each of two classes.
    assert info == {"epochs": 2, "log": lines, "seconds": 8 / 4.0 + 8 / 2.0}
    diverged = Row(train_rank=arrays.pop("known"), **arrays, about=info)
    assert (diverged.error(5), diverged.train_error()) == (100, 100)


def test_shares_are_undecided_if_removing_four_layers_costs_nothing():
    paper = [errors[1] for errors in tab3_ablations.PAPER]
    claims = judge_table3(paper, **{"AlexNet without layers 3, 4, 6, 7": 30.0}).measured["claims"]
    assert (
        claims.pop("removing layers 3, 4, 6, 7 costs more than 3, 4 and 6, 7 do one by one")
        == "does not hold"
    )
    assert {state for claim, state in claims.items() if "of that" in claim} == {"undecided"}


def test_equal_networks_are_not_comparable():
    result = tab2_errors.judge(row(40.0, 1), [row(40.0, 2)], row(40.0, 3), TINY)
    assert (result.verdict, set(result.measured["claims"].values())) == (
        "not comparable",
        {"undecided"},
    )


def test_table_2_excludes_diverged_trainings_from_the_ensemble():
    diverged = row(40.0, 3)
    diverged = replace(diverged, rank=np.full(2000, 25), probability=np.full((2000, 20), 0.05, np.float32), about=diverged.about | {"diverged": "the loss is nan"})  # fmt: skip
    with_diverged, without = (tab2_errors.judge(row(45.0, 9), nets, row(38.0, 8), TINY) for nets in ([row(40.0, 1), row(40.0, 2), diverged], [row(40.0, 1), row(40.0, 2)]))  # fmt: skip
    assert with_diverged.measured[tab2_errors.ERROR] == without.measured[tab2_errors.ERROR]
    assert with_diverged.measured["nets"] == without.measured["nets"]
    assert "left out of the means: ZFNet, seed 2: the loss is nan" in with_diverged.note
    only_diverged = tab2_errors.judge(diverged, [row(40.0, 1)], row(38.0, 8), TINY)
    assert only_diverged.measured[tab2_errors.ERROR]["AlexNet, the replica"] == [100.0, 100.0]
    assert only_diverged.verdict == "not comparable"
    diverged_wide = tab2_errors.judge(
        row(45.0, 9), [row(40.0, 1), row(40.0, 2)], replace(diverged, label=row(1.0).label), TINY
    )
    assert (
        "ZFNets (a)" in diverged_wide.measured[tab2_errors.ERROR],
        "(a) and (b)" in diverged_wide.measured[tab2_errors.ERROR],
    ) == (True, False)
    assert diverged_wide.measured["nets"] == {"ZFNets (a)": 2}
    diverged_first = tab2_errors.judge(
        row(45.0, 9), [diverged, row(40.0, 1), row(40.0, 2)], row(38.0, 8), TINY
    )
    # The table shows the first seed, as Table 3 does.
    assert diverged_first.measured[tab2_errors.ERROR]["ZFNet"] == [100.0, 100.0]


def test_intervals_over_seeds_use_students_t():
    changed, complete = (
        [row(45.0, s) for s in range(3)],
        [row(e, s) for s, e in enumerate((40.0, 41.0, 42.0))],
    )
    mean, low, high = tab3_ablations.cost(changed, complete)
    assert mean == pytest.approx(4.0, abs=0.05)
    assert (high - mean, mean - low) == pytest.approx((4.3027 * 1.0 / 3**0.5,) * 2, rel=0.05)


def test_ensemble_averages_probabilities():
    zfnets = [row(40.0, seed) for seed in range(5)]
    result = tab2_errors.judge(row(45.0, 9), zfnets, row(38.0, 8), TINY)
    errors = result.measured[tab2_errors.ERROR]
    mean = np.mean([r.probability.astype(np.float32) for r in zfnets], axis=0)
    by_hand = [
        100
        * float(
            np.mean(
                [
                    sorted(p, reverse=True).index(p[y]) > 0
                    for p, y in zip(mean, zfnets[0].label, strict=True)
                ]
            )
        )
    ]
    assert errors["ZFNets (a)"][0] == pytest.approx(by_hand[0])
    assert errors["ZFNets (a)"][0] < errors["ZFNet"][0] == pytest.approx(40.0)
    assert result.measured["claims"]["several ZFNets beat one"] == "holds"
    assert result.measured["nets"] == {"ZFNets (a)": 5, "(a) and (b)": 6}
    assert list(tab2_errors.draw(result)) == ["tab2.png"]


def test_ranks_count_more_probable_classes():
    probability = np.array([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3]])
    assert ranks(probability, np.array([0, 0])).tolist() == [3, 1]
    # The accuracy of a constant output is at chance level, because ties are ranked by class.
    constant = np.full((4, 4), 0.25)
    assert ranks(constant, np.arange(4)).tolist() == [1, 2, 3, 4]


def test_plan_depends_on_device_and_scale():
    context = Context("imagenet65k", None, "cuda:0")
    assert plan_for(context) is PLANS["subset"]
    assert plan_for(Context("imagenet65k", None)) is PLANS["smoke"]
    assert plan_for(Context("imagenet65k", None, scale="paper")) is PLANS["paper"]
    assert set(ENSEMBLE) <= set(ROWS)


def test_removing_four_layers_must_cost_more_than_both_pairs():
    paper = [errors[1] for errors in tab3_ablations.PAPER]
    claims = judge_table3(paper, **{"AlexNet without layers 3, 4, 6, 7": 46.0}).measured["claims"]
    assert (
        claims["removing layers 3, 4, 6, 7 costs more than 3, 4 and 6, 7 do one by one"]
        == "does not hold"
    )
    untrained = judge_table3(paper, **{tab3_ablations.COSTS["ZFNet, wider layers 3-5"][0]: 95.0})
    assert (untrained.verdict, untrained.measured["claims"]) == ("not comparable", {})


def test_hours_at_paper_scale_use_the_image_size_of_the_paper():
    full_size, half_size = (trained_rows.paper_scale_note(row(40.0), size) for size in (224, 112))
    hours = [
        int(text.split(" h:")[0].split()[-1].replace(",", "")) for text in (full_size, half_size)
    ]
    assert hours[0] == round(70 * 1.28e6 / 100 / 3600)
    assert 3 < hours[1] / hours[0] < 5
