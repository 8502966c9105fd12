"""Images of any size come out at the same size, and what is known of each makes a difference."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from antelope.agents.blocks.unet import UNet, sinusoids


@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (2, 5, 7)])
def test_images_keep_their_size(shape: tuple[int, ...], patch: int) -> None:
    unet = UNet(shape[0], 4, condition=6, channels=8, patch=patch)
    output = unet(torch.randn(3, *shape), torch.randn(3, 6))
    assert output.shape == (3, 4, *shape[1:])
    assert not output.any()  # The last layer begins at zero.


def awake(unet: UNet) -> UNet:
    """One whose layers that begin at zero do not any more."""
    for module in unet.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.1)
    return unet.double()


def test_a_pixel_hears_of_all_others_and_no_other_image() -> None:
    torch.manual_seed(0)
    unet = awake(UNet(1, 1, condition=2, channels=8, patch=2))
    images = torch.randn(2, 1, 32, 32, dtype=torch.float64, requires_grad=True)
    output = unet(images, torch.randn(2, 2, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(output[0, 0, 0, 0], images)
    assert bool((gradient[0] != 0).all())
    assert not gradient[1].any()


def test_every_layer_has_a_part_in_it() -> None:
    unet = awake(UNet(1, 1, condition=2, channels=8))
    unet(torch.randn(2, 1, 8, 8).double(), torch.randn(2, 2).double()).sum().backward()
    assert [name for name, p in unet.named_parameters() if p.grad is None] == []


def test_detail_takes_the_short_way() -> None:
    torch.manual_seed(0)
    unet = awake(UNet(1, 1, condition=2, channels=8))
    nn.init.zeros_(unet.finer.weight)  # Nothing comes back from the second resolution.
    first, second = unet(torch.randn(2, 1, 8, 8).double(), torch.zeros(2, 2).double())
    assert not torch.allclose(first, second)


def test_the_condition_of_an_image_is_its_own() -> None:
    torch.manual_seed(0)
    unet = awake(UNet(1, 1, condition=2, channels=8))
    image = torch.randn(1, 1, 8, 8, dtype=torch.float64).expand(3, -1, -1, -1)
    first, second, third = unet(image, torch.tensor([[0.0, 1], [0, 1], [1, 0]]).double())
    torch.testing.assert_close(first, second)
    assert not torch.allclose(first, third)


def test_times_are_told_apart() -> None:
    t = torch.tensor([0.0, 0.001, 0.5, 1.0])
    code = sinusoids(t, 16)
    assert code.shape == (4, 16)
    assert code[0].tolist() == [0] * 8 + [1] * 8
    assert torch.cdist(code, code)[~torch.eye(4, dtype=torch.bool)].min() > 0.1
    torch.testing.assert_close(code[2, 0], torch.tensor(0.5).sin())
