"""The distribution: its names and versions, the wheel and sdist, the lock file, torch.hub, and what documents say of them."""

import email
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

import zfnet
from tests.conftest import ROOT
from tests.marks import posix

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
ADDRESS = PROJECT["urls"]["Repository"]
SLUG = ADDRESS.removeprefix("https://github.com/")  # owner/name
INSTALLS_ZFNET = r"\b(?:pip3? install|uv (?:add|pip install))\b[^\n]*?[\s'\"]zfnet(?![\w./-])"


def git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout


@pytest.fixture(scope="module")
def sources() -> list[Path]:
    """The files of the working tree that git tracks, or would add."""
    names = git("ls-files", "--cached", "--others", "--exclude-standard", "-z").split("\0")
    return [Path(name) for name in names if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def texts(sources) -> dict[str, str]:
    """Every text file in which a person or a tool could read how to install the project, but this one."""
    kinds = {".md", ".py", ".toml", ".cff", ".yml", ".yaml", ".ipynb", ".html", ".lock", ""}
    chosen = [
        p
        for p in sources
        if p.suffix in kinds and p.parts[0] != "figures" and p.name != Path(__file__).name
    ]
    return {str(path): (ROOT / path).read_text("utf-8") for path in chosen}


def test_the_version_has_one_source():
    assert "version" not in PROJECT
    assert "version" in PROJECT["dynamic"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert str(citation["version"]) == zfnet.__version__
    assert citation["repository-code"] == ADDRESS
    assert re.search(
        rf"^## \[?{re.escape(zfnet.__version__)}\b",
        (ROOT / "CHANGELOG.md").read_text("utf-8"),
        re.MULTILINE,
    )


def test_every_document_names_the_address_of_pyproject(texts):
    named = 0
    for name, text in texts.items():
        for address in re.findall(r"(?:github\.com/|hub\.load\(\s*['\"])([\w.-]+/zfnet)\b", text):
            assert address == SLUG, f"{name} names {address}, pyproject.toml {SLUG}"
            named += 1
    assert named > len(PROJECT["urls"])
    assert all(url == ADDRESS or url.startswith(f"{ADDRESS}/") for url in PROJECT["urls"].values())


def test_the_long_description_has_no_relative_link():
    """An index page shows README.md outside the repository, so its links name the address of pyproject."""
    spec = importlib.util.spec_from_file_location("setup", ROOT / "setup.py")
    setup = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(setup)
    readme = (ROOT / "README.md").read_text("utf-8")
    text = setup.absolute_links(readme, ADDRESS)
    assert setup.absolute_links(text, ADDRESS) == text
    targets = re.findall(r"\]\(([^)]*)\)", text)
    assert len(targets) == len(re.findall(r"\]\(", readme)) > 20
    for target in targets:
        assert target.startswith(("https://", "#")), target
        found = re.fullmatch(rf"{ADDRESS}/(blob|raw)/main/([^#]*)(#.*)?", target)
        if found:
            assert (ROOT / found[2]).exists(), target
            assert (found[1] == "raw") == found[2].endswith((".jpg", ".png", ".gif")), target
    assert f"]({ADDRESS}/raw/main/figures/" in text
    assert f"]({ADDRESS}/blob/main/MODEL_CARD.md)" in text
    badge = setup.absolute_links("[![build](docs/a.png)](docs/a.md) [b](#b) [c](mailto:d)", "A")
    assert badge == "[![build](A/raw/main/docs/a.png)](A/blob/main/docs/a.md) [b](#b) [c](mailto:d)"


def test_the_api_page_lists_every_public_name():
    listed = re.findall(
        r"^::: zfnet\.(\w+)$", (ROOT / "docs" / "api.md").read_text("utf-8"), re.MULTILINE
    )
    assert sorted(listed) == sorted(
        set(zfnet.__all__) - {"METHODS"}
    )  # a dict: `explain` lists its keys


def test_nothing_tells_to_install_another_project(texts):
    for line in (
        "pip install zfnet",
        "pip install 'zfnet[dev]'",
        "pip install -U zfnet\n",
        "uv add zfnet",
    ):
        assert re.search(INSTALLS_ZFNET, line)
    for line in (
        "pip install zfnet-deconvnet",
        f"pip install git+{ADDRESS}",
        "pip install 'zfnet-deconvnet[dev]'",
    ):
        assert not re.search(INSTALLS_ZFNET, line)
    for name, text in texts.items():
        assert not (found := re.search(INSTALLS_ZFNET, text)), (
            f"{name}: {found[0]}: zfnet is another project there"
        )


@posix
def test_make_can_install_pytorch_without_cuda():
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("MAKEFLAGS", "MFLAGS", "TORCH")
    }

    def make(*arguments: str) -> subprocess.CompletedProcess:
        command = ["make", "--dry-run", "--what-if=pyproject.toml", "test", *arguments]
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )

    commands = [line for line in make("TORCH=cpu").stdout.splitlines() if "pip install" in line]
    assert [("torch torchvision --index-url" in line, "-e" in line) for line in commands] == [
        (True, False),
        (False, True),
    ]
    assert "--index-url" not in make().stdout
    assert "use TORCH=cpu" in make("TORCH=gpu").stderr


