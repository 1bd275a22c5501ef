"""Tables 2 and 3: trained, kept and continued on a small tree; the conclusions, from rows made by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from reproduce.core.context import Context
from reproduce.core.discovery import discover
from reproduce.core.run import run
from reproduce.paper import (
    ablation_images,
    ablations,
    contrasts,
    row_arrays,
    rows,
    tab2_errors,
    tab3_ablations,
    trained_rows,
)
from reproduce.paper.ablations import ENSEMBLE, PLANS, ROWS, plan_for, recipe
from reproduce.paper.contrasts import contrast, seed_spread, training_misses, validation_misses
from reproduce.paper.rows import Row, ranks
from zfnet.data.cache import DataError
from zfnet.data.dataset import Images
from zfnet.model import ARCHITECTURES
from zfnet.training.config import load_config

TINY = ablations.Plan("smoke", 2, 4, 73, 64, 2, 4, 1e-2, "float32", 1, 0, 1)


@pytest.fixture
def quick(monkeypatch):
    """Two epochs of two steps, at 64 pixels, at the default scale."""
    monkeypatch.setitem(PLANS, "subset", TINY)


@pytest.fixture
def narrow(tmp_path, monkeypatch):
    """The same rows, all of them narrow."""
    config = yaml.safe_load(ablations.RECIPE.read_text())
    config["model"] |= {"fc_units": 12, "channels": [4, 4, 4, 4, 4]}
    (tmp_path / "narrow.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.setattr(ablations, "RECIPE", tmp_path / "narrow.yaml")
    small = {
        n: {
            k: v // 256 if k == "fc_units" else (6, 8, 6) if k == "channels" else v
            for k, v in row.items()
        }
        for n, row in ROWS.items()
    }
    for name, row in small.items():
        monkeypatch.setitem(ROWS, name, row)


def test_every_row_of_the_paper_can_be_built_and_differs_only_in_its_model():
    whole = load_config(ablations.RECIPE)
    assert (whole.model.norm, whole.model.fc_units, whole.model.dropout) == ("lrn", 4096, 0.5)
    for size in PLANS.values():
        assert recipe(size, *ablations.FOLLOWED).snapshots  # for Figure 4
        configs = {name: recipe(size, name, 3) for name in ROWS}
        assert len({str(c.model) for c in configs.values()}) == len(ROWS) == 12
        assert (
            len(
                {
                    str((c.seed, c.data, c.augment, c.optim, c.stages, c.precision, c.snapshots))
                    for c in configs.values()
                }
            )
            == 1
        )
        for config in configs.values():
            options = {k: v for k, v in vars(config.model).items() if k != "arch"}
            with torch.device("meta"):
                model = ARCHITECTURES[config.model.arch](classes=10, **options)
            assert model.size == size.size


def test_both_tables_are_trained_once_and_continue(tree, tmp_path, quick, narrow, monkeypatch):
    context = Context("imagenet65k", str(tree))
    real, calls = trained_rows.train, []

    def interrupted(config, *arguments, **options):
        calls.append(options["resume"])
        if len(calls) == 3:
            options["report"] = lambda status: (
                (_ for _ in ()).throw(KeyboardInterrupt) if status.epoch == 2 else None
            )
        return real(config, *arguments, **options)

    monkeypatch.setattr(trained_rows, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(discover()["tab3"], context, tmp_path / "out")
    record = run(discover()["tab3"], context, tmp_path / "out").record
    assert calls == [
        False,
        False,
        False,
        True,
        *[False] * 9,
    ]  # the third is continued, the first two are not trained again
    assert (record.scale, record.verdict, record.n) == ("smoke", "not comparable", 6)
    assert list(record.measured[tab3_ablations.ERROR]) == list(ROWS)
    assert record.measured["seeds"] == {}
    assert record.files == ["tab3.png"]
    monkeypatch.setattr(trained_rows, "train", lambda *a, **k: pytest.fail("trained again"))
    other = run(discover()["tab2"], context, tmp_path / "out").record
    assert set(other.measured[tab2_errors.ERROR]) == {
        "AlexNet (replica)",
        "ZFNet",
        "ZFNet with wider layers 3-5 (b)",
    }
    assert (
        other.measured[tab2_errors.ERROR]["ZFNet"][0]
        == record.measured[tab3_ablations.ERROR]["ZFNet"][1]
    )


def test_a_training_that_diverges_is_a_row_that_is_wrong_on_every_image(
    tree, quick, narrow, monkeypatch
):
    context = Context("imagenet65k", str(tree))
    size = replace(plan_for(context), lr=1e3)  # a training that no other test keeps in the cache
    monkeypatch.setattr(
        "zfnet.training.step.train_step", lambda *args: (torch.tensor(torch.nan), torch.tensor(0))
    )
    images = ablation_images.load_images(context, size)
    lost = trained_rows.train_row(context, size, images, "ZFNet", 0)
    assert (lost.error(), lost.error(5), lost.about["log"]) == (100, 100, [])  # of three classes
    assert "not finite" in lost.about["diverged"] or "the loss is" in lost.about["diverged"]
    monkeypatch.setattr(trained_rows, "train", lambda *a, **k: pytest.fail("trained again"))
    again = trained_rows.train_row(context, size, images, "ZFNet", 0)
    assert again.about == lost.about
    rows = {name: [row(40.0)] for name in ROWS} | {"ZFNet": [lost]}
    result = tab3_ablations.judge({name: [replace(r, label=lost.label, rank=r.rank[: len(lost.label)]) for r in found] for name, found in rows.items()}, TINY, tab3_ablations.FIGURE)  # fmt: skip
    assert f"ZFNet, seed 0: {lost.about['diverged']}" in result.note
    assert "finished no epoch" in result.note


def test_without_a_tree_nothing_is_claimed(tmp_path):
    for name in ("tab2", "tab3"):
        record = run(discover()[name], Context("imagenet65k", None), tmp_path).record
        assert (record.verdict, record.measured, record.files) == ("not run", {}, [])
        assert record.paper


def row(error, seed=0, n=2000, train=30.0):
    """A row that is wrong on that many percent of 2,000 images of 20 classes."""
    rng = np.random.default_rng([seed, int(error * 10)])
    rank = np.ones(n, dtype=np.int64)
    rank[rng.permutation(n)[: int(n * error / 100)]] = 7
    known = np.where(np.arange(n) < n * train / 100, 7, 1)
    label = np.arange(n) % 20
    probability = np.full((n, 20), 0.01, dtype=np.float32)
    probability[np.arange(n), np.where(rank > 1, (label + 1 + seed) % 20, label)] = (
        0.5 if seed else 0.4
    )
    about = {
        "diverged": "",
        "log": [{"images_per_second": 100.0, "val_top1_error": error}],
        "seconds": 36.0,
        "commit": "c",
        "device": "d",
        "precision": "float32",
    }
    return Row(rank, known, probability, label, about)


def judged(errors, seeds=3, scale="subset", fitted=None, **changed):
    """Table 3 of rows with these errors, and the paper's training errors but for those `fitted` otherwise."""
    trained = {name: errors[0] for name, errors in zip(ROWS, tab3_ablations.PAPER, strict=True)} | (
        fitted or {}
    )
    rows = {
        name: [row(changed.get(name, e), seed, 20_000, trained[name]) for seed in range(seeds)]
        for name, e in zip(ROWS, errors, strict=True)
    }
    return tab3_ablations.judge(rows, replace(TINY, scale=scale), tab3_ablations.FIGURE)


