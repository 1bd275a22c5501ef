"""The structure in docs/architecture.md: imports, line limits, and the path of an image."""

import ast
import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import zfnet
import zfnet.fast
from tests.conftest import ROOT

PACKAGE = ROOT / "zfnet"
DOCUMENT = ROOT / "docs" / "architecture.md"
FILES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = sorted(
    path
    for folder in ("paper", "lectures", "bench")
    for path in (ROOT / "reproduce" / folder).rglob("*.py")
)

# A module imports only from its left, and from its own entry. An entry is a file or a folder; a
# file with an entry of its own is not part of its folder's.
ORDER = (
    "model.options", "training.config", "training.distributed",  # options and processes; no torch.nn
    "data",
    "normalization", "model", "checkpoint", "networks",
    "validation", "graph", "receptive_field", "acceleration", "outputs", "forward",
    "feature_extraction", "transpose", "layer_list",
    "deconv", "occlusion", "ranking", "units", "top", "backprojection", "projection",
    "attribution", "synthesis", "analysis",
    "training",
    "plot", "benchmarking", "explorer", "cli",
)  # fmt: skip

LIBRARY_LINES = 300  # of a file in zfnet/
FUNCTION_LINES = 60  # of a function in zfnet/, its docstring not counted
SCRIPT_LINES = 200  # of a figure's script
# Scripts above the limit. Shorten them and this list; do not add to it.
LONG_SCRIPTS = {
    "lectures/attribution/guided_units.py",
    "lectures/attribution/polar_bear.py",
    "lectures/synthesis/class_images.py", "lectures/synthesis/fooling.py",
    "lectures/synthesis/inversions.py",
}  # fmt: skip


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def entry(module: str) -> str:
    """The entry of ORDER that holds a module of zfnet, or the first part of its name."""
    parts = module.split(".")
    return ".".join(parts[:2]) if ".".join(parts[:2]) in ORDER else parts[0]


def imports(path: Path) -> set[str]:
    """The entries of zfnet that a file imports; "reproduce" for anything of reproduce/."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    parts = [name.split(".", 1) for name in names]
    return {entry(rest[0]) if rest and root == "zfnet" else root
            for root, *rest in parts if root in ("zfnet", "reproduce")}  # fmt: skip


@pytest.mark.parametrize(
    "path", [p for p in FILES if p != PACKAGE / "__init__.py" and p.parent.name != "fast"], ids=relative
)  # fmt: skip
def test_a_module_imports_only_from_its_left(path):
    module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
    own = entry(module)
    assert own in ORDER, f"give {own} a place in ORDER and in docs/architecture.md"
    allowed = {*ORDER[: ORDER.index(own) + 1]}
    if own == "acceleration":  # the only module that imports accelerations
        allowed |= {"fast"}
    if own == "cli":  # for the version
        allowed |= {"zfnet"}
    wrong = imports(path) - allowed
    assert not wrong, f"{relative(path)} imports from its right: {', '.join(sorted(wrong))}"


def test_modules_import_from_packages_and_not_from_their_files():
    """The exception is model/options.py, which configurations need without a network."""
    pattern = re.compile(r"^from (zfnet\.(graph|model|plot)\.(?!options)\w+) import", re.M)
    for path in FILES:
        for module, package, *_ in pattern.findall(path.read_text()):
            assert path.parent == PACKAGE / package, f"{relative(path)} imports from {module}"


def test_accelerations_import_only_what_they_accelerate():
    """`zfnet.fast` itself imports no module of the library, which keeps the switch cheap."""
    allowed = {"fast", *ORDER[: ORDER.index("attribution")]}
    for path in (PACKAGE / "fast").glob("*.py"):
        assert imports(path) <= (set() if path.name == "__init__.py" else allowed), path.name


@pytest.mark.parametrize("folder", ["paper", "lectures", "bench", "core"])
def test_figures_import_no_other_figure(folder):
    """Scripts share what they need through modules that declare no FIGURE."""
    figures = {
        path.stem for path in SCRIPTS if re.search(r"^FIGURE = Figure\(", path.read_text(), re.M)
    }
    for path in (ROOT / "reproduce" / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("reproduce"):
                names = {*node.module.split("."), *(alias.name for alias in node.names)}
                assert not names & figures, f"{relative(path)} imports {names & figures}"


def test_files_and_functions_of_the_library_are_short():
    long = []
    for path in FILES:
        text = path.read_text()
        count = len(text.splitlines())
        if count >= LIBRARY_LINES:
            long.append(f"{relative(path)}: {count} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[0]
                doc = first.end_lineno - first.lineno + 1 if ast.get_docstring(node) else 0
                if (count := node.end_lineno - node.lineno + 1 - doc) > FUNCTION_LINES:
                    long.append(f"{relative(path)}: {node.name} has {count} lines")
    assert not long


def test_figure_scripts_are_short():
    lengths = {
        path.relative_to(ROOT / "reproduce").as_posix(): len(path.read_text().splitlines())
        for path in SCRIPTS
    }
    long = {name for name, count in lengths.items() if count > SCRIPT_LINES}
    assert long <= LONG_SCRIPTS, f"above {SCRIPT_LINES} lines: {long - LONG_SCRIPTS}"
    assert long >= LONG_SCRIPTS, f"remove these from LONG_SCRIPTS: {LONG_SCRIPTS - long}"
    assert len(PACKAGE.joinpath("deconv.py").read_text().splitlines()) <= 150


def has_image_data(value: object) -> bool:
    """Whether an argument contains the image or maps computed from it, not only their shape."""
    if isinstance(value, tuple | list):
        return any(has_image_data(part) for part in value)
    if isinstance(value, torch.Tensor):
        weight = isinstance(value, torch.nn.Parameter)
        return value.is_floating_point() and value.ndim > 1 and not (value.is_meta or weight)
    return isinstance(value, zfnet.forward.Trace)


def test_project_passes_an_image_through_six_files():
    """It passes each of them once, as docs/architecture.md describes."""
    files: list[str] = []

    def profile(frame, event, arg):
        path = Path(frame.f_code.co_filename)
        if event != "call" or PACKAGE not in path.parents or frame.f_code.co_name.startswith("<"):
            return
        arguments = inspect.getargvalues(frame)
        names = [*arguments.args, *filter(None, [arguments.varargs])]
        if any(has_image_data(arguments.locals[name]) for name in names):
            name = path.relative_to(PACKAGE).as_posix()
            if name not in files[-1:]:
                files.append(name)

    model, x = zfnet.load("imagenet65k"), torch.zeros(1, 3, 224, 224)
    with zfnet.fast.disabled():
        sys.setprofile(profile)
        try:
            zfnet.project(model, x, "conv5", 17)
        finally:
            sys.setprofile(None)
    assert files == [
        "projection.py", "validation.py", "backprojection.py", "forward.py", "units.py", "deconv.py",
    ]  # fmt: skip
    text = DOCUMENT.read_text()
    path = text[text.index("## The path of an image") : text.index("## Limits")]
    assert re.findall(r"^\d\. `zfnet/(\S+\.py)`", path, re.M) == files


def summary(path: Path) -> str:
    """The first sentence of a file's docstring."""
    doc = ast.get_docstring(ast.parse(path.read_text())) or ""
    return " ".join(doc.split("\n\n")[0].split())