def test_the_lock_file_satisfies_pyproject():
    lines = (ROOT / "requirements.lock").read_text("utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    extras = PROJECT["optional-dependencies"]
    wanted = [
        *PROJECT["dependencies"],
        *(extras["analysis"] + extras["reproduce"] + extras["distill"] + extras["dev"]),
    ]
    for requirement in map(Requirement, wanted):
        name = canonicalize_name(requirement.name)
        if name != PROJECT["name"]:
            assert name in pins, f"requirements.lock has no {name}"
            assert pins[name] in requirement.specifier, (
                f"requirements.lock has {name} {pins[name]}, wanted: {requirement}"
            )
    made_with = {
        json.loads(path.read_text("utf-8"))["environment"]["torch"].split("+")[0]
        for path in (ROOT / "figures").glob("*/*/result.json")
        if path.parent.parent.name != "samples"
    }
    assert pins["torch"] in made_with, "no committed result was made with the locked PyTorch"


def test_torch_hub_loads_from_a_clone():
    def load(*arguments, **options):
        return torch.hub.load(str(ROOT), *arguments, source="local", **options)

    assert load("zfnet", 7, fc_units=8).fc8.out_features == 7
    assert type(load("alexnet", 7, fc_units=8)) is type(zfnet.alexnet(7, fc_units=8))
    model = load("pretrained")
    assert len(model.classes) == 1000
    assert model.info["sha256"] == zfnet.load("imagenet65k").info["sha256"]


def test_torch_hub_knows_what_is_imported():
    """hub.load checks `dependencies` before it imports anything, and names the package to install."""
    code = "import sys, hubconf; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    imports = {"pyyaml": "yaml", "pillow": "PIL"}
    core = {
        imports.get(name, name)
        for name in (Requirement(line).name for line in PROJECT["dependencies"])
    }
    needed = core & set(done.stdout.split())
    text = (ROOT / "hubconf.py").read_text("utf-8")
    named = set(
        re.findall(
            r'"(\w+)"', re.search(r"^dependencies = \[(.*?)\]", text, re.MULTILINE | re.DOTALL)[1]
        )
    )
    assert "safetensors" in needed
    assert needed <= named <= core


def test_reproduce_runs_only_from_a_clone(tmp_path):
    shutil.copytree(
        ROOT / "reproduce", tmp_path / "reproduce", ignore=shutil.ignore_patterns("__pycache__")
    )
    command = [sys.executable, "-m", "reproduce", "list"]
    done = subprocess.run(
        command, cwd=tmp_path, env=bare(), capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "reproduce runs only from a clone of the repository" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "figures").exists()


def test_workflows_and_hooks_are_valid_yaml():
    workflows = {
        path.stem: yaml.safe_load(path.read_text("utf-8"))
        for path in (ROOT / ".github/workflows").glob("*.yml")
    }
    matrix = workflows["ci"]["jobs"]["tests"]["strategy"]["matrix"]
    assert {name.split("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}
    supported = {
        line.rsplit(" ", 1)[1] for line in PROJECT["classifiers"] if "Python :: 3." in line
    }
    assert set(matrix["python"]) == supported
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]
    revisions = {
        repository["repo"].rsplit("/", 1)[-1]: repository.get("rev", "") for repository in hooks
    }
    (ruff,) = (
        Requirement(line)
        for line in PROJECT["optional-dependencies"]["dev"]
        if line.startswith("ruff")
    )
    assert revisions["ruff-pre-commit"].removeprefix("v") in ruff.specifier


def bare() -> dict[str, str]:
    """This environment without a path to the checkout."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@pytest.fixture(scope="module")
def built(sources, tmp_path_factory) -> SimpleNamespace:
    """The sdist of a copy of the working tree, and the wheel of that sdist."""
    folder = tmp_path_factory.mktemp("built")
    for path in sources:
        (folder / "copy" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, folder / "copy" / path)
    command = [
        sys.executable,
        "-m",
        "build",
        "--no-isolation",
        "--outdir",
        str(folder),
        str(folder / "copy"),
    ]
    done = subprocess.run(
        command, cwd=folder, env=bare(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return SimpleNamespace(sdist=sdist, wheel=wheel)


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory) -> SimpleNamespace:
    """A fresh environment outside the repository with the wheel; PyTorch and the rest are this environment's."""
    folder = tmp_path_factory.mktemp("installed")
    builder = venv.EnvBuilder(with_pip=False, symlinks=os.name != "nt")
    builder.create(folder / "venv")
    context = builder.ensure_directories(folder / "venv")

    def run(*command: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            command, cwd=folder, env=bare(), capture_output=True, text=True, check=False
        )

    about = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(run(context.env_exe, "-c", about).stdout.strip())
    # A plain line appends a folder to sys.path and reads none of its .pth files: no editable install is found.
    (packages / "this_environment.pth").write_text(
        str(distribution("torch").locate_file("")) + "\n", "utf-8"
    )
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        context.env_exe,
        "install",
        "--no-deps",
        "--no-index",
        str(built.wheel),
    ]
    done = run(*pip)
    assert done.returncode == 0, done.stdout + done.stderr
    return SimpleNamespace(
        folder=folder,
        packages=packages,
        run=run,
        python=context.env_exe,
        script=str(Path(context.bin_path) / "zfnet"),
    )


@pytest.mark.slow
def test_the_wheel_and_the_sdist_hold_zfnet_alone(built):
    library = {path.relative_to(ROOT).as_posix() for path in (ROOT / "zfnet").rglob("*.py")}
    library |= {
        "zfnet/py.typed",
        *(f"zfnet/weights/{path.name}" for path in (ROOT / "zfnet/weights").glob("*.safetensors")),
    }
    with zipfile.ZipFile(built.wheel) as wheel:
        names = set(wheel.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        about = email.message_from_bytes(wheel.read(metadata))
    assert (about["Name"], about["Version"]) == (PROJECT["name"], zfnet.__version__)
    assert about["Description-Content-Type"] == "text/markdown"
    description = about.get_payload(decode=True).decode()
    assert not re.search(
        r"\]\((?!https:|#)", description
    )  # relative links are dead on an index page
    assert f"]({ADDRESS}/blob/main/MODEL_CARD.md)" in description
    assert {name for name in names if ".dist-info/" not in name} >= library
    assert {name.split("/")[0] for name in names} == {"zfnet", metadata.split("/")[0]}
    assert f"{metadata.split('/')[0]}/licenses/LICENSE" in names

    with tarfile.open(built.sdist) as sdist:
        names = {name.split("/", 1)[1] for name in sdist.getnames() if "/" in name}
    assert library <= names
    assert {"pyproject.toml", "setup.py", "LICENSE", "README.md", "CITATION.cff"} <= names
    assert not {name.split("/")[0] for name in names} & {
        "reproduce",
        "tests",
        "figures",
        "configs",
        "hubconf.py",
    }


@pytest.mark.slow
def test_the_wheel_runs_from_anywhere(installed):
    def zfnet_command(*arguments: str) -> str:
        done = installed.run(installed.script, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    code = "import zfnet; print(zfnet.__file__, zfnet.__version__)"
    file, version = installed.run(installed.python, "-c", code).stdout.split()
    assert Path(file).is_relative_to(installed.packages)
    assert version == zfnet.__version__
    assert "No module named" in installed.run(installed.python, "-c", "import reproduce").stderr

    zfnet.photograph("cat").save(installed.folder / "cat.png")
    assert "62.4 M parameters" in zfnet_command("describe", "--arch", "zfnet")
    assert "conv5" in zfnet_command("project", "cat.png")
    assert "grad_cam" in zfnet_command("explain", "cat.png")
    assert "probability" in zfnet_command("occlude", "cat.png", "--size", "64", "--stride", "64")
    zfnet.photograph("cat").save(installed.folder / "my_cat.jpg")
    (block,) = re.findall(
        r"```python\n(import zfnet\n.*?)```", (ROOT / "docs/index.md").read_text("utf-8"), re.DOTALL
    )
    done = installed.run(installed.python, "-c", block)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in zfnet.load("imagenet65k").classes
    for name in ("project", "explain", "occlude"):
        with Image.open(installed.folder / f"{name}.png") as picture:
            assert min(picture.size) > 300
            low, high = picture.convert("L").getextrema()
            assert high - low > 100
