"""What `config.yaml` says of each setting."""

from __future__ import annotations

import pytest

from antelope.launcher.settings.schema import PARTS, schema, that_count

PLACES = {"data", "environments", "optimiser", "sequence", "incidental", "circumstances"}
PLACES |= {"fixed", "kept", "start"}  # What a resumed run may change.


def test_a_line_says_where_its_setting_counts() -> None:
    setting = schema()["lr_decay_epochs"]
    assert setting.kind == "int >= 1"
    assert setting.counts == {"data", "optimiser"}
    assert schema()["accumulate"].counts == {"optimiser"}
    assert schema()["train_steps"].counts == frozenset()


def test_every_place_is_a_known_one() -> None:
    assert {place for setting in schema().values() for place in setting.counts} == PLACES


def test_settings_of_a_group_are_counted_by_its_name() -> None:
    assert "replay" in that_count("environments")
    assert not any("." in key for key in that_count(*PLACES))


@pytest.mark.parametrize("place", sorted(PLACES))
def test_a_setting_counts_in_environments_or_on_data(place: str) -> None:
    assert that_count(place)
    assert not that_count("data") & that_count("environments")


def test_parts_of_agents_are_settings_that_name_an_object() -> None:
    assert all(schema()[part].names_object for part in PARTS)
