"""Batches per second of `next(replay)` against other libraries' replays and plain tensors.

All in one process and one thread, with batches of 256 transitions from eight environments. The libraries
take turns in short blocks, whose CPU time counts; each ratio is the median over rounds of neighbouring
blocks. Libraries that are not installed are named and left out. Needs 7 GB for the frames. Run by hand:

    python benchmarks/replay.py [--rounds 25] [--only uniform nstep prioritized frames insertion]
"""

from __future__ import annotations

import argparse
import functools
import gc
import itertools
import logging
import platform
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from antelope.replay import Replay, Space, Spec, Transitions

BATCH, ENVS, GAMMA = 256, 8, 0.99
Draw = Callable[[], Any]
Data = dict[str, np.ndarray]
# What draws a batch (None: not installed), and how many times as fast we must be (0: no matter).
Rivals = dict[str, tuple[Draw | None, float]]


# ------------------------------------------------------------------ what happened, [T, N, ...]


def experience(transitions: int) -> Data:
    """CartPole's shapes; an episode ends every 200 steps or so."""
    random = np.random.default_rng(0)
    steps = transitions // ENVS
    obs = random.random((steps + 1, ENVS, 4), np.float32)
    return {
        "obs": obs[:-1],
        "action": random.integers(0, 2, (steps, ENVS)),
        "reward": random.random((steps, ENVS), np.float32),
        "next_obs": obs[1:],
        "terminated": random.random((steps, ENVS)) < 1 / 200,
    }


def pixels(transitions: int) -> Data:
    """The same with one 84x84 frame for each step."""
    data = experience(transitions)
    steps = len(data["action"]) + 1
    frames = np.random.default_rng(0).integers(0, 256, (steps, ENVS, 1, 84, 84), np.uint8)
    return {**data, "obs": frames[:-1], "next_obs": frames[1:]}


def flat(data: Data) -> Data:
    """`[T, N, ...]` to `[T * N, ...]`, with `done` and `discount` for those who store them."""
    data = {name: value.reshape(-1, *value.shape[2:]) for name, value in data.items()}
    done = data["terminated"].astype(np.float32)
    return {**data, "done": done, "discount": np.float32(GAMMA) * (1 - done)}


def stacked(data: Data) -> Data:
    """Observations as stacks of the last four frames, `[T, N, 4, 84, 84]`: peers store them so."""
    stacks = {}
    for name in ("obs", "next_obs"):
        frames = data[name]
        stacks[name] = np.empty((*frames.shape[:2], 4, 84, 84), np.uint8)
        for back in range(4):
            stacks[name][:, :, 3 - back] = np.roll(frames[:, :, 0], back, axis=0)
    return {**data, **stacks}


# ------------------------------------------------------------------ ours


def ring(data: Data, *, nstep: int = 1, stack: int = 1, capacity: int | None = None) -> Transitions:
    """Filled by `add`, step by step, as a run fills it."""
    channels, *rest = data["obs"].shape[2:]
    obs = Space((channels * stack, *rest), torch.from_numpy(data["obs"][:0]).dtype)
    storage = Transitions(
        Spec(obs, Space((2,), torch.int64, discrete=True)),
        capacity=data["action"].size if capacity is None else capacity,
        num_envs=ENVS,
        discount=GAMMA,
        nstep=nstep,
        stack=stack,
    )
    storage.start(data["obs"][0])
    insert(storage, data)
    return storage


def insert(storage: Transitions, data: Data, start: int = 0, stop: int | None = None) -> None:
    truncated = np.zeros(ENVS, np.bool_)
    for t in range(start, len(data["action"]) if stop is None else stop):
        step = {
            "action": data["action"][t],
            "reward": data["reward"][t],
            "terminated": data["terminated"][t],
            "truncated": truncated,
            "next_obs": data["next_obs"][t],
        }
        storage.add(step, began=step["terminated"], first=step["next_obs"])


def ours(storage: Transitions, **options: Any) -> Replay:
    return Replay(storage, lambda fields: fields, batch_size=BATCH, **options)


def ours_prioritized(data: Data, priority: np.ndarray) -> Draw:
    replay = ours(ring(data), priorities={})
    # A few rows hold the last observation of an episode, and have no priority.
    live = torch.from_numpy(np.flatnonzero(replay.storage.drawable))
    replay.update_priorities(live, torch.from_numpy(np.resize(priority, len(live))))
    errors = torch.from_numpy(priority[:BATCH].copy())

    def draw() -> None:
        replay.update_priorities(next(replay).index, errors)

    return draw


