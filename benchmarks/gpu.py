"""Antelope on a GPU, checked in ten minutes: errors, waits, speed, resumption and memory.

For the day on which there is one. Each part prints its results at once and leaves unused time to the
others; whatever was skipped for lack of time is named. Figures are medians of alternating rounds by the
wall clock, synchronised at both ends. Exits with 1 if anything fails or is below its floor.

    python benchmarks/gpu.py [--minutes 10] [--device cuda] [--only errors waits resume speed ...]

Without a GPU `--device cpu --minutes 3` shows that the script itself works; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from antelope import ml
from antelope.envs.env_world import EnvWorld
from antelope.launcher.learn.learner import Learner
from antelope.launcher.learn.watchdog import Watchdog
from tests.accelerator.runs import (
    DATA,
    ENVIRONMENTS,
    RUNS,
    STRATEGIES,
    Pixels,
    continued,
    start,
)

_WARM_UP = 10  # Learning steps not timed.
_LOOP, _FIXED = (
    0.97,
    0.90,
)  # Floors: of a plain loop with its rows on the device, and of its step alone.


class Bench:
    """The device, the time that is left, and the results so far."""

    def __init__(self, device: str, minutes: float):
        self.device = torch.device(device)
        self.ends = time.monotonic() + 60 * minutes
        self.below: list[str] = []
        self.skipped: list[str] = []

    def has_time(self, what: str, seconds: float = 5) -> bool:
        """Whether there are so many seconds left; else `what` is named in the end."""
        if self.ends - time.monotonic() > seconds:
            return True
        self.skipped.append(what)
        return False

    def wait(self) -> None:
        """Until the device has done everything."""
        if self.device.type != "cpu":
            torch.accelerator.synchronize()

    def row(self, name: str, value: float, floor: float | None = None, note: str = "") -> None:
        low = floor is not None and value < floor
        bound = "" if floor is None else f"  floor {floor:g}{'  BELOW' if low else ''}"
        print(f"  {name:<52}{value:>10.3g}{bound}  {note}".rstrip(), flush=True)
        if low:
            self.below.append(name)

    def failed(self, name: str, error: BaseException) -> None:
        last = traceback.extract_tb(error.__traceback__)[-1]
        said = " ".join(str(error).split())[:200]
        print(f"  FAILS {name}: {type(error).__name__}: {said} ({last.filename}:{last.lineno})")
        self.below.append(name)


# ------------------------------------------------------------------------------- errors and waits


def errors(bench: Bench) -> None:
    """One run of every kind in the tests."""
    ran = 0
    for kind, runs in RUNS.items():
        for name, settings in runs.items():
            if not bench.has_time(f"errors: {kind}, {name}", 10):
                continue
            try:
                with tempfile.TemporaryDirectory() as folder:
                    start(str(bench.device), Path(folder), **settings)
                ran += 1
            except Exception as error:
                bench.failed(f"{kind}, {name}", error)
    print(f"  {ran} of {sum(map(len, RUNS.values()))} runs ended well")


_NEVER_WAIT = [
    *("mlp", "cnn with aug", "ema, clip, scheduler", "vae"),
    *(f"strategy {s}" for s in ("er", "der", "ewc", "si", "mas", "lwf", "cwr", "pnn", "packnet")),
]


def waits(bench: Bench) -> None:
    """How often a learning step waits for the device, as CUDA itself reports."""
    if bench.device.type != "cuda":
        print("  only CUDA reports its waits")
        return
    for kind, names in (("data", _NEVER_WAIT), ("environments", ["dqn", "sac", "td3"])):
        for name in names:
            if not bench.has_time(f"waits: {name}", 10):
                continue
            try:
                count, places = _waits_of(bench, RUNS[kind][name])
            except Exception as error:
                bench.failed(f"waits of {name}", error)
                continue
            bench.row(f"waits per learning step, {name}", count, note=", ".join(places[:2]))
            if count:
                bench.below.append(f"waits of {name}")


def _waits_of(bench: Bench, settings: dict[str, Any]) -> tuple[float, list[str]]:
    found: list[str] = []
    calls = 0
    step, check = Learner.step, Watchdog.check_losses

    def watched(self: Learner, *args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls <= 3:
            step(self, *args)
            return
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                step(self, *args)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        for warning in caught:
            if "synchroniz" in str(warning.message):
                found.append(f"{Path(warning.filename).name}:{warning.lineno}")

    def unwatched(self: Watchdog) -> None:
        torch.cuda.set_sync_debug_mode("default")
        check(self)

    with (
        mock.patch.object(Learner, "step", watched),
        mock.patch.object(Watchdog, "check_losses", unwatched),
        tempfile.TemporaryDirectory() as folder,
    ):
        start(str(bench.device), Path(folder), **settings)
    return len(found) / max(1, calls - 3), sorted(set(found), key=found.count, reverse=True)


# ------------------------------------------------------------------------------------- resumption


def resume(bench: Bench) -> None:
    """Whether an interrupted run ends like an uninterrupted one, with deterministic=true."""
    device = str(bench.device)
    cases = {
        "cnn, aug, ema": {**DATA["cnn with aug"], "ema": 0.99},
        **{f"strategy {s}": DATA[f"strategy {s}"] for s in ("er", "ewc", "packnet", "gem")},
        "fp16": DATA["fp16"],
        **{name: ENVIRONMENTS[name] for name in ("dqn, gpu", "drqn", "sac", "ppo")},
    }
    for name, settings in cases.items():
        for saved, now in ((device, device), (device, "cpu"), ("cpu", device)):
            if not bench.has_time(f"resume: {name}, {saved} to {now}", 15):
                continue
            try:
                with tempfile.TemporaryDirectory() as folder:
                    ends = continued(
                        {**settings, "deterministic": True, "seed_steps": 30}
                        if "env" in settings
                        else {**settings, "deterministic": True},
                        Path(folder),
                        at=17,
                        saved=saved,
                        now=now,
                    )
            except Exception as error:
                bench.failed(f"resume {name}, {saved} to {now}", error)
                continue
            apart = float((ends["weights"] - ends["expected"]).abs().max())
            note = "exact" if apart == 0 else "another device" if saved != now else "NOT EXACT"
            bench.row(f"resumed, {name}, {saved} to {now}: apart by", apart, note=note)
            if saved == now and apart:
                bench.below.append(f"resume {name}")


# ------------------------------------------------------------------------------------------ speed


class MLP(nn.Module):
    """784-1024-1024-10."""

    shape = (1, 28, 28)

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten(), nn.Linear(784, 1024), nn.ReLU()]
        layers += [nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10)]
        self.network: nn.Module = nn.Sequential(*layers)

    def forward(self, obs: Tensor) -> Tensor:
        return self.network(obs)

    def learn(self, replay: Any) -> Tensor:
        batch = next(replay)
        return F.cross_entropy(self(batch.obs), batch.label)


class CNN(MLP):
    """Four convolutions."""

    shape = (3, 32, 32)

    def __init__(self) -> None:
        nn.Module.__init__(self)
        layers: list[nn.Module] = []
        width = 3
        for size in (64, 128, 256, 256):
            layers += [nn.Conv2d(width, size, 3, 2, 1), nn.BatchNorm2d(size), nn.ReLU()]
            width = size
        self.network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, 10))


class ResNet18(MLP):
    """torchvision's, with the stem for small images."""

    shape = (3, 32, 32)

    def __init__(self) -> None:
        nn.Module.__init__(self)
        from torchvision.models import resnet18

        network = resnet18(num_classes=10)
        network.conv1, network.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
        self.network = network


