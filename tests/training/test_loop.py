"""The training loop: learning, bit-exact resume after kill -9, and stopping at wrong input."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import zfnet
from tests.marks import posix
from zfnet.checkpoint import CheckpointError
from zfnet.cli import main
from zfnet.data.folders import load_folder
from zfnet.data.io import file_lock
from zfnet.data.tensor_file import read_tensors, write_tensors
from zfnet.training.augment import augment
from zfnet.training.config import ConfigError, parse
from zfnet.training.constraints import clip_filters, share_fc6
from zfnet.training.distributed import DistributedContext
from zfnet.training.evaluate import evaluate
from zfnet.training.loop import DivergedError, train
from zfnet.training.optim import new_average, one_cycle
from zfnet.training.sampling import epoch_order
from zfnet.training.setup import TrainingError, resolve_precision

SMALL = {
    "model": {"norm": "batch", "channels": [4, 6, 6, 6, 6], "fc_units": 12, "size": 64},
    "optim": {"batch": 8, "lr": 0.01, "clip_rms": 0.1, "ema": 0.9, "patience": 1},
    "augment": {"crops": "resized", "color": 0.2, "aspect": 1.2},
    "stages": [{"epochs": 3, "size": 48, "side": 64}, {"epochs": 3, "size": 64, "side": 73}],
}


def loader(tree, size=64):
    return lambda split, side: load_folder(tree / split, side=side, size=size)


def test_log_has_one_line_per_epoch(scenes_run):
    lines = [json.loads(line) for line in (scenes_run / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, len(lines) + 1))
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    assert all(line["images_per_second"] > 0 for line in lines)


def test_resume_after_kill_9_is_bit_exact(tree, tmp_path, two_threads):
    """The killed runs are subprocesses; the complete run and the last resume are in this process."""
    config = SMALL | {
        "stages": [{"epochs": 15, "size": 48, "side": 64}, {"epochs": 15, "size": 64, "side": 73}],
        "snapshots": [2, 20],
    }
    path = tmp_path / "run.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML

    def command(out, *options):
        return [
            "train",
            str(path),
            "--data",
            str(tree),
            "--out",
            str(out),
            "--device",
            "cpu",
            *options,
        ]

    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    assert main(command(tmp_path / "whole")) == 0
    for lines_before_kill in (2, 9, 20):  # three kills, each at an arbitrary step
        resume = ["--resume"] if (tmp_path / "killed").exists() else []
        program = [sys.executable, "-m", "zfnet.cli", *command(tmp_path / "killed", *resume)]
        process = subprocess.Popen(program, env=environment, stderr=subprocess.DEVNULL)
        log = tmp_path / "killed" / "log.jsonl"
        while process.poll() is None and (
            not log.exists() or len(log.read_text().splitlines()) < lines_before_kill
        ):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "the run ended before it was killed"
    assert main(command(tmp_path / "killed", "--resume")) == 0

    for name in (
        "model.safetensors",
        "snapshots/epoch-002.safetensors",
        "snapshots/epoch-020.safetensors",
    ):
        complete, _ = read_tensors(tmp_path / "whole" / name)
        killed, _ = read_tensors(tmp_path / "killed" / name)
        assert complete.keys() == killed.keys()
        assert all(torch.equal(complete[key], killed[key]) for key in complete), name
    logs = [
        [json.loads(line) for line in (tmp_path / run / "log.jsonl").read_text().splitlines()]
        for run in ("whole", "killed")
    ]
    for a, b in zip(*logs, strict=True):
        assert a | {"images_per_second": 0} == b | {"images_per_second": 0}


def test_non_finite_loss_stops_and_keeps_the_last_state(tree, tmp_path, monkeypatch):
    config = parse(SMALL | {"stages": [{"epochs": 6, "size": 64, "side": 73}]})
    calls = {"n": 0}

    def poisoned(raw, *arguments):
        calls["n"] += 1
        x = augment(raw, *arguments)
        return x * float("nan") if calls["n"] > 7 else x  # three steps per epoch: in the third

    monkeypatch.setattr("zfnet.training.step.augment", poisoned)
    with pytest.raises(
        DivergedError,
        match=r"loss is nan at epoch 3, step \d; the last good state is .*state\.safetensors",
    ):
        train(config, loader(tree), tmp_path / "run")
    tensors, meta = read_tensors(tmp_path / "run" / "state.safetensors")
    assert meta["progress"]["epoch"] == 2
    assert all(t.isfinite().all() for t in tensors.values())
    assert not (tmp_path / "run" / "model.safetensors").exists()
    monkeypatch.undo()
    assert train(config, loader(tree), tmp_path / "run", resume=True).info["epochs"] == 6


@posix
def test_run_folder_is_locked(tree, tmp_path):
    (tmp_path / "run").mkdir()
    with (
        file_lock(tmp_path / "run" / "lock"),
        pytest.raises(TrainingError, match="another process trains in .*run"),
    ):
        train(parse(SMALL), loader(tree), tmp_path / "run")
    assert not (tmp_path / "run" / "state.safetensors").exists()


def test_images_changed_before_a_later_stage_stop_the_run(tree, tmp_path):
    config = parse(
        SMALL
        | {"stages": [{"epochs": 1, "size": 48, "side": 64}, {"epochs": 1, "size": 64, "side": 73}]}
    )

    def changing(split, side):
        if side == 73 and (tree / split / "n03000000").exists():
            (tree / split / "n03000000").rename(tree / split / "a")
        return loader(tree)(split, side)

    with pytest.raises(
        TrainingError,
        match=r"the images have changed during the run; the last good state is .*state\.safetensors",
    ):
        train(config, changing, tmp_path / "run")
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == 1


def test_stage_too_small_for_the_network_is_rejected_before_training(tree, tmp_path):
    config = parse(
        SMALL
        | {"stages": [{"epochs": 1, "size": 64, "side": 73}, {"epochs": 1, "size": 16, "side": 73}]}
    )
    with pytest.raises(
        TrainingError,
        match=r"stages\[1\]: images of 16 pixels are too small for the network's layers",
    ):
        train(config, loader(tree), tmp_path / "run")
    assert not (tmp_path / "run" / "log.jsonl").exists()


def test_checkpoint_is_not_accepted_as_training_state(tree, tmp_path):
    config = parse(SMALL | {"stages": [{"epochs": 1, "size": 64, "side": 73}]})
    train(config, loader(tree), tmp_path / "run")
    shutil.copy(tmp_path / "run" / "model.safetensors", tmp_path / "run" / "state.safetensors")
    with pytest.raises(
        TrainingError, match=r"state\.safetensors: a network, not the state of a run"
    ):
        train(config, loader(tree), tmp_path / "run", resume=True)


def test_existing_run_is_not_overwritten(tree, tmp_path):
    config = parse(SMALL | {"stages": [{"epochs": 1, "size": 64, "side": 73}]})
    train(config, loader(tree), tmp_path / "run")
    with pytest.raises(TrainingError, match="--resume"):
        train(config, loader(tree), tmp_path / "run")
    other = parse(SMALL | {"stages": [{"epochs": 2, "size": 64, "side": 73}], "seed": 4})
    with pytest.raises(TrainingError, match="seed, stages differ"):
        train(other, loader(tree), tmp_path / "run", resume=True)


def test_run_found_on_only_one_of_two_machines_is_an_error(tree, tmp_path):
    config = parse(SMALL | {"stages": [{"epochs": 1, "size": 64, "side": 73}]})

    @dataclass(frozen=True)
    class TwoMachines(DistributedContext):
        """This process and another one, which already has a run in its `out` folder."""

        def gather(self, item):
            return [item, True]

    for resume, message in ((False, "already has a run"), (True, "no run to resume")):
        with pytest.raises(TrainingError, match=message):
            train(config, loader(tree), tmp_path / "run", resume=resume, distributed=TwoMachines())
        assert not (tmp_path / "run").exists()


def test_resume_requires_the_same_images_at_any_path(tree, tmp_path):
    config = parse(
        SMALL | {"stages": [{"epochs": 2, "size": 64, "side": 73}], "data": {"path": str(tree)}}
    )
    train(config, loader(tree), tmp_path / "run")
    moved = replace(config, data=replace(config.data, path="elsewhere"))
    assert train(moved, loader(tree), tmp_path / "run", resume=True).info["epochs"] == 2
    for split in ("val", "train"):
        file = next((tree / split).glob("*/*"))
        content = file.read_bytes()
        file.unlink()
        with pytest.raises(TrainingError, match="trained on other images"):
            train(config, loader(tree), tmp_path / "run", resume=True)
        file.write_bytes(content)


def test_init_loads_the_weights_of_a_checkpoint(tree, tmp_path):
    config = parse(SMALL | {"stages": [{"epochs": 1, "size": 64, "side": 73}]})
    first = train(config, loader(tree), tmp_path / "first")
    zero_rate = parse(
        SMALL
        | {
            "stages": [{"epochs": 1, "size": 64, "side": 73}],
            "optim": SMALL["optim"] | {"lr": 0.0, "clip_rms": 0.0},
        }
    )
    second = train(
        zero_rate, loader(tree), tmp_path / "second", init=tmp_path / "first" / "model.safetensors"
    )
    assert torch.equal(first.conv3.weight, second.conv3.weight)
    assert second.info["init"]["log"] == first.info["log"]
    assert first.info["init"] is None


def test_run_interrupted_in_its_first_epoch_keeps_its_initial_weights(tree, tmp_path, monkeypatch):
    one_epoch = {"stages": [{"epochs": 1, "size": 64, "side": 73}]}
    first = train(parse(SMALL | one_epoch), loader(tree), tmp_path / "first")
    zero_rate = parse(SMALL | one_epoch | {"optim": SMALL["optim"] | {"lr": 0.0, "clip_rms": 0.0}})

    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("zfnet.training.step.augment", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(
            zero_rate,
            loader(tree),
            tmp_path / "second",
            init=tmp_path / "first" / "model.safetensors",
        )
    monkeypatch.undo()
    with pytest.raises(TrainingError, match="--resume"):
        train(zero_rate, loader(tree), tmp_path / "second")
    second = train(zero_rate, loader(tree), tmp_path / "second", resume=True)
    assert torch.equal(first.conv3.weight, second.conv3.weight)
    assert second.info["init"]["log"] == first.info["log"]


def test_states_are_saved_at_the_requested_interval(tree, tmp_path, monkeypatch):
    """A long interval saves the first and last state; the log of a resumed run has each epoch once."""
    config = parse(SMALL)
    default = train(config, loader(tree), tmp_path / "whole")
    first_and_last = train(config, loader(tree), tmp_path / "rarely", keep_every=1e9)
    calls = iter(range(13))  # three steps per epoch: in the fifth

    def interrupt(*arguments):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return augment(*arguments)

    monkeypatch.setattr("zfnet.training.step.augment", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(config, loader(tree), tmp_path / "killed", keep_every=1e9)
    monkeypatch.undo()
    assert read_tensors(tmp_path / "killed" / "state.safetensors")[1]["progress"]["epoch"] == 0
    assert len((tmp_path / "killed" / "log.jsonl").read_text().splitlines()) == 4
    resumed = train(config, loader(tree), tmp_path / "killed", resume=True, keep_every=1e9)
    assert len((tmp_path / "killed" / "log.jsonl").read_text().splitlines()) == 6
    for a, b, c in zip(
        *(run.state_dict().values() for run in (default, resumed, first_and_last)), strict=True
    ):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


def test_training_preserves_the_global_random_state(tree, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    train(
        parse(SMALL | {"stages": [{"epochs": 1, "size": 64, "side": 73}]}),
        loader(tree),
        tmp_path / "run",
    )
    assert torch.equal(torch.rand(1), expected)


def test_paper_recipe_trains_with_the_mean_image(tree, tmp_path):
    config = parse({
        "model": {"norm": "lrn", "input": "paper", "fc_units": 8, "channels": [4, 4, 4, 4, 4], "size": 64},
        "optim": {"batch": 8}, "stages": [{"epochs": 1, "size": 64, "side": 73}], "precision": "float32",
    })  # fmt: skip
    model = train(config, loader(tree), tmp_path / "run")
    images = load_folder(tree / "train", side=73, size=64)
    mean = images.pixels.astype(np.float64).mean(0).transpose(2, 0, 1)[:, 4:68, 4:68]
    np.testing.assert_allclose(model.input.mean.numpy(), mean, atol=1e-3)
    rms = model.conv1.weight.pow(2).mean((1, 2, 3)).sqrt()
    assert rms.max() <= 0.1 + 1e-6


def test_plateau_divides_the_learning_rate_by_ten(tree, tmp_path):
    config = parse(
        SMALL
        | {
            "optim": SMALL["optim"] | {"lr": 1e-12},
            "stages": [{"epochs": 4, "size": 64, "side": 73}],
        }
    )
    log = train(config, loader(tree), tmp_path / "run").info["log"]
    assert [line["lr"] for line in log] == pytest.approx([1e-12, 1e-12, 1e-13, 1e-14])


@pytest.mark.parametrize(("amx", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_auto_precision_is_bfloat16_only_where_it_is_fast(
    tree, tmp_path, monkeypatch, amx, expected
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": amx}, raising=False)
    config = parse(SMALL | {"stages": [{"epochs": 1, "size": 48, "side": 64}]})
    assert config.precision == "auto"
    auto = train(config, loader(tree), tmp_path / "auto")
    assert auto.info["config"]["precision"] == expected
    explicit = train(replace(config, precision=expected), loader(tree), tmp_path / "said")
    assert all(
        torch.equal(a, b) for a, b in zip(auto.parameters(), explicit.parameters(), strict=True)
    )


def test_resolve_precision_changes_only_auto(monkeypatch):
    config, cpu, cuda = parse({}), torch.device("cpu"), torch.device("cuda")
    # As in older releases of PyTorch.
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert resolve_precision(config, cpu).precision == "float32"
    for supported, expected in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(
            torch.cuda,
            "is_bf16_supported",
            lambda including_emulation, supported=supported: supported,
        )
        assert resolve_precision(config, cuda).precision == expected
    explicit = parse({"precision": "bfloat16"})
    assert resolve_precision(explicit, cpu) is explicit


def test_clip_filters_limits_the_rms_and_preserves_small_filters():
    conv = torch.nn.Conv2d(3, 2, 5)
    with torch.no_grad():
        conv.weight[0] = 0.5
        conv.weight[1] = 0.01
    clip_filters(conv, 0.1)
    torch.testing.assert_close(conv.weight[0], torch.full((3, 5, 5), 0.1))
    torch.testing.assert_close(conv.weight[1], torch.full((3, 5, 5), 0.01))


def test_shared_fc6_sees_the_mean_of_each_map():
    network = zfnet.zfnet(
        classes=3, fc_units=5, channels=(4, 4, 4, 4, 6), size=128, norm="none"
    ).eval()
    x = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    dense = network[[name for name, _ in network.named_children()].index("fc6")]
    maps, summed = network.table[-1].channels, dense.weight.detach().view(5, 6, -1).sum(2)
    share_fc6(network)
    places = dense.weight.view(5, maps, 9)
    assert torch.equal(places, places[..., :1].expand_as(places))
    torch.testing.assert_close(places.detach().sum(2), summed)
    pooled = zfnet.trace(network, x)["pool5"].mean((2, 3))
    torch.testing.assert_close(
        dense(network.flatten(zfnet.trace(network, x)["pool5"])), pooled @ summed.T + dense.bias
    )


def test_stages_share_and_freeze_the_requested_layers(tree, tmp_path):
    def run(out, *stages, **options):
        stages = [{"epochs": 1, "size": 128, "side": 146} | stage for stage in stages]
        optim = SMALL["optim"] | {"ema": 0.0}  # averages include earlier steps
        config = SMALL | {"model": SMALL["model"] | {"size": 128}, "optim": optim, "stages": stages}
        return train(parse(config), loader(tree, 128), tmp_path / out, **options)

    def fc6_by_position(network):
        return network.fc6.weight.view(12, 6, 9)

    first = run("first", {"shared_fc6": True})
    assert torch.equal(
        fc6_by_position(first), fc6_by_position(first)[..., :1].expand_as(fc6_by_position(first))
    )
    checkpoint = tmp_path / "first" / "model.safetensors"
    second = run(
        "then",
        {"shared_fc6": True, "frozen_layers": 5, "size": 96},
        {"shared_fc6": True, "frozen_layers": 2},
        init=checkpoint,
    )
    unchanged = [
        torch.equal(a.weight, b.weight)
        for a, b in zip(first, second, strict=True)
        if isinstance(a, torch.nn.Conv2d)
    ]
    assert unchanged == [True, True, False, False, False]
    assert not torch.equal(first.fc6.weight, second.fc6.weight)
    assert torch.equal(
        fc6_by_position(second), fc6_by_position(second)[..., :1].expand_as(fc6_by_position(second))
    )
    assert all(parameter.requires_grad for parameter in second.parameters())
    last = run("last", {"frozen_layers": 7}, init=checkpoint)
    assert torch.equal(first.fc7.weight, last.fc7.weight)
    assert not torch.equal(first.fc8.weight, last.fc8.weight)
    separate = run("untied", {}, init=checkpoint)
    assert (fc6_by_position(separate) - fc6_by_position(separate)[..., :1]).abs().max() > 0


RESTARTS = [
    {"epochs": 2, "size": 48, "side": 64},
    {
        "epochs": 2,
        "size": 48,
        "side": 64,
        "restart": True,
        "optim": {"lr": 0.02, "warmup": 0.5, "ema": 0.5},
        "augment": {"color": 0.0},
    },
    {"epochs": 1, "size": 64, "side": 73, "restart": True, "optim": {"lr": 0.0}},
]
ONE_CYCLE = {"batch": 8, "lr": 0.05, "schedule": "one_cycle", "ema": 0.9, "clip_rms": 0.0}


def test_restart_starts_from_the_averaged_weights(tree, tmp_path):
    """A last cycle with learning rate 0 keeps the averaged weights of the previous cycle."""
    config = parse(SMALL | {"stages": RESTARTS, "optim": ONE_CYCLE, "snapshots": [2, 4, 5]})
    log = train(config, loader(tree), tmp_path / "run").info["log"]
    two, four, five = (
        read_tensors(tmp_path / "run" / "snapshots" / f"epoch-00{i}.safetensors")[0]
        for i in (2, 4, 5)
    )
    assert not torch.equal(two["conv3.weight"], four["conv3.weight"])
    assert torch.equal(four["conv3.weight"], five["conv3.weight"])
    # Three steps per epoch: each cycle has six steps and ends its cosine after its last one.
    first = [0.05 * one_cycle(step / 6, 0.2) for step in (2, 5)]
    second = [0.02 * one_cycle(step / 6, 0.5) for step in (2, 5)]
    assert [line["lr"] for line in log] == pytest.approx([*first, *second, 0])


def test_first_cycle_equals_a_run_of_this_cycle_alone(tree, tmp_path):
    config = SMALL | {"optim": ONE_CYCLE, "snapshots": [2]}
    train(parse(config | {"stages": RESTARTS}), loader(tree), tmp_path / "all")
    train(parse(config | {"stages": RESTARTS[:1]}), loader(tree), tmp_path / "first")
    snapshots = [tmp_path / run / "snapshots" / "epoch-002.safetensors" for run in ("all", "first")]
    tensors = [read_tensors(path)[0] for path in snapshots]
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])


@pytest.mark.parametrize("epoch", [3, 4, 5])
def test_run_with_restarts_resumes_bit_exactly(tree, tmp_path, epoch):
    """This includes a restart, where the saved state belongs to the previous cycle."""
    config = parse(SMALL | {"stages": RESTARTS, "optim": ONE_CYCLE})
    expected = train(config, loader(tree), tmp_path / "expected")

    def stop(progress):
        if progress.epoch == epoch:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, loader(tree), tmp_path / "run", report=stop)
    resumed = train(config, loader(tree), tmp_path / "run", resume=True)
    for a, b in zip(expected.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("epoch", [1, 3, 5])
def test_run_that_is_killed_within_an_epoch_resumes_bit_for_bit(tree, tmp_path, monkeypatch, epoch):
    """Also in the first epoch after a restart, and with the epoch's loss and accuracy."""
    monkeypatch.setattr("zfnet.training.loop.LOG_EVERY", 1)
    config = parse(SMALL | {"stages": RESTARTS, "optim": ONE_CYCLE})
    expected = train(config, loader(tree), tmp_path / "expected")

    def stop(progress):
        if progress.epoch == epoch and progress.step % 3 == 0:
            raise KeyboardInterrupt  # before the third and last step of the epoch is saved

    with pytest.raises(KeyboardInterrupt):
        train(config, loader(tree), tmp_path / "run", keep_every=1e-9, report=stop)
    progress = read_tensors(tmp_path / "run" / "state.safetensors")[1]["progress"]
    assert (progress["epoch"], progress["step"]) == (epoch - 1, 2)
    resumed = train(config, loader(tree), tmp_path / "run", resume=True, keep_every=1e-9)
    for a, b in zip(expected.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    lines = [
        [{k: v for k, v in line.items() if k != "images_per_second"} for line in net.info["log"]]
        for net in (expected, resumed)
    ]
    assert lines[0] == lines[1]


def test_snapshots_within_the_first_epoch(tree, tmp_path):
    config = parse(
        SMALL | {"stages": RESTARTS[:1], "optim": ONE_CYCLE, "snapshots": [0.01, 0.6, 1]}
    )
    train(config, loader(tree), tmp_path / "run")
    paths = sorted((tmp_path / "run" / "snapshots").iterdir())
    names = ["epoch-000.0100", "epoch-000.6000", "epoch-001"]  # after steps 1, 2 and 3
    assert [path.stem for path in paths] == names
    first, second, third = (read_tensors(path)[0]["conv1.weight"] for path in paths)
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)


