"""Configurations: files, overrides of options and stages, and errors that name the key."""

import pytest

import zfnet
from tests.conftest import ROOT
from zfnet.training.config import ConfigError, load_config, parse, stage_configs, to_dict


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_config_file_loads_and_round_trips(path):
    config = load_config(path)
    assert config.name == path.stem
    assert parse(to_dict(config)) == config


def test_imagenet_config_matches_the_paper():
    config = load_config(ROOT / "configs" / "imagenet.yaml")
    assert (config.optim.lr, config.optim.momentum, config.optim.batch, config.optim.clip_rms) == (
        0.01,
        0.9,
        128,
        0.1,
    )
    assert (config.model.norm, config.model.fc_units, config.model.dropout, config.model.input) == (
        "lrn",
        4096,
        0.5,
        "paper",
    )
    assert (config.augment.crops, config.optim.schedule) == ("paper", "plateau")
    assert sum(stage.epochs for stage in config.stages) == 70
    assert config.snapshots == (1, 2, 5, 10, 20, 30, 40, 64)


def test_overrides_are_parsed_as_yaml_values(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("optim: {weight_decay: 5e-5}\n")
    config = load_config(
        path,
        ["optim.lr=1e-3", "model.channels=[8, 8, 8]", "data.per_class=3", "stages=[{epochs: 2}]"],
    )
    assert (config.optim.weight_decay, config.optim.lr, config.model.channels) == (
        5e-5,
        1e-3,
        (8, 8, 8),
    )
    assert config.stages[0].epochs == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optim: {lrr: 1}", "unknown option optim.lrr"), ("speed: 1", "unknown option speed"), ("optim: {lr: fast}", "optim.lr must be a number, got 'fast'"),
        ("seed: 1.5", "seed must be an integer"), ("optim: {nesterov: 1}", "optim.nesterov must be true or false"), ("model: zfnet", "model must be keys and values"),
        ("stages: 3", "stages must be a list"), ("stages: [{epochs: x}]", r"stages\[0\].epochs must be an integer"), ("stages: []", "stages"),
        ("model: {norm: layer}", "model.norm must be 'lrn', 'batch' or 'none', got 'layer'"), ("a: [", "not valid YAML"), ("seed: true", "seed must be an integer"),
        ("optim: {batch: 0}", "optim.batch must be at least 1, got 0"), ("optim: {lr: -1.0}", "optim.lr"), ("stages: [{epochs: 0}]", "epochs must be at least 1, got 0"), ("stages: [{frozen_layers: -1}]", "frozen_layers must be at least 0"),
        ("stages: [{size: 224, side: 128}]", "size 224 is above side 128"), ("augment: {scale: [0.9, 0.5]}", "augment.scale: expected two shares"),
        ("optim: {nesterov: true, momentum: 0}", "optim.nesterov: needs"),
        ("{model: {norm: batch}, optim: {batch: 1}}", "optim.batch: BatchNorm needs at least 2 images, got 1"),
        ("snapshots: [0]", "snapshots: 0 is not above 0 and at most 70"), ("snapshots: [5, 71]", "71 is not above 0 and at most 70"),
    ],
)  # fmt: skip
def test_errors_name_the_key(tmp_path, text, message):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        load_config(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("override", ["optim.lr", "optim.lr.x=1", "optim.lr=[", "nothing=1"])
def test_wrong_overrides_are_errors(tmp_path, override):
    path = tmp_path / "run.yaml"
    path.write_text("optim: {lr: 0.1}")
    with pytest.raises(ConfigError):
        load_config(path, [override])


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="none.yaml"):
        load_config(tmp_path / "none.yaml")


def test_paper_input_requires_stages_of_the_mean_image_size():
    stages = [{"epochs": 1, "size": 48, "side": 64}]
    with pytest.raises(ConfigError, match=r"stages\[0\]: size 48 must be model.size 64"):
        parse({"model": {"input": "paper", "size": 64}, "stages": stages})
    parse({"model": {"input": "standard", "size": 64}, "stages": stages})


@pytest.mark.parametrize("text", ["- a\n- b\n", "only text"])
def test_file_without_keys_is_rejected(tmp_path, text):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match="expected"):
        load_config(tmp_path / "c.yaml", ["seed=1"])


def test_imagenet65k_config_has_the_stages_of_the_bundled_network():
    """Compare stages and options with those recorded by the six runs of the bundled network."""
    config, runs = load_config(ROOT / "configs" / "imagenet65k.yaml"), []
    info = zfnet.load("imagenet65k").info
    while info:
        runs.insert(0, info["config"])
        info = info.get("init")
    recorded = [(stage, run) for run in runs for stage in run["stages"]]
    assert len(recorded) == len(config.stages)
    starts_run = [stage is run["stages"][0] for stage, run in recorded]
    assert [stage.restart for stage in config.stages] == [False, *starts_run[1:]]
    for stage, resolved, (recorded_stage, run) in zip(
        config.stages, map(to_dict, stage_configs(config)), recorded, strict=True
    ):
        assert to_dict(stage) | recorded_stage == to_dict(stage)
        for section in ("optim", "augment"):
            options = {**resolved[section], "scale": list(resolved["augment"]["scale"])}
            assert options | run[section] == options


def test_stage_overrides_apply_until_the_next_override():
    stages = [
        {"epochs": 1},
        {"epochs": 1, "restart": True, "optim": {"lr": 0.5}, "augment": {"color": 0.3}},
        {"epochs": 1, "augment": {"flip": False}},
        {"epochs": 1, "restart": True, "optim": {"ema": 0.9}},
    ]
    configs = stage_configs(parse({"stages": stages}))
    assert [c.optim.lr for c in configs] == [0.01, 0.5, 0.5, 0.5]
    assert [c.optim.ema for c in configs] == [0, 0, 0, 0.9]
    assert [(c.augment.color, c.augment.flip) for c in configs] == [
        (0, True),
        (0.3, True),
        (0.3, False),
        (0.3, False),
    ]


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"optim": {"lr": 1.0}}, r"stages\[1\]\.optim can only change with restart: true"),
        ({"restart": True, "optim": {"lrr": 1}}, r"unknown option stages\[1\]\.optim\.lrr"),
        ({"restart": True, "optim": {"lr": -1}}, r"stages\[1\]\.optim\.lr must be at least 0"),
        ({"augment": {"scale": [1, 0.5]}}, "augment.scale: expected two shares"),
        ({"restart": True, "optim": {"batch": 1}}, "optim.batch: BatchNorm needs at least 2"),
    ],
)
def test_wrong_stage_overrides_name_the_key(stage, message):
    with pytest.raises(ConfigError, match=message):
        parse({"model": {"norm": "batch"}, "stages": [{"epochs": 1}, {"epochs": 1} | stage]})
