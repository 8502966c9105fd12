"""The processes that learn one model together, its ranks, and this process's place among them.

Every rank holds the same weights, the same data and the same random streams, and draws the same batches; each
computes its own rows of them. So no rank has a state of its own, and a checkpoint can be continued by any
number of ranks.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from . import errors
from .errors import RanksDiffer
from .randomness import all_streams, seed_everything, set_all_streams

T = TypeVar("T")

_OURS = str(Path(__file__).parents[1])  # Our own code, in messages of no use to the user.
DIED = (
    "Another rank of this run has died: the connection to it broke. resume=true continues from the last "
    "checkpoint."
)
_TEXT = 96  # Bytes of a header that say what a rank is about to do.
_NUMBERS = 4  # Small numbers that ranks agree on, at most.


class Ranks:
    """This process alone, which is what `ranks()` returns unless a run has several ranks.

    Attributes:
        rank: This process's number, from 0. Rank 0 writes the run directory.
        world: How many there are.
        several: Whether there are others.
        gpu: Name of the GPU that this rank learns on; None: ranks share a device, or have none.
        own: Whether each rank has data of its own, as in environments, and not a part of the same.
        split: Whether `learn` runs, on this rank's rows. All else is the same on every rank.
        last: Rows of the last batch, over all ranks.
    """

    rank, world, several = 0, 1, False
    own = split = False
    last = 0
    settler: Callable[[Any], None] | None = None  # Does what `settle` asks for.
    gpu: str | None = None

    def count(self, rows: int) -> int:
        """How many rows of a whole batch are this rank's."""
        return rows

    def rows(self, index: Tensor) -> Tensor:
        """This rank's part `[n, ...]` of a whole batch `[B, ...]`: rows rank, rank + world, ...

        A batch with fewer than two rows a rank is every rank's, as a whole: BatchNorm cannot train on
        one row.
        """
        return index

    def drawn(self, rows: int) -> None:
        """Note that `learn` receives this rank's part of `rows` further rows."""

    @property
    def weight(self) -> float:
        """This rank's share of the rows drawn since `apart` began: what its loss counts in the sum of all."""
        return 1.0

    @property
    def scale(self) -> float:
        """What makes a mean over this rank's rows count as it should in the mean over the ranks."""
        return self.weight * self.world

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Run the block with random streams of this rank's own (dropout, noise); the common ones go on after.

        Also counts the rows drawn from zero.
        """
        yield

    @contextmanager
    def together(self) -> Iterator[None]:
        """Within `apart`, run the block with the common streams, as what is the same on every rank."""
        yield

    def divides(self, rows: int) -> bool:
        """Whether these rows are divided among the ranks in the proportion of the last batch's."""
        return True

    @property
    def seed(self) -> int:
        """torch's seed, outside `apart` and within."""
        return torch.initial_seed()

    def gather(self, part: Tensor, rows: int) -> Tensor:
        """The whole `[rows, ...]`, in its own order, from every rank's part of it; without gradients."""
        return part.detach()

    @property
    def sources(self) -> int:
        """How many ranks gather data of their own: all of them in environments, else 1."""
        return self.world if self.own else 1

    def own_data(self) -> None:
        """From now on each rank has data of its own, and random streams to go with it."""

    def own_streams(self, seed: int) -> None:
        """Begin this rank's own random streams, if it has data of its own; rank 0 keeps those it has."""

    def settle(self, optimizer: Any) -> None:
        """Sum the gradients of an optimiser over the ranks, before a step that the module takes itself.

        Only needed where the gradient is read before that step, as clipping does: a step settles it too.
        """

    def by_first(self, work: Callable[[], T]) -> T:
        """What rank 0 finds, on every rank; the others wait, and raise what it raises."""
        return work()

    def collect(self, part: Tensor) -> Tensor:
        """The rows of every rank, where each may have any number: their first ones, their second ones, ..."""
        return part.detach()

    def sum(self, tensor: Tensor, what: str = "numbers") -> Tensor:
        """The sum over the ranks, in place; all ranks get the same bits."""
        return tensor

    def first(self, tensor: Tensor) -> Tensor:
        """Rank 0's values, in place."""
        return tensor

    def objects(self, value: Any, what: str = "values") -> list[Any]:
        """Every rank's picklable object, in the ranks' order."""
        return [value]

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """The mean of each number over the ranks that have it."""
        return values

    def agree(self, what: str, *numbers: int) -> list[int]:
        """Meet all other ranks, and return the largest of each number.

        Args:
            what: What this rank is about to do, such as `update 12`; the same on all of them.
            numbers: At most 4, each from 0 to 255.

        Raises:
            RanksDiffer: If another rank is about to do something else, has failed, or has died.
        """
        return list(numbers)

    def any(self, what: str, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        return bool(self.agree(what, int(flag))[0])

    def decided(self, what: str, flag: bool) -> bool:
        """Whether the flag is set on rank 0, which decides for all."""
        return self.any(what, flag and self.rank == 0)

    def tell(self, error: BaseException) -> None:
        """Tell the other ranks that this one has failed, at the next point where they meet."""


class Group(Ranks):
    """One rank of several, over torch.distributed.

    Args:
        rank, world: This rank, and how many there are.
        group: For tensors on the host (gloo); None: the default group.
        gpu: The GPU of this rank alone, such as `cuda:1`; or None.
        died: Called where the connection to another rank broke; returns the error to raise.
    """

    several = True

    def __init__(
        self,
        rank: int,
        world: int,
        *,
        group: Any = None,
        gpu: str | None = None,
        died: Callable[[], BaseException] | None = None,
    ):
        import torch.distributed as dist

        self.rank, self.world, self._dist, self._host = rank, world, dist, group
        self._died, self.gpu = died or (lambda: RanksDiffer(DIED)), gpu
        self._local = self._whole = 0  # Rows drawn since `apart` began: this rank's, and all.
        self._seed: int | None = None
        self.told: BaseException | None = None  # What all ranks know that has failed.
        self.said = False  # Whether rank 0 has that error too.
        self.broken = False  # Whether the ranks can no longer meet.

    # --------------------------------------------------------------------------- parts of batches

    def _replicated(self, rows: int) -> bool:
        return rows < 2 * self.world

    def count(self, rows: int) -> int:
        return rows if self._replicated(rows) else len(range(self.rank, rows, self.world))

    def rows(self, index: Tensor) -> Tensor:
        return index if self._replicated(len(index)) else index[self.rank :: self.world]

    def drawn(self, rows: int) -> None:
        # Rows that every rank computes count once in all, so a world-th here.
        self._local += rows if self._replicated(rows) else self.world * self.count(rows)
        self._whole += self.world * rows
        self.last = rows

    def divides(self, rows: int) -> bool:
        last, world = self.last, self.world
        if self._replicated(rows) or self._replicated(last):
            return False
        parts = ((len(range(r, rows, world)), len(range(r, last, world))) for r in range(world))
        return all(n * last == m * rows for n, m in parts)

    @property
    def weight(self) -> float:
        return self._local / self._whole if self._whole else 1 / self.world

    @contextmanager
    def apart(self) -> Iterator[None]:
        self._local = self._whole = 0
        if self.own:  # Their streams are different from the start.
            self.split = True
            try:
                yield
            finally:
                self.split = False
            return
        draw = int(torch.randint(2**31 - 2**16, ()))
        self._seed = torch.initial_seed()
        self._common = all_streams()
        seed_everything(draw + self.rank)
        self.split = True
        try:
            yield
        finally:
            self.split, self._seed = False, None
            set_all_streams(self._common)

    @contextmanager
    def together(self) -> Iterator[None]:
        if not self.split:
            yield
            return
        self.split = False
        if not self.own:
            mine = all_streams()
            set_all_streams(self._common)
        try:
            yield
        finally:
            self.split = True
            if not self.own:
                self._common = all_streams()
                set_all_streams(mine)

    @property
    def seed(self) -> int:
        return torch.initial_seed() if self._seed is None else self._seed

    # -------------------------------------------------------------------------------- collectives

    def gather(self, part: Tensor, rows: int) -> Tensor:
        shape, dtype = tuple(part.shape[1:]), part.dtype
        self.agree(f"gather {rows} rows of {list(shape)} {dtype}")
        part = part.detach()
        if self._replicated(rows):
            return self._first(part.clone())
        most = -(-rows // self.world)
        # As bytes: not every backend knows every dtype.
        mine = part.contiguous().view(len(part), -1).view(torch.uint8)
        if not mine.numel():
            return part.new_empty((rows, *shape))
        padded = mine.new_zeros(most, mine.shape[1])
        padded[: len(mine)] = mine
        parts = [torch.empty_like(padded) for _ in range(self.world)]
        self._do(self._dist.all_gather, parts, padded)
        whole = torch.stack(parts, 1).flatten(0, 1)[:rows]
        return whole.contiguous().view(dtype).view(rows, *shape)

    def own_data(self) -> None:
        self.own = True

    def settle(self, optimizer: Any) -> None:
        if self.settler is not None:
            self.settler(optimizer)

    def own_streams(self, seed: int) -> None:
        if self.own and self.rank:
            seed_everything(seed_of(seed, self.rank))

    def by_first(self, work: Callable[[], T]) -> T:
        if self.rank:
            found, report = self.objects(None)[0]
            if report is not None:
                raise _rebuilt(0, report)
            return found
        try:
            found = work()
        except BaseException as error:
            self.objects((None, _report(error)))
            raise
        self.objects((found, None))
        return found

    def collect(self, part: Tensor) -> Tensor:
        counts = torch.zeros(self.world, dtype=torch.int64)
        counts[self.rank] = len(part)
        self.sum(counts)
        if self._replicated(self.last) and bool((counts == self.last).all()):
            return self.gather(part, self.last)
        most = max(2, int(counts.max()))
        padded = part.new_zeros((most, *part.shape[1:]))
        padded[: len(part)] = part.detach()
        real = torch.arange(most)[:, None] < counts
        return self.gather(padded, most * self.world)[real.flatten().to(part.device)]

    def sum(self, tensor: Tensor, what: str = "numbers") -> Tensor:
        self.agree(f"sum {what}, {list(tensor.shape)} {tensor.dtype}")
        self._do(self._dist.all_reduce, tensor)
        return tensor

    def first(self, tensor: Tensor) -> Tensor:
        self.agree(f"first {list(tensor.shape)} {tensor.dtype}")
        return self._first(tensor)

    def _first(self, tensor: Tensor) -> Tensor:
        flat = tensor.contiguous()
        self._do(self._dist.broadcast, flat.view(-1), 0)
        return tensor if flat is tensor else tensor.copy_(flat)

    def objects(self, value: Any, what: str = "values") -> list[Any]:
        self.agree(f"exchange {what}")
        return self._objects(value)

    def _objects(self, value: Any) -> list[Any]:
        found: list[Any] = [None] * self.world
        self._do(self._dist.all_gather_object, found, value, group=self._host)
        return found

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        each: dict[str, list[float]] = {}
        for one in self.objects(values):
            for name, value in one.items():
                each.setdefault(name, []).append(value)
        return {name: math.fsum(found) / len(found) for name, found in each.items()}

    # ----------------------------------------------------------------------------------- meeting

    def agree(self, what: str, *numbers: int) -> list[int]:
        headers = self._meet(what, numbers, failed=False)
        self.told = None  # All go on, whatever has failed before.
        if any(failed for _, _, failed in headers):
            self._failed(None, headers)
        if any(text != headers[0][0] for text, _, _ in headers):
            self.told = RanksDiffer(_differ([text for text, _, _ in headers]))
            raise self.told
        return [max(found) for found in zip(*(n for _, n, _ in headers), strict=True)][
            : len(numbers)
        ]

    def tell(self, error: BaseException) -> None:
        if self.broken or self.told is not None:  # One exchange for each failure, of all ranks.
            return
        try:
            headers = self._meet(f"fail: {type(error).__name__}", (), failed=True)
            self._failed(error, headers)
        except BaseException as other:
            # The others know; this rank goes on with its own error.
            self.told = error
            if isinstance(other, KeyboardInterrupt):
                raise

    def _failed(self, error: BaseException | None, headers: list[Any]) -> None:
        """Exchange what has failed; raises the first error of another rank, unless this one has its own."""
        reports = self._objects(None if error is None else _report(error))
        self.said = error is None or reports[0] is not None
        if error is not None:
            self.told = error
            return
        rank, report = next((r, each) for r, each in enumerate(reports) if each is not None)
        self.told = _rebuilt(rank, report)
        raise self.told

    def _meet(
        self, what: str, numbers: tuple[int, ...], *, failed: bool
    ) -> list[tuple[str, list[int], bool]]:
        text = what.encode()[:_TEXT].ljust(_TEXT, b"\0")
        tail = bytes(numbers).ljust(_NUMBERS, b"\0") + bytes([failed])
        mine = torch.frombuffer(bytearray(text + tail), dtype=torch.uint8)
        parts = [torch.empty_like(mine) for _ in range(self.world)]
        self._do(self._dist.all_gather, parts, mine, group=self._host)
        found = []
        for part in parts:
            raw = bytes(part.tolist())
            said = raw[:_TEXT].rstrip(b"\0").decode(errors="replace")
            found.append((said, list(raw[_TEXT : _TEXT + _NUMBERS]), bool(raw[-1])))
        return found

    def _do(self, collective: Callable[..., Any], *args: Any, **named: Any) -> None:
        """Run a collective; one that is left in the middle leaves the ranks unable to meet again."""
        if self.broken:
            raise self.told or RanksDiffer("The ranks of this run can no longer meet.")
        self.broken = True
        try:
            collective(*args, **named)
        except RuntimeError:  # All that torch says is that a connection broke.
            self.told = self._died()
            raise self.told from None
        self.broken = False


def _differ(texts: list[str]) -> str:
    said = "; ".join(f"rank {rank}: {text}" for rank, text in enumerate(texts))
    return (
        f"The ranks are about to do different things ({said}). Every rank must make the same updates: let "
        "`learn` decide by what is the same on all of them, such as the step, not by its own rows."
    )


def _report(error: BaseException) -> dict[str, Any]:
    """What other ranks need in order to raise this error too."""
    kind = type(error)
    # A class of the user's may not be known to the other ranks, or not be sent.
    known = kind.__module__ in (errors.__name__, "builtins") or not isinstance(error, Exception)
    more = {k: v for k, v in vars(error).items() if isinstance(v, (int, float, str, bool))}
    text = f"{kind.__name__}: {error}{_place_of(error)}"
    return {"kind": kind if known else Exception, "text": str(error), "said": text, "more": more}


def _place_of(error: BaseException) -> str:
    """Where code of the user's raised an error, or called what did."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [
        f for f in frames if not f.filename.startswith(_OURS) and "-packages" not in f.filename
    ]
    return f" ({theirs[-1].filename}, line {theirs[-1].lineno})" if theirs else ""


def _rebuilt(rank: int, report: dict[str, Any]) -> BaseException:
    """The error of another rank: of its own class if that is one of ours or a signal, else RanksDiffer."""
    kind = report["kind"]
    if kind.__module__ == errors.__name__:
        error: BaseException = kind(report["text"])
        vars(error).update(report["more"])
        return error
    if issubclass(kind, Exception):
        return RanksDiffer(f"Rank {rank} has failed. {report['said']}")
    error = kind.__new__(kind)
    vars(error).update(report["more"])
    return error


def seed_of(seed: int, rank: int) -> int:
    """A seed for what a rank draws by itself; rank 0's is the run's."""
    if not rank:
        return seed
    return int(np.random.SeedSequence([seed % 2**64, rank]).generate_state(1)[0])


_ALONE = Ranks()
_current: Ranks = _ALONE


def ranks() -> Ranks:
    """This process's place among the ranks of the run that is at work."""
    return _current


def part() -> None:
    """Go on alone, once all ranks have done what they do together."""
    global _current
    if _current.several:
        _current.agree("end")
        _current = _ALONE


@contextmanager
def joined(group: Ranks) -> Iterator[None]:
    """Run the block as one rank of several."""
    global _current
    before, _current = _current, group
    try:
        yield
    finally:
        _current = before
