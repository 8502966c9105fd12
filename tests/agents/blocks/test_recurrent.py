"""Sequences of several episodes equal the episodes, and the steps, one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antelope.agents.blocks import Recurrent
from antelope.agents.policy.states import Recurrence
from antelope.replay import ConfigError

KINDS = ("gru", "lstm")


def leaves(state: Any) -> list[Tensor]:
    return list(state) if isinstance(state, tuple) else [state]


def model(kind: str) -> Recurrent:
    torch.manual_seed(0)
    return Recurrent(6, 3, hidden=8, kind=kind)


def random_state(kind: str, batch: int) -> Any:
    state = torch.randn(1, batch, 8)
    return state if kind == "gru" else (state, torch.randn(1, batch, 8))


@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_equals_its_steps(kind: str) -> None:
    network, obs = model(kind), torch.randn(4, 5, 2, 3)
    together, last = network(obs)
    state, steps = None, []
    for t in range(5):
        out, state = network(obs[:, t : t + 1], state)
        steps.append(out)
    torch.testing.assert_close(torch.cat(steps, 1), together)
    torch.testing.assert_close(leaves(state), leaves(last))


@pytest.mark.parametrize("kind", KINDS)
def test_episodes_in_a_sequence_equal_those_episodes_apart(kind: str) -> None:
    network, obs, state = model(kind), torch.randn(3, 7, 6), random_state(kind, 3)
    is_first = torch.zeros(3, 7, dtype=torch.bool)
    is_first[0, [0, 4]] = is_first[1, [2, 4]] = True  # The third sequence is within one episode.
    together, last = network(obs, state, is_first)

    def alone(row: int, start: int, end: int, state: Any = None) -> Tensor:
        return network(obs[row : row + 1, start:end], state)[0][0]

    def given(row: int) -> Any:
        parts = [part[:, row : row + 1].contiguous() for part in leaves(state)]
        return tuple(parts) if kind == "lstm" else parts[0]

    expected = [
        torch.cat([alone(0, 0, 4), alone(0, 4, 7)]),
        torch.cat([alone(1, 0, 2, given(1)), alone(1, 2, 4), alone(1, 4, 7)]),
        alone(2, 0, 7, given(2)),
    ]
    torch.testing.assert_close(together, torch.stack(expected))
    after = network(obs[:1, 4:])[1]
    torch.testing.assert_close([x[:, 0] for x in leaves(last)], [x[:, 0] for x in leaves(after)])


@pytest.mark.parametrize("kind", KINDS)
def test_no_gradient_crosses_a_border(kind: str) -> None:
    obs = torch.randn(1, 4, 6, requires_grad=True)
    is_first = torch.tensor([[True, False, True, False]])
    model(kind)(obs, None, is_first)[0][:, 3].sum().backward()
    assert obs.grad is not None
    assert (obs.grad.abs().sum((0, 2)) > 0).tolist() == [False, False, True, True]


def test_sequences_without_a_border_take_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    network, calls = model("gru"), []
    run = network.memory.forward
    monkeypatch.setattr(network.memory, "forward", lambda *x: (calls.append(1), run(*x))[1])
    is_first = torch.zeros(2, 9, dtype=torch.bool)
    is_first[:, 0] = True
    network(torch.randn(2, 9, 6), random_state("gru", 2), is_first)
    assert len(calls) == 1
    is_first[1, 5] = True
    network(torch.randn(2, 9, 6), random_state("gru", 2), is_first)
    assert len(calls) == 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(6,), (1, 2, 3), (1, 1, 6)])
def test_the_launcher_drives_it_step_by_step(kind: str, shape: tuple[int, ...]) -> None:
    network = model(kind).eval()
    with torch.no_grad():
        recurrence = Recurrence(network, lambda n: torch.randn(n, *shape))
        obs = torch.randn(5, *shape)
        out, state = recurrence.step(obs, recurrence.zeros(5))
        torch.testing.assert_close(out, network(obs[:, None])[0][:, 0])
        began = torch.tensor([True, False, False, False, True])
        again, _ = recurrence.step(obs, recurrence.reset(state, began))
    assert torch.isclose(out, again).all(1).tolist() == began.tolist()


def test_single_numbers_are_a_sequence_too() -> None:
    network = Recurrent(1, 2)
    obs = torch.randn(3, 4)
    torch.testing.assert_close(network(obs), network(obs[..., None]))


def test_remembers_what_was_shown_at_the_first_step() -> None:
    torch.manual_seed(0)
    network = Recurrent(2, 2, hidden=16)
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    for _ in range(60):
        shown = torch.randint(2, (32,))
        obs = torch.zeros(32, 6, 2)
        obs[:, 0] = F.one_hot(shown, 2).float()
        loss = F.cross_entropy(network(obs)[0][:, -1], shown)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.1  # Without a memory: log 2, which is 0.69.


def test_another_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="neither `gru` nor `lstm`"):
        Recurrent(1, 1, kind="rnn")
    assert isinstance(model("lstm").memory, nn.LSTM)
