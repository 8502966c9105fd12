"""One run on many devices: joins the processes of torchrun, or starts those that `devices=N` asks for.

Every rank runs the whole corridor; what differs between them is in `replay/ranks.py`. Rank 0 is the process
that the user started, and the only one that writes files or prints.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..replay.errors import ConfigError, Diverged, RanksDiffer
from ..replay.ranks import DIED, Group, joined
from .record.output import silent

if TYPE_CHECKING:
    from .settings.settings import Settings

T = TypeVar("T")

_TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_LOCAL_RANK = "LOCAL_RANK"
_PATIENCE = timedelta(
    hours=1
)  # A rank may read data, compile or draw; a dead one is noticed at once.
_RUNS = itertools.count()  # Of this process, by torchrun; all ranks count alike.
_LAST_WORDS_S = 10.0  # How long rank 0 waits for the others to end.


@dataclass(frozen=True)
class Place:
    """Where a process stands among those of its run.

    Attributes:
        rank: Its number, from 0.
        world: How many there are.
        local: Its number on this machine, which is that of its GPU.
    """

    rank: int
    world: int
    local: int


def place_in(environ: Mapping[str, str]) -> Place | None:
    """The place that torchrun gave this process; None outside of it, or if there is only one.

    Raises:
        ConfigError: If the variables contradict each other, or some are missing.
    """
    if environ.get("WORLD_SIZE", "1") == "1" or "RANK" not in environ:
        return None
    lacking = [name for name in _TORCHRUN if name not in environ]
    if lacking:
        raise ConfigError(
            f"WORLD_SIZE={environ['WORLD_SIZE']} is set, but not {' and '.join(lacking)}. Start the ranks by "
            "torchrun, or unset WORLD_SIZE to run in this process alone."
        )
    try:
        rank, world = int(environ["RANK"]), int(environ["WORLD_SIZE"])
        local = int(environ.get(_LOCAL_RANK, rank))
    except ValueError as error:
        raise ConfigError(f"RANK, WORLD_SIZE and LOCAL_RANK must be numbers: {error}.") from None
    if not 0 <= rank < world:
        raise ConfigError(f"RANK={rank} must be below WORLD_SIZE={world}.")
    return Place(rank, world, local)


def on_devices(settings: Settings, work: Callable[[], T]) -> T:
    """Run `work` as one rank of several, where torchrun has started them or `devices` asks for them.

    Args:
        settings: Those of the run, which the other ranks receive too.
        work: Trains; every rank runs it. Its result is this process's.

    Raises:
        ConfigError: If the ranks cannot be started, before anything else.
        RanksDiffer: If another rank fails or dies, or they do different things.
    """
    place, wanted = place_in(os.environ), settings.devices
    if place is not None and wanted not in (1, place.world):
        raise ConfigError(
            f"devices={wanted}, but torchrun has started {place.world} processes. Leave devices= out."
        )
    count = place.world if place is not None else _count(wanted)
    settings.values["devices"] = count
    if count == 1:
        return work()
    from .process import taking_turns

    if settings.batch_size is not None and not isinstance(settings.batch_size, int):
        raise ConfigError(
            f"batch_size={settings.batch_size} is tried in one process. Set batch_size= to the rows of all "
            f"{count} devices together."
        )
    if place is not None:
        with taking_turns(), by_torchrun(place, settings):
            return work()
    _check(settings, count)
    # A process is one rank of one run at a time; runs in other threads wait, or are waited for.
    with taking_turns(), starting(settings, count):
        return work()


def refuse_ranks(what: str, settings: Settings) -> None:
    """Refuse what runs in one process only, within torchrun and with `devices`.

    Raises:
        ConfigError: Naming it.
    """
    if (place := place_in(os.environ)) is not None:
        raise ConfigError(
            f"{what} runs in one process, but torchrun has started {place.world}. Call ml(...) there, or "
            "start this without torchrun."
        )
    if settings.devices != 1:
        raise ConfigError(
            f"{what} runs in one process, so devices={settings.devices} needs ml(...)."
        )


def _count(wanted: int | str) -> int:
    """Number of ranks that `devices=` asks for."""
    if wanted != "auto":
        return int(wanted)
    import torch

    return max(1, torch.cuda.device_count())


def _check(settings: Settings, count: int) -> None:
    """Refuse more ranks than GPUs, and settings that need a single process."""
    import torch

    device = settings.values.get("device") or os.environ.get("ANTELOPE_DEVICE") or ""
    gpus = torch.cuda.device_count()
    if device == "cuda" or (not device and gpus):
        if gpus < count:
            raise ConfigError(
                f"devices={count}, but this machine has {gpus} GPU{'s' * (gpus != 1)}. Ask for fewer, or for "
                "device=cpu."
            )
    elif device and device != "cpu" and not device.startswith("cuda:"):
        raise ConfigError(f"devices={count} works on NVIDIA GPUs and on the CPU, not on {device}.")


# --------------------------------------------------------------------------------------- joining


@contextmanager
def by_torchrun(place: Place, settings: Settings) -> Iterator[None]:
    """Run the block as the rank that torchrun has made this process."""
    import torch.distributed as dist

    with ExitStack() as stack:
        if dist.is_initialized():  # By the user's own script, which also ends it.
            gpu = f"cuda:{place.local}" if _on_gpus(settings) else None
            stack.enter_context(_as_rank(place, joined_already=True, gpu=gpu))
        else:
            # The store outlives a restart of the ranks, and the runs of a script, and with it the addresses
            # of ranks that have left.
            attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            store = dist.PrefixStore(f"antelope/{attempt}/{next(_RUNS)}", _torchruns_store())
            stack.enter_context(
                group_of(place, store, settings, loopback=_on_one_machine(os.environ))
            )
        yield


@cache
def _torchruns_store() -> Any:
    """The store in which the ranks find each other, for all runs of this process."""
    import torch.distributed as dist

    with _loopback(_on_one_machine(os.environ)):
        return next(iter(dist.rendezvous("env://", timeout=_PATIENCE)))[0]


@contextmanager
def group_of(
    place: Place,
    store: Any,
    settings: Settings | None = None,
    *,
    loopback: bool = True,
    **more: Any,
) -> Iterator[Group]:
    """Join the group of all ranks for the block, and leave it afterwards.

    Args:
        store: A store of torch.distributed in which the ranks find each other.
        settings: Say whether the ranks learn on GPUs; None: on the CPU.
        loopback: Whether all ranks are on this machine, so that nothing has to listen elsewhere.
        **more: For `Group`.
    """
    import torch.distributed as dist

    gpus = _on_gpus(settings)
    backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
    hook = sys.excepthook
    with _loopback(loopback):
        dist.init_process_group(
            backend, store=store, rank=place.rank, world_size=place.world, timeout=_PATIENCE
        )
    sys.excepthook = hook  # torch's writes [rank0] before each line of every later traceback.
    try:
        with _as_rank(place, gpu=f"cuda:{place.local}" if gpus else None, **more) as group:
            yield group
    finally:
        with contextlib.suppress(RuntimeError):  # Of a connection that is broken anyway.
            dist.destroy_process_group()


@contextmanager
def _as_rank(place: Place, *, joined_already: bool = False, **more: Any) -> Iterator[Group]:
    """Run the block with `ranks()` as this place; whatever ends it, the other ranks learn of it."""
    import torch.distributed as dist

    host = dist.new_group(backend="gloo", timeout=_PATIENCE) if joined_already else None
    group = Group(place.rank, place.world, group=host, **more)
    with joined(group), silent(place.rank > 0), warnings.catch_warnings():
        if place.rank:
            warnings.simplefilter("ignore")
        try:
            yield group
        except BaseException as error:
            group.tell(error)
            if place.rank and group.said and isinstance(error, Exception):
                code = error.exit_code if isinstance(error, (ConfigError, Diverged)) else 1
                raise SystemExit(code) from None  # Rank 0 says it.
            raise


def _on_gpus(settings: Settings | None) -> bool:
    """Whether each rank learns on a GPU of its own."""
    import torch

    if settings is None or not torch.cuda.is_available():
        return False
    # Ranks that share a GPU by its number cannot use NCCL, which refuses that.
    return (settings.values.get("device") or os.environ.get("ANTELOPE_DEVICE") or "cuda") == "cuda"


def _on_one_machine(environ: Mapping[str, str]) -> bool:
    """Whether torchrun has started all ranks here, wherever its own store listens."""
    return environ.get("LOCAL_WORLD_SIZE", "") == environ["WORLD_SIZE"]


@contextmanager
def _loopback(wanted: bool) -> Iterator[None]:
    """Let gloo and NCCL listen on the loopback interface, unless the user has named one."""
    names = [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")]
    keys = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME") if wanted and names else ()
    added = [key for key in keys if key not in os.environ]
    os.environ.update(dict.fromkeys(added, names[0]))
    try:
        yield
    finally:
        for key in added:
            del os.environ[key]


# -------------------------------------------------------------------------------------- starting


@contextmanager
def starting(settings: Settings, count: int) -> Iterator[None]:
    """Start ranks 1 to `count` - 1 for the block, which is rank 0.

    Raises:
        ConfigError: If the settings hold an object that cannot be sent to them.
    """
    import cloudpickle
    import torch.distributed as dist

    with tempfile.TemporaryDirectory(prefix="antelope-ranks-") as folder:
        try:
            sent = cloudpickle.dumps((list(sys.path), settings))
        except Exception as error:
            raise ConfigError(
                f"devices={count}: the settings hold an object that other processes cannot receive "
                f"({type(error).__name__}: {error}). Give a class or a name in its place, or start the "
                f"script by torchrun --nproc-per-node={count}."
            ) from error
        children = [_Child(Place(rank, count, rank), folder, sent) for rank in range(1, count)]
        store = dist.FileStore(str(Path(folder, "store")), count)
        try:
            _wait_for(children, folder)
            with group_of(Place(0, count, 0), store, settings, died=lambda: _about(children)):
                yield
        except BaseException:
            for child in children:
                child.end(wait_s=1.0)
            raise
        finally:
            for child in children:
                child.end(wait_s=_LAST_WORDS_S)


def _wait_for(children: list[_Child], folder: str) -> None:
    """Wait until all ranks are about to join: torch would wait for one that has died, deaf to signals."""
    while lacking := [c for c in children if not Path(folder, f"rank-{c.place.rank}").exists()]:
        if any(child.code is not None for child in lacking):
            raise _about(lacking)
        time.sleep(0.02)


class _Child:
    """A rank that this process has started. It ends when this process does."""

    def __init__(self, place: Place, folder: str, sent: bytes):
        self.place = place
        words = [str(n) for n in (place.rank, place.world)]
        # Ctrl-C reaches all ranks of a terminal; until the run listens to it, rank 0 alone says so.
        code = (
            "import os, signal; signal.signal(signal.SIGINT, lambda *_: os._exit(130)); "
            f"from {__package__}.started_rank import main; main()"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", code, *words, folder],
            stdin=subprocess.PIPE,
            # Nobody is there to answer a debugger.
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                "PYTHONBREAKPOINT": "0",
            },
        )
        # In a thread: a pipe holds little, and this rank must not wait for one that has died.
        self._sending = threading.Thread(target=self._send, args=(sent,), daemon=True)
        self._sending.start()

    def _send(self, sent: bytes) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        with contextlib.suppress(OSError):
            pipe.write(len(sent).to_bytes(8, "little") + sent)
            pipe.flush()  # Stays open: its end tells the rank that this process is gone.

    @property
    def code(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def end(self, *, wait_s: float) -> None:
        """Wait for it, and end it if that takes too long."""
        try:
            self._process.wait(wait_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._sending.join()
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):  # What it has not read is lost with it.
                self._process.stdin.close()


def _about(children: list[_Child]) -> BaseException:
    """What to raise when the connection to another rank broke."""
    for child in children:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child._process.wait(1.0)
        if (code := child.code) is not None and code != 0:
            how = f"was killed by signal {-code}" if code < 0 else f"has ended with {code}"
            more = ", as the system does where memory runs out" if code == -9 else ""
            return RanksDiffer(
                f"Rank {child.place.rank} {how}{more}. resume=true continues from the last checkpoint."
            )
    return RanksDiffer(DIED)