def test_state_of_an_older_version_is_rejected(tree, tmp_path):
    config = parse(SMALL | {"stages": [{"epochs": 1, "size": 64, "side": 73}]})
    train(config, loader(tree), tmp_path / "run")
    tensors, meta = read_tensors(tmp_path / "run" / "state.safetensors")
    older = {key: meta[key] for key in ("config", "progress")}
    write_tensors(tmp_path / "run" / "state.safetensors", tensors, older)
    with pytest.raises(TrainingError, match="the state of an older version"):
        train(config, loader(tree), tmp_path / "run", resume=True)


def test_weight_average_has_a_warmup():
    """The n-th update has decay min(0.9, n / (n + 9)), also for buffers; counters are copied."""
    layer = torch.nn.BatchNorm1d(1)
    average, weight, mean = new_average(layer, 0.9), 1.0, 0.0
    for n in range(1, 100):
        layer.weight.data.fill_(float(n))
        layer.running_mean.fill_(-float(n))
        layer.num_batches_tracked.fill_(n)
        average.update_parameters(layer)
        decay = min(0.9, n / (n + 9))
        weight, mean = decay * weight + (1 - decay) * n, decay * mean - (1 - decay) * n
    assert float(average.module.weight.detach()) == pytest.approx(weight, rel=1e-5)
    assert float(average.module.running_mean) == pytest.approx(mean, rel=1e-5)
    assert int(average.module.num_batches_tracked) == 99


