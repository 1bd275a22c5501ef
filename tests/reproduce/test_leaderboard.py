"""The leaderboard: its page, its finding, and the comparison with other packages."""

import shutil

import pytest
import torch

from reproduce import REPOSITORY
from reproduce.bench import leaderboard_page, peers
from tests.networks import SIZE, small_zfnet

DOCS = REPOSITORY / "docs"


def row(method, metric, mean, better, control=False):
    values = {"method": method, "metric": metric, "mean": str(mean), "better": better}
    return values | {"control": str(control)}


def test_best_methods_by_hand():
    rows = [
        row("a", "pointing", 0.5, "higher"), row("b_c", "pointing", 0.7, "higher"),
        row("true mask", "pointing", 1.0, "higher", control=True),
        row("a", "sensitivity_n", 0.9, "higher"), row("b_c", "sensitivity_n", "", "higher"),
        row("a", "deletion", 0.2, "lower"), row("b_c", "deletion", 0.1, "lower"),
    ]  # fmt: skip
    best = leaderboard_page.best_methods(rows, ["pointing", "sensitivity n", "deletion"])
    assert best == {"b c": ["pointing", "deletion"], "a": ["sensitivity n"]}


def test_the_committed_page_is_made_from_the_tables(tmp_path):
    shutil.copytree(DOCS / "leaderboard", tmp_path / "leaderboard")
    leaderboard_page.write(tmp_path / "leaderboard")
    page = (tmp_path / "leaderboard.md").read_text()
    assert page == (DOCS / "leaderboard.md").read_text()
    _, ranks = page.split("## The finding: 7 metrics have ")
    assert int(ranks[0]) == ranks.split("Best are:")[1].split("Between")[0].count("\n- ")


def test_one_best_method_is_the_finding(tmp_path):
    (tmp_path / "metric-agreement.csv").write_text(
        ",pointing,deletion\npointing,1.00,1.00\ndeletion,1.00,1.00\n"
    )
    (tmp_path / "scenes.csv").write_text(
        "method,metric,mean,better,control\na,pointing,0.9,higher,False\n"
        "b,pointing,0.1,higher,False\na,deletion,0.1,lower,False\nb,deletion,0.9,lower,False\n"
    )
    text = leaderboard_page.agreement_ranges(tmp_path)
    assert "one method is the best under all 2 metrics" in text
    assert "- a: pointing, deletion" in text


def test_an_interrupted_comparison_with_packages_continues(tmp_path, monkeypatch):
    compared = []

    def fake_pairs(size):
        def peer(name):
            def method(model, x, target):
                compared.append(name)
                if len(compared) == 4:  # after three calls of the first peer
                    raise KeyboardInterrupt
                return x.sum(1, keepdim=True)

            return method

        return [("saliency", {}, name, peer(name)) for name in ("first", "second")]

    monkeypatch.setattr(peers, "pairs", fake_pairs)
    model, x, path = small_zfnet(), torch.rand(2, 3, SIZE, SIZE), tmp_path / "peers.jsonl"
    with pytest.raises(KeyboardInterrupt):
        peers.compare(model, x, path)
    rows = peers.compare(model, x, path)
    assert compared == ["first"] * 3 + ["second"] * 4
    assert [r[1] for r in rows] == ["first", "second"]
    assert all(len(r) == len(peers.HEADER) for r in rows)
    assert peers.compare(model, x, path) == rows
    peers.compare(model, x + 1, path)
    assert len(compared) == 13  # other images are compared anew
