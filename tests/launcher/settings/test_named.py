"""An object that a setting names is built with its arguments."""

from __future__ import annotations

import functools

import pytest
from torch import nn

from antelope.launcher.settings.compose import compose
from antelope.launcher.settings.lookup import named_object, with_classes
from antelope.launcher.settings.named import Named
from antelope.replay import ConfigError


def test_a_class_is_built_with_its_arguments_over_inferred_ones() -> None:
    named = Named("model", nn.Linear, {"out_features": 3}, "torch.nn.Linear")
    built = named.build({"in_features": 2, "out_features": 7, "unasked": 1})
    assert (built.in_features, built.out_features) == (2, 3)


def test_a_partial_constructs_and_an_object_is_itself() -> None:
    layer = nn.Linear(1, 1)
    assert Named("model", layer, {}, "instance").build() is layer
    assert not Named("model", layer, {}, "instance").constructs
    assert (
        Named("model", functools.partial(nn.Linear, 1), {"out_features": 2}, "partial")
        .build()
        .out_features
        == 2
    )


def test_an_argument_that_is_missing_is_named() -> None:
    with pytest.raises(ConfigError, match=r"Linear needs `out_features`.*model\.out_features="):
        Named("model", nn.Linear, {}, "torch.nn.Linear").build({"in_features": 1})


def test_names_in_arguments_are_looked_up_before_anything_is_built() -> None:
    settings = compose(
        [],
        {
            "scheduler": {
                "_target_": "ChainedScheduler",
                "schedulers": [{"_target_": "StepLR", "step_size": 3}],
            }
        },
    )
    from torch.optim.lr_scheduler import StepLR

    (inner,) = named_object(settings, "scheduler").arguments["schedulers"]
    assert inner == {"_target_": StepLR, "step_size": 3}
    with pytest.raises(ConfigError, match="Did you mean `StepLR`"):
        with_classes(
            compose(["scheduler=StepLR"], {}), {"inner": {"_target_": "StepLr"}}, "scheduler"
        )


def test_dicts_that_name_nothing_stay_the_same_object() -> None:
    table = {"a": {"b": 1}}
    assert with_classes(compose([], {}), {"table": table}, "strategy")["table"] is table


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("model.py:Model", "Model"),
        ("torchvision.models.resnet.resnet18", "resnet18"),
        ("DQN", "DQN"),
    ],
)
def test_the_short_name(name: str, short: str) -> None:
    assert Named("model", None, {}, name).short_name == short