def test_frozen_layers_work_without_momentum(tree, tmp_path):
    stages = [{"epochs": 1, "size": 64, "side": 73} | more for more in ({}, {"frozen_layers": 2})]
    small = SMALL | {"optim": {"batch": 8, "momentum": 0.0}, "stages": stages}
    assert train(parse(small), loader(tree), tmp_path / "run").info["epochs"] == 2


def test_unfrozen_layers_start_with_zero_momentum(tree, tmp_path):
    """The last epoch has zero gradients, so that only momentum changes weights."""
    small = SMALL | {
        "optim": {"batch": 8, "lr": 0.05, "weight_decay": 0.0, "clip_rms": 0.0},
        "snapshots": [1, 2, 3],
    }
    stages = [
        {"epochs": 1, "size": 64, "side": 73} | more for more in ({}, {"frozen_layers": 2}, {})
    ]

    original, calls = F.cross_entropy, {"n": 0}

    def loss_then_zero(logits, y, **options):
        calls["n"] += 1
        if calls["n"] > 6:  # three steps per epoch
            return 0 * logits.sum()
        return original(logits, y, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zfnet.training.step.F.cross_entropy", loss_then_zero)
        train(parse(small | {"stages": stages}), loader(tree), tmp_path / "run")
    one, two, three = (
        read_tensors(tmp_path / "run" / "snapshots" / f"epoch-00{i}.safetensors")[0]
        for i in (1, 2, 3)
    )
    for name in ("conv1.weight", "conv2.weight"):
        assert torch.equal(one[name], two[name])
        assert torch.equal(two[name], three[name])
    assert not torch.equal(two["conv3.weight"], three["conv3.weight"])


DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
        ],
    ),
]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("device", DEVICES)
def test_run_with_all_kinds_of_stages_learns_and_resumes(tree, tmp_path, device, precision):
    """Interrupt it in a stage with frozen and shared layers; on a GPU, compare up to rounding."""
    stages = [
        {"epochs": 4, "size": 48, "side": 64},
        {"epochs": 4, "size": 48, "side": 64, "shared_fc6": True, "frozen_layers": 2},
        {"epochs": 2, "size": 64, "side": 73, "shared_fc6": True, "frozen_layers": 5},
    ]
    optim = {
        "batch": 8,
        "lr": 0.05,
        "schedule": "one_cycle",
        "ema": 0.9,
        "clip_rms": 0.0,
        "label_smoothing": 0.1,
    }
    config = parse(
        SMALL | {"stages": stages, "snapshots": [1, 6, 10], "optim": optim, "precision": precision}
    )
    complete = train(config, loader(tree), tmp_path / "whole", device=device)

    def stop(status):
        if status.epoch == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, loader(tree), tmp_path / "run", device=device, report=stop)
    resumed = train(config, loader(tree), tmp_path / "run", device=device, resume=True)
    losses = [[line["loss"] for line in run.info["log"]] for run in (complete, resumed)]
    assert losses[0][-1] < losses[0][0]
    assert losses[0] == (losses[1] if device == "cpu" else pytest.approx(losses[1], rel=0.05))
    assert {p.name for p in (tmp_path / "run" / "snapshots").iterdir()} == {
        f"epoch-{i:03d}.safetensors" for i in (1, 6, 10)
    }
    exact = {"rtol": 0, "atol": 0} if device == "cpu" else {"rtol": 0.1, "atol": 0.05}
    for a, b in zip(complete.state_dict().values(), resumed.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, **exact)
    fc6 = complete.fc6.weight.view(12, 6, -1)
    torch.testing.assert_close(fc6, fc6[..., :1].expand_as(fc6), rtol=1e-3, atol=1e-5)
    assert evaluate(complete.to(device), loader(tree)("val", 73), precision=precision).n == 9


