"""A rehearsal memory: some rows of a stream, in a fixed amount of memory."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .batch import Batch
from .devices import destination
from .errors import CheckpointError, ConfigError
from .padding import MARKED, longest_of, resized
from .ranks import Ranks, ranks
from .structure import anything, count, each, misfit, table
from .transfer import upload
from .tree import Path, from_paths, walk

_PART_OF_A_BATCH = (
    "Memory.sample({0}): this run is on {1} devices, n counts the rows of all of them, and {0} is this "
    "device's part of a batch of {2}. In a strategy, pass n=self.context.rows(batch) for as many as the "
    "batch has; elsewhere n=replay.rows. If {0} rows in all are meant, say so: sample({0}, whole=True)."
)
POLICIES = ("reservoir", "balanced", "ring", "herding")
_LABEL, _LENGTH, _MASK = ("label",), ("length",), ("mask",)
_PADDED = {_MASK, *((name,) for name in MARKED)}  # The fields of sequences `[B, T, ...]`.


class Memory:
    """Keeps up to `capacity` rows of the batches added to it, to learn from again.

    >>> memory = Memory(100)
    >>> memory.add(Batch(obs=torch.rand(8, 2), label=torch.arange(8)), logits=torch.zeros(8, 10))
    >>> len(memory), memory.sample(4).logits.shape
    (8, torch.Size([4, 10]))

    The policy decides which rows are kept. All but herding process the rows one by one, so the result does
    not depend on how a stream is cut into batches.

    - `reservoir`: a uniform sample of the stream. While there is room every row enters; then the
      t-th row (t = 1, 2, ...) draws a place from 0..t-1 and, if that lies within the memory, replaces
      the row there. After n rows each is in the memory with probability capacity / n. Algorithm R of
      Vitter (1985), https://doi.org/10.1145/3147.3165.
    - `balanced`: equally many rows of each class, from a stream in any order. While there is room
      every row enters; then a row whose class has fewer rows than the largest class replaces a random
      row of the largest class (of any one of them, if there are several). The greedy sampler of GDumb:
      Prabhu et al. (2020), https://doi.org/10.1007/978-3-030-58536-5_31, except that theirs leaves
      room empty rather than keep more than capacity / classes rows of a class.
    - `ring`: the newest `capacity // classes` rows of each class seen so far. When a class appears, the
      share shrinks, and every class drops its oldest rows beyond it; the remainder of the division stays
      empty. The ring buffer of Chaudhry et al. (2019), https://arxiv.org/abs/1902.10486, for a number
      of classes that is not known in advance.
    - `herding`: for each class the `capacity // classes` rows, in order, whose mean feature is nearest to
      that of the class:

          p_k = argmin_x || mu - (phi(x) + phi(p_1) + ... + phi(p_{k-1})) / k ||

      with phi scaled to length 1 and mu the mean of phi over the class (not scaled again). When classes
      appear, the share shrinks, and every class drops the rows chosen last. iCaRL, algorithms 4 and 5:
      Rebuffi et al. (2017), https://arxiv.org/abs/1611.07725. All rows of a class have to be added in
      one `add`; the remainder of the division stays empty.

    Sequences of different lengths (batches with `length` and `mask`) are held padded to the longest so far,
    and come as long as the longest of those that are drawn.

    Args:
        capacity: Largest number of rows to keep.
        policy: One of the above. All but the reservoir need the field `label`, integer `[B]`, and
            read it on the CPU, which synchronises with an accelerator.
        seed: Seed of the memory's own random streams, int: the global stream is neither read nor advanced,
            and sampling does not affect which rows are kept. None: torch's seed when the first batch is
            added, which is the run's.

    Attributes:
        seen: Number of rows added so far, whether they were kept or not.

    Raises:
        ConfigError: If the capacity is not a whole number above 0, or there is no such policy.
    """

    def __init__(self, capacity: int, policy: str = "reservoir", seed: int | None = None):
        if not isinstance(capacity, (int, np.integer)) or capacity < 1:
            raise ConfigError(f"Memory: capacity={capacity!r} must be a whole number above 0.")
        if policy not in POLICIES:
            close = difflib.get_close_matches(str(policy), POLICIES, 1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ConfigError(
                f"Memory: no policy {policy!r}.{hint} Choose from {', '.join(POLICIES)}."
            )
        self.capacity, self.policy = int(capacity), policy
        self._seed = seed
        # Streams for keeping and for sampling. Created late: a memory may exist before a run is seeded.
        self._streams: list[np.random.Generator] = []
        self.clear()

    def clear(self) -> None:
        """Remove every row and forget their fields; the random streams continue."""
        self.seen = 0
        self._size = 0
        self._columns: dict[Path, Tensor] = {}  # `[capacity, *shape]`; rows 0.._size-1 are filled.
        self._are_sequences = False  # Known to be, once a longer batch has asked.
        # Of every policy but the reservoir: the rows of each class, the ring's from the oldest,
        # herding's from the best.
        self._classes: dict[int, list[int]] = {}

    def __len__(self) -> int:
        """The number of rows held."""
        return self._size

    @property
    def nbytes(self) -> int:
        """Bytes of the rows held."""
        return sum(column[: self._size].nbytes for column in self._columns.values())

    def add(self, batch: Batch | Mapping[str, Any], **extras: Any) -> None:
        """Offer the rows of a batch; those that the policy keeps are copied, detached from their graph.

        The first batch determines the fields. Rows are kept on the device of the batches.

        Args:
            batch: Tensors `[B, ...]`, or dicts of them.
            **extras: More fields, such as `logits=` `[B, classes]`. For herding also `features=`
                `[B, D]` floats, which choose the rows and are not stored.

        Raises:
            ConfigError: If the fields, their shapes or dtypes differ from the first batch's, fields differ
                in their number of rows, or the policy lacks what it needs. The memory is then unchanged.
        """
        features: Any = extras.pop("features", None) if self.policy == "herding" else None
        at = ranks()
        if at.split and not at.own:
            batch, extras, features = _of_all_ranks(at, batch, extras, features)
        fields = self._checked(batch, extras)
        rows = len(next(iter(fields.values())))
        if not rows:
            return
        labels: list[int] = []
        if self.policy != "reservoir":
            labels = self._labels(fields)
        if self.policy == "herding":
            features = self._features(features, rows, labels)
        if not self._streams:
            self._start_streams()
        device = next(iter(fields.values())).device
        if not self._columns:
            self._make(fields, device)
        elif device != self._device:  # Resumed on another one.
            self._move(device)

        # Destinations as a dict: of several rows with the same place, the last one wins on every device.
        if self.policy == "reservoir":
            place = self._reservoir(rows)
        elif self.policy == "balanced":
            place = self._balanced(labels)
        elif self.policy == "ring":
            place = self._ring(labels)
        else:
            place = self._herding(labels, features)
        self.seen += rows
        if place:
            self._write(fields, place)

    def sample(self, n: int, *, whole: bool = False) -> Batch:
        """`min(n, len(memory))` different rows, drawn uniformly, in random order.

        On several devices `n` counts the rows of all of them, as `batch_size` does. In `learn` and
        `after_loss`, where a batch has the rows of one device, each gets its part of the rows drawn, or all
        of them where they cannot be divided as the batch is; either way their mean counts as it should.

        Args:
            n: Number of rows, from 1.
            whole: Whether `n` is meant for all devices even if it is this one's part of the batch.

        Raises:
            ConfigError: If the memory is empty; on several devices, if `n` is this one's part of the batch.
        """
        if not self._size:
            raise ConfigError("The memory is empty: add a batch before sampling from it.")
        if n < 1:
            raise ConfigError(f"Memory.sample: n={n} must be at least 1.")
        place, stream = ranks(), self._streams[1]
        parted = place.split and not place.own
        if parted and not whole and n == place.count(place.last) != place.last:
            raise ConfigError(_PART_OF_A_BATCH.format(n, place.world, place.last))
        rows = torch.from_numpy(stream.choice(self._size, min(n, self._size), replace=False))
        if parted and place.divides(len(rows)):
            rows = place.rows(rows)
        if (device := self._device).type != "cpu":
            rows = upload(rows, device)
        drawn = {path: c.index_select(0, rows) for path, c in self._columns.items()}
        return Batch(**from_paths(_shortened(drawn) if _MASK in drawn else drawn))

    def all(self) -> Batch:
        """Every row held, as copies.

        Raises:
            ConfigError: If the memory is empty.
        """
        if not self._size:
            raise ConfigError("The memory is empty: add a batch before reading it.")
        held = {path: column[: self._size].clone() for path, column in self._columns.items()}
        return Batch(**from_paths(_shortened(held) if _MASK in held else held))

    def state_dict(self) -> dict[str, Any]:
        """The full state, so that a memory continues exactly. Tensors are the memory's own, not copies."""
        return {
            "capacity": self.capacity,
            "policy": self.policy,
            "seen": self.seen,
            "size": self._size,
            "device": str(self._device),
            "columns": from_paths({p: c[: self._size] for p, c in self._columns.items()}),
            "classes": [[label, np.array(rows, np.int64)] for label, rows in self._classes.items()],
            "streams": [stream.bit_generator.state for stream in self._streams],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken.

        Rows go to the device they were on. If a run is resumed on another device, rows on the run's previous
        device go to the new one.

        Raises:
            CheckpointError: If the state has another capacity or policy, or is not a memory's.
        """
        if lacks := {"capacity", "policy", "columns", "classes", "streams"} - state.keys():
            raise CheckpointError(f"This is not the state of a memory: it lacks {_words(lacks)}.")
        for name in ("capacity", "policy"):
            if state[name] != (here := getattr(self, name)):
                raise CheckpointError(
                    f"The saved memory has {name}={state[name]}, this one {name}={here}. "
                    f"Continue with {name}={state[name]}."
                )
        held = dict(walk(state["columns"]))
        _check_rows(state, held, self.capacity)
        self.clear()
        if held:  # New storage: the state may belong to this very memory.
            self._make(held, destination(state["device"]))
        for path, column in self._columns.items():
            column[: state["size"]] = held[path]
        self.seen, self._size = state["seen"], state["size"]
        self._classes = {label: rows.tolist() for label, rows in state["classes"]}
        self._streams = []
        for at in state["streams"]:
            self._streams.append(np.random.default_rng())
            self._streams[-1].bit_generator.state = at

    def _start_streams(self) -> None:
        # Not the seed itself, which the data's order and the initial weights may be drawn from.
        seed = ranks().seed if self._seed is None else self._seed
        parts = np.random.SeedSequence([seed % 2**64, *b"Memory"]).spawn(2)
        self._streams = [np.random.default_rng(part) for part in parts]

    # ------------------------------------------------------------------------------ policies
    # Each returns where rows of a batch go, `{place: row}`, and counts them.

    def _reservoir(self, rows: int) -> dict[int, int]:
        free = min(self.capacity - self._size, rows)
        place = dict(zip(range(self._size, self._size + free), range(free), strict=True))
        self._size += free
        if free < rows:
            # The t-th row of all draws from 0..t-1.
            t = np.arange(self.seen + free + 1, self.seen + rows + 1)
            drawn = self._streams[0].random(rows - free) * t
            (kept,) = (drawn < self.capacity).nonzero()
            if len(kept):
                # In order, so that of two rows with the same place the later one stays.
                places = drawn[kept].astype(np.int64).tolist()
                place.update(zip(places, (kept + free).tolist(), strict=True))
        return place

    def _balanced(self, labels: list[int]) -> dict[int, int]:
        place: dict[int, int] = {}
        most = max(map(len, self._classes.values()), default=0)
        for row, label in enumerate(labels):
            held = self._classes.setdefault(label, [])
            if self._size < self.capacity:
                at = self._size
                self._size += 1
            elif len(held) < most:
                at, most = self._give_up(most)
            else:
                continue
            held.append(at)
            place[at] = row
            most = max(most, len(held))
        return place

    def _give_up(self, most: int) -> tuple[int, int]:
        """The place of a random row of a largest class, now vacated, and the largest class's new size."""
        largest = [rows for rows in self._classes.values() if len(rows) == most]
        which, row = divmod(int(self._streams[0].random() * len(largest) * most), most)
        rows = largest[which]
        rows[row], rows[-1] = rows[-1], rows[row]
        return rows.pop(), most - (len(largest) == 1)

    def _ring(self, labels: list[int]) -> dict[int, int]:
        rows_of = _by_class(labels)
        share = self._shrink(rows_of)
        place: dict[int, int] = {}
        for label, rows in rows_of.items():
            held = self._classes.setdefault(label, [])
            for row in rows[-share:]:
                if len(held) < share:
                    at = self._size
                    self._size += 1
                else:
                    at = held.pop(0)
                held.append(at)
                place[at] = row
        return place

    def _herding(self, labels: list[int], features: Tensor) -> dict[int, int]:
        rows_of = _by_class(labels)
        share = self._shrink(rows_of)
        place: dict[int, int] = {}
        for label, rows in rows_of.items():
            best = _herd(features[torch.tensor(rows, device=features.device)], share)
            self._classes[label] = list(range(self._size, self._size + len(best)))
            self._size += len(best)
            place |= {at: rows[row] for at, row in zip(self._classes[label], best, strict=True)}
        return place

    def _shrink(self, coming: Mapping[int, Any]) -> int:
        """Rows per class once the classes `coming` are added; present classes drop any rows beyond that."""
        share = self.capacity // len(self._classes.keys() | coming.keys())
        if all(len(rows) <= share for rows in self._classes.values()):
            return share
        keep: list[int] = []
        for label, rows in self._classes.items():
            kept = rows[-share:] if self.policy == "ring" else rows[:share]
            self._classes[label] = list(range(len(keep), len(keep) + len(kept)))
            keep += kept
        # Compacted, so that the rows held are always the first ones.
        index = torch.tensor(keep, device=self._device)
        for column in self._columns.values():
            column[: len(keep)] = column.index_select(0, index)
        self._size = len(keep)
        return share

    # ------------------------------------------------------------------------------- columns

    @property
    def _device(self) -> torch.device:
        return next((column.device for column in self._columns.values()), torch.device("cpu"))

    def _make(self, rows: Mapping[Path, Tensor], device: torch.device) -> None:
        """Allocate `capacity` rows like these."""
        try:
            # Inference tensors could not be written to outside of inference mode.
            with torch.inference_mode(False):
                self._columns = {
                    path: torch.empty(
                        (self.capacity, *field.shape[1:]), dtype=field.dtype, device=device
                    )
                    for path, field in rows.items()
                }
                self._are_sequences = False
        except RuntimeError as error:  # How torch reports that memory is exhausted.
            size = sum(field[:1].nbytes for field in rows.values()) * self.capacity / 1e9
            raise ConfigError(
                f"Memory: {self.capacity} rows need {size:.1f} GB on {device}, more than is available "
                f"({error}). Lower `capacity`."
            ) from error

    def _move(self, device: torch.device) -> None:
        held = self._columns
        self._make(held, device)
        for path, column in self._columns.items():
            column.copy_(held[path])

    @torch.no_grad()
    def _write(self, fields: Mapping[Path, Tensor], place: dict[int, int]) -> None:
        """Copy rows to their places, `{place: row}`."""
        device, rows = self._device, list(place.values())
        index = torch.from_numpy(np.array((list(place), rows)))
        places, chosen = index if device.type == "cpu" else upload(index, device)
        whole = rows == list(range(len(next(iter(fields.values())))))
        for path, column in self._columns.items():
            field = fields[path].to(device)
            if not whole:
                field = field.index_select(0, chosen)
            column.index_copy_(0, places, field)

    # -------------------------------------------------------------------------------- checks

    def _checked(self, batch: Batch | Mapping[str, Any], extras: dict[str, Any]) -> dict[Path, Any]:
        """The fields of a batch and its extras by path, if they match the first batch's."""
        if not isinstance(batch, (Batch, Mapping)):
            raise ConfigError(
                f"Memory.add takes a Batch, Batch(obs=..., label=...), not a {type(batch).__name__}."
            )
        if twice := extras.keys() & batch.keys():
            raise ConfigError(
                f"Memory.add: the batch already has {_words(twice)}; rename the extras."
            )
        fields = dict(walk({**batch, **extras}))
        if _MASK in self._columns:
            fields = self._as_long(fields)
        if self._columns:
            if fields.keys() != self._columns.keys():
                raise ConfigError(self._other_fields(fields))
            rows = None
            for path, column in self._columns.items():
                field = fields[path]
                if rows is None and isinstance(field, Tensor) and field.dim():
                    rows = field.shape[0]
                if (
                    not isinstance(field, Tensor)
                    or field.shape != (rows, *column.shape[1:])
                    or field.dtype is not column.dtype
                ):
                    raise ConfigError(self._unlike(path, field, rows))
            return fields
        if not fields:
            raise ConfigError("Memory.add: the batch has no fields.")
        rows = None
        for path, field in fields.items():
            if not isinstance(field, Tensor) or not field.dim():
                raise ConfigError(
                    f"Memory.add: `{'.'.join(path)}` must be a tensor [B, ...], not {_kind(field)}."
                )
            rows = field.shape[0] if rows is None else rows
            if field.shape[0] != rows:
                raise ConfigError(self._unlike(path, field, rows))
        return fields

    def _as_long(self, fields: dict[Path, Any]) -> dict[Path, Any]:
        """A batch's sequences as long as those held; if the batch has longer ones, those held grow."""
        widths = [
            {
                c.shape[1]
                for p, c in rows.items()
                if p in _PADDED and isinstance(c, Tensor) and c.dim() > 1
            }
            for rows in (self._columns, fields)
        ]
        if [len(some) for some in widths] != [1, 1] or widths[0] == widths[1]:
            return fields  # As long as those held, or not sequences: fields that only have these names.
        if not self._are_sequences:  # Asked once: on an accelerator it waits.
            mask, length = (self._columns.get(path) for path in (_MASK, _LENGTH))
            held = [None if c is None else c[: self._size] for c in (mask, length)]
            self._are_sequences = longest_of(*held) is not None
            if not self._are_sequences:
                return fields
        longest = max(*widths[0], *widths[1])

        def padded(path: Path, field: Any) -> Any:
            return (
                resized(field, longest) if path in _PADDED and isinstance(field, Tensor) else field
            )

        self._columns = {path: padded(path, column) for path, column in self._columns.items()}
        return {path: padded(path, field) for path, field in fields.items()}

    def _other_fields(self, fields: Mapping[Path, Any]) -> str:
        lacks, new = self._columns.keys() - fields.keys(), fields.keys() - self._columns.keys()
        wrong = [f"lacks {_words(map('.'.join, lacks))}"] * bool(lacks)
        wrong += [f"also has {_words(map('.'.join, new))}"] * bool(new)
        return (
            f"Memory.add: this batch {' and '.join(wrong)}, unlike the first one, which had "
            f"{_words(map('.'.join, self._columns))}. Give every batch the same fields and extras."
        )

    def _unlike(self, path: Path, field: object, rows: int | None) -> str:
        name = ".".join(path)
        if isinstance(field, Tensor) and field.dim() and field.shape[0] != rows:
            return (
                f"Memory.add: `{name}` has {field.shape[0]} rows, the first field {rows}. Give every "
                "field one row per row of the batch."
            )
        column = self._columns[path]
        expected = f"{_dtype(column)} {['B', *column.shape[1:]]}".replace("'", "")
        return f"Memory.add: `{name}` is {_kind(field)}; the first batch's was {expected}."

    def _labels(self, fields: Mapping[Path, Tensor]) -> list[int]:
        label = fields.get(_LABEL)
        if label is None:
            raise ConfigError(f"Memory: policy={self.policy!r} needs the field `label`.")
        if label.dim() != 1 or label.is_floating_point() or label.is_complex():
            raise ConfigError(
                f"Memory: policy={self.policy!r} needs labels that are whole numbers [B], not "
                f"{_kind(label)}."
            )
        labels: list[int] = label.tolist()
        if self.policy != "balanced":
            classes = len(self._classes.keys() | set(labels))
            if classes > self.capacity:
                raise ConfigError(
                    f"Memory: capacity={self.capacity} is less than one row for each of {classes} "
                    f"classes, as policy={self.policy!r} keeps them. Raise capacity."
                )
        return labels

    def _features(self, features: Any, rows: int, labels: list[int]) -> Tensor:
        if not (isinstance(features, Tensor) and features.is_floating_point()):
            raise ConfigError(
                "Memory: policy='herding' needs the rows' features: add(batch, features=[B, D])."
            )
        if features.dim() != 2 or len(features) != rows:
            raise ConfigError(
                f"Memory.add: features are {_kind(features)}; they must be [{rows}, D], one row per "
                "row of the batch."
            )
        if again := self._classes.keys() & set(labels):
            raise ConfigError(
                f"Memory: class {_words(map(str, again))} is already held, but the features of its "
                "rows kept are not: policy='herding' needs all rows of a class in one add."
            )
        return features


def _of_all_ranks(
    place: Ranks, batch: Any, extras: dict[str, Any], features: Any
) -> tuple[Any, dict[str, Any], Any]:
    """The rows that the ranks add to their copies of a memory, in the order of the whole batch.

    One exchange for all fields, row by row as bytes: each costs as much as a small layer.
    """
    given = {"batch": dict(batch), "extras": extras, "features": features}
    fields = {p: f.detach() for p, f in walk(given) if isinstance(f, Tensor) and f.dim()}
    counts = {len(field) for field in fields.values()}
    if len(counts) != 1:
        return batch, extras, features  # Which `add` refuses, on every rank.
    (rows,) = counts
    flat = [f.reshape(rows, -1).contiguous().view(torch.uint8) for f in fields.values()]
    sent = place.collect(torch.cat(flat, 1))
    parts = sent.split([part.shape[1] for part in flat], 1)
    held = {
        path: part.contiguous().view(field.dtype).reshape(len(part), *field.shape[1:])
        for (path, field), part in zip(fields.items(), parts, strict=True)
    }
    whole = from_paths(dict(walk(given)) | held)
    return Batch(**whole["batch"]), whole.get("extras", {}), whole.get("features")


def _herd(features: Tensor, n: int) -> list[int]:
    """Up to n rows, chosen greedily so that their mean stays near the mean of all: iCaRL, algorithm 4.

    || mu - (x + S) / k || is minimal where |x|^2 - 2 x (k mu - S) is, with S the sum of the chosen rows.

    Args:
        features: Floats `[rows, D]`.
        n: Largest number of rows to choose.
    """
    with torch.no_grad(), torch.autocast(features.device.type, enabled=False):
        x = F.normalize(features.float(), dim=1)
        mean = x.mean(0)
        cost = x.square().sum(1)  # 1, or 0 for a row without features.
        ahead = torch.zeros_like(mean)  # k mu - S
        chosen = []
        for _ in range(min(n, len(x))):
            ahead += mean
            best = (cost - 2 * (x @ ahead)).argmin()
            chosen.append(best)
            cost[best] = torch.inf
            ahead -= x[best]
        # The only synchronisation with an accelerator.
        rows: list[int] = torch.stack(chosen).tolist()
        return rows


def _shortened(columns: dict[Path, Tensor]) -> dict[Path, Tensor]:
    """Rows with a `mask`: sequences as long as the longest of them, anything else unchanged."""
    # On an accelerator this waits for the lengths, but a model need not read what is only padding.
    longest = longest_of(columns[_MASK], columns.get(_LENGTH))
    if longest is None:
        return columns
    return {path: resized(c, longest) if path in _PADDED else c for path, c in columns.items()}


def _by_class(labels: list[int]) -> dict[int, list[int]]:
    rows: dict[int, list[int]] = {}
    for row, label in enumerate(labels):
        rows.setdefault(label, []).append(row)
    return rows


def _kind(field: object) -> str:
    """`float32 [10, 3]`"""
    if not isinstance(field, Tensor):
        return f"a {type(field).__name__}"
    return f"{_dtype(field)} {list(field.shape)}"


def _dtype(field: Tensor) -> str:
    return str(field.dtype).removeprefix("torch.")


def _words(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _check_rows(state: Mapping[str, Any], held: Mapping[Any, Any], capacity: int) -> None:
    """Check that the parts of a state fit one another.

    Raises:
        CheckpointError: Naming one that does not.
    """
    count(state.get("seen"), "memory.seen")
    size: Any = state.get("size")
    count(size, "memory.size")
    if size > capacity:
        misfit("memory.size", size, f"at most {capacity}")
    for path, column in held.items():
        if not isinstance(column, Tensor) or len(column) != size:
            misfit(f"memory.columns.{path}", column, f"a tensor of {size} rows")
    each(each(anything, 2))(state["classes"], "memory.classes")
    each(table(anything))(state["streams"], "memory.streams")
