"""Configurations written and copied without OmegaConf, against OmegaConf."""

from __future__ import annotations

import enum
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from antelope.launcher.settings.plain_yaml import Loader, dump, load, plain_copy

TEXTS = st.text(max_size=12) | st.sampled_from(
    [
        "on",
        "Yes",
        "1e-3",
        "1_0",
        "inf",
        "nan",
        "~",
        "",
        " a",
        "a: b",
        "- a",
        "???",
        "0x1",
        "é",
        "a\nb",
    ]
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3)
)


@given(st.dictionaries(TEXTS, VALUES, max_size=4))
@example({"a": {"b": [1, {"c": None}]}, "e": []})
def test_what_is_written_is_what_omegaconf_writes(values: dict[str, Any]) -> None:
    if plain_copy(values) is not None:
        assert dump(values) == OmegaConf.to_yaml(OmegaConf.create(values))


def test_a_list_in_two_places_is_written_twice() -> None:
    shared = [1, 2]
    assert "&" not in dump({"a": shared, "b": shared})


def test_a_copy_shares_nothing_with_the_original() -> None:
    values = {"a": {"b": [1]}}
    copied = plain_copy(values)
    assert copied == values
    copied["a"]["b"].append(2)  # type: ignore[index]
    assert values == {"a": {"b": [1]}}


class Colour(enum.Enum):
    RED = 1


@pytest.mark.parametrize("value", [Colour.RED, (1, 2), {1: 2}, "${lr}"])
def test_what_omegaconf_converts_is_left_to_it(value: Any) -> None:
    assert plain_copy({"a": value}) is None
    assert dump({"a": value}) == OmegaConf.to_yaml(OmegaConf.create({"a": value}))


@pytest.mark.parametrize("text", ["1e-3", "off", "010", "1:30", "2024-01-01", "null", ".5", "-inf"])
def test_both_readers_read_the_same(text: str) -> None:
    assert repr(load(f"a: {text}")) == repr(yaml.load(f"a: {text}", Loader=Loader))
