"""Models with a state: acting step by step is the forward over the sequences that are learnt from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from torch import Tensor, nn

from antelope import ml
from antelope.agents.policy.states import Recurrence
from antelope.agents.traits import traits
from antelope.replay import ConfigError

SHORT = {"plot": False, "progress": False, "seed_steps": 0, "eval_episodes": 3, "batch_size": 8}


class Diary(gymnasium.Env[np.ndarray, Any]):
    """Observations are `[episode, step]`; episodes have 1 to 9 steps."""

    observation_space: Any
    action_space: Any

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0, 1, (2,), np.float32)
        self.action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.episode, self.count = int(self.np_random.integers(1000)), 0
        return self._obs(), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        over = self.count == 1 + self.episode % 9
        return self._obs(), 1.0, over, False, {}

    def _obs(self) -> np.ndarray:
        return np.array([self.episode / 1000, self.count / 10], np.float32)


class Sequences(nn.Module):
    """`nn.GRU`: knows sequences only."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = nn.GRU(2, 8, num_layers=2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, obs: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        out, state = self.memory(obs, state)
        return self.head(out), state


class TimeMajor(Sequences):
    """`nn.LSTM`, time first within, and a state of two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = nn.LSTM(2, 8)  # type: ignore[assignment]

    def forward(self, obs: Tensor, state: Any = None) -> Any:
        out, state = self.memory(obs.transpose(0, 1), state)
        return self.head(out.transpose(0, 1)), state


class Steps(nn.Module):
    """`nn.GRUCell`: knows steps only, so that whoever learns goes through them."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(2, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, obs: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        state = self.cell(obs, state)
        return self.head(state), state


class Named(Steps):
    """A dict of states, one of them a list."""

    def forward(self, obs: Tensor, state: Any = None) -> Any:
        before = None if state is None else state["cell"][0]
        count = torch.zeros(len(obs), 1) if state is None else state["count"]
        after = self.cell(obs, before)
        return self.head(after) + count, {"cell": [after], "count": count + 1}


