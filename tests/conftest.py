"""Shared fixtures: a temporary cache, small networks, and a scenes network trained once per run."""

import os
import shutil
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from filelock import FileLock
from hypothesis import settings
from hypothesis import strategies as st
from PIL import Image

import zfnet
import zfnet.fast
from zfnet.data.scenes import load_scenes
from zfnet.training.config import load_config
from zfnet.training.loop import train

ROOT = Path(__file__).resolve().parent.parent


def pytest_generate_tests(metafunc):
    """Run the tests marked `reference` both with the accelerations of zfnet/fast and without."""
    if metafunc.definition.get_closest_marker("reference"):
        metafunc.parametrize("acceleration", ["fast", "reference"], indirect=True)


@pytest.fixture(autouse=True)
def acceleration(request):
    """Run a test with "fast", or with the accelerations disabled for "reference"."""
    choice = getattr(request, "param", "fast")
    with zfnet.fast.disabled() if choice == "reference" else nullcontext():
        yield choice


def pytest_collection_modifyitems(items):
    """Run tests of the scenes network first, so that its training overlaps with other tests."""
    items.sort(key=lambda item: "scenes_run" not in getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Use a temporary cache folder, and the same hypothesis examples in every run."""
    settings.register_profile("deterministic", derandomize=True)
    settings.load_profile("deterministic")
    original = os.environ.get("ZFNET_CACHE")
    os.environ["ZFNET_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield Path(os.environ["ZFNET_CACHE"])
    os.environ.pop("ZFNET_CACHE") if original is None else os.environ.update(ZFNET_CACHE=original)


@pytest.fixture(scope="session", autouse=True)
def malloc_keeps_its_defaults():
    """Disable `zfnet.cli.memory.keep_freed_memory`, which would keep the peak memory of all tests."""
    with pytest.MonkeyPatch.context() as patch:
        mallopt = SimpleNamespace(mallopt=lambda parameter, value: 1)
        patch.setattr("zfnet.cli.memory.ctypes", SimpleNamespace(CDLL=lambda name: mallopt))
        yield


@pytest.fixture(scope="session")
def scenes_val():
    return load_scenes(500, seed=1, size=112, side=128)


@pytest.fixture(scope="session")
def scenes_run(tmp_path_factory, cache, scenes_val):
    """Train configs/scenes.yaml once for all pytest-xdist workers, and return the run folder."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    out = shared / "scenes-run"
    with FileLock(shared / "scenes-run.lock"):
        if not out.exists():
            config = load_config(ROOT / "configs" / "scenes.yaml")
            images = load_scenes(config.data.scenes, seed=0, size=112, side=128)
            # Train in a separate folder, so that the other worker never sees an incomplete run.
            training = tmp_path_factory.mktemp("training") / "scenes"
            train(config, lambda split, side: images if split == "train" else scenes_val, training)
            shutil.move(training, out)
    return out


@pytest.fixture(scope="session")
def scenes_net(scenes_run):
    return zfnet.load(scenes_run / "model.safetensors")


@pytest.fixture
def tree(tmp_path):
    """Write a small ImageNet-like tree: train and val, with three classes of noisy colored images."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 3)):
        for number, wnid in enumerate(("n01440764", "n02088094", "n03000000")):
            folder = tmp_path / "tree" / split / wnid
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 90, (70, 90, 3)).astype(np.uint8)
                pixels[..., number] += 120
                Image.fromarray(pixels).save(folder / f"{wnid}_{i}.JPEG")
    return tmp_path / "tree"


def random_he(model):
    """Set He weights and small random biases, so that every layer responds; return in eval mode."""
    torch.manual_seed(0)
    for module in model:
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            torch.nn.init.kaiming_normal_(module.weight)
            torch.nn.init.normal_(module.bias, std=0.1)
    return model.eval()


def narrow_vgg11(classes=7):
    """Return torchvision's VGG-11 with 1/8 of the channels and narrow dense layers."""
    torch.manual_seed(0)
    features = torchvision.models.vgg.make_layers(
        [8, "M", 16, "M", 32, 32, "M", 64, 64, "M", 64, 64, "M"]
    )
    # Skip initializing 120 million dense weights, which are replaced below.
    with torch.device("meta"):
        model = torchvision.models.VGG(features, init_weights=False)
    model.classifier = torch.nn.Sequential(
        torch.nn.Linear(64 * 49, 32), torch.nn.ReLU(True), torch.nn.Dropout(),
        torch.nn.Linear(32, 32), torch.nn.ReLU(True), torch.nn.Dropout(), torch.nn.Linear(32, classes),
    )  # fmt: skip
    return model.eval()


def random_layers(draw, *, oblong):
    """Draw up to three random convolutions with ReLU, optional pooling, and an image size."""
    torch.manual_seed(draw(st.integers(0, 999)))
    size = (draw(st.integers(24, 40)), draw(st.integers(24, 40)))
    modules, channels = [], 3
    for _ in range(draw(st.integers(1, 3))):
        rows = draw(st.integers(1, 5))
        kernel = (rows, draw(st.integers(1, 5)) if oblong else rows)
        stride, padding, dilation = (
            draw(st.integers(1, 3)),
            draw(st.integers(0, 2)),
            draw(st.integers(1, 2)),
        )
        modules += [
            torch.nn.Conv2d(channels, 4, kernel, stride, padding, dilation),
            torch.nn.ReLU(),
        ]
        channels = 4
        if draw(st.booleans()):
            modules.append(
                torch.nn.MaxPool2d(3, 2, draw(st.integers(0, 1)), ceil_mode=draw(st.booleans()))
            )
    return modules, size


@pytest.fixture
def two_threads():
    """Let torch use two threads, for results that could depend on the order of summation."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def plain_zfnet():
    """A ZFNet without normalization, for which Captum is an oracle."""
    return random_he(zfnet.zfnet(10, norm="none", fc_units=32))


@pytest.fixture(scope="session")
def photographs():
    """Three sample photographs as one batch (3, 3, 224, 224)."""
    return torch.cat(
        [zfnet.preprocess(zfnet.photograph(name)) for name in ("cat", "coffee", "astronaut")]
    )


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium with a fake webcam, shared because Playwright runs once per process."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="needs playwright: pip install playwright"
    )
    names = ("chromium", "chromium-browser", "google-chrome")
    executable = next((path for name in names if (path := shutil.which(name))), None)
    if executable is None:
        pytest.skip("needs Chromium: apt install chromium")
    fake_camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    arguments = ["--no-sandbox", "--disable-dev-shm-usage", *fake_camera]
    with playwright.sync_playwright() as api:
        instance = api.chromium.launch(executable_path=executable, args=arguments)
        yield instance
        instance.close()
