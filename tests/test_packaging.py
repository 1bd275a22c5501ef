"""The distribution: version, wheel, sdist, lock file, torch.hub, and installation instructions."""

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
    """Return the files that git tracks or would add."""
    names = git("ls-files", "--cached", "--others", "--exclude-standard", "-z").split("\0")
    return [Path(name) for name in names if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def texts(sources) -> dict[str, str]:
    """Return the text files that could contain installation instructions, except this one."""
    kinds = {".md", ".py", ".toml", ".cff", ".yml", ".yaml", ".ipynb", ".html", ".lock", ""}
    paths = [
        p
        for p in sources
        if p.suffix in kinds and p.parts[0] != "figures" and p.name != Path(__file__).name
    ]
    return {str(path): (ROOT / path).read_text("utf-8") for path in paths}


def test_version_has_one_source():
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


def test_documents_use_the_repository_url_of_pyproject(texts):
    count = 0
    for name, text in texts.items():
        for address in re.findall(r"(?:github\.com/|hub\.load\(\s*['\"])([\w.-]+/zfnet)\b", text):
            assert address == SLUG, f"{name} has {address}, but pyproject.toml has {SLUG}"
            count += 1
    assert count > len(PROJECT["urls"])
    assert all(url == ADDRESS or url.startswith(f"{ADDRESS}/") for url in PROJECT["urls"].values())


def test_long_description_has_no_relative_links():
    """The package index shows README.md outside the repository, so links are absolute."""
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
        link = re.fullmatch(rf"{ADDRESS}/(blob|raw)/main/([^#]*)(#.*)?", target)
        if link:
            assert (ROOT / link[2]).exists(), target
            assert (link[1] == "raw") == link[2].endswith((".jpg", ".png", ".gif")), target
    assert f"]({ADDRESS}/raw/main/figures/" in text
    assert f"]({ADDRESS}/blob/main/MODEL_CARD.md)" in text
    badge = setup.absolute_links("[![build](docs/a.png)](docs/a.md) [b](#b) [c](mailto:d)", "A")
    assert badge == "[![build](A/raw/main/docs/a.png)](A/blob/main/docs/a.md) [b](#b) [c](mailto:d)"


def test_api_page_lists_every_public_name():
    documented = re.findall(
        r"^::: zfnet\.(\w+)$", (ROOT / "docs" / "api.md").read_text("utf-8"), re.MULTILINE
    )
    # METHODS is a dict; the page of `explain` lists its keys.
    assert sorted(documented) == sorted(set(zfnet.__all__) - {"METHODS"})


def test_instructions_do_not_install_another_project(texts):
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
        assert not (match := re.search(INSTALLS_ZFNET, text)), (
            f"{name}: {match[0]}: on PyPI, zfnet is another project"
        )


@posix
def test_makefile_installs_pytorch_without_cuda():
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


def test_lock_file_satisfies_pyproject():
    lines = (ROOT / "requirements.lock").read_text("utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    extras = PROJECT["optional-dependencies"]
    requirements = [
        *PROJECT["dependencies"],
        *(extras["analysis"] + extras["reproduce"] + extras["distill"] + extras["dev"]),
    ]
    for requirement in map(Requirement, requirements):
        name = canonicalize_name(requirement.name)
        if name != PROJECT["name"]:
            assert name in pins, f"requirements.lock has no {name}"
            assert pins[name] in requirement.specifier, (
                f"requirements.lock has {name} {pins[name]}, but pyproject.toml needs {requirement}"
            )
    recorded_versions = {
        json.loads(path.read_text("utf-8"))["environment"]["torch"].split("+")[0]
        for path in (ROOT / "figures").glob("*/*/result.json")
        if path.parent.parent.name != "samples"
    }
    assert pins["torch"] in recorded_versions, (
        "no committed result was recorded with the locked PyTorch"
    )


def test_torch_hub_loads_from_a_clone():
    def load(*arguments, **options):
        return torch.hub.load(str(ROOT), *arguments, source="local", **options)

    assert load("zfnet", 7, fc_units=8).fc8.out_features == 7
    assert type(load("alexnet", 7, fc_units=8)) is type(zfnet.alexnet(7, fc_units=8))
    model = load("pretrained")
    assert len(model.classes) == 1000
    assert model.info["sha256"] == zfnet.load("imagenet65k").info["sha256"]


def test_hubconf_lists_the_imported_dependencies():
    """torch.hub checks `dependencies` before importing, and names missing packages."""
    code = "import sys, hubconf; print(*{name.split('.')[0] for name in sys.modules})"
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    imports = {"pyyaml": "yaml", "pillow": "PIL"}
    core = {
        imports.get(name, name)
        for name in (Requirement(line).name for line in PROJECT["dependencies"])
    }
    imported = core & set(process.stdout.split())
    text = (ROOT / "hubconf.py").read_text("utf-8")
    listed = set(
        re.findall(
            r'"(\w+)"', re.search(r"^dependencies = \[(.*?)\]", text, re.MULTILINE | re.DOTALL)[1]
        )
    )
    assert "safetensors" in imported
    assert imported <= listed <= core


def test_reproduce_runs_only_from_a_clone(tmp_path):
    shutil.copytree(
        ROOT / "reproduce", tmp_path / "reproduce", ignore=shutil.ignore_patterns("__pycache__")
    )
    command = [sys.executable, "-m", "reproduce", "list"]
    process = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment_without_checkout(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode != 0
    assert "reproduce runs only from a clone of the repository" in process.stderr.splitlines()[-1]
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


def environment_without_checkout() -> dict[str, str]:
    """Return the environment variables without a path to the checkout."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@pytest.fixture(scope="module")
def distributions(sources, tmp_path_factory) -> SimpleNamespace:
    """Build the sdist from a copy of the working tree, and the wheel from the sdist."""
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
    process = subprocess.run(
        command,
        cwd=folder,
        env=environment_without_checkout(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return SimpleNamespace(sdist=sdist, wheel=wheel)


@pytest.fixture(scope="module")
def installed(distributions, tmp_path_factory) -> SimpleNamespace:
    """Install the wheel in a new environment that borrows PyTorch and the other dependencies."""
    folder = tmp_path_factory.mktemp("installed")
    builder = venv.EnvBuilder(with_pip=False, symlinks=os.name != "nt")
    builder.create(folder / "venv")
    context = builder.ensure_directories(folder / "venv")

    def run(*command: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            command,
            cwd=folder,
            env=environment_without_checkout(),
            capture_output=True,
            text=True,
            check=False,
        )

    print_packages = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(run(context.env_exe, "-c", print_packages).stdout.strip())
    # This line adds a folder to sys.path without reading its .pth files, so editable installs are ignored.
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
        str(distributions.wheel),
    ]
    process = run(*pip)
    assert process.returncode == 0, process.stdout + process.stderr
    return SimpleNamespace(
        folder=folder,
        packages=packages,
        run=run,
        python=context.env_exe,
        script=str(Path(context.bin_path) / "zfnet"),
    )


@pytest.mark.slow
def test_wheel_and_sdist_contain_only_zfnet(distributions):
    library = {path.relative_to(ROOT).as_posix() for path in (ROOT / "zfnet").rglob("*.py")}
    library |= {
        "zfnet/py.typed",
        *(f"zfnet/weights/{path.name}" for path in (ROOT / "zfnet/weights").glob("*.safetensors")),
    }
    with zipfile.ZipFile(distributions.wheel) as wheel:
        names = set(wheel.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        fields = email.message_from_bytes(wheel.read(metadata))
    assert (fields["Name"], fields["Version"]) == (PROJECT["name"], zfnet.__version__)
    assert fields["Description-Content-Type"] == "text/markdown"
    description = fields.get_payload(decode=True).decode()
    # Relative links are broken on the package index.
    assert not re.search(r"\]\((?!https:|#)", description)
    assert f"]({ADDRESS}/blob/main/MODEL_CARD.md)" in description
    assert {name for name in names if ".dist-info/" not in name} >= library
    assert {name.split("/")[0] for name in names} == {"zfnet", metadata.split("/")[0]}
    assert f"{metadata.split('/')[0]}/licenses/LICENSE" in names

    with tarfile.open(distributions.sdist) as sdist:
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
def test_wheel_runs_outside_the_repository(installed):
    def zfnet_command(*arguments: str) -> str:
        process = installed.run(installed.script, *arguments)
        assert process.returncode == 0, process.stderr
        return process.stdout

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
    process = installed.run(installed.python, "-c", block)
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip() in zfnet.load("imagenet65k").classes
    for name in ("project", "explain", "occlude"):
        with Image.open(installed.folder / f"{name}.png") as picture:
            assert min(picture.size) > 300
            low, high = picture.convert("L").getextrema()
            assert high - low > 100
