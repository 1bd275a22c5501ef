"""The commands of python -m reproduce: options, errors, result folders and dry runs.

Commands and atlas addresses in the documents are checked too.
"""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import zfnet
from reproduce import costs, replication
from reproduce.__main__ import main
from reproduce.core import requirements
from reproduce.core.context import Context
from reproduce.core.discovery import discover
from reproduce.core.figure import Figure, Result
from reproduce.core.record import write_record
from reproduce.core.run import result_folder, run
from reproduce.parser import REPLICATION, build_parser
from reproduce.replication import MARKS
from reproduce.site import gallery
from reproduce.site.atlas.index import class_groups, describe_network
from tests.conftest import ROOT, random_he
from tests.reproduce.test_figures import record
from zfnet.cli import distill_labels
from zfnet.cli.main import main as zfnet_main
from zfnet.cli.parser import new_parser
from zfnet.data import folders
from zfnet.networks import imagenet_wnids
from zfnet.plot import new_figure
from zfnet.training.config import load_config
from zfnet.training.teacher import Teacher

DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "RESULTS.md",
    ROOT / "MODEL_CARD.md",
    *(ROOT / "docs").rglob("*.md"),
]
DOCUMENTS += (ROOT / "configs").glob("*.yaml")
COMMAND = re.compile(r"((?:\.venv/bin/)?(?:python -m reproduce|zfnet|torchrun)(?: +[^`\n#]+)?)")


