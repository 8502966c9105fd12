"""The encoder turns observations of any space into features."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from antelope.agents.blocks.encoder import Joint, Layers, encoder, rows
from antelope.replay import Space

SHAPES = [(4,), (), (2, 3), (4, 84, 84), (3, 36, 36), (3, 35, 36), (3, 4, 4), (3, 2, 1), (1, 10, 7)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("hidden", [(), (8, 5)], ids=str)
def test_the_features_are_as_wide_as_it_says(
    shape: tuple[int, ...], hidden: tuple[int, ...]
) -> None:
    trunk = encoder(Space(shape), hidden)
    assert trunk(torch.zeros(2, *shape)).shape == (2, trunk.out_features)
    assert not hidden or trunk.out_features == hidden[-1]


def test_an_image_meets_the_convolutions_of_the_nature_paper() -> None:
    trunk = encoder(Space((4, 84, 84)), (512,))
    kernels = [
        (m.out_channels, m.kernel_size[0], m.stride[0]) for m in trunk if hasattr(m, "stride")
    ]
    assert kernels == [(32, 8, 4), (64, 4, 2), (64, 3, 1)]
    linear = next(m for m in trunk if isinstance(m, nn.Linear))
    assert linear.in_features == 64 * 7 * 7


def test_without_layers_a_vector_stays_as_it_is() -> None:
    obs = torch.randn(2, 4)
    assert encoder(Space((4,)), ())(obs) is obs


def test_the_parts_of_a_dict_stand_side_by_side_in_its_order() -> None:
    # Names that a ModuleDict refuses.
    trunk = encoder({"b.c": Space(()), "keys": Space((2, 2))}, ())
    features = trunk({"keys": torch.arange(8.0).view(2, 2, 2), "b.c": torch.tensor([9.0, 10.0])})
    assert features.tolist() == [[9, 0, 1, 2, 3], [10, 4, 5, 6, 7]]


def test_an_image_in_a_dict_meets_convolutions() -> None:
    trunk = encoder({"x": Space((3,)), "image": Space((1, 8, 8))}, (6,))
    joint = trunk[0]
    assert isinstance(joint, Joint)
    assert joint.out_features == 3 + 32 * 4 * 4
    assert trunk({"x": torch.zeros(2, 3), "image": torch.zeros(2, 1, 8, 8)}).shape == (2, 6)


def test_the_activation_follows_every_layer() -> None:
    trunk = encoder(Space((4,)), (8, 8), nn.Tanh)
    assert [type(m) for m in trunk] == [nn.Linear, nn.Tanh, nn.Linear, nn.Tanh]


def test_building_an_encoder_for_images_draws_only_its_weights() -> None:
    torch.manual_seed(0)
    encoder(Space((1, 8, 8)), ())
    after = torch.rand(1)
    torch.manual_seed(0)
    nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 32, 3, stride=2, padding=1)
    assert torch.equal(after, torch.rand(1))


def test_observations_are_counted_by_rows() -> None:
    assert rows(torch.zeros(5, 2)) == 5
    assert rows({"a": torch.zeros(5, 2), "b": torch.zeros(5)}) == 5


def test_layers_are_those_of_a_sequential_and_keep_their_hooks() -> None:
    torch.manual_seed(0)
    layers = Layers(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))
    x = torch.randn(5, 3)
    assert torch.equal(layers(x), nn.Sequential(*layers)(x))
    met: list[int] = []
    layers[2].register_forward_hook(lambda *_: met.append(2))
    layers[4].register_forward_pre_hook(lambda *_: met.append(4))
    layers(x)
    assert met == [2, 4]
    layers(x).sum().backward()
    assert all(p.grad is not None for p in layers.parameters())
