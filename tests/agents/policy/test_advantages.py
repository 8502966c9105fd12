"""Generalised advantages, against sums written out episode by episode."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from antelope.agents.policy.advantages import advantages, next_values
from antelope.replay import Batch

GAMMA = 0.9


def rollout(
    T: int, N: int, generator: torch.Generator, *, ends: float, lengths: list[int]
) -> Batch:
    """A random rollout whose column n has `lengths[n]` transitions, and NaN below them."""
    draw = torch.rand(T, N, generator=generator)
    terminated, truncated = draw < ends / 2, draw > 1 - ends / 2
    mask = torch.arange(T)[:, None] < torch.tensor(lengths)
    batch = Batch(
        reward=torch.randn(T, N, generator=generator),
        discount=GAMMA * (~terminated).float(),
        next_obs=torch.randn(T, N, 1, generator=generator),
    ).map(
        lambda field: torch.where(mask if field.dim() == 2 else mask[..., None], field, torch.nan)
    )
    # Garbage says anything about ends, too.
    return Batch(**batch, terminated=terminated, truncated=truncated, mask=mask)


def critic(obs: torch.Tensor) -> torch.Tensor:
    return 3 * obs.squeeze(-1)


def judged(batch: Batch, value: torch.Tensor, critic: Any, *, gae_lambda: float) -> torch.Tensor:
    """Advantages by the values of what follows, which the critic is asked for."""
    following = next_values(batch, value, critic)
    return advantages(batch, value, following, gae_lambda=gae_lambda)


def slow(batch: Batch, value: torch.Tensor, gae_lambda: float) -> torch.Tensor:
    """Sums of (d lambda)^k delta_t+k, each step's on its own (arXiv 1506.02438, eq. 16)."""
    T, N = value.shape
    result = torch.zeros(T, N)

    def is_last(t: int, n: int) -> bool:
        return t + 1 == T or not bool(batch.mask[t + 1, n])

    for n in range(N):
        for start in range(T):
            total, factor, t = 0.0, 1.0, start
            while t < T and batch.mask[t, n]:
                ended = bool(batch.terminated[t, n] or batch.truncated[t, n])
                if batch.terminated[t, n]:
                    following = 0.0
                elif ended or is_last(t, n):
                    following = float(critic(batch.next_obs[t, n]))
                else:
                    following = float(value[t + 1, n])
                total += factor * float(batch.reward[t, n] + GAMMA * following - value[t, n])
                if ended:
                    break
                factor, t = factor * GAMMA * gae_lambda, t + 1
            result[start, n] = total
    return result


@given(
    T=st.integers(1, 7),
    lengths=st.lists(st.integers(0, 7), min_size=1, max_size=4).filter(any),
    ends=st.sampled_from([0.0, 0.3, 0.9]),
    gae_lambda=st.sampled_from([0.0, 0.7, 1.0]),
    seed=st.integers(0, 10_000),
)
def test_they_are_those_of_the_slow_reference(
    T: int, lengths: list[int], ends: float, gae_lambda: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    batch = rollout(T, len(lengths), generator, ends=ends, lengths=lengths)
    value = torch.randn(T, len(lengths), generator=generator)
    value[~batch.mask] = torch.nan
    result = judged(batch, value, critic, gae_lambda=gae_lambda)
    torch.testing.assert_close(result, slow(batch, value, gae_lambda), atol=1e-4, rtol=1e-4)


def column(*rows: tuple[float, float, str]) -> tuple[Batch, torch.Tensor]:
    """One environment: reward, V(s), and how the step ended; V of every `next_obs` is 30."""
    terminated = torch.tensor([[end == "terminated"] for *_, end in rows])
    batch = Batch(
        reward=torch.tensor([[reward] for reward, *_ in rows]),
        discount=0.5 * (~terminated).float(),
        next_obs=torch.full((len(rows), 1, 1), 10.0),
        terminated=terminated,
        truncated=torch.tensor([[end == "truncated"] for *_, end in rows]),
        mask=torch.ones(len(rows), 1, dtype=torch.bool),
    )
    return batch, torch.tensor([[value] for _, value, _ in rows])


def test_by_hand() -> None:
    batch, value = column((1.0, 2.0, ""), (1.0, 4.0, "terminated"), (1.0, 6.0, ""))
    # 1 - 4 = -3 where it terminated; 1 + 4/2 - 2 + (1/2)(1/2)(-3) before; 1 + 30/2 - 6 at the end.
    result = judged(batch, value, critic, gae_lambda=0.5)
    assert result.flatten().tolist() == pytest.approx([0.25, -3.0, 10.0])


def test_a_truncated_step_is_worth_its_real_last_observation() -> None:
    batch, value = column((1.0, 2.0, ""), (1.0, 4.0, "truncated"), (1.0, 6.0, ""))
    # 1 + 30/2 - 4 = 12, although the next row, of another episode, is worth 6.
    result = judged(batch, value, critic, gae_lambda=0.5)
    assert result.flatten().tolist() == pytest.approx([1 + 2 - 2 + 12 / 4, 12.0, 10.0])


def test_the_critic_is_asked_only_where_values_are_unknown() -> None:
    batch, value = column((1.0, 2.0, ""), (1.0, 4.0, "truncated"), (1.0, 1.0, ""), (1.0, 6.0, ""))
    asked = []

    def counted(obs: torch.Tensor) -> torch.Tensor:
        asked.append(len(obs))
        return critic(obs)

    judged(batch, value, counted, gae_lambda=0.5)
    assert asked == [2]


def test_with_lambda_1_it_is_the_return_less_the_value() -> None:
    batch, value = column((1.0, 2.0, ""), (2.0, 4.0, ""), (4.0, 6.0, "terminated"))
    result = judged(batch, value, critic, gae_lambda=1.0)
    assert (result + value).flatten().tolist() == pytest.approx([1 + 1 + 1, 2 + 2, 4])


def test_no_gradient_flows_and_values_stay_as_they_are() -> None:
    batch, value = column((1.0, 2.0, ""), (1.0, 4.0, ""))
    value.requires_grad_()
    before = value.detach().clone()
    assert not judged(batch, value, critic, gae_lambda=0.5).requires_grad
    assert torch.equal(value.detach(), before)