# ------------------------------------------------------------------ peers


def tensors(data: Data) -> Draw:
    """Five preallocated tensors, one `randint`, five `index_select`: the least possible work."""
    data = flat(data)
    names = ("obs", "action", "reward", "next_obs", "discount")
    columns = [torch.from_numpy(data[name].copy()) for name in names]
    rows = len(columns[0])

    def draw() -> list[torch.Tensor]:
        index = torch.randint(rows, (BATCH,))
        return [column.index_select(0, index) for column in columns]

    return draw


def sb3(data: Data, *, nstep: int = 1) -> Draw:
    from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer

    kind, options = (ReplayBuffer, {}) if nstep == 1 else (NStepReplayBuffer, {"n_steps": nstep})
    obs = data["obs"]
    low, high = (0, 255) if obs.dtype == np.uint8 else (-np.inf, np.inf)
    buffer = kind(
        data["action"].size,
        gym.spaces.Box(low, high, obs.shape[2:], obs.dtype.type),
        gym.spaces.Discrete(2),
        device="cpu",
        n_envs=ENVS,
        **options,
    )
    # A million calls of `add` would take minutes; its arrays are public.
    buffer.observations[:], buffer.next_observations[:] = obs, data["next_obs"]
    buffer.actions[:], buffer.rewards[:] = data["action"][..., None], data["reward"]
    buffer.dones[:], buffer.full = data["terminated"], True
    return functools.partial(buffer.sample, BATCH)


def cpprb(data: Data, priority: np.ndarray | None = None) -> Draw:
    from cpprb import PrioritizedReplayBuffer, ReplayBuffer

    data = flat(data)
    fields = {
        "obs": {"shape": data["obs"].shape[1:]},
        "act": {"dtype": np.int64},
        "rew": {},
        "next_obs": {"shape": data["obs"].shape[1:]},
        "done": {},
    }
    names = {"obs": "obs", "act": "action", "rew": "reward", "next_obs": "next_obs", "done": "done"}
    values = {name: data[ours] for name, ours in names.items()}
    if priority is None:
        buffer = ReplayBuffer(len(data["obs"]), fields)
        buffer.add(**values)
        return lambda: buffer.sample(BATCH)
    buffer = PrioritizedReplayBuffer(len(data["obs"]), fields, alpha=0.6)
    buffer.add(**values, priorities=priority)
    errors = priority[:BATCH].copy()
    return lambda: buffer.update_priorities(buffer.sample(BATCH, beta=0.4)["indexes"], errors)


def torchrl(data: Data, *, plain: bool = False) -> Draw:
    """`plain`: the class without the bookkeeping (no `index` in a batch), which is faster."""
    from tensordict import TensorDict
    from torchrl.data import LazyTensorStorage, ReplayBuffer, TensorDictReplayBuffer

    logging.getLogger("torchrl").setLevel(logging.WARNING)
    data = flat(data)
    names = ("obs", "action", "reward", "next_obs", "discount")
    rows = len(data["obs"])
    kind = ReplayBuffer if plain else TensorDictReplayBuffer
    buffer = kind(storage=LazyTensorStorage(rows), batch_size=BATCH)
    for start in range(0, rows, 10_000):
        part = {name: torch.from_numpy(data[name][start : start + 10_000]) for name in names}
        buffer.extend(TensorDict(part, batch_size=[len(part["obs"])]))
    return buffer.sample


# ------------------------------------------------------------------ timing


def seconds(draw: Draw, calls: int) -> float:
    """CPU seconds per call: on a shared machine wall time includes others' work."""
    start = time.process_time()
    for _ in range(calls):
        draw()
    return (time.process_time() - start) / calls


def kept(make: Callable[..., Any], *arguments: Any, **options: Any) -> tuple[Any, int]:
    """The result of `make`, and the bytes that it holds, NumPy arrays included."""
    tracemalloc.start()
    made = make(*arguments, **options)
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return made, size