def test_stage_that_freezes_every_layer_is_rejected_before_training(tree, tmp_path):
    stages = [{"epochs": 1, "size": 64, "side": 73, "frozen_layers": frozen} for frozen in (0, 8)]
    with pytest.raises(TrainingError, match="frozen_layers: 8 of 8 layers"):
        train(parse(SMALL | {"stages": stages}), loader(tree), tmp_path / "run")
    assert not (tmp_path / "run" / "log.jsonl").exists()


def test_per_class_limit_draws_the_same_number_from_each_class():
    labels = np.array([0] * 50 + [1] * 4 + [2] * 9)
    order = epoch_order(labels, 6, torch.Generator().manual_seed(1))
    assert np.bincount(labels[order]).tolist() == [6, 4, 6]
    assert len(set(order.tolist())) == len(order)
    another = epoch_order(labels, 6, torch.Generator().manual_seed(2))
    assert set(another[labels[another] == 0].tolist()) != set(order[labels[order] == 0].tolist())
    assert sorted(epoch_order(labels, 0, torch.Generator())) == list(range(63))


def test_one_cycle_warms_up_and_decays():
    rates = [one_cycle(progress, 0.2) for progress in np.linspace(0, 1, 101)]
    assert np.argmax(rates) == 20
    assert rates[0] == pytest.approx(0.1)
    assert rates[-1] == pytest.approx(0)
    assert rates == sorted(rates[:20]) + sorted(rates[20:], reverse=True)


