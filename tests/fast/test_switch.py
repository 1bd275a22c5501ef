"""Disabling the accelerations, and the library without zfnet/fast."""

import inspect
import os
import shutil
import subprocess
import sys
from contextlib import suppress

import pytest
import torch

import zfnet
import zfnet.fast
from tests.conftest import ROOT
from zfnet import backprojection, deconv, occlusion, projection, top

REFERENCES = (
    deconv.backproject, backprojection.project_units, projection.project_search, occlusion.pass_images, occlusion.measure_covered,
    top.strongest_positions,
)  # fmt: skip

SCRIPT = """
import sys, torch, zfnet
torch.manual_seed(0)
torch.set_num_threads(1)
model = zfnet.zfnet(10, size=96, channels=(8, 12, 10, 10, 12), fc_units=16).double().eval()
images = torch.randn(4, 3, 96, 96, dtype=torch.float64)
top = zfnet.top_activations(model, images, ("conv1", "conv5"), 2)
p, q = zfnet.project(model, images, "conv4", 3, crop=True), zfnet.project(model, images[:1], "conv5", torch.arange(12))
o = zfnet.occlude(model, images[:2], 1, size=24, stride=12)
projections = {}
for layer, rank, part in zfnet.project_top(model, images, top):
    for i in range(len(rank)):
        projections[layer, int(part.channel[i]), int(rank[i])] = part.pixels[i]
result = [p.pixels, p.activation, q.pixels, q.position.double(), o.logit, o.activation, o.label.double()]
result += [top["conv5"].value.double(), top["conv5"].index.double(), top["conv5"].position.double()]
result += [projections[key] for key in sorted(projections)]
torch.save([result, sorted(name for name in sys.modules if name.startswith("zfnet.fast"))], sys.argv[1])
"""


def run_script(folder, path, **environment):
    """Return the results of SCRIPT, and the modules of zfnet.fast that it imported."""
    environment = os.environ | {"PYTHONPATH": str(folder)} | environment
    subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path)], cwd=folder, env=environment, check=True
    )
    return torch.load(path, weights_only=True)


def test_library_works_without_the_fast_folder(tmp_path):
    """Deleting or disabling zfnet/fast changes results only by the rounding of sums."""
    package = tmp_path / "without" / "zfnet"
    shutil.copytree(
        ROOT / "zfnet",
        package,
        ignore=shutil.ignore_patterns("fast", "__pycache__", "*.safetensors"),
    )
    (package / "fast" / "__pycache__").mkdir(parents=True)  # git leaves this folder behind
    fast, modules = run_script(ROOT, tmp_path / "fast.pt", ZFNET_FAST="1")
    assert {
        "zfnet.fast.patches",
        "zfnet.fast.batched",
        "zfnet.fast.incremental",
        "zfnet.fast.kernels",
    } <= set(modules)
    off, modules = run_script(ROOT, tmp_path / "off.pt", ZFNET_FAST="0")
    assert modules == ["zfnet.fast"]
    deleted, modules = run_script(tmp_path / "without", tmp_path / "deleted.pt")
    assert modules == []
    assert len(fast) == len(off) == len(deleted) > 40
    for a, b, c in zip(fast, off, deleted, strict=True):
        assert torch.equal(b, c)
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_disabled_restores_the_state():
    assert zfnet.fast.is_enabled()
    with zfnet.fast.disabled():
        assert not zfnet.fast.is_enabled()
        with zfnet.fast.disabled():
            pass
        assert not zfnet.fast.is_enabled()
    assert zfnet.fast.is_enabled()
    with suppress(RuntimeError), zfnet.fast.disabled():
        raise RuntimeError
    assert zfnet.fast.is_enabled()


@pytest.mark.parametrize("reference", REFERENCES, ids=lambda reference: reference.__name__)
def test_accelerations_have_the_signature_of_their_reference(reference):
    with zfnet.fast.disabled():
        assert zfnet.fast.choose(reference) is reference
    acceleration = zfnet.fast.choose(reference)
    assert acceleration.__module__.startswith("zfnet.fast.")
    assert inspect.signature(acceleration) == inspect.signature(reference)


def test_every_acceleration_has_a_reference():
    names = {f"{reference.__module__}.{reference.__qualname__}" for reference in REFERENCES}
    assert names == set(zfnet.fast.ACCELERATIONS)