def tree() -> str:
    """The list of all files of zfnet/ and reproduce/, folder by folder, in Markdown."""
    lines = []
    inits = [
        p for root in ("zfnet", "reproduce") for p in sorted((ROOT / root).rglob("__init__.py"))
    ]
    for init in inits:
        lines += [f"### `{relative(init.parent)}/`", "", summary(init), ""]
        files = sorted(path for path in init.parent.glob("*.py") if path != init)
        lines += [f"- `{path.name}`: {summary(path)}" for path in files] + [""] * bool(files)
    return "\n".join(lines)


def with_tree(text: str) -> str:
    """The text of docs/architecture.md with an updated list."""
    above, rest = text.split("<!-- tree -->\n")
    _, below = rest.split("<!-- /tree -->")
    return f"{above}<!-- tree -->\n\n{tree()}<!-- /tree -->{below}"


def test_document_lists_exactly_the_modules():
    text = DOCUMENT.read_text()
    assert "zfnet/deconv.py" in text
    assert text == with_tree(text), "run: python -m tests.test_architecture"


WRITERS = {
    path for folder in ("cli", "explorer", "plot") for path in (PACKAGE / folder).glob("*.py")
}


@pytest.mark.parametrize("path", [p for p in FILES if p not in WRITERS], ids=relative)
def test_only_commands_explorer_and_plots_print_or_draw(path):
    nodes = list(ast.walk(ast.parse(path.read_text())))
    calls = {n.func.id for n in nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    modules = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
    modules |= {n.module for n in nodes if isinstance(n, ast.ImportFrom) and n.module}
    assert "print" not in calls
    assert "matplotlib" not in {name.split(".")[0] for name in modules}


def test_gallery_needs_no_torch(tmp_path):
    shutil.copytree(ROOT / "figures" / "imagenet65k" / "fig3", tmp_path / "imagenet65k" / "fig3")
    code = (
        "import sys, runpy; sys.modules['torch'] = None; "
        "runpy.run_module('reproduce', run_name='__main__', alter_sys=True)"
    )
    subprocess.run(
        [sys.executable, "-c", code, "gallery", "--out", str(tmp_path)], cwd=ROOT, check=True
    )
    assert (tmp_path / "index.html").exists()


if __name__ == "__main__":
    DOCUMENT.write_text(with_tree(DOCUMENT.read_text()))
