"""The table of what constructors can ask for, as the contract writes it."""

from __future__ import annotations

import torch

from antelope.launcher.assembly.infer import inferred
from antelope.replay import Space, Spec

CPU = torch.device("cpu")


def test_images_and_classes() -> None:
    obs = Space((3, 8, 4), torch.uint8)
    spec = Spec(obs, Space((10,), torch.int64, discrete=True), num_tasks=5)
    expected = {
        **{"spec": spec, "obs_spec": obs, "action_spec": spec.action},
        **dict.fromkeys(("in_features", "in_dim", "input_dim", "obs_dim"), 3 * 8 * 4),
        "in_channels": 3,
        **dict.fromkeys(("in_shape", "input_shape", "obs_shape"), (3, 8, 4)),
        **dict.fromkeys(("out_features", "out_dim", "output_dim", "out_channels"), 10),
        **dict.fromkeys(("num_classes", "num_actions"), 10),
        **dict.fromkeys(("out_shape", "output_shape", "action_shape"), (10,)),
        **{"num_tasks": 5, "discrete": True, "device": CPU},
    }
    table = inferred(spec, device=CPU)
    assert {name: table[name] for name in expected} == expected


def test_vectors_and_values() -> None:
    table = inferred(Spec(Space((4,)), Space((2, 3))), device=CPU)
    assert (table["in_features"], table["out_features"]) == (4, 6)
    assert (table["output_shape"], table["discrete"], table["num_tasks"]) == ((2, 3), False, 1)


def test_a_single_number() -> None:
    table = inferred(Spec(Space(()), Space((1,))), device=CPU)
    assert (table["in_features"], table["in_channels"], table["in_shape"]) == (1, 1, ())
