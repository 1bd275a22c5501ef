"""One way for the data to flow: a module imports only from its left. Only the commands and three files print or draw."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ORDER = [  # of design.md, section 1, with the modules that each stands on
    "options", "training.config", "training.distributed", "memory", "data", "labels", "normalization", "layers", "model", "summary", "tensor_file", "checkpoint", "networks", "fast", "reference", "validation", "operations", "tracing", "steps", "paper_names", "hooks", "graph",
    "layout", "shapes", "receptive_field", "outputs", "forward", "feature_extraction", "transpose", "layer_list", "deconv", "occlusion", "ranking", "batches", "units", "top", "projection", "attribution", "synthesis", "analysis",
    "training.feed", "training.evaluate", "training", "record", "rendering", "figure_style", "plot", "benchmarking", "explorer", "cli",
]  # fmt: skip
FILES = sorted((ROOT / "zfnet").rglob("*.py"))
WRITERS = {
    ROOT / "zfnet" / name for name in ("plot.py", "rendering.py", "record.py", "figure_style.py")
} | {path for folder in ("cli", "explorer") for path in (ROOT / "zfnet" / folder).glob("*.py")}


def module(name: str) -> str:
    """The entry of ORDER that a dotted name below `zfnet` belongs to; else its first part."""
    first, *rest = name.split(".")
    return f"{first}.{rest[0]}" if rest and f"{first}.{rest[0]}" in ORDER else first


def imports(path: Path) -> set[str]:
    """The zfnet modules that a file imports, as `module` names them."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.split(".")[0] in ("zfnet", "reproduce")
        ):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [
                alias.name
                for alias in node.names
                if alias.name.split(".")[0] in ("zfnet", "reproduce")
            ]
        else:
            continue
        found |= {
            module(name.removeprefix("zfnet.")) if name.startswith("zfnet.") else name.split(".")[0]
            for name in names
        }
    return found


@pytest.mark.parametrize(
    "path", [p for p in FILES if p.name != "__init__.py"], ids=lambda p: str(p.relative_to(ROOT))
)
def test_imports_only_from_the_left(path):
    own = module(".".join(path.relative_to(ROOT / "zfnet").with_suffix("").parts))
    if (
        own == "fast"
    ):  # accelerations know their references; `zfnet.fast` itself imports nothing of the library
        assert path.name == "__init__.py" or imports(path) <= {
            "fast",
            *ORDER[: ORDER.index("attribution")],
        }
        return
    allowed = set(
        ORDER[
            : ORDER.index(own)
            + (
                own
                in (
                    "data",
                    "attribution",
                    "synthesis",
                    "analysis",
                    "benchmarking",
                    "training",
                    "explorer",
                    "cli",
                )
            )
        ]
    ) - {"fast"}
    allowed |= {"zfnet"} if own == "cli" else set()  # for the version
    if own == "reference":  # the one module that asks for accelerations
        allowed |= {"fast"}
    assert imports(path) <= allowed, (
        f"{path.name} imports from its right: {imports(path) - allowed}"
    )


@pytest.mark.parametrize(
    "path", [p for p in FILES if p not in WRITERS], ids=lambda p: str(p.relative_to(ROOT))
)
def test_only_the_commands_and_three_files_print_or_draw(path):
    tree = ast.parse(path.read_text())
    calls = {
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    roots = {
        alias.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    roots |= {
        node.module.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
    }
    assert "print" not in calls
    assert "matplotlib" not in roots


def test_the_gallery_needs_no_torch(tmp_path):
    shutil.copytree(ROOT / "figures" / "imagenet65k" / "fig3", tmp_path / "imagenet65k" / "fig3")
    code = "import sys, runpy; sys.modules['torch'] = None; runpy.run_module('reproduce', run_name='__main__', alter_sys=True)"
    subprocess.run(
        [sys.executable, "-c", code, "gallery", "--out", str(tmp_path)], cwd=ROOT, check=True
    )
    assert (tmp_path / "index.html").exists()