def test_training_set_smaller_than_a_batch_is_an_error(tree, tmp_path):
    with pytest.raises(TrainingError, match="a batch of 64 is more than the 24 images of an epoch"):
        train(parse(SMALL | {"optim": {"batch": 64}}), loader(tree), tmp_path / "run")
    with pytest.raises(ConfigError):
        parse({"optim": {"batch": "many"}})


def test_non_finite_weights_are_not_saved(tree, tmp_path, monkeypatch):
    """Weights that become infinite in the last step of an epoch do not affect its loss."""
    calls = {"n": 0}

    def poisoned(model, limit):
        calls["n"] += 1
        if calls["n"] == 6:  # the last step of the second epoch
            model.conv1.weight.data.fill_(float("inf"))

    monkeypatch.setattr("zfnet.training.step.clip_filters", poisoned)
    config = parse(SMALL | {"stages": [{"epochs": 2, "size": 64, "side": 73}]})
    with pytest.raises(DivergedError, match="not finite after epoch 2; the last good state"):
        train(config, loader(tree), tmp_path / "run")
    tensors, meta = read_tensors(tmp_path / "run" / "state.safetensors")
    assert meta["progress"]["epoch"] == 1
    assert all(t.isfinite().all() for t in tensors.values())
    assert not (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.parametrize("split", ["train", "val"])
def test_class_missing_in_one_split_is_rejected_before_training(tree, tmp_path, split):
    shutil.rmtree(tree / split / "n03000000")
    with pytest.raises(TrainingError, match=f"1 classes have no folder in {split}/: n03000000"):
        train(parse(SMALL), loader(tree), tmp_path / "run")
    assert not (tmp_path / "run" / "log.jsonl").exists()


def test_full_disk_preserves_the_previous_state(tree, tmp_path, monkeypatch):
    """Simulate a full disk by the file size limit of the process, so that writing fails midway."""
    config = parse(SMALL | {"stages": [{"epochs": 2, "size": 64, "side": 73}]})
    resource = pytest.importorskip("resource")
    limit, size_limit = resource.getrlimit(resource.RLIMIT_FSIZE), 2000

    # After the second epoch's steps, before its state is written.
    def evaluate_then_limit(model, *arguments, **options):
        if evaluate_then_limit.calls:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size_limit, limit[1]))
        evaluate_then_limit.calls += 1
        return evaluate(model, *arguments, **options)

    evaluate_then_limit.calls = 0
    monkeypatch.setattr("zfnet.training.loop.evaluate", evaluate_then_limit)
    try:
        with pytest.raises(
            CheckpointError,
            match=r"state\.safetensors: cannot be written .*the one that was there is unchanged",
        ):
            train(config, loader(tree), tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    monkeypatch.undo()
    assert (tmp_path / "run" / "state.safetensors").stat().st_size > size_limit
    assert read_tensors(tmp_path / "run" / "state.safetensors")[1]["progress"]["epoch"] == 1
    assert not list((tmp_path / "run").glob(".*"))
    resumed, complete = (
        train(config, loader(tree), tmp_path / "run", resume=True),
        train(config, loader(tree), tmp_path / "whole"),
    )
    assert all(
        torch.equal(a, b)
        for a, b in zip(resumed.state_dict().values(), complete.state_dict().values(), strict=True)
    )


def test_init_from_another_architecture_names_the_first_mismatched_layer(tree, tmp_path):
    config = parse(SMALL | {"stages": [{"epochs": 1, "size": 64, "side": 73}]})
    train(config, loader(tree), tmp_path / "run")
    wide = parse(
        SMALL
        | {
            "model": SMALL["model"] | {"channels": [4, 6, 8, 6, 6]},
            "stages": [{"epochs": 1, "size": 64, "side": 73}],
        }
    )
    with pytest.raises(
        CheckpointError, match=r"conv3\.weight is \(6, 6, 3, 3\) in the checkpoint, \(8, 6, 3, 3\)"
    ):
        train(wide, loader(tree), tmp_path / "other", init=tmp_path / "run" / "model.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["batch", "lrn"])
@pytest.mark.parametrize("device", DEVICES)
def test_compiled_training_gives_the_same_losses(tree, tmp_path, monkeypatch, device, norm):
    """Train at two sizes, one of which needs adaptive pooling, and freeze a layer."""
    losses, compiled = [], []
    original = torch.compile
    monkeypatch.setattr(
        torch,
        "compile",
        lambda function, **options: compiled.append(function) or original(function, **options),
    )
    for compile_option in (False, True):
        # Compiled dropout draws different masks.
        model = SMALL["model"] | {"dropout": 0.0, "norm": norm}
        stages = [
            {"epochs": 1, "size": 48, "side": 64},
            {"epochs": 1, "size": 64, "side": 73, "frozen_layers": 1},
        ]
        options = {
            "model": model,
            "stages": stages,
            "compile": compile_option,
            "precision": "float32",
        }
        log = train(
            parse(SMALL | options), loader(tree), tmp_path / str(compile_option), device=device
        ).info["log"]
        losses.append([line["loss"] for line in log])
        assert bool(compiled) == compile_option
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
