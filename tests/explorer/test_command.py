"""`zfnet explore`: its address, responses, Ctrl-C, ports, and errors."""

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.marks import posix
from zfnet.cli.main import main
from zfnet.explorer.atlas import find_atlas
from zfnet.explorer.server import PortError, Server

COMMAND = [sys.executable, "-m", "zfnet.cli", "explore", "--no-browser"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@posix
def test_server_responds_and_frees_its_port_on_interrupt(tmp_path):
    Image.new("RGB", (300, 300), "teal").save(tmp_path / "teal image.png")
    port = free_port()
    process = subprocess.Popen(
        [*COMMAND, str(tmp_path / "teal image.png"), "--port", str(port)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        address = process.stdout.readline()
        url, state = re.fullmatch(
            rf"open (http://127\.0\.0\.1:{port}/[\w-]{{32}}/)#image=(upload-\w{{16}})\n", address
        ).groups()
        with urllib.request.urlopen(f"{url}api/image?image={state}", timeout=60) as answer:
            assert answer.status == 200
        assert process.stdout.readline() == "Ctrl-C stops the server\n"
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert output == "\nstopped\n"
    Server(port).close()  # the port is free again


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nothing.jpg"], "nothing.jpg: No such file or directory"),
        (["--port", "99999999"], "port 99999999 cannot be used"),
        (["--token", "short"], "--token must have at least 16 letters, digits, - or _, got 'short'"),
        (["--token", "0123456789/../x#"], "--token must have at least 16 letters"),
        (["--atlas", "."], ". is not an atlas: it has no data/index.js"),
        (["--model", "nothing"], "no bundled network 'nothing'"),
    ],
)  # fmt: skip
def test_invalid_arguments_are_reported_on_one_line(
    tmp_path, monkeypatch, capsys, arguments, reason
):
    monkeypatch.chdir(tmp_path)
    assert main(["explore", "--no-browser", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"zfnet explore: {reason}")
    assert len(error.splitlines()) == 1


def test_file_that_is_not_an_image_is_reported_on_one_line(tmp_path, capsys):
    (tmp_path / "text.jpg").write_text("text")
    assert main(["explore", "--no-browser", "--port", "0", str(tmp_path / "text.jpg")]) == 2
    assert capsys.readouterr().err.startswith("zfnet explore: text.jpg: not a readable image")


def test_occupied_port_is_reported(server):
    with pytest.raises(PortError, match=f"port {server.port} is taken: choose another --port"):
        Server(server.port)


def test_free_port_is_chosen_if_the_default_is_occupied():
    first, second = Server(), Server()
    assert first.port != second.port
    assert first.token != second.token
    first.close()
    second.close()


def test_find_atlas_prefers_the_network_then_imagenet65k(tmp_path):
    assert find_atlas(tmp_path, "a") is None
    for corpus, checkpoint in (("samples", "b"), ("imagenet65k", "a"), ("animals", "a")):
        folder = tmp_path / "figures" / corpus / "atlas" / "data"
        folder.mkdir(parents=True)
        (folder / "index.js").write_text(f'ATLAS["index"] = {{"checkpoint":"{checkpoint}"}};\n')
    for checkpoint, corpus in (("a", "imagenet65k"), ("b", "samples"), ("c", "imagenet65k")):
        assert find_atlas(tmp_path, checkpoint) == tmp_path / "figures" / corpus / "atlas"