def test_the_papers_own_numbers_reproduce_its_conclusions():
    paper = [errors[1] for errors in tab3_ablations.PAPER]
    result = judged(paper)
    assert result.verdict == "reproduced"
    assert set(result.measured["claims"].values()) == {"holds"}
    assert judged(paper, scale="smoke").verdict == "not comparable"
    assert result.measured[
        "rank correlation with the paper's rows, val top-1 (Spearman)"
    ] == pytest.approx(1)
    ours, theirs = (
        result.measured["cost in val top-1, points, with 95 % interval"],
        result.measured["cost in val top-1 in the paper, points"],
    )
    for name, (mean, low, high) in ours.items():
        assert low <= mean <= high
        assert mean == pytest.approx(theirs[name], abs=0.1), name
    assert result.measured["hours of training, all rows"] == pytest.approx(36 * 36 / 3600)


def test_other_numbers_do_not():
    paper = [errors[1] for errors in tab3_ablations.PAPER]
    claims = judged(paper, ZFNet=45.0).measured["claims"]
    assert claims["ZFNet's error is below AlexNet's"] == "does not hold"
    claims = judged(paper, **{"AlexNet without layers 6, 7": 70.0}).measured["claims"]
    assert (
        claims["removing layers 6 and 7 costs less than 50 % of removing all four"]
        == "does not hold"
    )
    assert claims["removing layers 3 and 4 costs less than 50 % of removing all four"] == "holds"
    claims = judged(paper, **{"ZFNet, layers 6, 7 of 8192": 60.0}).measured["claims"]
    assert (
        claims["the width of layers 6 and 7 costs less than 25 % of removing all four"]
        == "does not hold"
    )
    one = judged(paper, seeds=1, ZFNet=40.4).measured["claims"]
    assert one["ZFNet's error is below AlexNet's"] == "undecided"  # 0.1 points on 20,000 images
    chance = judged([94.0] * 12)
    assert (chance.verdict, chance.measured["claims"]) == ("not comparable", {})


