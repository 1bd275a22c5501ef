"""Distributed runs: equal results in one and two processes, and errors that stop all."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest
import torch

import zfnet
from tests.conftest import ROOT
from tests.marks import posix
from tests.training import worker
from zfnet.data.tensor_file import read_tensors
from zfnet.training.config import parse
from zfnet.training.distributed import SINGLE_PROCESS, DistributedContext, ParallelError, join
from zfnet.training.loop import train
from zfnet.training.plan import plan_run
from zfnet.training.setup import TrainingError, with_sync_batchnorm

CONFIG = {
    "model": {
        "norm": "lrn",
        "channels": [4, 6, 6, 6, 6],
        "fc_units": 12,
        "size": 64,
        "dropout": 0.0,
        "input": "paper",
    },
    "optim": {"batch": 8, "lr": 0.05, "clip_rms": 0.1, "ema": 0.9},
    "augment": {"crops": "resized", "color": 0.2, "aspect": 1.2},
    "stages": [
        {"epochs": 2, "size": 64, "side": 64},
        {"epochs": 1, "size": 64, "side": 73, "shared_fc6": True, "frozen_layers": 2},
        {"epochs": 1, "size": 64, "side": 73},
    ],
    "precision": "float32",
}


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(json.dumps(CONFIG))  # JSON is YAML
    return path


def log(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def environment(**variables):
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | variables


def test_two_processes_give_the_results_of_one(config, tree, tmp_path):
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        "-m",
        "tests.training.worker",
    ]
    paths = [str(config), str(tree)]
    subprocess.run(
        [*launch, "work", *paths, str(tmp_path / "two")],
        env=environment(),
        cwd=ROOT,
        check=True,
        timeout=240,
    )
    worker.train_and_search(config, tree, tmp_path / "one", SINGLE_PROCESS, torch.device("cpu"))
    for one, two in zip(log(tmp_path / "one"), log(tmp_path / "two"), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
        assert (two["train_top1_error"], two["val_top1_error"]) == (
            one["train_top1_error"],
            one["val_top1_error"],
        )
    assert log(tmp_path / "one")[-1]["loss"] != log(tmp_path / "one")[0]["loss"]
    one, two = (read_tensors(tmp_path / run / "model.safetensors")[0] for run in ("one", "two"))
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-6)

    # With the same checkpoint, the tables must be identical.
    model = zfnet.load(tmp_path / "two" / "model.safetensors")
    images = zfnet.load_folder(tree / "train", side=73, size=64)
    groups = [i // 2 for i in range(len(images))]
    expected = {
        "top": zfnet.top_activations(model, images, ("conv1", "conv5"), 9, batch=4),
        "grouped": zfnet.top_activations(model, images, ("conv5",), 3, batch=5, groups=groups),
    }
    for name, table in expected.items():
        loaded = zfnet.TopActivations.load(tmp_path / "two" / f"{name}.safetensors")
        assert loaded.images == len(images)
        for layer, top in table.items():
            assert torch.equal(loaded[layer].index, top.index), name
            assert torch.equal(loaded[layer].position, top.position), name
            assert torch.equal(loaded[layer].value, top.value), name
    scores = zfnet.evaluate(model, images, batch=5, views=10)
    assert read_tensors(tmp_path / "two" / "top.safetensors")[1]["scores"] == [
        scores.top1,
        scores.top5,
        scores.n,
    ]
    assert sorted(p.name for p in (tmp_path / "two").glob("search*")) == ["search"]


@posix
def test_killed_process_stops_the_other(config, tree, tmp_path):
    for split, side in (("train", 64), ("train", 73), ("val", 64), ("val", 73)):
        zfnet.load_folder(tree / split, side=side, size=64)
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = str(probe.getsockname()[1])
    command = [
        sys.executable,
        "-m",
        "tests.training.worker",
        "die",
        str(config),
        str(tree),
        str(tmp_path / "run"),
    ]
    shared = {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": port,
    }
    processes = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(RANK=str(rank), LOCAL_RANK=str(rank), **shared),
        )
        for rank in range(2)
    ]
    assert processes[1].wait(timeout=120) == -signal.SIGKILL
    # Without the timeout of `join`, it would wait for 30 minutes.
    _, stderr = processes[0].communicate(timeout=120)
    assert processes[0].returncode == 2, stderr
    assert "process 0 of 2: another process died" in stderr
    _, meta = read_tensors(tmp_path / "run" / "state.safetensors")
    assert meta["progress"]["epoch"] == 1
    (tmp_path / "run" / "log.jsonl").touch()
    resumed = train(
        parse(CONFIG),
        lambda split, side: zfnet.load_folder(tree / split, side=side, size=64),
        tmp_path / "run",
        resume=True,
    )
    assert resumed.info["epochs"] == 4


def test_too_few_gpus_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name, value in (("RANK", 1), ("WORLD_SIZE", 2), ("LOCAL_RANK", 1), ("LOCAL_WORLD_SIZE", 2)):
        monkeypatch.setenv(name, str(value))
    with (
        pytest.raises(
            ParallelError,
            match="2 processes need a GPU each, and this machine has 1: use --nproc_per_node 1",
        ),
        join("cuda"),
    ):
        pass


def test_without_a_gpu_the_error_suggests_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for name, value in (("RANK", 1), ("WORLD_SIZE", 2), ("LOCAL_RANK", 1), ("LOCAL_WORLD_SIZE", 2)):
        monkeypatch.setenv(name, str(value))
    with pytest.raises(ParallelError, match="this machine has 0: use --device cpu"), join("cuda"):
        pass


def test_occupied_port_is_reported(monkeypatch):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        variables = (
            ("RANK", 0),
            ("WORLD_SIZE", 2),
            ("MASTER_ADDR", "127.0.0.1"),
            ("MASTER_PORT", listener.getsockname()[1]),
        )
        for name, value in variables:
            monkeypatch.setenv(name, str(value))
        with (
            pytest.raises(ParallelError, match="process 0 of 2 cannot reach the others"),
            join("cpu"),
        ):
            pass


@pytest.mark.skipif(torch.cuda.is_available(), reason="for a machine without a GPU")
def test_missing_device_is_named():
    with (
        pytest.raises(ParallelError, match="device 'cuda:3' cannot be used; available: auto, cpu$"),
        join("cuda:3"),
    ):
        pass


def test_distributed_batchnorm_is_rejected_on_cpu_before_the_run_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(DistributedContext, "gather", lambda self, item: [item])
    config = parse(
        CONFIG | {"model": {"norm": "batch", "channels": [4] * 5, "fc_units": 8, "size": 64}}
    )
    for _ in range(2):  # the first attempt must not leave a run behind
        with pytest.raises(TrainingError, match="BatchNorm in several processes needs GPUs"):
            train(
                config,
                lambda split, side: pytest.fail("loaded"),
                tmp_path / "run",
                distributed=DistributedContext(0, 2),
            )
    assert not (tmp_path / "run").exists()
    with pytest.raises(TrainingError, match="BatchNorm in several processes needs GPUs"):
        plan_run(config, torch.device("cpu"), DistributedContext(0, 2))


def test_sync_batchnorm_shares_its_weights_with_the_network():
    model = zfnet.zfnet(3, norm="batch", channels=(4,) * 5, fc_units=8, size=64)
    synced = with_sync_batchnorm(model)
    assert isinstance(synced.bn1, torch.nn.SyncBatchNorm)
    assert isinstance(synced.bn6, torch.nn.SyncBatchNorm)
    assert type(model.bn1) is torch.nn.BatchNorm2d
    assert all(a is b for a, b in zip(model.parameters(), synced.parameters(), strict=True))
    for name, tensor in model.state_dict().items():
        assert tensor.data_ptr() == synced.state_dict()[name].data_ptr(), name


def test_indivisible_batch_is_an_error(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(DistributedContext, "gather", lambda self, item: [item])
    config = parse(CONFIG | {"optim": {"batch": 9}})
    with pytest.raises(
        TrainingError, match="a batch of 9 cannot be divided evenly among 2 processes"
    ):
        train(
            config,
            lambda split, side: pytest.fail("loaded"),
            tmp_path / "run",
            distributed=DistributedContext(0, 2),
        )
