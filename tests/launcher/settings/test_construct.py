"""Constructors get their arguments by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from antelope.launcher.settings.construct import construct
from antelope.replay import ConfigError


class Parts:
    """Keeps what it was given."""

    def __init__(self, width: int, depth: int = 2, *, name: str = "x", child: Any = None):
        self.width, self.depth, self.name, self.child = width, depth, name, child


def construct_error(target: Any, given: dict[str, Any], known: dict[str, Any] | None = None) -> str:
    with pytest.raises(ConfigError) as raised:
        construct(target, given, known or {}, setting="model")
    return str(raised.value)


class TestConstruct:
    def test_inferred_values_go_where_they_are_asked_for(self) -> None:
        made = construct(Parts, {}, {"width": 7, "depth": 3, "height": 9}, setting="model")
        assert (made.width, made.depth, made.name) == (7, 3, "x")

    def test_explicit_values_win(self) -> None:
        assert construct(Parts, {"width": 1}, {"width": 7}, setting="model").width == 1
        assert construct(Parts, {"width": None}, {"width": 7}, setting="model").width is None

    def test_an_unknown_sub_key_lists_the_parameters(self) -> None:
        text = construct_error(Parts, {"width": 1, "dept": 3})
        assert text == (
            "Parts has no parameter `dept` (`model.dept`). Did you mean `depth`? "
            "It has: width, depth, name, child."
        )

    def test_a_missing_argument_says_what_can_be_inferred(self) -> None:
        text = construct_error(Parts, {}, {"in_features": 3, "spec": None})
        assert "Parts needs `width`, which was not given and cannot be inferred." in text
        assert "Pass model.width=..., or ask for any of: in_features=3, spec." in text
        with pytest.raises(
            ConfigError,
            match=r"were not given.*Pass model.in_features=... model.out_features=...\.$",
        ):
            construct(torch.nn.Linear, {}, {"spec": None}, setting="model")

    def test_all_mistakes_at_once(self) -> None:
        lines = construct_error(Parts, {"dept": 3, "nmae": "y"}).splitlines()
        assert [
            any(word in line for line in lines) for word in ("`dept`", "`nmae`", "`width`")
        ] == [True] * 3

    def test_anything_goes_where_the_constructor_takes_anything(self) -> None:
        def make(width: int, **rest: Any) -> dict[str, Any]:
            return {"width": width, **rest}

        made = construct(make, {"anything": 1}, {"width": 2, "spec": 3}, setting="model")
        assert made == {"width": 2, "anything": 1}  # Inferred only where asked for by name.

    def test_without_parameters(self) -> None:
        class Bare:
            pass

        assert isinstance(construct(Bare, {}, {"spec": 1}, setting="model"), Bare)

    def test_arguments_that_come_first(self) -> None:
        weights = [nn.Parameter(torch.zeros(1))]
        made = construct(torch.optim.SGD, {"lr": 0.5}, {}, setting="optim", positional=(weights,))
        assert made.param_groups[0]["lr"] == 0.5
        with pytest.raises(ConfigError, match=r"no parameter `params`"):
            construct(torch.optim.SGD, {"params": 1}, {}, setting="optim", positional=(weights,))

    def test_named_objects_inside_are_made_first(self) -> None:
        inner = {"_target_": Parts, "width": 2, "child": {"_target_": nn.Identity}}
        made = construct(Parts, {"width": 1, "child": inner}, {}, setting="model")
        assert (made.width, made.child.width) == (1, 2)
        assert isinstance(made.child.child, nn.Identity)
        made = construct(Parts, {"width": 1, "child": [inner, 3]}, {}, setting="model")
        assert (made.child[0].width, made.child[1]) == (2, 3)

    def test_an_error_of_the_constructor_says_what_it_was_called_with(self) -> None:
        class Net:
            def __init__(self, width: int):
                raise KeyError("missing")

        text = construct_error(Net, {"width": 3})
        assert "Net(width=3) raised KeyError: 'missing'" in text
        assert "test_construct.py, line" in text

    def test_its_own_complaints_pass_unchanged(self) -> None:
        def make() -> None:
            raise ConfigError("Use something else.")

        assert construct_error(make, {}) == "Use something else."