def test_the_widest_overfits_where_it_errs_less_in_training_and_more_in_validation():
    paper, claim = [errors[1] for errors in tab3_ablations.PAPER], "widening layers 6 and 7 too overfits: the training error falls and the validation error rises"  # fmt: skip
    widest, wide = contrasts.COSTS[contrasts.WIDEST]
    said = {
        "holds": judged(paper),
        "does not hold": judged(paper, **{widest: 36.0}),
        "undecided": judged(paper, seeds=1, **{widest: 37.6}),
    }
    assert {word: result.measured["claims"][claim] for word, result in said.items()} == {
        word: word for word in said
    }
    assert judged(paper, fitted={widest: 30.0}).measured["claims"][claim] == "does not hold"
    assert judged(paper, fitted={widest: 18.8, wide: 18.8}).measured["claims"][claim] == "undecided"


def test_training_error_is_of_images_that_are_trained_on():
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
    chosen = row_arrays.epoch_rows(replace(TINY, per_class=5), images)
    assert np.bincount(labels[chosen]).tolist() == [5, 5, 5]
    assert sorted(set(labels[chosen[:8]])) == [0, 1, 2]  # a part of them is of all classes


def test_a_training_that_diverges_late_keeps_the_log_of_its_good_epochs(tree, quick, tmp_path):
    context = Context("imagenet65k", str(tree))
    images = ablation_images.load_images(context, TINY)
    lines = [{"epoch": epoch, "images_per_second": speed} for epoch, speed in ((1, 4.0), (2, 2.0))]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    arrays, about = row_arrays.diverged_row(TINY, images, tmp_path)
    assert about == {
        "epochs": 2,
        "log": lines,
        "seconds": 8 / 4.0 + 8 / 2.0,
    }  # two classes of four images in an epoch
    lost = Row(**arrays, about=about)
    assert (lost.error(5), lost.train_error()) == (100, 100)


def test_where_all_four_layers_cost_nothing_no_share_of_that_is_judged():
    paper = [errors[1] for errors in tab3_ablations.PAPER]
    claims = judged(paper, **{"AlexNet without layers 3, 4, 6, 7": 30.0}).measured["claims"]
    assert (
        claims.pop(
            "removing layers 3, 4, 6 and 7 costs more than removing 3, 4 and 6, 7 separately"
        )
        == "does not hold"
    )
    assert {word for claim, word in claims.items() if "of removing all four" in claim} == {
        "undecided"
    }


def test_networks_that_no_interval_tells_apart_are_not_compared():
    result = tab2_errors.judge(row(40.0, 1), [row(40.0, 2)], row(40.0, 3), TINY)
    assert (result.verdict, set(result.measured["claims"].values())) == (
        "not comparable",
        {"undecided"},
    )


