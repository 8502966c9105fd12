"""The vision transformer: its patches and where they are."""

from __future__ import annotations

import pytest
import torch

from antelope.agents.blocks import ViT
from antelope.replay import ConfigError


@pytest.mark.parametrize(
    ("shape", "patches"),
    [((1, 8, 8), 16), ((1, 28, 28), 49), ((3, 32, 32), 64), ((3, 224, 224), 64), ((1, 5, 3), 6)],
)
def test_about_64_patches_by_default(shape: tuple[int, ...], patches: int) -> None:
    model = ViT(shape, 2)
    assert model.embed(torch.zeros(1, *shape)).flatten(2).shape[2] == patches
    assert model.positions.shape == (patches, 64)


@pytest.mark.parametrize("patch", [1, 2, 3, 5, 9])
def test_any_patch_fits_any_image(patch: int) -> None:
    assert ViT((2, 9, 7), 3, patch=patch)(torch.zeros(2, 2, 9, 7)).shape == (2, 3)


def test_every_pixel_is_seen() -> None:
    torch.manual_seed(0)
    obs = torch.randn(1, 1, 9, 7, requires_grad=True)
    ViT((1, 9, 7), 1, patch=4)(obs).sum().backward()
    assert obs.grad is not None
    assert (obs.grad != 0).all()


def test_places_differ() -> None:
    torch.manual_seed(0)
    model = ViT((1, 8, 8), 4)
    assert len(model.positions.unique(dim=0)) == 16
    obs = torch.zeros(2, 1, 8, 8)
    obs[0, 0, 2, 2] = obs[1, 0, 4, 4] = 3.0  # The same pattern, a patch further.
    one, other = model(obs)
    assert not torch.allclose(one, other, atol=1e-3)


def test_layers_start_apart() -> None:
    first, second = ViT((1, 8, 8), 2).transformer.layers[:2]
    assert not torch.equal(first.linear1.weight, second.linear1.weight)


@pytest.mark.parametrize(
    ("arguments", "named"), [({"width": 30}, "multiple of 4"), ({"heads": 3}, "heads=3")]
)
def test_a_width_that_cannot_be_divided(arguments: dict[str, int], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        ViT((1, 8, 8), 2, **arguments)