MODES: dict[str, dict[str, Any]] = {
    "fp32": {},
    "tf32": {"precision": "tf32"},
    "bf16": {"precision": "bf16", "channels_last": False},
    "bf16, channels last": {"precision": "bf16", "channels_last": True},
    "bf16, compiled": {"precision": "bf16", "channels_last": False, "compile": True},
}


def speed(bench: Bench, *, batch_size: int = 256) -> None:
    """Samples per second of `ml`, and of loops written by hand."""
    small = bench.device.type == "cpu"
    for make, steps in ((MLP, 400), (CNN, 200), (ResNet18, 80)):
        if small:  # To see that it works.
            steps, batch_size = 14, 8
        rows = 2 * batch_size if small else 20_000
        images = torch.randint(256, (rows, *make.shape), dtype=torch.uint8)
        data = images, torch.randint(10, (rows,))
        for mode, settings in MODES.items():
            if mode == "tf32" and bench.device.type != "cuda":
                continue
            if not bench.has_time(f"speed: {make.__name__}, {mode}", 40 if "comp" in mode else 15):
                continue
            try:
                _compare(bench, make, mode, settings, data, steps, batch_size)
            except Exception as error:
                bench.failed(f"speed of {make.__name__}, {mode}", error)
        if bench.has_time(f"speed: {make.__name__}, DataLoader", 20):
            rate = batch_size / _by_loader(bench, make(), data, steps // 2, batch_size)
            print(f"  {make.__name__}, fp32, a DataLoader with four workers: {rate:,.0f} samples/s")


def _compare(
    bench: Bench,
    make: Callable[[], MLP],
    mode: str,
    settings: dict[str, Any],
    data: tuple[Tensor, Tensor],
    steps: int,
    batch_size: int,
) -> None:
    loops, fixed, rates = [], [], []
    for round_ in range(4):  # The first one warms up.
        if round_ > 1 and not bench.has_time(f"more rounds of {make.__name__}, {mode}"):
            break
        gc.collect()
        ours = _by_ml(bench, make(), data, steps, batch_size, settings)
        plain = _by_hand(bench, make(), data, steps, batch_size, settings, gathers=True)
        alone = _by_hand(bench, make(), data, steps, batch_size, settings, gathers=False)
        if round_:
            loops.append(plain / ours)
            fixed.append(alone / ours)
            rates.append(batch_size / ours)
    name = f"{make.__name__}, {mode}"
    rate = f"{statistics.median(rates):,.0f} samples/s"
    bench.row(f"{name}: of a plain loop", statistics.median(loops), _LOOP, rate)
    bench.row(f"{name}: of the step on one fixed batch", statistics.median(fixed), _FIXED)


def _by_ml(
    bench: Bench,
    model: MLP,
    data: tuple[Tensor, Tensor],
    steps: int,
    batch_size: int,
    settings: dict[str, Any],
) -> float:
    """Seconds per learning step."""
    calls, began, ended = 0, 0.0, 0.0
    learn = model.learn

    def timed(replay: Any) -> Tensor:
        nonlocal calls, began, ended
        if calls in (_WARM_UP, steps - 1):
            bench.wait()
            now = time.perf_counter()
            began, ended = (now, 0.0) if calls == _WARM_UP else (began, now)
        calls += 1
        return learn(replay)

    model.learn = timed  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        ml(
            model=model,
            dataset=data,
            test_dataset=(data[0][:batch_size], data[1][:batch_size]),
            batch_size=batch_size,
            path=folder,
            device=str(bench.device),
            **{"train_steps": steps, "eval_every": 10**9, "log_every": 10**9},
            **{"plot": False, "progress": False},
            **settings,
        )
    return (ended - began) / (steps - 1 - _WARM_UP)


@contextmanager
def _as_asked(bench: Bench, model: nn.Module, settings: dict[str, Any]) -> Iterator[Any]:
    """Set up the same arithmetic for the plain loop; returns the context of its forward passes."""
    cudnn, before = torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision()
    torch.backends.cudnn.benchmark = True
    if settings.get("precision") == "tf32":
        torch.set_float32_matmul_precision("high")
    if settings.get("channels_last"):
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if settings.get("compile"):
        model.compile()
    half = settings.get("precision") == "bf16"
    try:
        yield lambda: torch.autocast(bench.device.type, torch.bfloat16) if half else nullcontext()
    finally:
        torch.backends.cudnn.benchmark = cudnn
        torch.set_float32_matmul_precision(before)


def _by_hand(
    bench: Bench,
    model: MLP,
    data: tuple[Tensor, Tensor],
    steps: int,
    batch_size: int,
    settings: dict[str, Any],
    *,
    gathers: bool,
) -> float:
    """Seconds per step with the rows on the device; without `gathers` always on the same batch."""
    device = bench.device
    model.to(device)
    images, labels = (part.to(device) for part in data)
    mean, stddev = images[:1000].float().mean(), images[:1000].float().std()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    layout = torch.channels_last if settings.get("channels_last") else torch.contiguous_format
    done, began = 0, 0.0

    def batch_at(index: Tensor) -> tuple[Tensor, Tensor]:
        x = images.index_select(0, index).float().sub_(mean).div_(stddev)
        return x.contiguous(memory_format=layout), labels.index_select(0, index)

    batch = batch_at(torch.arange(batch_size, device=device))
    with _as_asked(bench, model, settings) as arithmetic:
        while True:
            for index in torch.randperm(len(images), device=device).split(batch_size):
                if len(index) < batch_size:
                    continue
                if done in (_WARM_UP, steps - 1):
                    bench.wait()
                    if done == steps - 1:
                        return (time.perf_counter() - began) / (steps - 1 - _WARM_UP)
                    began = time.perf_counter()
                if gathers:
                    batch = batch_at(index)
                with arithmetic():
                    loss = F.cross_entropy(model(batch[0]), batch[1])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                done += 1


def _by_loader(
    bench: Bench, model: MLP, data: tuple[Tensor, Tensor], steps: int, batch_size: int
) -> float:
    """Seconds per step with torch's own DataLoader, as in its tutorials."""
    from torch.utils.data import DataLoader, TensorDataset

    device = bench.device
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    loader = DataLoader(
        TensorDataset(*data),
        batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=4,
        persistent_workers=True,
        pin_memory=device.type == "cuda",
    )
    done, began = 0, time.perf_counter()
    while done < steps:
        for images, labels in loader:
            if done == min(_WARM_UP, steps - 2):
                bench.wait()
                first, began = done, time.perf_counter()
            x = images.to(device, non_blocking=True).float().div_(255)
            loss = F.cross_entropy(model(x), labels.to(device, non_blocking=True))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done += 1
            if done == steps:
                break
    bench.wait()
    return (time.perf_counter() - began) / (done - first)


# -------------------------------------------------------------------------- reinforcement learning


_AGENTS: dict[str, dict[str, Any]] = {
    "DQN": {"env": "CartPole-v1", "model.explore_steps": 1, "learn_every": 4},
    "SAC": {"env": "Pendulum-v1", "batch_size": 256},
    "PPO": {"env": "CartPole-v1", "num_envs": 8, "model.steps": 64},
    "DrQV2": {"env": Pixels, "frame_stack": 3, "batch_size": 64, "capacity": 5000},
}


def agents(bench: Bench) -> None:
    """Environment steps per second on the CPU and on the device, with transitions in RAM and on it."""
    device = str(bench.device)
    for name, settings in _AGENTS.items():
        first = {"DrQV2": 80, "PPO": 512}.get(name, 300)
        for where, storage in (("cpu", "ram"), (device, "ram"), (device, "gpu")):
            if not bench.has_time(f"agents: {name} on {where}, {storage}", 15):
                continue
            words = {**settings, "model": name, "seed_steps": first // 2, "replay.storage": storage}
            try:
                rate = _env_rate(bench, {**words, "device": where}, first, seconds=4)
            except Exception as error:
                bench.failed(f"{name} on {where}, {storage}", error)
                continue
            bench.row(f"{name} on {where}, transitions in {storage}: steps/s", rate)


class _Enough(Exception):
    """Raised to end a run that is only timed."""


def _env_rate(bench: Bench, settings: dict[str, Any], first: int, *, seconds: float) -> float:
    """Environment steps per second from step `first` on, for so many seconds."""
    taken, began, at = 0, 0.0, 0
    collect = EnvWorld.collect

    def counted(self: EnvWorld, *args: Any) -> int:
        nonlocal taken, began, at
        if began and time.perf_counter() - began > seconds:
            raise _Enough
        if not began and taken >= first:
            bench.wait()
            began, at = time.perf_counter(), taken
        steps = collect(self, *args)
        taken += steps
        return steps

    with (
        mock.patch.object(EnvWorld, "collect", counted),
        tempfile.TemporaryDirectory() as folder,
    ):
        try:
            ml(
                path=folder,
                **{"train_steps": 10**6, "eval_every": 10**9, "eval_episodes": 1},
                **{"plot": False, "progress": False},
                **settings,
            )
        except _Enough:
            bench.wait()
    return (taken - at) / (time.perf_counter() - began)


# ------------------------------------------------------------------------------ memory, strategies


def memory(bench: Bench) -> None:
    """What the device holds after 100 learning steps and after 2,000: it must not grow."""
    if bench.device.type != "cuda":
        print("  only CUDA reports its memory")
        return
    cases = {
        "mlp": DATA["mlp"],
        "er": {**DATA["strategy er"], "train_steps": 2000},
        "dqn, gpu": {**ENVIRONMENTS["dqn, gpu"], "capacity": 5000},
    }
    for name, settings in cases.items():
        if not bench.has_time(f"memory: {name}", 20):
            continue
        held: dict[int, int] = {}
        step = Learner.step

        def measured(self: Learner, *args: Any, held: Any = held, step: Any = step) -> None:
            step(self, *args)
            if self.steps in (100, 2000):
                held[self.steps] = torch.cuda.memory_allocated()

        with (
            mock.patch.object(Learner, "step", measured),
            tempfile.TemporaryDirectory() as folder,
        ):
            start(str(bench.device), Path(folder), **{**settings, "train_steps": 2100})
        grown = (held[2000] - held[100]) / 2**20
        bench.row(f"memory, {name}: MiB more at step 2,000 than at 100", grown)
        if grown > 1:
            bench.below.append(f"memory of {name}")


def strategies(bench: Bench) -> None:
    """Seconds of a run with each strategy, over those of `naive`."""
    naive = None
    for name in STRATEGIES:
        if not bench.has_time(f"strategies: {name}", 15):
            continue
        settings = {**DATA[f"strategy {name}"], "train_steps": 300, "tasks": 2}
        took = []
        for _ in range(2):
            bench.wait()
            began = time.perf_counter()
            try:
                with tempfile.TemporaryDirectory() as folder:
                    start(str(bench.device), Path(folder), **settings)
            except Exception as error:
                bench.failed(f"strategy {name}", error)
                break
            took.append(time.perf_counter() - began)
        if took:
            naive = naive or min(took)
            bench.row(f"strategy {name}: times the naive run", min(took) / naive)


PARTS: dict[str, Callable[[Bench], None]] = {
    "errors": errors,
    "waits": waits,
    "resume": resume,
    "speed": speed,
    "agents": agents,
    "memory": memory,
    "strategies": strategies,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", nargs="*", default=list(PARTS), choices=list(PARTS))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    bench = Bench(arguments.device, arguments.minutes)
    name = torch.cuda.get_device_name() if bench.device.type == "cuda" else str(bench.device)
    print(f"{name}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    for part in arguments.only:
        began = time.monotonic()
        print(f"{part}: {PARTS[part].__doc__}", flush=True)
        PARTS[part](bench)
        print(f"  ({time.monotonic() - began:.0f} s)", flush=True)
    for what in bench.skipped:
        print(f"no time: {what}")
    print("below, or failed: " + (", ".join(bench.below) or "nothing"))
    sys.exit(bool(bench.below))


if __name__ == "__main__":
    main()
