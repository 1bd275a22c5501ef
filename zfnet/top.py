"""The strongest activations of every feature map over a data set, in one pass (Fig. 2)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from zfnet.acceleration import accelerate
from zfnet.checkpoint import CheckpointError
from zfnet.data import no_progress
from zfnet.data.batches import collate
from zfnet.data.io import expand_path
from zfnet.data.tensor_file import read_tensors, sha256
from zfnet.forward import run
from zfnet.graph import Step, check_layers, layer_names, network_steps, with_shapes
from zfnet.model import device_of, evaluating, unwrap
from zfnet.ranking import Maxima, TopActivations, as_top, maxima_of, merge, sort_by_image
from zfnet.training.distributed import SINGLE_PROCESS, DistributedContext
from zfnet.units import as_maps
from zfnet.validation import as_integers, check_input, check_positive

COLUMNS = 256  # images between merges; a merge sorts k + max(k, COLUMNS) values per map
SAMPLED_ITEMS = 16  # items that identify a data set without a digest
WRITE_EVERY = 30.0  # seconds between two writes of the state


def top_activations(
    model: nn.Module,
    dataset: Dataset,
    layers: str | Sequence[str] = ("conv1", "conv2", "conv3", "conv4", "conv5"),
    k: int = 9,
    *,
    batch: int = 64,
    groups: Sequence[int] | np.ndarray | Tensor | None = None,
    state: str | Path | None = None,
    distributed: DistributedContext = SINGLE_PROCESS,
    progress: Callable = no_progress,
) -> TopActivations:
    """Find the k strongest activations of each feature map over a data set.

    Zeiler & Fergus, section 4. An image counts once, by its strongest position. Ties go to the
    lower index and to the earlier position in reading order. Activations are rectified, before
    pooling.

    Args:
        model: Any network that `torch.fx` can trace.
        dataset: N preprocessed (3, H, W) tensors, or (tensor, label).
        layers: In a chain, layers with weights: conv1, ..., fc8. In a network with branches, the
            paths of modules that return maps or vectors; see `zfnet.list_layers`.
        k: How many activations to keep per map.
        batch: The number of images per forward pass.
        groups: A group per image (N,); at most one image of a group is kept, for crops of one
            photograph.
        state: A file from which an interrupted search continues.
        distributed: The processes that share the batches; each receives the full table.
        progress: A progress bar such as `tqdm.tqdm`.

    Returns:
        A table for each layer. Memory does not grow with the data set.

    Raises:
        UnknownLayer: If the network has no such layer.
        CheckpointError: If the state is damaged, or of another search.
        ValueError: If the data set is empty, has no length, or does not fit the network.

    Example:
        >>> import torch, zfnet
        >>> s = zfnet.top_activations(zfnet.mnist(), torch.rand(5, 3, 28, 28), "conv2", k=2)
        >>> s["conv2"].value.shape, s["conv2"].position.shape
        (torch.Size([32, 2]), torch.Size([32, 2, 2]))
    """
    layers = layer_names(layers)
    if not layers:
        raise ValueError("no layers given")
    check_positive(k=k, batch=batch)
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        raise ValueError(
            f"{type(dataset).__name__} has no length or no index: the table names images by index"
        )
    size = len(dataset)  # pyright: ignore[reportArgumentType]
    if size == 0:
        raise ValueError("the data set is empty")
    group_of = None if groups is None else _check_groups(groups, size, device_of(model))
    search = _Search(model, dataset, layers, group_of, k, min(batch, size), progress)
    return _run_distributed(search, _State.open(state, search), distributed)


def _run_distributed(
    search: _Search, state: _State, distributed: DistributedContext
) -> TopActivations:
    """Share the batches among the processes, and merge their tables.

    Each process computes full batches, because convolutions round differently in smaller ones.
    """
    size = len(search.dataset)  # pyright: ignore[reportArgumentType]
    if distributed.size == 1:
        return search.run(range(size), state)
    # All processes read the state before one of them writes it.
    finished = distributed.gather(state.read())[0]
    if finished and finished.images == size:
        return finished
    batches = distributed.share(
        [range(start, min(start + search.batch, size)) for start in range(0, size, search.batch)]
    )
    own_state = state.with_suffix(f"{distributed.rank} of {distributed.size}")
    images = [i for part in batches for i in part]
    tables = distributed.gather(search.run(images, own_state) if images else None)
    cpu = torch.device("cpu")
    group_of = None if search.group_of is None else search.group_of.to(cpu)
    layers = {}
    for layer in search.layers:
        maxima = sort_by_image(
            [maxima_of(table[layer], cpu) for table in tables if table is not None]
        )
        layers[layer] = as_top(merge([maxima], search.k, group_of), search.k)
    table = TopActivations(layers, size)
    if distributed.is_main:
        state.write(table)
    if own_state.path:
        own_state.path.unlink(missing_ok=True)
    return table


@dataclass(frozen=True, eq=False)
class _Search:
    """One search: the network, the data, and the options."""

    model: nn.Module
    dataset: Dataset
    layers: tuple[str, ...]
    group_of: Tensor | None
    k: int
    batch: int
    progress: Callable

    def run(self, images: Sequence[int], state: _State) -> TopActivations:
        """Search images in ascending order, in this process."""
        table = state.read() or TopActivations({}, 0)
        if table.images == len(images):
            return table
        device, done, steps = device_of(self.model), table.images, []
        maxima: dict[str, list[Maxima]] = {
            layer: [maxima_of(table[layer], device)] if table else [] for layer in self.layers
        }
        pending, written = 0, time.monotonic()
        for x in self._batches(images[done:], device):
            with evaluating(self.model), torch.no_grad():
                check_input(self.model, x)
                steps = steps or self._steps(x[:1])
                with_shapes(steps, x)
                index = torch.tensor(images[done : done + len(x)], device=device)
                strongest = accelerate(strongest_positions)(
                    steps, self.layers, _pad_batch(x, self.batch)
                )
            for layer, (value, position) in strongest.items():
                value = value[: len(x)].T.float()  # (C, B)
                position = position[: len(x)].transpose(0, 1)  # (C, B, 2)
                maxima[layer].append((value, index.expand_as(value), position))
            done, pending = done + len(x), pending + len(x)
            due = state.path is not None and time.monotonic() - written >= WRITE_EVERY
            if due or pending >= max(self.k, COLUMNS) or done == len(images):
                maxima = {
                    layer: [merge(parts, self.k, self.group_of)] for layer, parts in maxima.items()
                }
                pending = 0
            if due or done == len(images):
                table = TopActivations(
                    {layer: as_top(parts[0], self.k) for layer, parts in maxima.items()}, done
                )
                state.write(table)
                written = time.monotonic()
        return table

    def _batches(self, images: Sequence[int], device: torch.device) -> Iterator[Tensor]:
        """Read the images in batches."""
        loader = DataLoader(
            self.dataset, self.batch, sampler=images, collate_fn=collate,
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # the default draws from the global random state
        )  # fmt: skip
        for x in self.progress(loader, total=len(loader), desc="searching"):
            yield x.to(device, non_blocking=True)

    def _steps(self, x: Tensor) -> list[Step]:
        """The steps up to the highest layer."""
        steps = network_steps(self.model, x, *self.layers)
        check_layers(steps, self.layers)
        return steps


def strongest_positions(
    steps: Sequence[Step], layers: Sequence[str], x: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """Find the strongest position of each map of images x (B, 3, H, W).

    Returns for each layer the maxima (B, C) and their positions (B, C, 2), the first in reading
    order.
    """
    t = run(steps, x, keep=layers, switches=False)
    strongest = {}
    for layer in layers:
        maps = as_maps(t[layer])  # (B, C, H, W)
        value, cell = maps.flatten(2).max(2)  # max returns the first
        strongest[layer] = value, torch.stack([cell // maps.shape[3], cell % maps.shape[3]], -1)
    return strongest


@dataclass(frozen=True, eq=False)
class _State:
    """The file that stores the table of a search, if any, and the identity of the search."""

    path: Path | None
    identity: dict

    @staticmethod
    def open(path: str | Path | None, search: _Search) -> _State:
        if path is None:
            return _State(None, {})
        digest, groups = _digest(search.dataset), search.group_of
        size = len(search.dataset)  # pyright: ignore[reportArgumentType]
        # One item shows the size and the preprocessing, which a digest of files does not.
        sampled = [0] if digest else range(0, size, -(-size // SAMPLED_ITEMS))
        model = unwrap(search.model)
        weights = {name: t.cpu() for name, t in model.state_dict().items()}
        identity = {
            "weights": sha256(weights, {"modules": str(model)}),
            "layers": list(search.layers),
            "k": search.k,
            "groups": None if groups is None else sha256({"groups": groups.cpu()}, {}),
            "images": size,
            "data": sha256(
                {str(i): collate([search.dataset[i]])[0] for i in sampled}, {"digest": digest}
            ),
        }
        return _State(expand_path(path), identity)

    def with_suffix(self, suffix: str) -> _State:
        return replace(self, path=self.path and self.path.with_name(f"{self.path.name}.{suffix}"))

    def read(self) -> TopActivations | None:
        """Return the table so far, or None if there is no file. Raises CheckpointError."""
        if self.path is None or not self.path.exists():
            return None
        stored = read_tensors(self.path)[1].get("search", {})
        names = [
            name
            for name in self.identity
            if name not in stored or self.identity[name] != stored[name]
        ]
        if names:
            pairs = "; ".join(
                f"{n}: {str(stored.get(n))[:48]} there, {str(self.identity[n])[:48]} here"
                for n in names
            )
            raise CheckpointError(
                f"{self.path}: the state of another search ({pairs}); name another file or "
                "remove it"
            )
        return TopActivations.load(self.path)

    def write(self, table: TopActivations) -> None:
        if self.path:
            table.save(self.path, search=self.identity)


def _digest(dataset: Dataset) -> list | str | None:
    """A data set's digest, with the indices of a subset; None if it has none."""
    if isinstance(dataset, Subset):
        digest = _digest(dataset.dataset)
        return digest and [digest, [int(i) for i in dataset.indices]]
    return getattr(dataset, "digest", None)


def _check_groups(
    groups: Sequence[int] | np.ndarray | Tensor, size: int, device: torch.device
) -> Tensor:
    """Return groups (N,) as int64. Raises ValueError."""
    if len(groups) != size:
        raise ValueError(f"groups has {len(groups)} entries for {size} images")
    return as_integers(groups, "groups", device).reshape(-1)


def _pad_batch(x: Tensor, batch: int) -> Tensor:
    """Repeat the last image up to a full batch: rounding varies with its size and breaks ties."""
    return torch.cat([x, x[-1:].expand(batch - len(x), *x.shape[1:])]) if len(x) < batch else x
