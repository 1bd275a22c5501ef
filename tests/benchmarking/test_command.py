"""`zfnet bench`: output files, resume, custom methods, and invalid input."""

import csv

import pytest
import torch

import zfnet
from zfnet.cli import main

MODULE = """
def mine(model, x, target):
    return x.abs().mean(1, keepdim=True)

def wrong(model, x, target):
    return x[0]

number = 3
"""


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "net.safetensors"
    model = zfnet.zfnet(10, norm="batch", channels=(4,) * 5, fc_units=8, size=64)
    model.wnids = model.classes = zfnet.load_scenes(10, size=64, side=73).wnids
    zfnet.save(model.eval(), path)
    return path


@pytest.fixture
def command(checkpoint, tmp_path, monkeypatch):
    (tmp_path / "their_methods.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    out = tmp_path / "out"

    def run(*arguments):
        return main(
            ["bench", "--model", str(checkpoint), "-n", "6", "-o", str(out), *arguments]
        ), out

    return run


def test_command_writes_table_page_and_progress(command, capsys):
    arguments = ("--methods", "saliency,their_methods:mine", "--metrics", "pointing,deletion,speed")
    status, out = command(*arguments)
    assert status == 0
    assert f"wrote {out / 'index.html'}" in capsys.readouterr().out
    rows = list(csv.DictReader((out / "results.csv").open()))
    assert {row["method"] for row in rows if row["control"] == "False"} == {"saliency", "mine"}
    assert {row["n"] for row in rows} == {"6"}
    page = (out / "index.html").read_text()
    assert "<td>mine</td>" in page
    assert "<tr class=control><td>true mask</td>" in page
    assert 'src="results.png"' in page
    assert (out / "results.png").stat().st_size > 5000

    written = (out / "results.csv").read_text()
    lines = len((out / "progress.jsonl").read_text().splitlines())
    assert command(*arguments)[0] == 0  # all scores come from progress.jsonl
    assert (out / "results.csv").read_text() == written
    assert len((out / "progress.jsonl").read_text().splitlines()) == lines


def test_image_folders_need_known_classes_or_predicted_targets(command, tree, capsys):
    arguments = (
        "--methods",
        "saliency",
        "--metrics",
        "deletion",
        "--no-controls",
        "--data",
        str(tree),
    )
    assert command(*arguments)[0] == 2
    assert "the network has no output for 3 class folders" in capsys.readouterr().err
    status, out = command(*arguments, "--target", "predicted")
    assert status == 0
    assert "saliency" in (out / "results.csv").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "no_module:f"], "cannot import no_module"),
        (["--methods", "their_methods:f"], "their_methods has no function f"),
        (["--methods", "their_methods:number"], "not a function of (model, x, target)"),
        (["--methods", "their_methods:wrong"], "wrong must return a map (1, 1, 64, 64)"),
        (["--methods", "saliencies"], "unknown methods: saliencies"),
        (["--metrics", "pointer"], "unknown metrics: pointer"),
        (["-n", "0"], "limit must be at least 1"),
        (["--data", "nowhere"], "nowhere: no such folder"),
        (["-o", "their_methods.py"], "is a file; name a folder"),
    ],
)
def test_invalid_input_is_reported_on_one_line(command, capsys, arguments, message):
    assert command(*arguments)[0] == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