class Both(Steps):
    """Steps or sequences, as they come."""

    def forward(self, obs: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if obs.dim() == 2:
            return super().forward(obs, state)
        outs = []
        for step in obs.unbind(1):
            out, state = super().forward(step, state)
            outs.append(out)
        assert state is not None
        return torch.stack(outs, 1), state


MODELS = [Sequences, TimeMajor, Steps, Named, Both]


def watched(kind: type[nn.Module]) -> type[nn.Module]:
    """The same model, which compares what it learns from with how it acted."""

    class Watched(kind):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            self.acted: dict[Any, Any] = {}
            self.batches: list[Any] = []
            self.looking = False

        def forward(self, obs: Tensor, state: Any = None) -> Any:
            out, after = super().forward(obs, state)
            if not self.looking:
                rows, values = obs.reshape(len(obs), -1), out.reshape(len(out), -1)
                for key, value in zip(map(tuple, rows.tolist()), values, strict=True):
                    self.acted[self.training, *key] = value.detach()
            return out, after

        def over(self, obs: Tensor, state: Any) -> Tensor:
            """Outputs over sequences `[B, T, 2]`, for models of either kind."""
            self.looking = True
            try:
                if kind in (Steps, Named):
                    outs = []
                    for step in obs.unbind(1):
                        out, state = self(step, state)
                        outs.append(out)
                    return torch.stack(outs, 1)
                return self(obs, state)[0]
            finally:
                self.looking = False

        def learn(self, replay: Any) -> None:
            batch = next(replay)
            assert batch.obs.shape == (8, replay.sequence, 2)
            with torch.no_grad():
                out = self.over(batch.obs, batch.state)
            for row in range(8):
                assert bool(batch.mask[row, 0])
                for t in range(int(batch.mask[row].sum())):
                    value = self.acted[True, *batch.obs[row, t].tolist()]
                    assert torch.allclose(out[row, t], value, atol=1e-5)
            self.batches.append(batch)

    return Watched


ENVS: dict[str, dict[str, Any]] = {
    "one": {"env": Diary},
    "sync": {"env": Diary, "num_envs": 3},
    "async": {"env": Diary, "num_envs": 2, "vectorization": "async"},
    "next step": {"env": lambda: SyncVectorEnv([Diary] * 3)},
    "same step": {
        "env": lambda: SyncVectorEnv([Diary] * 3, autoreset_mode=AutoresetMode.SAME_STEP)
    },
    "next step, processes": {"env": lambda: AsyncVectorEnv([Diary] * 2)},
}


@pytest.fixture
def quick(tmp_path: Path) -> Any:
    def run(*words: str, **settings: Any) -> Any:
        settings = {"path": tmp_path / "run", "train_steps": 120, **SHORT, **settings}
        return ml(*words, **settings)

    return run


@pytest.mark.parametrize("kind", MODELS)
def test_acting_step_by_step_is_the_forward_over_the_sequence(kind: Any, quick: Any) -> None:
    run = quick("replay.sequence=5", model=watched(kind), env=Diary, num_envs=2, learn_every=10)
    assert len(run.agent.batches) == 12


@pytest.mark.parametrize("name", ENVS)
def test_the_state_is_zero_exactly_where_an_episode_starts(name: str, quick: Any) -> None:
    run = quick("replay.sequence=5", model=watched(Sequences), learn_every=10, **ENVS[name])
    batches = run.agent.batches
    first = torch.cat([batch.is_first for batch in batches])
    obs = torch.cat([batch.obs for batch in batches])
    state = torch.cat([batch.state for batch in batches], 1)
    assert batches[0].state.shape == (2, 8, 8)  # [layers, B, hidden], as nn.GRU takes it.
    assert torch.equal(first, obs[..., 1] == 0)
    zero = (state == 0).all(2).all(0)
    assert torch.equal(zero, first[:, 0])
    assert 0 < int(zero.sum()) < len(zero)
    mask = torch.cat([batch.mask for batch in batches])
    assert not bool(mask.all())
    # Within a sequence there is one episode, step by step.
    for row, steps in zip(obs, mask.sum(1).tolist(), strict=True):
        assert row[:steps, 0].unique().numel() == 1
        assert torch.allclose(row[:steps, 1].diff(), torch.tensor(0.1))


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("num_envs", [1, 3])
def test_evaluation_carries_the_state_through_whole_episodes(
    kind: Any, num_envs: int, quick: Any
) -> None:
    settings = {"eval_episodes": 12, "train_steps": 9, "num_envs": num_envs}
    agent = quick(model=watched(kind), env=Diary, learn_every=100, **settings).agent
    keys = [key[1:] for key in agent.acted if not key[0]]
    checked = 0
    for episode in {episode for episode, _ in keys}:
        steps = sorted(step for e, step in keys if e == episode)
        if steps[0] != 0 or episode == 0:  # The probing before the run; copies that were done.
            continue
        obs = torch.tensor([[[episode, step] for step in steps]])
        out = agent.over(obs, None)[0]
        for t, step in enumerate(steps):
            assert torch.allclose(out[t], agent.acted[False, episode, step], atol=1e-5)
        checked += len(steps) > 1
    assert checked > 3


def test_sequences_have_sixteen_steps_unless_told(quick: Any) -> None:
    run = quick(model=watched(Sequences), env=Diary, train_steps=20)
    assert run.agent.batches[0].obs.shape == (8, 16, 2)


def test_dict_observations(quick: Any) -> None:
    class Parts(Diary):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space = spaces.Dict({"diary": self.observation_space})

        def _obs(self) -> Any:
            return {"diary": super()._obs()}

    class Model(Sequences):
        def forward(self, obs: Any, state: Any = None) -> Any:
            return super().forward(obs["diary"], state)

        def learn(self, replay: Any) -> Tensor:
            batch = next(replay)
            out, _ = self(batch.obs, batch.state)
            assert out.shape == (8, 16, 3)
            return (out.square().mean(-1) * batch.mask).sum() / batch.mask.sum()

    quick(model=Model, env=Parts, train_steps=20)


def test_dict_actions(quick: Any) -> None:
    class Parts(Diary):
        def __init__(self) -> None:
            super().__init__()
            self.action_space = spaces.Dict(
                {"one": spaces.Discrete(3), "move": spaces.Box(-1, 1, (3,))}
            )

        def step(self, action: Any) -> Any:
            assert self.action_space.contains(action)
            return super().step(action)

    class Model(Sequences):
        def forward(self, obs: Any, state: Any = None) -> Any:
            out, state = super().forward(obs, state)
            return {"one": out, "move": out}, state

        def learn(self, replay: Any) -> Tensor:
            batch = next(replay)
            out, _ = self(batch.obs, batch.state)
            assert batch.action["one"].shape == (8, 16)
            return out["move"].square().mean()

    quick(model=Model, env=Parts, train_steps=20)


class TestLayout:
    """How the state of a model is found out."""

    def make(self, kind: Any) -> Recurrence:
        torch.manual_seed(0)
        return Recurrence(kind().eval(), lambda n: torch.rand(n, 2))

    @pytest.mark.parametrize(
        ("kind", "by_sequence"),
        [(Sequences, True), (TimeMajor, True), (Steps, False), (Named, False), (Both, False)],
    )
    def test_by_steps_or_by_sequences(self, kind: Any, by_sequence: bool) -> None:
        assert self.make(kind).by_sequence == by_sequence

    def test_zeros_reset_pack_and_unpack(self) -> None:
        recurrence = self.make(TimeMajor)
        state = recurrence.zeros(3)
        assert [tuple(part.shape) for part in state] == [(1, 3, 8), (1, 3, 8)]
        state = tuple(torch.rand_like(part) for part in state)
        cleared = recurrence.reset(state, torch.tensor([False, True, False]))
        assert all(bool((part[:, 1] == 0).all()) for part in cleared)
        assert all(torch.equal(c[:, ::2], s[:, ::2]) for c, s in zip(cleared, state, strict=True))
        packed = recurrence.pack(state)
        assert {name: tuple(part.shape) for name, part in packed.items()} == {
            "0": (3, 1, 8),
            "1": (3, 1, 8),
        }
        again = recurrence.unpack(packed)
        assert all(torch.equal(a, b) for a, b in zip(again, state, strict=True))

    def test_more_than_ten_tensors_keep_their_order(self) -> None:
        class Many(Steps):
            def forward(self, obs: Tensor, state: Any = None) -> Any:
                out, after = super().forward(obs, None if state is None else state[0])
                return out, [after] + [torch.zeros(len(obs), i) for i in range(1, 12)]

        recurrence = self.make(Many)
        packed = recurrence.pack(recurrence.zeros(2))
        shuffled = {name: packed[name] for name in sorted(packed)}  # "10" before "2".
        assert [part.shape[1] for part in recurrence.unpack(shuffled)] == [8, *range(1, 12)]

    def test_it_is_the_argument_that_makes_a_model_recurrent(self) -> None:
        assert traits(Steps()).recurrent
        assert not traits(nn.Linear(1, 1)).recurrent
        assert not traits(nn.Module()).recurrent


class NoBatch(Steps):
    def forward(self, obs: Tensor, state: Any = None) -> Any:
        out, _ = super().forward(obs, None)
        return out, torch.zeros(8)


class SequencesNoBatch(Sequences):
    def forward(self, obs: Tensor, state: Any = None) -> Any:
        out, state = super().forward(obs, None)
        return out, state.mean(1)


class Begins(Steps):
    """Starts with ones."""

    def forward(self, obs: Tensor, state: Any = None) -> Any:
        return super().forward(obs, torch.ones(len(obs), 8) if state is None else state)


class OnlyOut(Steps):
    def forward(self, obs: Tensor, state: Any = None) -> Any:
        return super().forward(obs, state)[0]


class NoState(Steps):
    def forward(self, obs: Tensor, state: Any = None) -> Any:
        return super().forward(obs, None)[0], None


class TooWide(Sequences):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 4)


class Raises(Sequences):
    def forward(self, obs: Tensor, state: Any = None) -> Any:
        raise RuntimeError("not today")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (NoBatch, r"NoBatch.forward: its state [8] does not grow with the batch."),
        (SequencesNoBatch, r"SequencesNoBatch.forward: its state [2, 8] does not grow with the"),
        (Begins, "Begins.forward: a state of zeros and state=None lead to different outputs"),
        (OnlyOut, "OnlyOut.forward(obs, state) returned a Tensor; a recurrent model returns (out,"),
        (
            NoState,
            "NoState.forward: its state holds a NoneType; a state must be a tensor, or tuples",
        ),
        (TooWide, "TooWide.forward: expected output [2, 3] for one of 3, got [2, 4]"),
        (Raises, "Raises.forward raised RuntimeError"),
    ],
)
def test_what_is_wrong_is_said_before_training(kind: Any, message: str, quick: Any) -> None:
    class Model(kind):
        def learn(self, replay: Any) -> None: ...

    Model.__name__ = kind.__name__
    with pytest.raises(ConfigError, match=re.escape(message)):
        quick(model=Model, env=Diary)
