"""What `batch.obs` can be, and where it lies between."""

from __future__ import annotations

import pytest
import torch

from antelope.agents.generative.bounds import Bounds
from antelope.replay import Space, Standardize

BYTES = Space(
    (2, 3, 3), torch.uint8, 0.0, 255.0, torch.tensor([51.0, 102.0]), torch.tensor([10.0, 0.0])
)


@pytest.mark.parametrize("standardize", [False, True])
def test_units_are_those_of_the_picture(standardize: bool) -> None:
    stored = torch.randint(256, (4, 2, 3, 3), dtype=torch.uint8)
    obs = Standardize(BYTES, standardize=standardize)({"obs": stored})["obs"]
    bounds = Bounds(BYTES, standardize=standardize)
    torch.testing.assert_close(bounds.unit(obs), stored / 255)
    torch.testing.assert_close(bounds.obs(stored / 255), obs)


def test_bounds_by_hand() -> None:
    bounds = Bounds(BYTES, standardize=True)
    assert bounds.low[:, 0, 0].tolist() == pytest.approx([-5.1, -102])  # A deviation of 0 is 1.
    assert bounds.high[:, 0, 0].tolist() == pytest.approx([20.4, 153])
    assert set(Bounds(BYTES, standardize=False).high.flatten().tolist()) == {1}


def test_what_is_beyond_is_clipped() -> None:
    bounds = Bounds(Space((2,), low=-1.0, high=3.0), standardize=False)
    assert bounds.clip(torch.tensor([[-9.0, 9.0], [0.25, 0.5]])).tolist() == [[0, 1], [0.25, 0.5]]


def test_data_of_one_value_only_are_nowhere_between() -> None:
    bounds = Bounds(Space((1,), low=7.0, high=7.0), standardize=False)
    assert bounds.unit(bounds.low[None]).tolist() == [[0]]
