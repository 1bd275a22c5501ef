"""The arguments of `python -m reproduce`. Imports no torch, so that `--help` answers at once."""

from __future__ import annotations

import argparse
from pathlib import Path

from reproduce import FIGURES, REPOSITORY

ATLAS = FIGURES / "samples" / "atlas"
REPLICATION = REPOSITORY / "docs" / "replication.md"
SCALES = ("paper", "subset", "smoke")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands.

    Options that name inputs default to None, so that one without an effect can be refused.
    """
    parser = argparse.ArgumentParser(
        prog="python -m reproduce", description="Regenerate the paper's figures and tables."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_list(commands)
    _add_figures(commands)
    _add_pages(commands)
    _add_atlas(commands)
    return parser


def _add_list(commands) -> None:
    sub = commands.add_parser(
        "list",
        help="list the figures: id, title, inputs, whether they train, and whether their recorded "
        "results are current",
    )
    _add_out(sub)
    _add_data(sub)


def _add_figures(commands) -> None:
    texts = {
        "run": "compute the figures with the given ids; exits with 3 if one cannot be run",
        "all": "compute every figure that needs no training",
    }
    for name, text in texts.items():
        sub = commands.add_parser(name, help=text, description=f"{text.capitalize()}.")
        if name == "run":
            sub.add_argument(
                "ids", nargs="+", metavar="ID", help="ids of figures, as `list` shows them"
            )
        _add_data(sub)
        _add_network(sub)
        sub.add_argument(
            "--scale",
            choices=SCALES,
            help="size of the trainings of tab2, tab3, fig4 and fig6: paper (all of ImageNet, 70 "
            "epochs at 224 pixels), subset or smoke (default: subset)",
        )
        _add_out(sub)
        sub.add_argument(
            "--allow-dirty",
            action="store_true",
            help="write committed records from sources with uncommitted changes (default: refuse)",
        )
        sub.add_argument(
            "--force", action="store_true", help="replace existing results (default: keep them)"
        )
        sub.add_argument(
            "--dry-run",
            action="store_true",
            help="show what would be done, and do nothing (default: off)",
        )


def _add_pages(commands) -> None:
    sub = commands.add_parser(
        "gallery",
        help="write the HTML pages, results.csv, RESULTS.md, LECTURES.md and the README's table "
        "from recorded results",
    )
    _add_out(sub)
    sub = commands.add_parser(
        "site", help="write documents, gallery, lectures and atlas into one folder, to publish"
    )
    sub.add_argument(
        "--out",
        type=Path,
        default=REPOSITORY / "site",
        metavar="DIR",
        help="folder to write (default: site)",
    )
    sub = commands.add_parser(
        "replication", help="write the table of costs at the paper's scale into docs/replication.md"
    )
    sub.add_argument(
        "--out",
        type=Path,
        default=REPLICATION,
        metavar="FILE",
        help="page to update (default: docs/replication.md)",
    )


def _add_atlas(commands) -> None:
    sub = commands.add_parser(
        "atlas",
        help="write a page for every feature and class of a network; an interrupted run resumes",
    )
    sub.add_argument(
        "--data",
        metavar="PATH",
        help="ImageNet-like tree with val/<wnid>/*.JPEG, or imagenette "
        "(default: the sample photographs)",
    )
    _add_network(sub)
    sub.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="DIR",
        help="folder to write (default: figures/samples/atlas; with --compact, the atlas of the "
        "images' own folder in figures/)",
    )
    sub.add_argument(
        "--compact",
        action="store_true",
        help="write smaller pictures, less than 12 MB for all features and classes, as in the "
        "committed atlas (default: off)",
    )
    sub.add_argument(
        "--canonical",
        nargs="+",
        default=[],
        metavar="NAME",
        help="also draw these classes (by name) or features (as conv5/17) by gradient ascent "
        "(default: none)",
    )
    sub = commands.add_parser("look", help="write an interactive page for one image")
    sub.add_argument("image", type=Path, metavar="IMAGE", help="image file")
    _add_network(sub)
    sub.add_argument(
        "--atlas",
        type=Path,
        metavar="DIR",
        help="atlas in which the neighbors of the image's features are found "
        "(default: the committed one, else figures/samples/atlas)",
    )
    sub.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="folder to write")


def _add_data(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--data",
        metavar="PATH",
        help="ImageNet-like tree with val/<wnid>/*.JPEG (and train/ for figures that train), or "
        "imagenette to download it (default: the sample photographs of scikit-image)",
    )
    sub.add_argument(
        "--datasets",
        metavar="PATH",
        help="folder of torchvision's Caltech-101, Caltech-256, VOC 2012 and MNIST "
        "(default: datasets/ in the cache)",
    )


def _add_network(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--model",
        metavar="NAME",
        help="bundled network, checkpoint file (.safetensors), or torchvision:NAME such as "
        "torchvision:resnet18 (default: imagenet65k)",
    )
    sub.add_argument(
        "--weights",
        metavar="PATH",
        help="for torchvision:NAME: file of weights, or random "
        "(default: torchvision's pretrained weights)",
    )
    sub.add_argument(
        "--device",
        default="auto",
        metavar="NAME",
        help="cuda or cpu (default: cuda if available, else cpu)",
    )


def _add_out(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--out",
        type=Path,
        default=FIGURES,
        metavar="DIR",
        help="folder of the results (default: figures)",
    )