def test_table_2_leaves_a_training_that_diverged_out_of_the_ensemble_and_says_so():
    ended = row(40.0, 3)
    ended = replace(ended, rank=np.full(2000, 25), probability=np.full((2000, 20), 0.05, np.float32), about=ended.about | {"diverged": "the loss is nan"})  # fmt: skip
    with_it, without = (tab2_errors.judge(row(45.0, 9), nets, row(38.0, 8), TINY) for nets in ([row(40.0, 1), row(40.0, 2), ended], [row(40.0, 1), row(40.0, 2)]))  # fmt: skip
    assert with_it.measured[tab2_errors.ERROR] == without.measured[tab2_errors.ERROR]
    assert with_it.measured["networks"] == without.measured["networks"]
    assert "left out of the means: ZFNet, seed 2: the loss is nan" in with_it.note
    alone = tab2_errors.judge(ended, [row(40.0, 1)], row(38.0, 8), TINY)
    assert alone.measured[tab2_errors.ERROR]["AlexNet (replica)"] == [100.0, 100.0]
    assert alone.verdict == "not comparable"
    wide = tab2_errors.judge(
        row(45.0, 9), [row(40.0, 1), row(40.0, 2)], replace(ended, label=row(1.0).label), TINY
    )
    assert (
        "ensemble of ZFNets (a)" in wide.measured[tab2_errors.ERROR],
        "ensemble of (a) and (b)" in wide.measured[tab2_errors.ERROR],
    ) == (
        True,
        False,
    )
    assert wide.measured["networks"] == {"ensemble of ZFNets (a)": 2}
    first = tab2_errors.judge(row(45.0, 9), [ended, row(40.0, 1), row(40.0, 2)], row(38.0, 8), TINY)
    assert first.measured[tab2_errors.ERROR]["ZFNet"] == [
        100.0,
        100.0,
    ]  # the first seed, as in Table 3


def test_an_interval_is_over_images_and_seeds():
    """By hand: the paired differences, and the spread of two rows with two seeds each."""
    rows = {
        "A": [row(45.0, 1), row(46.0, 2)],
        "B": [row(40.0, 3), row(42.0, 4)],
        "C": [row(50.0, 5)],
    }
    spread, freedom = seed_spread(rows, validation_misses)
    assert (spread, freedom) == (pytest.approx(((0.5 + 2.0) / 2) ** 0.5), 2)
    misses = {name: np.mean([100 * (r.rank > 1) for r in of], 0) for name, of in rows.items()}
    for one, other, seeds in (("A", "B", 0.5 + 0.5), ("C", "B", 1 + 0.5)):
        difference = misses[one] - misses[other]
        over_images = 1.96 * difference.std(ddof=1) / 2000**0.5
        half = (over_images**2 + (4.3027 * spread) ** 2 * seeds) ** 0.5
        mean, low, high = contrast(rows, [(1, one), (-1, other)], validation_misses)
        assert mean == pytest.approx(difference.mean())
        assert (mean - low, high - mean) == pytest.approx((half, half), rel=1e-4)
    assert seed_spread(rows, training_misses) == (0.0, 2)
    single = {name: of[:1] for name, of in rows.items()}
    assert seed_spread(single, validation_misses) == (0.0, 0)


def test_only_the_alexnet_and_zfnet_rows_are_repeated():
    trainings = ablations.trainings(PLANS["subset"])
    assert len(trainings) == 14
    assert [t for t in trainings if t[1]] == [("AlexNet", 1), ("ZFNet", 1)]


def mini_tree(root, images=12):
    """A tree with two of miniImageNet's classes, another class, and files of ImageNet's names."""
    wnids = ablation_images.mini_imagenet()[:2]
    for wnid in (*wnids, "n00000001"):
        for split in ("train", "val"):
            (root / split / wnid).mkdir(parents=True)
            for number in range(images):
                path = root / split / wnid / f"{wnid}{number:08d}.jpg"
                Image.new("RGB", (20, 20), (number, 0, 0)).save(path)
            Image.new("RGB", (20, 20)).save(root / split / wnid / f"{wnid}_7.JPEG")
    return wnids