def walk(parser):
    """Yield all arguments of a parser and its subcommands, with the name of the command."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                yield from ((name, inner) for _, inner in walk(sub))
        elif not isinstance(action, argparse._HelpAction):
            yield "", action


def test_every_argument_has_help_with_its_default():
    arguments = list(walk(build_parser()))
    assert len(arguments) > 30
    for name, action in arguments:
        assert action.help, (name, action.dest)
        if action.option_strings and not action.required:
            assert "(default: " in action.help, (name, action.dest)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["run", "faithfulness", "--model", "nonexistent.safetensors"],
            "--model has no effect on faithfulness",
        ),
        (
            ["run", "fig3", "--model", "nonexistent.safetensors"],
            "nonexistent.safetensors: no such file",
        ),
        (
            ["run", "faithfulness", "mlp_lines", "--data", "."],
            "--data has no effect on faithfulness, mlp_lines",
        ),
        (["run", "fig3", "--scale", "smoke"], "--scale has no effect on fig3"),
        (["run", "tab2", "--datasets", "."], "--datasets has no effect on tab2"),
        (["run", "faithfulness", "--weights", "random"], "--weights has no effect on faithfulness"),
        (["run", "fig3", "--weights", "random"], "only for torchvision:NAME"),
        (["all", "--datasets", "."], "--datasets has no effect on the figures of `all`"),
        (["all", "--scale", "smoke"], "--scale has no effect on the figures of `all`"),
        (["run", "tab4", "--datasets", "nope"], "nope: no such folder"),
        (["run", "tab4", "--data", "nope"], "nope: no such folder"),
        (["run", "tab2", "--scale", "paper"], "--scale paper needs ImageNet 2012"),
    ],
)
def test_unusable_options_are_reported_on_one_line(arguments, message, tmp_path, capsys):
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_option_used_by_one_of_the_figures_is_accepted():
    figures = [discover()[name].FIGURE for name in ("faithfulness", "fig2")]
    assert requirements.unused_option({"model": "m", "data": "d", "datasets": None}, figures) == ""


def test_paper_scale_on_a_small_tree_is_rejected(tree, capsys):
    assert main(["run", "tab3", "--scale", "paper", "--data", str(tree)]) == 2
    assert f"{tree} has 3 classes, 24 training and 9 validation images" in capsys.readouterr().err


def test_figure_that_cannot_run_gives_the_reason_and_exits_with_3(tmp_path, capsys):
    (tmp_path / "sets").mkdir()
    arguments = [
        "run",
        "tab4",
        "fig4",
        "--datasets",
        str(tmp_path / "sets"),
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(arguments) == 3
    lines = capsys.readouterr().out
    assert re.search(
        r"^tab4 .* not run .* Caltech-101 was not found; give .* --datasets\.$", lines, re.MULTILINE
    )
    assert re.search(r"^fig4 .* not run .* No tree of images to train on", lines, re.MULTILINE)
    assert "0 figures in" in lines
    assert main(arguments) == 3  # from the saved record


def test_without_data_an_earlier_result_is_preserved(tmp_path, capsys):
    (tmp_path / "sets").mkdir()
    folder = tmp_path / "out" / "caltech101" / "tab4"
    write_record(record(id="tab4", verdict="partial", scale="subset", files=[]), folder)
    assert (
        main(["run", "tab4", "--datasets", str(tmp_path / "sets"), "--out", str(tmp_path / "out")])
        == 3
    )
    assert f"Kept: {folder}." in capsys.readouterr().out
    assert json.loads((folder / "result.json").read_text())["verdict"] == "partial"


def save_small_network(path, seed):
    """Save a checkpoint of a small random network."""
    torch.manual_seed(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    model = zfnet.zfnet(3, channels=(4, 4, 4, 4, 4), fc_units=8, norm="none")
    zfnet.save(random_he(model) if seed == 0 else model, path)
    return str(path)


def script(inputs):
    def draw(result):
        figure = new_figure(2, 2)
        figure.subplots().imshow(result.arrays["values"])
        return {"small.png": figure}

    def compute(ctx):
        return Result({"values": np.eye(2)}, {}, "reproduced", n=1)

    figure = Figure("small", "Small", "It is small.", inputs, seed=0, time_budget=1)
    return SimpleNamespace(FIGURE=figure, compute=compute, draw=draw, __file__=__file__)


def test_results_of_another_network_go_to_a_separate_folder(tmp_path):
    out, trained = (
        tmp_path / "out",
        save_small_network(tmp_path / "runs" / "fast" / "model.safetensors", 0),
    )
    context = Context(trained, None)
    outcome = run(script(("model",)), context, out)
    assert outcome.folder == out / "samples@fast" / "small"
    assert outcome.record.inputs["model"] == "fast"
    # This figure uses no network.
    assert run(script(()), context, out).folder == out / "samples" / "small"
    other_context = Context(
        save_small_network(tmp_path / "elsewhere" / "fast" / "model.safetensors", 1), None
    )
    second = run(script(("model",)), other_context, out)
    assert second.folder == out / f"samples@fast-{other_context.checkpoint[:8]}" / "small"
    assert (
        json.loads((out / "samples@fast" / "small" / "result.json").read_text())["inputs"][
            "checkpoint"
        ]
        == context.checkpoint
    )
    tiny = Context(save_small_network(tmp_path / "tiny.safetensors", 0), None)
    assert result_folder(script(("top",)).FIGURE, tiny, out).parent.name == "samples@tiny"
    assert (
        result_folder(script(("model",)).FIGURE, Context("imagenet65k", None), out).parent.name
        == "samples"
    )
    pages = gallery.write(out)
    assert {path.parent.name for path in pages} == {
        "samples",
        "samples@fast",
        second.folder.parent.name,
    }
    assert "--model MODEL" not in (out / "samples" / "index.html").read_text()


def test_figures_that_need_our_networks_reject_torchvision(tmp_path):
    context = Context("torchvision:squeezenet1_1", None, weights="random")
    assert (
        result_folder(script(("model",)).FIGURE, context, tmp_path).parent.name
        == "samples@squeezenet1_1"
    )
    outcome = run(discover()["fig3"], context, tmp_path)
    assert (outcome.ran, outcome.record.verdict) == (False, "not run")
    assert (
        outcome.reason == "It needs a network of this package, and squeezenet1_1 is torchvision's."
    )
    assert outcome.record.inputs["model"] == "torchvision:squeezenet1_1"


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """Create a tree of the 1,000 ImageNet classes, with 12,000 hard links to one small JPEG."""
    root = tmp_path_factory.mktemp("trees") / "imagenet"
    for split, count in (("train", 10), ("val", 2)):
        for wnid in imagenet_wnids():
            folder = root / split / wnid
            folder.mkdir(parents=True)
            for i in range(count):
                source, path = root / "one.jpeg", folder / f"{wnid}_{i}.JPEG"
                if not source.exists():
                    Image.new("RGB", (48, 40), (90, 120, 60)).save(source)
                os.link(source, path)
    return root


def lines_of(output):
    return {line.split()[0]: line for line in output.splitlines() if line.strip()}


def test_listing_figures_imports_no_slow_packages():
    """`reproduce list` imports all scripts; these packages double its time."""
    code = (
        "import sys; from reproduce.core.discovery import discover; discover(); "
        "print(*{'torchvision.models', 'scipy.stats', 'sklearn', 'captum'} & set(sys.modules))"
    )
    run = [sys.executable, "-c", code]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout.split() == []


def test_dry_run_of_all_figures_decodes_no_images(imagenet, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(folders, "read_image", lambda path: pytest.fail(f"decoded {path}"))
    run_folder = tmp_path / "runs" / "imagenet"
    checkpoint = save_small_network(run_folder / "model.safetensors", 0)
    out = tmp_path / "out"
    assert (
        main(
            ["all", "--dry-run", "--data", str(imagenet), "--model", checkpoint, "--out", str(out)]
        )
        == 0
    )
    lines = lines_of(capsys.readouterr().out)
    automatic_ids = {name for name, module in discover().items() if not module.FIGURE.manual}
    assert automatic_ids <= set(lines)
    assert "2,000 images" in lines["fig2"]
    assert str(out / "imagenet@imagenet" / "fig2") in lines["fig2"]
    assert str(out / "imagenet" / "fig8") in lines["fig8"]
    assert not out.exists()
    names = ["tab2", "tab3", "fig4", "fig6", "tab4"]
    assert (
        main(
            [
                "run",
                *names,
                "--dry-run",
                "--scale",
                "subset",
                "--data",
                str(imagenet),
                "--device",
                "cpu",
            ]
        )
        == 3
    )
    lines = lines_of(capsys.readouterr().out)
    assert all(
        "subset" in lines[name] and "train" in lines[name].split()[1]
        for name in ("tab2", "tab3", "fig6")
    )
    assert lines["fig4"].split()[1] == "compute"  # from Table 3's ZFNet
    assert "--datasets" in lines["tab4"]
    assert "Nothing was computed." in lines["4"]


def test_dry_run_at_paper_scale_shows_the_cost(imagenet, capsys):
    arguments = ["run", "tab3", "--scale", "paper", "--data", str(imagenet), "--device", "cpu"]
    assert main([*arguments, "--dry-run"]) == 3
    line = lines_of(capsys.readouterr().out)["tab3"]
    work = costs.operations(discover()["tab3"].FIGURE, "paper")
    assert f" {work / costs.cpu_flops() / 3600:.1f} h " in line
    assert line.split()[1:4] == ["not", "run", "paper"]
    assert "10,000 training and 2,000 validation images" in line
    assert main(arguments) == 2
    assert "10,000 training and 2,000 validation images" in capsys.readouterr().err


def test_dry_run_of_a_figure_that_cannot_run_exits_with_3(tmp_path, capsys):
    arguments = ["--datasets", str(tmp_path), "--dry-run"]
    assert main(["run", "fig3", "--dry-run"]) == 0
    assert main(["run", "tab4", *arguments]) == 3
    assert "Caltech-101 not found" in capsys.readouterr().out


def test_unknown_id_suggests_similar_ones(capsys):
    assert main(["run", "fig33", "mnist_pcs"]) == 2
    error = capsys.readouterr().err
    assert "no figure fig33, mnist_pcs; did you mean fig3 or mnist_pca? available: fig1" in error
    assert main(["run", "qqq"]) == 2
    assert "no figure qqq; available: fig1" in capsys.readouterr().err


def test_closed_pipe_is_not_an_error():
    command = f"{sys.executable} -m reproduce list | head -1"
    process = subprocess.run(
        command, shell=True, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert process.stdout.startswith("fig1 ")
    assert not process.stderr


@pytest.mark.slow
def test_dry_run_of_the_paper_training(imagenet, capsys):
    arguments = [
        "train",
        str(ROOT / "configs" / "imagenet.yaml"),
        "--data",
        str(imagenet),
        "--dry-run",
        "--device",
        "cpu",
    ]
    assert zfnet_main(arguments) == 0
    output = capsys.readouterr().out
    assert "1000 classes" in output
    assert "10,000 images" in output


@pytest.mark.slow
def test_dry_run_of_distill_labels(imagenet, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(distill_labels, "load_folder", lambda *a, **k: pytest.fail("decoded"))
    teacher = Teacher("uniform", 16, lambda pixels: torch.full((len(pixels), 1000), 1e-3))
    monkeypatch.setattr(distill_labels, "efficientnet_lite", lambda variant: teacher)
    out = tmp_path / "labels.safetensors"
    arguments = ["--data", str(imagenet), "--out", str(out), "--minimum", "32", "--per-class", "8"]
    assert zfnet_main(["distill-labels", *arguments, "--dry-run"]) == 0
    output = capsys.readouterr().out
    assert "10,000 images in the tree; 8,000 would be labeled" in output
    assert "8,000 of them, of at least 32 pixels, by uniform: 4 crops each" in output
    assert not list(tmp_path.iterdir())


def test_multiply_adds_by_hand():
    """Count the convolutions of Fig. 3 (side^2 x maps x kernel^2 x input maps) and dense layers."""
    convolutions = [
        (110, 96, 7, 3),
        (26, 256, 5, 96),
        (13, 384, 3, 256),
        (13, 384, 3, 384),
        (13, 256, 3, 384),
    ]
    expected = sum(
        side**2 * maps * kernel**2 * in_maps for side, maps, kernel, in_maps in convolutions
    )
    expected += 6 * 6 * 256 * 4096 + 4096 * 4096 + 4096 * 1000
    config = load_config(ROOT / "configs" / "imagenet.yaml")
    assert costs.multiply_adds(config) == expected
    assert costs.training_operations(config, 10) == 6 * expected * 10 * 70
    assert costs.gtx_580_flops() * 12 * 86400 == pytest.approx(6 * expected * 1_281_167 * 70)


def test_paper_scale_is_the_recipe_of_the_paper():
    from reproduce.paper import ablations

    config = load_config(ROOT / "configs" / "imagenet.yaml")
    row = ablations.recipe(ablations.PLANS["paper"], "ZFNet", config.seed)
    assert (row.model, row.data, row.augment, row.optim, row.stages) == (
        config.model, config.data, config.augment, config.optim, config.stages,
    )  # fmt: skip
    assert config.snapshots == ablations.PAPER_SNAPSHOTS


def test_replication_page_is_current():
    page = REPLICATION.read_text("utf-8")
    assert page.partition(MARKS[0])[2].partition(MARKS[1])[0] == f"\n\n{replication.text()}\n"


def printed_commands():
    """Yield commands in code blocks, inline code and comments of configurations."""
    for path in DOCUMENTS:
        text = path.read_text("utf-8").replace("\\\n", " ")
        blocks = [m[1] for m in re.finditer(r"^(?:    |#   )(.+)$", text, re.MULTILINE)]
        blocks += [
            line
            for m in re.finditer(r"^```(?:bash|sh)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
            for line in m[1].splitlines()
        ]
        prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
        blocks += [" ".join(m[1].split()) for m in re.finditer(r"`([^`]+)`", prose)]
        for piece in (part.strip() for block in blocks for part in block.split("&&")):
            match = COMMAND.match(piece.removeprefix("srun "))
            if match:
                yield (
                    path.name,
                    re.split(r" {2,}|$", match[1], maxsplit=1)[0]
                    .strip()
                    .removeprefix(".venv/bin/"),
                )


def test_every_printed_command_parses_and_uses_its_options(capsys):
    scripts, count = discover(), 0
    for name, line in printed_commands():
        words = [word for word in shlex.split(line) if not word.startswith("$")]
        if words[0] == "torchrun":
            words = words[words.index("zfnet.cli") :]
        reproduce = words[:3] == ["python", "-m", "reproduce"]
        arguments = words[3:] if reproduce else words[1:]
        skipped = {"COMMAND", "CONFIG", "|"} & set(arguments[:2])
        if not arguments or skipped or (reproduce and "|" in arguments):
            continue  # the command's name alone
        try:
            options = (build_parser() if reproduce else new_parser()).parse_args(arguments)
        except SystemExit:
            error = capsys.readouterr().err
            if len(arguments) == 1 and "arguments are required" in error:
                continue  # the command's name alone
            pytest.fail(f"{name}: {line}: {error}")
        count += 1
        if reproduce and options.command == "run":
            assert set(options.ids) <= set(scripts), (name, line)
            values = {
                option: getattr(options, option)
                for option in ("data", "datasets", "model", "weights", "scale")
            }
            for option, value in values.items():
                figures = [scripts[id].FIGURE for id in options.ids]
                assert not requirements.unused_option({option: value}, figures), (name, line)
        if getattr(options, "config", None):
            assert (ROOT / options.config).exists(), (name, line)
    assert count > 60


def test_every_printed_atlas_address_has_a_page(tmp_path):
    """The atlas of the sample photographs has a page for each address in the documents."""
    features = describe_network(zfnet.load("imagenet65k"), None)[1]
    assert sum(map(len, features.values())) == 1376
    texts = [path.read_text("utf-8") for path in DOCUMENTS]
    addresses = {address for text in texts for address in re.findall(r"#/(conv\d)/(\d+)", text)}
    assert ("conv5", "17") in addresses
    assert all(int(number) in features[layer] for layer, number in addresses)


def test_atlas_search_maps_common_words_to_classes():
    model = zfnet.load("imagenet65k")
    groups = class_groups(model.classes)
    dogs = {model.classes[c] for c in groups["dog"]}
    assert {"Tibetan terrier", "Afghan hound", "Chihuahua"} <= dogs
    assert len(groups["dog"]) >= 118
    assert class_groups(["red", "blue"]) == {}
