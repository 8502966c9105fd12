"""Saved transitions are learnt from as they were, or refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from antelope.replay import (
    CheckpointError,
    ConfigError,
    Observations,
    Replay,
    Space,
    Spec,
    Transitions,
)
from antelope.replay.archive import load
from antelope.replay.offline import open_saved

CHOICE = Space((3,), torch.int64, discrete=True)
SPEC = Spec(Space((4, 2)), CHOICE)


def filled(spec: Spec = SPEC, *, steps: int = 30, **sizes: Any) -> Transitions:
    """Episodes of seven steps in two environments; every number is another one."""
    options = {"capacity": 40, "discount": 0.9, "nstep": 3, "stack": 2, **sizes}
    ring, random = Transitions(spec, num_envs=2, **options), np.random.default_rng(0)

    def draw(space: Any, frames: int = 1) -> Any:
        if isinstance(space, dict):
            return {name: draw(part, frames) for name, part in space.items()}
        if space.discrete:
            return random.integers(0, 2, (2, *space.value_shape))
        return random.random((2, space.shape[0] // frames, *space.shape[1:]), np.float32)

    ring.start(draw(spec.obs, ring.stack))
    for step in range(1, steps + 1):
        over = np.full(2, step % 7 == 0)
        fields = {
            "action": draw(spec.action),
            "reward": random.random(2),
            "terminated": over & (step % 2 == 0),
            "truncated": over & (step % 2 == 1),
            "next_obs": draw(spec.obs, ring.stack),
            "state": {"0": random.random((2, 5), np.float32)},
        }
        first = draw(spec.obs, ring.stack) if over.any() else None
        ring.add(fields, began=over, first=first)
    return ring


def drawn(ring: Transitions) -> dict[str, Any]:
    fields = ring.gather(ring.draw(50, torch.Generator().manual_seed(0)))
    return {name: field for name, field in fields.items() if name != "state"}


@pytest.mark.parametrize("steps", [8, 30])  # Not full yet, and past the end.
@pytest.mark.parametrize("storage", ["ram", "mmap", "gpu"])
def test_it_is_what_was_saved_in_the_sizes_it_was_saved_with(steps: int, storage: str) -> None:
    ring = filled(steps=steps)
    again = open_saved(SPEC, ring.state_dict(), storage=storage)
    assert (again.num_envs, again.discount, again.nstep, again.stack) == (2, 0.9, 3, 2)
    assert len(again) == len(ring)
    before, after = drawn(ring), drawn(again)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_ring_that_was_not_full_takes_no_more_room_than_it_needs() -> None:
    ring = filled(steps=8, capacity=10**6)
    # Eight steps, and both episodes' last rows.
    assert open_saved(SPEC, ring.state_dict()).size == 20


def test_a_recurrent_models_states_are_left_out() -> None:
    ring = filled()
    assert "state" in ring.gather(ring.draw(1, torch.Generator()))
    again = open_saved(SPEC, ring.state_dict())
    assert "state" not in again.gather(again.draw(1, torch.Generator()))


def test_there_is_no_rollout_of_what_nobody_did() -> None:
    ring = open_saved(SPEC, filled(nstep=1).state_dict())
    with pytest.raises(ConfigError, match=r"learn from next\(replay\)"):
        ring.rollout()


@pytest.mark.parametrize(
    ("obs", "action", "match"),
    [
        (Space((4, 3)), CHOICE, r"obs is float32 \[2, 2\], .* float32 4x3"),
        (Space((4, 2), torch.int64), CHOICE, "obs is float32"),
        (SPEC.obs, Space((2,), torch.int64, discrete=True), "action is int64 .* one of 2"),
        (SPEC.obs, Space((1,)), r"action is int64 \[\], .* float32 1"),
        (SPEC.obs, {"a": CHOICE}, "action is action, .* action::a"),
        ({"a": SPEC.obs}, CHOICE, "obs is obs, .* obs::a"),
    ],
)
def test_another_environments_is_refused(obs: Any, action: Any, match: str) -> None:
    ring = filled()
    assert ring.columns is not None
    ring.columns.arrays["action"][:] = 2  # The last of three choices.
    with pytest.raises(CheckpointError, match=match):
        open_saved(Spec(obs, action), ring.state_dict())


def test_dicts_and_several_choices_at_once_fit() -> None:
    several = Space((5,), torch.int64, discrete=True, nvec=(2, 3))
    binary = Space((4,), torch.int64, discrete=True, binary=True)
    spec = Spec({"eye": Space((4, 2)), "door": CHOICE}, {"arm": several, "legs": binary})
    ring = filled(spec)
    before, after = drawn(ring), drawn(open_saved(spec, ring.state_dict()))
    assert torch.equal(before["action"]["arm"], after["action"]["arm"])
    fewer = Space((5,), torch.int64, discrete=True, nvec=(4, 1))
    with pytest.raises(CheckpointError, match="action::arm"):
        open_saved(Spec(spec.obs, {"arm": fewer, "legs": binary}), ring.state_dict())


def spoil(state: dict[str, Any], how: str) -> None:
    if how == "sizes":
        state["num_envs"] = 3
    elif how == "rows":
        state["rows"] = np.array([10**6, 1])
    elif how == "length":
        state["columns"]["reward"] = state["columns"]["reward"][:-1]
    elif how == "column":
        del state["columns"]["hop"]
    elif how == "nothing":
        state["ok"] = np.zeros_like(state["ok"])
    else:
        del state[how]


@pytest.mark.parametrize(
    "how", ["sizes", "rows", "length", "column", "nothing", "discount", "ok", "time", "first"]
)
def test_what_does_not_fit_together_is_refused(how: str) -> None:
    state = copy.deepcopy(filled().state_dict())
    spoil(state, how)
    with pytest.raises(CheckpointError, match=r"it was not saved as|it holds no transition"):
        open_saved(SPEC, state)


def test_one_of_before_the_first_step_holds_nothing() -> None:
    empty = Transitions(SPEC, capacity=9, num_envs=1, discount=0.9)
    with pytest.raises(CheckpointError, match=r"it was not saved as|it holds no transition"):
        open_saved(SPEC, empty.state_dict())


def replay_of(storage: Transitions, *, prioritized: bool = False) -> Replay:
    priorities = {"alpha": 1.0} if prioritized else None
    return Replay(storage, Observations(SPEC.obs), batch_size=4, priorities=priorities)


@pytest.mark.parametrize("prioritized", [False, True])
def test_a_checkpoint_holds_where_it_is_and_not_what_it_holds(prioritized: bool) -> None:
    state = filled().state_dict()
    one, two = (replay_of(open_saved(SPEC, state), prioritized=prioritized) for _ in range(2))
    assert one.offline
    for _ in range(3):
        batch = next(one)
        if prioritized:
            one.update_priorities(batch.index, batch.reward)
    kept = one.state_dict()
    assert kept["transitions"].keys() == {"origin"}
    two.load_state_dict(kept)
    for _ in range(3):
        a, b = next(one), next(two)
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_saving_it_keeps_all_of_it(tmp_path: Path) -> None:
    ring = open_saved(SPEC, filled().state_dict())
    replay_of(ring).save(tmp_path / "again")
    again = open_saved(SPEC, load(tmp_path / "again")["transitions"])
    assert again.origin == ring.origin


def test_a_state_of_another_replay_is_refused() -> None:
    offline, other = (
        open_saved(SPEC, filled().state_dict()),
        open_saved(SPEC, filled(steps=31).state_dict()),
    )
    assert offline.origin != other.origin
    grown, kept = replay_of(filled()), replay_of(offline).state_dict()
    assert not grown.offline
    for replay, state, match in (
        (replay_of(other), kept, "came from another offline replay"),
        (grown, kept, "was an offline one; this one is not"),
        (replay_of(offline), grown.state_dict(), "was still growing"),
    ):
        with pytest.raises(CheckpointError, match=match):
            replay.load_state_dict(state)