def test_test_images_are_held_out_of_mini_imagenets_classes(tmp_path):
    wnids = mini_tree(tmp_path / "tree")
    context = Context("imagenet65k", str(tmp_path / "tree"))
    plan = replace(TINY, classes=-1, held_out=4, side=20, size=16)
    images = ablation_images.load_images(context, plan)
    names = {split: set(of.names) for split, of in images.items()}
    assert images["train"].wnids == images["val"].wnids == wnids
    assert (len(names["train"]), len(names["val"])) == (16, 8)
    assert not names["train"] & names["val"]
    assert not any("_7" in name for name in names["train"] | names["val"])
    assert [np.bincount(of.labels).tolist() for of in images.values()] == [[8, 8], [4, 4]]
    with pytest.raises(DataError, match="12 images, too few to hold out 7"):
        ablation_images.load_images(context, replace(plan, held_out=7))


def test_rows_are_trained_side_by_side(tmp_path, monkeypatch):
    """In separate processes: two seeds of the smallest network, then none again."""
    mini_tree(tmp_path / "tree")
    context = Context("imagenet65k", str(tmp_path / "tree"))
    plan = replace(TINY, epochs=1, parallel=2, held_out=4, classes=-1)
    images = ablation_images.load_images(context, plan)
    name = "AlexNet without layers 3, 4, 6, 7"
    rows = trained_rows.train_rows(context, plan, images, [(name, 0), (name, 1)])
    assert [len(of.rank) for of in rows[name]] == [8, 8]
    assert not np.array_equal(rows[name][0].about["log"], rows[name][1].about["log"])
    monkeypatch.setattr(trained_rows, "train", lambda *a, **k: pytest.fail("trained again"))
    again = trained_rows.train_rows(context, plan, images, [(name, 0), (name, 1)])
    assert [of.about for of in again[name]] == [of.about for of in rows[name]]


def test_an_ensemble_averages_probabilities():
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
    assert errors["ensemble of ZFNets (a)"][0] == pytest.approx(by_hand[0])
    assert errors["ensemble of ZFNets (a)"][0] < errors["ZFNet"][0] == pytest.approx(40.0)
    assert result.measured["claims"]["an ensemble of ZFNets beats one ZFNet"] == "holds"
    assert result.measured["networks"] == {
        "ensemble of ZFNets (a)": 5,
        "ensemble of (a) and (b)": 6,
    }
    assert tab2_errors.draw(result) == {}  # the pages show a table


def test_ranks_count_what_is_more_probable():
    probability = np.array([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3]])
    assert ranks(probability, np.array([0, 0])).tolist() == [3, 1]
    flat = np.full(
        (4, 4), 0.25
    )  # a network that says the same of all images is right by chance, not always
    assert ranks(flat, np.arange(4)).tolist() == [1, 2, 3, 4]


def test_the_default_scale_is_a_subset():
    assert plan_for(Context("imagenet65k", None)) is PLANS["subset"]
    assert plan_for(Context("imagenet65k", None, scale="paper")) is PLANS["paper"]
    assert set(ENSEMBLE) <= set(ROWS)


def test_all_four_layers_must_cost_more_than_their_pairs():
    paper = [errors[1] for errors in tab3_ablations.PAPER]
    claims = judged(paper, **{"AlexNet without layers 3, 4, 6, 7": 46.0}).measured["claims"]
    assert (
        claims["removing layers 3, 4, 6 and 7 costs more than removing 3, 4 and 6, 7 separately"]
        == "does not hold"
    )
    stuck = judged(paper, **{contrasts.COSTS["ZFNet, wider layers 3-5"][0]: 95.0})
    assert (stuck.verdict, stuck.measured["claims"]) == ("not comparable", {})


def test_hours_at_paper_scale_are_of_the_papers_image_size():
    whole, small = (rows.paper_scale_note(row(40.0), size) for size in (224, 112))
    hours = [int(text.split(" h:")[0].split()[-1].replace(",", "")) for text in (whole, small)]
    assert hours[0] == round(70 * 1.28e6 / 100 / 3600)
    assert 3 < hours[1] / hours[0] < 5
