"""Networks for photographs, made to fit the images at hand."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from antelope.agents.vision import fit_to_images, headless, vision_arguments
from antelope.replay import ConfigError, Space

SMALL = [(1, 28, 28), (3, 32, 32), (1, 8, 8)]


def resnet(shape: tuple[int, ...]) -> nn.Module:
    return fit_to_images(models.resnet18(num_classes=4), Space(shape))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (4, 8, 12)])
def test_small_images_keep_their_resolution(shape: tuple[int, ...]) -> None:
    network = resnet(shape)
    stem = network.conv1
    assert isinstance(stem, nn.Conv2d)
    assert (stem.in_channels, stem.stride, stem.kernel_size) == (shape[0], (1, 1), (3, 3))
    assert isinstance(network.maxpool, nn.Identity)
    before_blocks = network.relu(network.bn1(stem(torch.zeros(2, *shape))))
    assert network.maxpool(before_blocks).shape[-2:] == shape[1:]
    assert network.eval()(torch.zeros(2, *shape)).shape == (2, 4)


def test_large_images_only_change_the_channels() -> None:
    network = resnet((1, 64, 80))
    stem = network.conv1
    assert isinstance(stem, nn.Conv2d)
    assert (stem.in_channels, stem.stride, stem.kernel_size) == (1, (2, 2), (7, 7))
    assert isinstance(network.maxpool, nn.MaxPool2d)


def test_photographs_change_nothing() -> None:
    original = models.resnet18(num_classes=4)
    stem = original.conv1
    assert fit_to_images(original, Space((3, 64, 64))).conv1 is stem


def test_other_networks_get_the_channels_of_the_images() -> None:
    network = fit_to_images(models.mobilenet_v3_small(num_classes=4), Space((1, 32, 32)))
    assert network.eval()(torch.zeros(2, 1, 32, 32)).shape == (2, 4)


def built(target: Any, shape: tuple[int, ...], classes: int = 4) -> nn.Module:
    """As the launcher builds it."""
    obs = Space(shape)
    network = target(num_classes=classes, **vision_arguments(target, obs))
    return fit_to_images(network, obs, target.__name__)


def outputs(network: nn.Module, shape: tuple[int, ...]) -> Tensor:
    return network.eval()(torch.zeros(2, *shape))


@pytest.mark.parametrize("shape", SMALL)
@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "mobilenet_v3_small",
        "shufflenet_v2_x0_5",
        "squeezenet1_1",
        "mnasnet0_5",
        "efficientnet_b0",
        "regnet_x_400mf",
        "googlenet",
    ],
)
def test_networks_of_torchvision_learn_from_small_images(name: str, shape: tuple[int, ...]) -> None:
    network = built(getattr(models, name), shape)
    assert all(module.training for module in network.modules())
    out = network(torch.randn(4, *shape))
    assert out.shape == (4, 4)
    out.sum().backward()


# Larger ones: slower to build than all of the above.
@pytest.mark.slow
@pytest.mark.parametrize("shape", SMALL)
@pytest.mark.parametrize(
    "name", ["alexnet", "vgg11", "densenet121", "convnext_tiny", "swin_t", "swin_v2_t", "vit_b_16"]
)
def test_large_networks_of_torchvision_see_small_images(name: str, shape: tuple[int, ...]) -> None:
    assert outputs(built(getattr(models, name), shape), shape).shape == (2, 4)


@pytest.mark.parametrize(
    ("side", "last"), [(8, 2), (12, 3), (16, 4), (28, 4), (32, 4), (40, 5), (48, 6), (60, 4)]
)
def test_the_last_feature_map_keeps_four_pixels_or_a_quarter(side: int, last: int) -> None:
    network = resnet((1, side, side))
    seen: list[int] = []
    network.layer4.register_forward_hook(lambda *x: seen.append(x[2].shape[-1]))
    outputs(network, (1, side, side))
    assert seen == [last]


def test_all_paths_of_a_block_keep_the_same_resolution() -> None:
    network = resnet((1, 8, 8))
    block = network.layer2[0]  # type: ignore[index]
    assert (block.conv1.stride, block.downsample[0].stride) == ((1, 1), (1, 1))
    later = network.layer4[0]  # type: ignore[index]
    assert (later.conv1.stride, later.downsample[0].stride) == ((2, 2), (2, 2))


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "mnasnet0_5"])
def test_statistics_follow_within_a_short_training(name: str) -> None:
    network = built(getattr(models, name), (1, 8, 8))
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {norm.momentum for norm in norms} == {0.1}
    large = built(getattr(models, name), (1, 64, 64))
    assert {m.momentum for m in large.modules() if isinstance(m, nn.BatchNorm2d)} != {0.1}


def vit(image_size: int) -> nn.Module:
    return models.VisionTransformer(image_size, 16, 1, 2, 8, 16, num_classes=4)


def vit_small_16(num_classes: int, image_size: int = 224) -> nn.Module:
    assert num_classes == 4
    return vit(image_size)


@pytest.mark.parametrize(
    ("side", "patch"), [(8, 1), (28, 4), (32, 4), (29, 1), (64, 8), (96, 12), (100, 10), (224, 16)]
)
def test_a_transformer_gets_patches_that_divide_the_image(side: int, patch: int) -> None:
    network = built(vit_small_16, (1, side, side))
    assert network.conv_proj.kernel_size == network.conv_proj.stride == (patch, patch)
    assert outputs(network, (1, side, side)).shape == (2, 4)
    assert network.seq_length == (side // patch) ** 2 + 1


def test_what_cannot_be_adapted_is_told_in_one_error_that_names_others() -> None:
    for target, shape, reason in (
        (vit_small_16, (1, 28, 20), "square images only"),
        (models.maxvit_t, (3, 32, 32), "multiples of 224"),
        (models.inception_v3, (3, 8, 8), "RuntimeError"),
    ):
        with pytest.raises(ConfigError, match=reason) as raised:
            built(target, shape)
        text = str(raised.value)
        size = f"{shape[1]}x{shape[2]} pixels and {shape[0]} channel"
        assert text.startswith(f"{target.__name__} cannot be made to fit images of {size}")
        assert "resnet18" in text


def test_adapting_draws_no_random_numbers_but_for_new_weights() -> None:
    network = models.mobilenet_v3_small(num_classes=4)
    before = torch.get_rng_state()
    fit_to_images(network, Space((3, 32, 32)))  # Its first filters are 3x3 already.
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "width"),
    [("resnet18", 512), ("mobilenet_v3_small", 1024), ("squeezenet1_1", 512), ("googlenet", 1024)],
)
def test_a_headless_network_gives_features(name: str, width: int) -> None:
    network = headless(built(getattr(models, name), (1, 28, 28)))
    assert outputs(network, (1, 28, 28)).shape == (2, width)


def test_a_headless_transformer_gives_its_width() -> None:
    assert outputs(headless(built(vit_small_16, (1, 28, 28))), (1, 28, 28)).shape == (2, 8)


def test_what_has_no_head_says_so() -> None:
    for network in (nn.Linear(2, 2), nn.Sequential(nn.ReLU())):
        with pytest.raises(ConfigError, match="no last layer to remove"):
            headless(network)


class TestTimm:
    @pytest.mark.parametrize("shape", SMALL)
    @pytest.mark.parametrize(
        "name",
        [
            "resnet10t",
            "convnext_atto",
            "mobilenetv3_small_050",
            "vit_tiny_patch16_224",
            "pit_ti_224",
        ],
    )
    def test_networks_see_small_images(self, name: str, shape: tuple[int, ...]) -> None:
        network = built(self.builder(name), shape)
        out = network(torch.randn(4, *shape))
        assert out.shape == (4, 4)
        assert outputs(headless(network), shape).shape[1] > 4

    def test_transformers_are_told_the_size(self) -> None:
        target = self.builder("vit_tiny_patch16_224")
        expected = {"in_chans": 3, "img_size": (28, 20), "patch_size": 2}
        assert vision_arguments(target, Space((3, 28, 20))) == expected
        target = self.builder("swin_tiny_patch4_window7_224")
        expected = {"in_chans": 1, "img_size": (32, 32), "patch_size": 1}
        assert vision_arguments(target, Space((1, 32, 32))) == expected

    def test_convolutions_are_told_the_channels_alone(self) -> None:
        target = self.builder("resnet18.a1_in1k")
        assert vision_arguments(target, Space((2, 28, 20))) == {"in_chans": 2}

    def test_what_cannot_be_adapted_says_so(self) -> None:
        for name in ("mixer_s16_224", "levit_128s"):
            with pytest.raises(ConfigError, match=f"^{name} cannot be made to fit images of 28x28"):
                built(self.builder(name), (1, 28, 28))

    def builder(self, name: str) -> Any:
        from antelope.launcher.settings.names import resolve

        pytest.importorskip("timm")
        target = resolve(name, "model")
        assert isinstance(target, functools.partial)
        return target


def test_what_meets_no_images_is_left_alone() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 1))
    assert fit_to_images(network, Space((7,)))[0].in_channels == 3  # type: ignore[index]
    assert fit_to_images(network, {"image": Space((1, 8, 8))})[0].in_channels == 3  # type: ignore[index]
    assert vision_arguments(models.googlenet, {"image": Space((1, 8, 8))}) == {}
    linear = nn.Linear(2, 2)
    assert fit_to_images(linear, Space((1, 8, 8))) is linear
