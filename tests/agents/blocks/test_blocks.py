"""What all blocks have in common: made from the shapes alone, for observations of any size."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antelope.agents import blocks
from antelope.agents.blocks import CNN, MLP, Ensemble, ResidualCNN, SetAttention, ViT
from antelope.launcher.assembly.infer import inferred
from antelope.launcher.settings.construct import construct
from antelope.replay import ConfigError, Space, Spec

IMAGES = (CNN, ResidualCNN, ViT)
SHAPES = [(1, 8, 8), (3, 32, 20), (2, 7, 5), (4, 28, 28), (3, 64, 80), (1, 1, 1)]


def made(block: type[nn.Module], shape: tuple[int, ...], classes: int) -> nn.Module:
    """As `ml model=BLOCK` makes it."""
    action = Space((classes,), torch.int64, discrete=True)
    table = inferred(Spec(Space(shape), action), device=torch.device("cpu"))
    model = construct(block, {}, table, setting="model")
    assert isinstance(model, nn.Module)
    return model


@pytest.mark.parametrize("name", blocks.NAMES["model"])
def test_every_name_makes_a_model_from_the_inferred_arguments(name: str) -> None:
    block = getattr(blocks, name)
    assert block.__name__ == name
    model = made(block, (1, 8, 8), 10)
    if name == "Recurrent":
        assert model(torch.zeros(2, 3, 1, 8, 8))[0].shape == (2, 3, 10)
    else:
        assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_every_registered_name_is_public() -> None:
    assert set(blocks.NAMES["model"]) == set(blocks.__all__)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("block", [*IMAGES, MLP, SetAttention, Ensemble])
@pytest.mark.parametrize("training", [True, False])
def test_images_of_any_size(block: type[nn.Module], shape: tuple[int, ...], training: bool) -> None:
    model = made(block, shape, 7).train(training)
    with torch.set_grad_enabled(training):
        assert model(torch.randn(3, *shape)).shape == (3, 7)


@pytest.mark.parametrize("block", IMAGES)
@pytest.mark.parametrize("shape", [(8, 8), (64,), (), (0, 8, 8)])
def test_what_is_no_image_is_refused_by_name(
    block: type[nn.Module], shape: tuple[int, ...]
) -> None:
    with pytest.raises(ConfigError, match=rf"^{block.__name__} needs images.*MLP takes"):
        made(block, shape, 2)


@pytest.mark.parametrize("block", [*IMAGES, MLP])
def test_learns_digits(block: type[nn.Module], digits: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(0)
    images, labels = digits
    model = made(block, (1, 8, 8), 10)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(25):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.5  # At random: log 10, which is 2.3.


@pytest.mark.parametrize("block", [*IMAGES, MLP, SetAttention])
def test_a_gradient_reaches_every_weight(block: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = made(block, (3, 12, 8), 5)
    model(torch.randn(4, 3, 12, 8)).square().sum().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().sum() > 0, name