class Bench:
    """Times draws in turn and prints a line of the table for each rival."""

    def __init__(self, rounds: int):
        self.rounds, self.failed, self.missing = rounds, 0, set[str]()
        self._line("case", "against", "ours", "theirs", "ratio", "floor", "pass")

    def compare(self, case: str, ours: Draw, rivals: dict[str, tuple[Draw | None, float]]) -> None:
        """`rivals`: name to what draws a batch (None: not installed) and the least ratio."""
        draws = {name: draw for name, (draw, _) in rivals.items() if draw is not None}
        for draw in (ours, *draws.values()):
            seconds(draw, 20)
        # About 20 ms each, so that what slows the machine down slows both of a pair.
        calls = {name: max(2, int(0.02 / seconds(draw, 10))) for name, draw in draws.items()}
        own = max(2, int(0.02 / seconds(ours, 10)))
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in draws}
        gc.collect()
        for _ in range(self.rounds):
            for name, draw in draws.items():
                taken[name].append((seconds(ours, own), seconds(draw, calls[name])))
        for name, pairs in taken.items():
            mine, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
            ratio = statistics.median(their / our for our, their in pairs)
            self.row(case, name, f"{1 / mine:.0f}/s", f"{1 / theirs:.0f}/s", ratio, rivals[name][1])

    def row(
        self, case: str, against: str, ours: str, theirs: str, ratio: float, floor: float
    ) -> None:
        passed = ratio >= floor
        self.failed += not passed
        least, verdict = f"{floor:.2f}" if floor else "", "yes" if passed else "NO"
        self._line(case, against, ours, theirs, f"{ratio:.2f}", least, verdict if floor else "")

    def limit(self, case: str, what: str, ours: float, unit: str, most: float) -> None:
        """A row of which less is better."""
        self.failed += ours > most
        figures = (f"{ours:.1f} {unit}", "", "", f"<= {most:g}", "yes" if ours <= most else "NO")
        self._line(case, what, *figures)

    def peer(self, make: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """The result of `make`, or None if its library is not installed."""
        try:
            return make(*arguments, **options)
        except ImportError as error:
            self.missing.add(f"{make.__name__} ({error})")
            return None

    def _line(self, *cells: str) -> None:
        case, against, *figures = cells
        print(f"{case:<36}{against:<26}" + "".join(f"{f:>11}" for f in figures), flush=True)


# ------------------------------------------------------------------ cases


def uniform(bench: Bench, size: int) -> None:
    large = size > 500_000  # Only cpprb has a floor for small replays too.
    data = experience(size)
    replay = ours(ring(data))
    bench.compare(
        f"4-float obs, {size:,}, uniform",
        replay.__next__,
        {
            "SB3 ReplayBuffer": (bench.peer(sb3, data), 3.3 if large else 0),
            "cpprb ReplayBuffer": (bench.peer(cpprb, data), 1.4 if large else 1.0),
            "TorchRL TensorDictReplay": (bench.peer(torchrl, data), 5.0 if large else 0),
            "TorchRL ReplayBuffer": (bench.peer(torchrl, data, plain=True), 0),
            "five index_select": (tensors(data), 0.85 if large else 0),
        },
    )


def nstep(bench: Bench, size: int) -> None:
    data = experience(size)
    replay, single = ours(ring(data, nstep=3)), ours(ring(data))
    bench.compare(
        f"4-float obs, {size:,}, 3-step",
        replay.__next__,
        {
            "SB3 NStepReplayBuffer": (bench.peer(sb3, data, nstep=3), 5.0),
            "our own 1-step": (single.__next__, 0.9),
        },
    )


def prioritized(bench: Bench, size: int) -> None:
    data = experience(size)
    priority = np.random.default_rng(1).random(size, np.float32)
    bench.compare(
        f"4-float obs, {size:,}, prioritised",
        ours_prioritized(data, priority),
        {"cpprb, sample + update": (bench.peer(cpprb, data, priority), 1.4)},
    )


def frames(bench: Bench, size: int) -> None:
    data = pixels(size)
    storage, our_bytes = kept(ring, data, stack=4)
    replay = ours(storage)
    batch = next(replay)
    assert batch.obs.shape == batch.next_obs.shape == (BATCH, 4, 84, 84)
    assert batch.obs.dtype == torch.uint8
    stacks = stacked(data)
    stable, their_bytes = kept(bench.peer, sb3, stacks)
    rivals: Rivals = {"SB3 ReplayBuffer": (stable, 2.3)}
    rivals["TorchRL TensorDictReplay"] = (bench.peer(torchrl, stacks), 12.0)
    del stacks
    # Frames that lie next to each other: as many as a batch shows, and as were read for it, since
    # `obs` and `next_obs` share three of four and may share their memory.
    source = torch.from_numpy(data["next_obs"]).view(-1, 84 * 84)
    parts = {part.untyped_storage().data_ptr(): part for part in (batch.obs, batch.next_obs)}
    bytes_read = sum(part.untyped_storage().nbytes() for part in parts.values())
    rivals["sequential copy, shown"] = (copier(source, 2 * 4 * BATCH), 0.6)
    rivals["sequential copy, read"] = (copier(source, bytes_read // (84 * 84)), 0)
    case = f"84x84 frames, stacks of 4, {size:,}"
    bench.compare(case, replay.__next__, rivals)
    if stable is not None:
        ratio = round(their_bytes / our_bytes, 1)  # 7.96: a step is more than its pixels.
        mine, theirs = (f"{size / 2**20:.0f} MiB" for size in (our_bytes, their_bytes))
        bench.row(case, "memory of SB3", mine, theirs, ratio, 8)


def copier(source: torch.Tensor, rows: int) -> Draw:
    """Copies so many rows at a time, from one end to the other."""
    target = source[:rows].clone()
    starts = itertools.cycle(range(0, len(source) - rows, rows))

    def copy() -> None:
        start = next(starts)
        target.copy_(source[start : start + rows])

    return copy


def insertion(bench: Bench, size: int) -> None:
    """Time to insert one vector step, and its share of a DQN's step with one update per environment step."""
    data = experience(size)
    storage = ring(data, nstep=3)
    spent, starts = [], itertools.cycle(range(0, len(data["action"]) - 100, 100))
    for start in itertools.islice(starts, 20 * bench.rounds):
        spent.append(seconds(functools.partial(insert, storage, data, start, start + 100), 1) / 100)
    microseconds = statistics.median(spent) * 1e6
    case = f"insertion, {ENVS} environments, 3-step"
    bench.limit(case, "a vector step", microseconds, "us", 40)
    step = seconds_of_dqn(ours(storage), bench.rounds) * 1e6
    bench.limit(case, "share of a DQN step", 100 * microseconds / (step + microseconds), "%", 3)


def seconds_of_dqn(replay: Replay, rounds: int) -> float:
    """Seconds of one vector step without insertion: act, step eight CartPoles, learn eight times."""
    envs = gym.make_vec("CartPole-v1", ENVS, vectorization_mode="sync")
    obs, _ = envs.reset(seed=0)
    network, target = (
        nn.Sequential(nn.Linear(4, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 2))
        for _ in range(2)
    )
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)

    def step() -> None:
        nonlocal obs
        with torch.no_grad():
            action = network(torch.from_numpy(obs)).argmax(-1)
        obs, *_ = envs.step(action.numpy())
        for _ in range(ENVS):
            batch = next(replay)
            with torch.no_grad():
                goal = batch.reward + batch.discount * target(batch.next_obs).amax(-1)
            values = network(batch.obs).gather(-1, batch.action[:, None])[:, 0]
            loss = F.smooth_l1_loss(values, goal)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    seconds(step, 10)
    return statistics.median(seconds(step, 5) for _ in range(rounds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--frames", type=int, default=50_000, help="7 GB are needed for 50,000")
    names = ["uniform", "nstep", "prioritized", "frames", "insertion"]
    parser.add_argument("--only", nargs="*", default=names, choices=names)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}, "
        f"NumPy {np.__version__}, one thread, batch {BATCH}"
    )
    bench = Bench(arguments.rounds)
    if "uniform" in arguments.only:
        for size in (1_000_000, 100_000):
            uniform(bench, size)
    if "nstep" in arguments.only:
        nstep(bench, 1_000_000)
    if "prioritized" in arguments.only:
        prioritized(bench, 1_000_000)
    if "frames" in arguments.only:
        frames(bench, arguments.frames)
    if "insertion" in arguments.only:
        insertion(bench, 100_000)
    for name in sorted(bench.missing):
        print(f"Left out: {name}")
    if bench.failed:
        sys.exit(f"{bench.failed} below the floor.")


if __name__ == "__main__":
    main()
