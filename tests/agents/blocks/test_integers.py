"""Integers as features for layers that take numbers."""

from __future__ import annotations

import pytest
import torch

from antelope.agents.blocks.integers import Integers, Numbers, fit_to_integers
from antelope.agents.blocks.mlp import MLP
from antelope.replay import Space


def space(values: torch.Tensor) -> Space:
    over = (0, 2, 3) if values.dim() == 4 else (0,)
    floats = values.double()
    return Space(
        tuple(values.shape[1:]),
        torch.int64,
        low=int(values.min()),
        high=int(values.max()),
        mean=floats.mean(over).float(),
        stddev=floats.std(over, correction=0).float(),
        ids=int(values.max()) + 1,
    )


@pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 4), (200,), (1, 2, 2)])
@pytest.mark.parametrize("low", [0, -7, 10_000_000])
def test_every_shape_gives_a_vector_of_the_width_it_says(shape: tuple[int, ...], low: int) -> None:
    values = low + torch.randint(0, 200_000, (6, *shape))
    features = Integers(space(values))
    assert features(values).shape == (6, features.out_features)
    assert features.rows <= 65_521  # However many ids there are.


def test_values_are_numbers_at_zero_mean_and_unit_deviation() -> None:
    values = torch.tensor([[0, 5], [4, 5]])
    assert Numbers(space(values))(values).tolist() == [[-1, 0], [1, 0]]
    images = torch.randint(0, 256, (8, 2, 4, 4))
    seen = Numbers(space(images))(images)
    torch.testing.assert_close(seen.mean((0, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)


def test_large_integers_stay_apart() -> None:
    values = 1_700_000_000 + torch.arange(5)[:, None]
    assert len(Numbers(space(values))(values).unique()) == 5


def test_the_place_of_an_id_makes_a_difference_and_the_bag_none() -> None:
    values = torch.tensor([[1, 2, 3], [3, 2, 1]])
    features = Integers(space(values)).eval()
    one, other = features(values).detach()
    width = features.embedding.embedding_dim
    torch.testing.assert_close(one[3 : 3 + width], other[3 : 3 + width])
    assert not torch.allclose(one[3 + width :], other[3 + width :])


def test_ids_beyond_those_known_have_some_row() -> None:
    values = torch.tensor([[1, 2], [3, 4]])
    assert torch.isfinite(Integers(space(values))(values + 100)).all()


def test_an_encoder_of_ours_is_given_numbers_and_a_users_own_is_not() -> None:
    seen = space(torch.tensor([[1, 2], [3, 4]]))
    ours, own = MLP(2, 3), torch.nn.Embedding(5, 2)
    assert fit_to_integers(ours, seen)(torch.tensor([[1, 2]])).shape == (1, 3)
    assert fit_to_integers(own, seen) is own
    assert fit_to_integers(ours, Space((2,))) is ours
