"""`zfnet.explore` inside and outside a notebook."""

import re
import sys
import urllib.request

import pytest

import zfnet
from tests.conftest import ROOT
from zfnet.explorer.notebook import unavailable


def test_outside_a_notebook_the_error_names_the_alternative(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipykernel", object())  # imported, but not running
    with pytest.raises(RuntimeError, match="shows a frame in a notebook; elsewhere"):
        zfnet.explore(zfnet.mnist())


@pytest.mark.parametrize(
    ("variable", "reason"),
    [("SSH_CONNECTION", "over SSH"), ("JUPYTERHUB_API_URL", "on another machine")],
)
def test_remote_kernel_is_rejected(monkeypatch, variable, reason):
    monkeypatch.setattr("zfnet.explorer.notebook.runs_in_kernel", lambda: True)
    for name in ("SSH_CONNECTION", "JUPYTERHUB_API_URL"):
        monkeypatch.delenv(name, raising=False)
    assert unavailable() is None
    monkeypatch.setenv(variable, "x")
    assert reason in unavailable()


def test_notebook_shows_a_frame(monkeypatch):
    pytest.importorskip("ipykernel")
    manager = pytest.importorskip("jupyter_client.manager")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    kernel, client = manager.start_new_kernel(kernel_name="python3", startup_timeout=120)
    try:
        messages = []
        code = (
            "import torch, zfnet\nmodel = zfnet.mnist()\n"
            "zfnet.explore(model, torch.zeros(1, 3, 28, 28))"
        )
        client.execute_interactive(code, timeout=120, output_hook=messages.append)
        errors = [m["content"]["traceback"] for m in messages if m["msg_type"] == "error"]
        assert not errors
        (html,) = [
            m["content"]["data"]["text/html"] for m in messages if m["msg_type"] == "execute_result"
        ]
        assert 'allow="camera"' in html
        url, state = re.search(r'src="([^"#?]+)[^"#]*(#[^"]*)"', html).groups()
        assert state == "#image=given"
        with urllib.request.urlopen(url, timeout=60) as answer:
            assert (
                "frame-ancestors 'self' http://127.0.0.1:*"
                in answer.headers["content-security-policy"]
            )
        with urllib.request.urlopen(f"{url}api/image?image=given", timeout=60) as answer:
            assert answer.status == 200
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)
