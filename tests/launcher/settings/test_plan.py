"""A plan has every name resolved and every default decided, and is never changed."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import yaml

from antelope.agents import DQN, AC2Agent
from antelope.launcher.settings.compose import compose
from antelope.launcher.settings.plan import Plan, make_plan
from antelope.replay import ConfigError


def plan(*words: str, **code: Any) -> Plan:
    return make_plan(compose(words, code))


class TestDefaults:
    def test_of_a_run_that_says_nothing(self) -> None:
        found = plan()
        assert found.model.target is AC2Agent
        assert [named.short_name for named in found.dataset or ()] == ["Digits"]
        assert found.env is None
        assert found.batch_size == 32
        assert found.optim.target is torch.optim.AdamW

    @pytest.mark.parametrize(
        ("words", "key", "value"),
        [
            (["online=true"], "batch_size", 10),
            (["online=true"], "epochs", 1),
            (["env=CartPole-v1"], "batch_size", 128),
            (["env=CartPole-v1"], "seed_steps", 1000),
            (["env=CartPole-v1", "agent=DQN"], "learn_every", 4),
            (["env=CartPole-v1", "agent=PPO"], "normalize_obs", True),
            (["env=CartPole-v1", "agent=DQN", "offline=runs"], "learn_every", 1),
            (["env=CartPole-v1", "agent=DQN", "learn_every=2"], "learn_every", 2),
        ],
    )
    def test_that_depend_on_other_settings(self, words: list[str], key: str, value: Any) -> None:
        found = plan(*words)
        assert getattr(found, key) == value
        assert found.values[key] == value

    def test_an_environment_takes_the_place_of_the_default_data_set(self) -> None:
        found = plan("env=CartPole-v1")
        assert found.dataset is None
        assert [named.name for named in found.env or ()] == ["CartPole-v1"]


class TestContradictions:
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["dataset=Digits", "env=CartPole-v1"], "learns from one of them"),
            (["online=true", "scenario=task"], "Choose one"),
            (["online=true", "epochs=3"], "single pass"),
        ],
    )
    def test_are_said(self, words: list[str], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            plan(*words)

    def test_every_name_that_is_wrong_is_said_at_once(self) -> None:
        with pytest.raises(ConfigError) as raised:
            plan("model=DQNN", "optim=Sdg", "strategy=erx")
        assert all(name in str(raised.value) for name in ("`DQNN`", "`Sdg`", "`erx`"))


class TestFrozen:
    def test_fields_and_values_cannot_be_changed(self) -> None:
        found: Any = plan()
        with pytest.raises(dataclasses.FrozenInstanceError):
            found.lr = 1.0
        with pytest.raises(TypeError):
            found.values["lr"] = 1.0

    def test_the_settings_that_it_was_made_of_are_not_part_of_it(self) -> None:
        settings = compose(["agent=DQN"], {})
        before = settings.yaml()
        found = make_plan(settings)
        assert settings.yaml() == before
        settings.values["lr"] = 7.0
        settings.values["model"]["hidden"] = 7
        assert found.lr is None
        assert found.values["lr"] is None
        assert "hidden" not in found.values["model"]

    def test_what_a_saved_replay_decides_makes_another_plan(self) -> None:
        found = plan("env=CartPole-v1")
        other = found.decided(discount=0.5)
        assert (other.discount, other.values["discount"]) == (0.5, 0.5)
        assert (found.discount, found.values["discount"]) == (0.99, 0.99)


class TestFile:
    def test_config_yaml_composes_to_the_same_plan(self, workdir: Any) -> None:
        found = plan("agent=DQN", "env=CartPole-v1", "optim=SGD", "optim.momentum=0.9", "nstep=3")
        (workdir / "again.yaml").write_text("# @package _global_\n" + found.yaml())
        again = plan("task=again.yaml")
        assert again.yaml() == found.yaml()
        assert again.optim.arguments == {"momentum": 0.9}
        assert again.model.target is DQN

    def test_it_holds_names_in_full_and_plain_values(self) -> None:
        class Net(DQN):
            pass

        values = yaml.safe_load(plan("optim=SGD", env="CartPole-v1", model=Net).yaml())
        assert values["optim"]["_target_"] == "torch.optim.sgd.SGD"
        assert values["model"]["_target_"].endswith("Net")

    def test_objects_are_listed(self) -> None:
        assert plan(model=DQN, env="CartPole-v1").objects == ("model",)


def test_names_that_are_not_asked_for_are_not_looked_up() -> None:
    found = make_plan(compose(["model=DQN", "strategy=er"], {}), names=("model",))
    assert found.model.target is DQN
    assert [named.target for named in found.strategy or ()] == [None]
