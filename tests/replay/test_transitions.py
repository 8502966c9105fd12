"""What is drawn from a ring is what happened, whatever episodes, environments and capacity.

The reference is slow and obvious: it keeps every episode as lists and looks each answer up in them.
Every observation is a number of its own, so that a row that is drawn says which step it must be.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from antelope.envs.vector import Vector
from antelope.replay import CheckpointError, ConfigError, Replay, Space, Spec, Transitions

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"  # Of storage="gpu".
GAMMA = 0.5  # Powers of it are exact, and so are sums of whole rewards.

# ------------------------------------------------------------------------------- the reference


@dataclass
class Episode:
    """`obs` has one more than `steps`."""

    task: int
    obs: list[int]
    steps: list[dict[str, Any]] = field(default_factory=list)
    over: bool = False


@dataclass(frozen=True)
class Kind:
    """What observations and actions look like. Shapes are those of single frames."""

    obs: dict[str, Space]
    action: dict[str, Space]
    storage: str = "ram"

    def spec(self, stack: int) -> Spec:
        def stacked(space: Space) -> Space:
            if space.discrete:
                return space
            return Space((stack * space.shape[0], *space.shape[1:]), space.dtype)

        return Spec(_bare({n: stacked(s) for n, s in self.obs.items()}), _bare(self.action))


def _bare(parts: dict[str, Any]) -> Any:
    """`{"": x}` is x itself: no dict."""
    return parts.get("", parts)


FLOATS = {"": Space((2,))}
IMAGES = {"": Space((1, 9, 32), torch.uint8)}  # Too large for a record.
SEVERAL = {
    "image": Space((2, 2, 2), torch.uint8),
    "arm/speed": Space((1,)),
    "mode": Space((3,), torch.int64, discrete=True),
}
SPEC = Spec(Space((1,)), Space((2,), torch.int64, discrete=True))  # The simplest.
ACTION = {"": Space((9,), torch.int64, discrete=True)}
ACTIONS = {"arm": Space((2,)), "grip": Space((9,), torch.int64, discrete=True)}

KINDS = [
    Kind(FLOATS, ACTION),
    Kind(IMAGES, ACTION),
    Kind(SEVERAL, ACTIONS),
    Kind(FLOATS, ACTIONS, "mmap"),
    Kind(SEVERAL, ACTION, "mmap"),
    Kind(IMAGES, ACTIONS, "mmap"),
    Kind(FLOATS, ACTION, "gpu"),
    Kind(SEVERAL, ACTIONS, "gpu"),
]


def values(space: Space, numbers: Any) -> np.ndarray:
    """Observations or actions `[..., *shape]` that only these numbers have (but for choices)."""
    numbers = np.asarray(numbers, np.int32)
    if space.discrete:
        return numbers.astype(np.int64) % space.n
    if space.dtype == torch.uint8:
        pixels = numbers[..., None].view(np.uint8)[..., np.arange(space.n) % 4]
        return pixels.reshape(*numbers.shape, *space.shape)
    return np.stack([numbers, -numbers], -1)[..., : space.n].astype(np.float32)


class World:
    """N environments whose episodes end at random, told as gymnasium's vector environments do.

    Args:
        mode: "same": those that ended are reset in the same step; "next": in the next one, in which
            they make no step; "never": episodes go on until `start`.
        ends: How likely a step ends its episode.
    """

    def __init__(
        self,
        kind: Kind,
        num_envs: int,
        nstep: int,
        stack: int,
        *,
        mode: str,
        ends: float,
        seed: int,
    ):
        self.kind, self.num_envs, self.nstep, self.stack = kind, num_envs, nstep, stack
        self.mode, self.ends, self.random = mode, ends, np.random.default_rng(seed)
        self.number = 0
        self.task = 0
        # Of each environment: its observations in order, as (episode, step).
        self.places: list[list[tuple[Episode, int]]] = [[] for _ in range(num_envs)]
        self.since: list[list[tuple[Episode, int]]] = [[] for _ in range(num_envs)]  # Of rollouts.

    def ring(self, capacity: int) -> Transitions:
        return Transitions(
            self.kind.spec(self.stack),
            capacity=capacity,
            num_envs=self.num_envs,
            discount=GAMMA,
            nstep=self.nstep,
            stack=self.stack,
            storage=self.kind.storage,
            device=DEVICE,
        )

    def _new(self) -> int:
        self.number += 1
        return self.number

    def _begin(self, e: int) -> int:
        self.places[e].append((Episode(self.task, [self._new()]), 0))
        return self.places[e][-1][0].obs[0]

    def start(self, task: int) -> Any:
        """First observations of a task."""
        self.task = task
        for places in self.places:
            if places:
                episode, _ = places[-1]
                episode.over = True
                if episode.steps:  # It goes no further, but did not terminate.
                    episode.steps[-1]["truncated"] = not episode.steps[-1]["terminated"]
        return self._stored([self._begin(e) for e in range(self.num_envs)])

    def step(self) -> dict[str, Any]:
        """What `Transitions.add` takes."""
        n = self.num_envs
        real, began = np.ones(n, np.bool_), np.zeros(n, np.bool_)
        rows, after, first = [], [], []
        for e in range(n):
            episode, t = self.places[e][-1]
            number = self._new()
            step = {
                "action": number,
                "reward": float(self.random.integers(-8, 9)),
                "terminated": False,
                "truncated": False,
            }
            if episode.over:  # Only of mode "next".
                real[e], began[e] = False, True
                rows.append(step)
                after.append(self._begin(e))
                first.append(after[-1])
                continue
            if self.mode != "never" and self.random.random() < self.ends:
                step["terminated"] = bool(self.random.random() < 0.5)
                step["truncated"] = not step["terminated"] or bool(self.random.random() < 0.2)
                episode.over = True
            rows.append(step)
            episode.steps.append(step)
            episode.obs.append(number)
            self.places[e].append((episode, t + 1))
            self.since[e].append((episode, t))
            after.append(number)
            if episode.over and self.mode == "same":
                began[e] = True
                first.append(self._begin(e))
            else:
                first.append(number)
        numbers = np.array([step["action"] for step in rows])
        fields = {
            "action": _bare({name: values(s, numbers) for name, s in self.kind.action.items()}),
            "reward": np.array([step["reward"] for step in rows], np.float32),
            "terminated": np.array([step["terminated"] for step in rows]),
            "truncated": np.array([step["truncated"] for step in rows]),
            "next_obs": self._stored(after),
            "log_prob": numbers / np.float32(2),
            "state": {"0": np.stack([numbers, numbers + 1], 1), "1": numbers % 7},
        }
        given: dict[str, Any] = {"step": fields, "task": self.task}
        if began.any():
            given |= {"began": began, "first": self._stored(first)}
        if not real.all():
            given["real"] = real
        return given

    def _stored(self, numbers: list[int]) -> Any:
        return _bare({name: values(s, numbers) for name, s in self.kind.obs.items()})

    # -------------------------------------------------------------------- answers

    def drawable(self, length: int) -> tuple[dict[int, tuple[Episode, int]], set[int]]:
        """Which row is which step, in a ring of `length` places; and which may be missing.

        Those may be whose stack of frames would have reached back to a place that was overwritten,
        had their episode begun earlier.
        """
        found, optional = {}, set()
        for e, places in enumerate(self.places):
            oldest = len(places) - length
            for place in range(max(0, oldest), len(places)):
                episode, t = places[place]
                final = episode.over or t + self.nstep <= len(episode.steps)
                if t < len(episode.steps) and final:
                    if place - min(t, self.stack - 1) < max(0, oldest):
                        continue
                    row = (place % length) * self.num_envs + e
                    found[row] = (episode, t)
                    if place - (self.stack - 1) < oldest:
                        optional.add(row)
        return found, optional

    def row(self, episode: Episode, t: int, *, by_step: bool) -> dict[str, Any]:
        """All that must be drawn of a step; observations and actions by number.

        Args:
            by_step: Whether it is told how this step ended, as in a sequence, not its return.
        """
        steps = episode.steps[t : t + self.nstep]

        def obs(at: int) -> list[int]:  # The first frame stands for those before it.
            return [episode.obs[max(0, at - back)] for back in range(self.stack - 1, -1, -1)]

        return {
            "obs": obs(t),
            "action": steps[0]["action"],
            "reward": sum(GAMMA**k * step["reward"] for k, step in enumerate(steps)),
            "discount": 0.0 if steps[-1]["terminated"] else GAMMA ** len(steps),
            "next_obs": obs(t + len(steps)),
            "terminated": steps[0 if by_step else -1]["terminated"],
            "truncated": steps[0 if by_step else -1]["truncated"],
            "task": episode.task,
        }

    def fields(
        self, steps: list[tuple[Episode, int]], *, by_step: bool = False
    ) -> dict[str, np.ndarray]:
        """All that must be drawn of several, `obs/name` for parts."""
        rows = [self.row(*step, by_step=by_step) for step in steps]
        fields = {name: np.array([row[name] for row in rows]) for name in rows[0]}
        action = fields.pop("action")
        for name in ("obs", "next_obs"):
            numbers = fields.pop(name)  # [B, k]
            for part, space in self.kind.obs.items():
                frames = values(space, numbers)
                fields[_path(name, part)] = (
                    frames[:, -1]
                    if space.discrete
                    else frames.reshape(len(rows), -1, *space.shape[1:])
                )
        for part, space in self.kind.action.items():
            fields[_path("action", part)] = values(space, action)
        state = {"state/0": np.stack([action, action + 1], 1), "state/1": action % 7}
        return fields | {"log_prob": action / 2} | state


def _path(name: str, part: str) -> str:
    return f"{name}/{part}" if part else name


def flat(fields: dict[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
    found = {}
    for name, part in fields.items():
        if isinstance(part, dict):
            found |= flat(part, f"{prefix}{name}/")
        else:
            assert isinstance(part, Tensor)
            found[prefix + name] = part.cpu().numpy()
    return found


def check(given: dict[str, Any], expected: dict[str, np.ndarray]) -> None:
    """Every field is there, no other is, and all are equal."""
    fields = flat(given)
    assert set(fields) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(fields[name], value, name)


def check_all(world: World, ring: Transitions) -> None:
    """Every row that can be drawn is what it must be, and all that ought to be are there."""
    expected, optional = world.drawable(ring.length)
    rows = np.flatnonzero(ring.drawable)
    assert set(expected) - optional <= set(rows.tolist()) <= set(expected)
    assert len(ring) == len(rows)
    if len(rows):
        fields = world.fields([expected[row] for row in rows.tolist()])
        check(ring.gather(rows), fields | {"index": rows})


@st.composite
def worlds(draw: st.DrawFn, nsteps: int = 5) -> tuple[World, Transitions]:
    num_envs, nstep = draw(st.integers(1, 4)), draw(st.integers(1, nsteps))
    world = World(
        draw(st.sampled_from(KINDS)),
        num_envs,
        nstep,
        draw(st.integers(1, 4)),
        mode=draw(st.sampled_from(["same", "next", "never"])),
        ends=draw(st.sampled_from([0.05, 0.2, 0.5, 0.9])),
        seed=draw(st.integers(0, 10**6)),
    )
    return world, world.ring(draw(st.integers(1, 60)))


def play(world: World, ring: Transitions, steps: int) -> Iterator[None]:
    """Play on, with a new task now and then; stops after every few steps."""
    if not any(world.places):
        ring.start(world.start(0))
    for step in range(steps):
        if step and world.random.random() < 0.03:
            ring.start(world.start(world.task + 1))
        ring.add(**world.step())
        if world.random.random() < 0.15:
            yield
    yield


many = settings(max_examples=400)
steps = st.integers(1, 80)


# ------------------------------------------------------------------------------- properties


@many
@given(worlds(), steps)
def test_every_row_is_what_happened(drawn: tuple[World, Transitions], steps: int) -> None:
    world, ring = drawn
    for _ in play(world, ring, steps):
        check_all(world, ring)


@many
@given(worlds(), steps, st.integers(1, 7))
def test_sequences_are_parts_of_one_episode(
    drawn: tuple[World, Transitions], steps: int, length: int
) -> None:
    world, ring = drawn
    for _ in play(world, ring, steps):
        starts = world.random.permutation(np.flatnonzero(ring.drawable))[:20]
        if not len(starts):
            continue
        expected, _ = world.drawable(ring.length)
        given = ring.sequences(starts, length)
        state, first, mask = given.pop("state"), given.pop("is_first"), given.pop("mask")
        index = given.pop("index").numpy()
        taken, lengths = [], []
        for start in starts.tolist():
            episode, t = expected[start]
            # Up to the episode's end, or to its last step that is final.
            end = len(episode.steps) if episode.over else len(episode.steps) - world.nstep + 1
            lengths.append(min(length, end - t))
            taken += [(episode, min(t + i, t + lengths[-1] - 1)) for i in range(length)]
        assert mask.tolist() == [[i < n for i in range(length)] for n in lengths]
        assert first.flatten().tolist() == [t == 0 for _, t in taken]
        assert index[:, 0].tolist() == starts.tolist()
        assert ring.drawable[index].all()
        fields = flat(given)
        assert all(x.shape[:2] == (len(starts), length) for x in fields.values())
        wanted = world.fields(taken, by_step=True)
        for name in ("state/0", "state/1"):
            np.testing.assert_array_equal(flat({"state": state})[name], wanted.pop(name)[::length])
        check({n: torch.from_numpy(x.reshape(-1, *x.shape[2:])) for n, x in fields.items()}, wanted)


@many
@given(worlds(nsteps=1), steps)
def test_rollouts_give_each_step_once_and_in_order(
    drawn: tuple[World, Transitions], steps: int
) -> None:
    world, ring = drawn
    places = [0] * world.num_envs  # At the last rollout.
    for _ in play(world, ring, steps):
        since, world.since = world.since, [[] for _ in range(world.num_envs)]
        taken = max(len(p) - 1 - before for p, before in zip(world.places, places, strict=True))
        longest = max(len(column) for column in since)
        fits = taken + world.stack <= ring.length
        if longest == 0 or not fits:
            with pytest.raises(
                ConfigError, match="capacity" if longest else "nothing has happened"
            ):
                ring.rollout()
            return
        places = [len(p) - 1 for p in world.places]
        assert ring.new_steps >= longest
        if world.num_envs == 1:
            assert ring.new_steps == longest
        given = ring.rollout()
        assert ring.new_steps == 0
        mask = given["mask"].numpy()
        assert mask.tolist() == [[i < len(c) for c in since] for i in range(longest)]
        fields = flat(given)
        del fields["mask"]
        before = {n: fields.pop(n) for n in list(fields) if n.split("/")[0] == "state"}
        assert all(x.shape[:2] == mask.shape for x in fields.values())
        index, first = fields.pop("index"), fields.pop("is_first")
        assert ring.drawable[index].all()
        for e, column in enumerate(since):
            if column:
                rows = {n: torch.from_numpy(x[: len(column), e]) for n, x in fields.items()}
                expected = world.fields(column)
                for name, state in before.items():  # That of the first step alone.
                    np.testing.assert_array_equal(state[e], expected.pop(name)[0])
                check(rows, expected)
                assert first[: len(column), e].tolist() == [t == 0 for _, t in column]
            for (episode, _), (after, t) in pairwise(column):
                assert after is episode or t == 0


@settings(max_examples=150)
@given(worlds(), steps, steps, st.booleans())
def test_the_number_of_what_can_be_drawn_is_kept_exactly(
    drawn: tuple[World, Transitions], before: int, after: int, prioritized: bool
) -> None:
    world, ring = drawn
    other = world.ring((ring.length - 1) * world.num_envs)
    replays = [
        Replay(x, lambda fields: fields, batch_size=4, priorities={} if prioritized else None)
        for x in (ring, other)
    ]
    for replay, played in zip(replays, (before, after), strict=True):
        for _ in play(world, ring, played):
            assert len(ring) == np.count_nonzero(ring.drawable)
        replay.storage.load_state_dict(copy.deepcopy(ring.state_dict()))
        assert len(replay) == len(ring) == np.count_nonzero(ring.drawable)


@settings(max_examples=150)
@given(worlds(), steps, steps, st.booleans(), st.booleans())
def test_saved_and_loaded_it_continues_exactly(
    drawn: tuple[World, Transitions], before: int, after: int, as_files: bool, used: bool
) -> None:
    world, ring = drawn
    other = world.ring((ring.length - 1) * world.num_envs)
    if used:  # What it held before is gone.
        elsewhere = copy.deepcopy(world)
        for _ in play(elsewhere, other, 30):
            if len(other):
                other.draw(1, torch.Generator())
    for _ in play(world, ring, before):
        pass
    one = Replay(ring, lambda fields: fields, batch_size=8, seed=1)
    two = Replay(other, lambda fields: fields, batch_size=8, seed=2)
    if as_files:
        with tempfile.TemporaryDirectory() as folder:
            one.save(Path(folder) / "replay")
            two.load(Path(folder) / "replay")
    else:
        two.load_state_dict(copy.deepcopy(one.state_dict()))
    for _ in range(after):
        step = world.step()
        ring.add(**step)
        other.add(**step)
    check_all(world, other)
    assert np.array_equal(ring.drawable, other.drawable)
    assert (ring.new_steps, len(one)) == (other.new_steps, len(two))
    if len(ring):
        for draw in (next, lambda replay: replay.sample(5)):
            a, b = flat({**draw(one)}), flat({**draw(two)})
            assert set(a) == set(b)
            for name in a:
                np.testing.assert_array_equal(a[name], b[name])
    if world.nstep == 1:
        try:
            a = flat(ring.rollout())
        except ConfigError:
            return
        b = flat(other.rollout())
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


@settings(max_examples=60)
@given(worlds(), steps)
def test_all_that_can_be_drawn_is_drawn_and_nothing_else(
    drawn: tuple[World, Transitions], steps: int
) -> None:
    world, ring = drawn
    for _ in play(world, ring, steps):
        pass
    generator = torch.Generator().manual_seed(0)
    if len(ring):
        rows = np.concatenate([ring.draw(500, generator) for _ in range(10)])
        assert set(rows.tolist()) == set(np.flatnonzero(ring.drawable).tolist())
    else:
        with pytest.raises(ConfigError, match="seed_steps"):
            ring.draw(1, generator)


# ------------------------------------------------------------------------------- by hand


def line(
    steps: int, *, capacity: int = 20, ends: dict[int, str] | None = None, **options: Any
) -> Any:
    """One environment whose observations are 0, 1, 2, ... and whose reward is that number.

    `ends` has "t" or "u" for steps that terminate or truncate the episode.
    """
    spec = Spec(Space((options.get("stack", 1),)), Space((2,), torch.int64, discrete=True))
    ring = Transitions(spec, capacity=capacity, num_envs=1, discount=GAMMA, **options)
    number = 0
    ring.start(np.zeros((1, 1), np.float32))
    for step in range(steps):
        end = (ends or {}).get(step, "")
        fields = {
            "action": np.array([0]),
            "reward": np.array([number], np.float32),
            "terminated": np.array([end == "t"]),
            "truncated": np.array([end == "u"]),
            "next_obs": np.array([[number + 1]], np.float32),
        }
        number += 2 if end else 1
        began = {"began": np.array([True]), "first": np.array([[number]])} if end else {}
        ring.add(fields, **began)
    return ring


def rows_of(ring: Transitions) -> dict[int, dict[str, Any]]:
    """All that can be drawn, by the number of the newest frame."""
    fields = flat(ring.gather(np.flatnonzero(ring.drawable)))
    rows = [{n: x[i].tolist() for n, x in fields.items()} for i in range(len(ring))]
    return {int(row["obs"][-1]): row for row in rows}


def test_three_steps_by_hand() -> None:
    # 0 -> 1 -> 2 -> 3 -> 4 (terminated), 5 -> 6 (truncated), 7 -> 8 -> 9.
    rows = rows_of(line(7, nstep=3, ends={3: "t", 4: "u"}))
    found = {n: (r["reward"], r["discount"], r["next_obs"]) for n, r in rows.items()}
    assert found == {
        0: (0 + 1 / 2 + 2 / 4, 1 / 8, [3]),
        1: (1 + 2 / 2 + 3 / 4, 0, [4]),
        2: (2 + 3 / 2, 0, [4]),
        3: (3, 0, [4]),
        5: (5, 1 / 2, [6]),
        # 7 and 8 wait for a third reward.
    }
    # As `next_obs` and `discount`: of the last step of each return.
    assert [n for n, row in rows.items() if row["terminated"]] == [1, 2, 3]
    assert [n for n, row in rows.items() if row["truncated"]] == [5]


def test_stacks_by_hand() -> None:
    rows = rows_of(line(4, stack=3, ends={2: "t"}))
    assert {n: (row["obs"], row["next_obs"]) for n, row in rows.items()} == {
        0: ([0, 0, 0], [0, 0, 1]),
        1: ([0, 0, 1], [0, 1, 2]),
        2: ([0, 1, 2], [1, 2, 3]),
        4: ([4, 4, 4], [4, 4, 5]),
    }


@pytest.mark.parametrize("end", ["t", "u", ""])
def test_discount_is_zero_only_on_termination(end: str) -> None:
    row = rows_of(line(1, ends={0: end} if end else {}))[0]
    assert row["discount"] == (0 if end == "t" else GAMMA)
    assert (row["terminated"], row["truncated"]) == (end == "t", end == "u")


def test_a_new_task_truncates_the_episode_in_progress() -> None:
    ring = line(3, nstep=2)
    assert sorted(rows_of(ring)) == [0, 1]
    ring.start(np.full((1, 1), 9, np.float32))
    rows = rows_of(ring)
    assert rows[2] | {"reward": 2, "discount": GAMMA, "next_obs": [3], "truncated": True} == rows[2]
    assert [row["truncated"] for row in rows.values()] == [False, True, True]


def test_changing_one_field_of_a_batch_changes_no_other() -> None:
    for stack in (1, 3):
        ring = line(8, stack=stack)
        rows = np.flatnonzero(ring.drawable)
        fields, expected = ring.gather(rows.copy()), flat(ring.gather(rows))
        for name in fields:
            fields[name].fill_(7)
            for other in set(fields) - {name}:
                np.testing.assert_array_equal(fields[other].numpy(), expected[other], other)
            fields[name].copy_(torch.from_numpy(expected[name]))
        again = ring.gather(np.flatnonzero(ring.drawable))
        np.testing.assert_array_equal(again["obs"].numpy(), expected["obs"])


@pytest.mark.parametrize("num_envs", [1, 3])
def test_capacity_counts_transitions_over_all_environments(num_envs: int) -> None:
    world = World(KINDS[0], num_envs, 1, 1, mode="never", ends=0, seed=0)
    ring = world.ring(12)
    ring.start(world.start(0))
    for step in range(20):
        ring.add(**world.step())
        assert len(ring) == min(12, (step + 1) * num_envs)


def test_draws_are_uniform_over_what_can_be_drawn() -> None:
    # Of 40 places every fifth has no transition, and the newest two wait.
    ring = line(500, capacity=40, nstep=3, ends=dict.fromkeys(range(3, 500, 4), "t"))
    draws = ring.draw(40_000, torch.Generator().manual_seed(0))
    rows = np.flatnonzero(ring.drawable)
    assert 30 <= len(rows) <= 33
    counts = np.bincount(draws, minlength=ring.size)
    assert counts[~ring.drawable].sum() == 0
    # Chi-square: mean k, variance 2k for k degrees of freedom; five deviations.
    expected, degrees = len(draws) / len(rows), len(rows) - 1
    chi_square = ((counts[rows] - expected) ** 2 / expected).sum()
    assert chi_square < degrees + 5 * np.sqrt(2 * degrees)


def test_an_old_episode_is_longer_than_a_byte_can_count() -> None:
    ring = line(700, capacity=600, stack=4)
    rows = rows_of(ring)
    assert len(rows) >= 597
    assert all(row["obs"] == [n - 3, n - 2, n - 1, n] for n, row in rows.items())
    assert not ring.sequences(np.flatnonzero(ring.drawable), 2)["is_first"].any()


def test_observations_may_be_changed_once_they_are_given() -> None:
    # Some environments write into the same array at each step.
    buffer = np.zeros((1, 1), np.float32)
    ring = Transitions(SPEC, capacity=5, num_envs=1, discount=GAMMA)
    ring.start(buffer)
    for number in (1, 2, 3):
        buffer[:] = number
        ended = np.zeros(1, np.bool_)
        fields = {"action": np.array([0]), "reward": np.ones(1), "next_obs": buffer}
        ring.add({**fields, "terminated": ended, "truncated": ended})
    assert {n: row["next_obs"] for n, row in rows_of(ring).items()} == {0: [1], 1: [2], 2: [3]}


def step_of(**extras: Any) -> dict[str, Any]:
    ended = np.zeros(1, np.bool_)
    fields = {"action": np.array([0]), "reward": np.ones(1), "next_obs": np.ones((1, 1))}
    return {**fields, "terminated": ended, "truncated": ended, **extras}


def ring_with(*steps: dict[str, Any], **options: Any) -> Transitions:
    ring = Transitions(SPEC, **{"capacity": 5, "num_envs": 1, "discount": GAMMA, **options})
    ring.start(np.zeros((1, 1), np.float32))
    for step in steps:
        ring.add(step)
    return ring


@pytest.mark.parametrize("extras", [{}, {"value": np.ones(1), "bonus": np.ones(1)}])
def test_extras_are_the_same_at_each_step(extras: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="same extras every time"):
        ring_with(step_of(value=np.ones(1)), step_of(**extras))


@pytest.mark.parametrize("name", ["discount", "index", "task", "obs", "mask"])
def test_extras_do_not_take_the_names_of_other_fields(name: str) -> None:
    with pytest.raises(ConfigError, match=f"extra named {name}.*rename it"):
        ring_with(step_of(**{name: np.ones(1)}))


@pytest.mark.parametrize("wrong", [{"nstep": 0}, {"stack": 0}, {"nstep": 255}, {"stack": 300}])
def test_sizes_out_of_bounds_are_named(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="from 1 to 254"):
        ring_with(**wrong)


def test_what_is_not_there_yet_says_so() -> None:
    generator = torch.Generator()
    for ring in (ring_with(), ring_with(step_of(), nstep=3)):  # None at all; none that is final.
        with pytest.raises(ConfigError, match="raise seed_steps"):
            ring.draw(1, generator)
    with pytest.raises(ConfigError, match="nothing has happened"):
        ring_with().rollout()
    with pytest.raises(ConfigError, match="set nstep=1"):
        ring_with(step_of(), nstep=3).rollout()


def test_a_rollout_that_was_overwritten_says_how_large_the_replay_must_be() -> None:
    for stack in (1, 3):
        with pytest.raises(ConfigError, match=r"30 steps .* Raise capacity to (\d+)") as error:
            line(30, capacity=10, stack=stack).rollout()
        enough = int(str(error.value).split()[-1].rstrip("."))
        assert line(30, capacity=enough, stack=stack).rollout()["mask"].sum() == 30
        with pytest.raises(ConfigError, match="Raise capacity"):
            line(30, capacity=enough - 1, stack=stack).rollout()


@pytest.mark.parametrize(
    ("other", "match"),
    [
        ({"capacity": 9}, "`capacity`"),
        ({"num_envs": 2}, "`num_envs`"),
        ({"nstep": 2, "capacity": 5}, "`nstep`"),
    ],
)
def test_a_state_of_another_size_is_refused(other: dict[str, int], match: str) -> None:
    state = ring_with(step_of()).state_dict()
    with pytest.raises(CheckpointError, match=match):
        ring_with(**other).load_state_dict(state)


def test_a_state_with_other_observations_is_refused() -> None:
    other = Transitions(Spec(Space((3,)), SPEC.action), capacity=5, num_envs=1, discount=GAMMA)
    with pytest.raises(CheckpointError, match="other observations"):
        other.load_state_dict(ring_with(step_of()).state_dict())


def test_a_full_ring_forgets_what_it_held_when_it_loads_an_emptier_one() -> None:
    full, fresh, state = line(50), line(1), line(5).state_dict()
    full.draw(1, torch.Generator())
    drawn = []
    for ring in (full, fresh):
        ring.load_state_dict(state)
        drawn.append(ring.draw(50, torch.Generator().manual_seed(0)).tolist())
        assert sorted(rows_of(ring)) == [0, 1, 2, 3, 4]
    assert drawn[0] == drawn[1]


def test_a_state_of_before_the_first_step_keeps_the_first_observation() -> None:
    ring, before = ring_with(), ring_with()
    before.start(np.full((1, 1), 4, np.float32))
    ring.load_state_dict(before.state_dict())
    ring.add(step_of())
    assert rows_of(ring)[4]["next_obs"] == [1]


# ------------------------------------------------------------------------------- gymnasium


class Clock(gymnasium.Env[np.ndarray, int]):
    """Shows which copy it is, its episode and the step; gives the step as reward."""

    observation_space = gymnasium.spaces.Box(0, 1e6, (3,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, copy: int):
        self.copy, self.episode, self.t = copy, -1, 0

    def reset(self, **_: Any) -> tuple[np.ndarray, dict[str, Any]]:
        self.episode, self.t = self.episode + 1, 0
        return self._obs(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.t += 1
        over = self.t == length_of(self.copy, self.episode)
        return self._obs(), self.t, over and self.episode % 2 == 0, over, {}

    def _obs(self) -> np.ndarray:
        return np.array([self.copy, self.episode, self.t], np.float32)


def length_of(copy: int, episode: int) -> int:
    return 1 + (5 * episode + 3 * copy) % 7


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("nstep", [1, 3])
def test_whenever_gymnasium_resets_no_row_joins_two_episodes(
    mode: AutoresetMode, nstep: int
) -> None:
    makers = [lambda copy=copy: Clock(copy) for copy in range(3)]
    envs = Vector(SyncVectorEnv(makers, autoreset_mode=mode), name="Clock")
    spec = Spec(envs.obs_codec.space, envs.action_codec.space)
    ring = Transitions(spec, capacity=120, num_envs=3, discount=GAMMA, nstep=nstep)
    ring.start(envs.reset())
    for _ in range(200):
        action = np.zeros(3, np.int64)
        step = envs.step(action)
        fields = {"action": action, "reward": step.reward, "next_obs": step.next_obs}
        fields |= {"terminated": step.terminated, "truncated": step.truncated}
        ring.add(fields, began=step.began, first=step.first, real=step.real)
    envs.close()
    rows = flat(ring.gather(np.flatnonzero(ring.drawable)))
    assert len(rows["obs"]) > 80
    for i, (env, episode, t) in enumerate(rows["obs"].astype(int).tolist()):
        length = length_of(env, episode)
        last = min(t + nstep, length)
        terminated, over = episode % 2 == 0, last == length
        assert rows["next_obs"][i].tolist() == [env, episode, last]
        assert rows["reward"][i] == sum(GAMMA**k * (t + k + 1) for k in range(last - t))
        assert rows["discount"][i] == (0 if terminated and over else GAMMA ** (last - t))
        assert rows["terminated"][i] == (terminated and over)
        assert rows["truncated"][i] == over
