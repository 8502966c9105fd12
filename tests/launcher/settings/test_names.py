"""Names become objects in the order of the contract; constructors get arguments by name."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch
import torchvision
from torch import nn

from antelope.agents import AC2Agent, blocks
from antelope.launcher.settings import names as module
from antelope.launcher.settings.names import builtin_names, library_names, register, resolve
from antelope.replay import ConfigError

NUMBERED = "class Net:\n    number = {}\n"


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names registered by a test are forgotten after it."""
    monkeypatch.setattr(module, "_REGISTERED", {})


def error(name: str, kind: str = "model") -> str:
    with pytest.raises(ConfigError) as raised:
        resolve(name, kind)
    return str(raised.value)


class TestResolve:
    def test_a_class_of_a_file_here(self, workdir: Path) -> None:
        (workdir / "nets.py").write_text(NUMBERED.format(1))
        for name in ("Net", "nets.Net", "nets.py:Net"):
            assert resolve(name, "model").number == 1

    def test_a_class_of_a_file_elsewhere(self, workdir: Path) -> None:
        (workdir / "deep" / "er").mkdir(parents=True)
        (workdir / "deep" / "er" / "nets.py").write_text(NUMBERED.format(2))
        assert resolve("deep/er/nets.py:Net", "model").number == 2
        assert resolve(f"{workdir}/deep/er/nets.py:Net", "model").number == 2

    def test_other_files_are_not_imported(self, workdir: Path) -> None:
        (workdir / "nets.py").write_text(NUMBERED.format(1))
        (workdir / "broken.py").write_text("raise RuntimeError('imported')\nclass Other: pass\n")
        (workdir / "unfinished.py").write_text("class Net(\n")
        assert resolve("Net", "model").number == 1

    def test_two_files_that_define_it_are_an_error_that_lists_both(self, workdir: Path) -> None:
        for file in ("one.py", "two.py"):
            (workdir / file).write_text(NUMBERED.format(1))
        assert error("Net") == "`Net` is defined in 2 files. Write one.py:Net or two.py:Net."
        assert resolve("two.py:Net", "model").number == 1

    def test_a_file_imports_its_neighbours(self, workdir: Path) -> None:
        (workdir / "sizes_of_nets.py").write_text("number = 7\n")
        (workdir / "nets.py").write_text(
            "from sizes_of_nets import number as n\nclass Net:\n    number = n\n"
        )
        assert resolve("Net", "model").number == 7

    def test_a_file_is_run_once(self, workdir: Path) -> None:
        (workdir / "nets.py").write_text(NUMBERED.format(1))
        assert resolve("Net", "model") is resolve("nets.py:Net", "model")

    def test_a_file_named_like_a_library_replaces_it_for_nobody(self, workdir: Path) -> None:
        (workdir / "random.py").write_text(NUMBERED.format(3))
        import random

        assert resolve("Net", "model").number == 3
        assert sys.modules["random"] is random

    def test_a_dotted_path(self, workdir: Path) -> None:
        (workdir / "package").mkdir()
        (workdir / "package" / "__init__.py").write_text("")
        (workdir / "package" / "nets.py").write_text(NUMBERED.format(4))
        assert resolve("package.nets.Net", "model").number == 4
        assert resolve("torch.nn.Linear", "model") is nn.Linear

    @pytest.mark.parametrize(
        ("kind", "name", "expected"),
        [
            ("model", "resnet18", torchvision.models.resnet18),
            ("optim", "SGD", torch.optim.SGD),
            ("scheduler", "StepLR", torch.optim.lr_scheduler.StepLR),
            ("dataset", "MNIST", torchvision.datasets.MNIST),
            ("model", "AC2Agent", AC2Agent),
        ],
    )
    def test_built_in_and_library_names(
        self, workdir: Path, kind: str, name: str, expected: Any
    ) -> None:
        assert resolve(name, kind) is expected

    def test_blocks_come_after_agents(self, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert resolve("CNN", "model") is blocks.CNN
        names = builtin_names("model")
        assert names.index("AC2Agent") < names.index("CNN")
        monkeypatch.setitem(blocks.NAMES, "model", (*blocks.NAMES["model"], "AC2Agent"))
        assert resolve("AC2Agent", "model") is AC2Agent
        part = dataclasses.replace(module.KINDS["model"], noun="part")
        monkeypatch.setitem(module.KINDS, "part", part)  # Not an agent's name, but a block's.
        assert resolve("CNN", "part") is blocks.CNN
        assert "No part `DQN`" in error("DQN", "part")

    def test_a_gymnasium_id(self, workdir: Path) -> None:
        env = resolve("CartPole-v1", "env")()
        assert isinstance(env.unwrapped, gymnasium.Env)
        env.close()

    def test_atari_games_are_known_without_an_import(self, workdir: Path) -> None:
        pytest.importorskip("ale_py")
        for name in ("ALE/Pong-v5", "PongNoFrameskip-v4"):
            make = resolve(name, "env")
            assert make.__name__ == name
            assert make.args == (f"ale_py:{name}",)  # Imports it in every process.
            assert make().spec.id == name
        assert "`ALE/Pong-v5`" in error("ALE/Pong-v6", "env")

    @pytest.mark.parametrize(
        ("name", "package", "extra"),
        [
            ("ALE/Pong-v5", "ale_py", "atari"),
            ("LunarLander-v3", "Box2D", "box2d"),
            ("BipedalWalker-v3", "Box2D", "box2d"),
            ("Hopper-v5", "mujoco", "mujoco"),
        ],
    )
    def test_a_gymnasium_id_says_what_to_install(
        self,
        workdir: Path,
        name: str,
        package: str,
        extra: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        find = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda n, *a: None if n == package else find(n, *a)
        )
        if package == "ale_py":
            games = [
                n for n in gymnasium.registry if str(gymnasium.spec(n).entry_point)[:3] == "ale"
            ]
            for game in games:
                monkeypatch.delitem(gymnasium.registry, game)
        assert error(name, "env") == (
            f"{name} needs {package}, which is not installed: pip install 'antelope-ml[{extra}]'."
        )

    @pytest.mark.parametrize("name", ["ALE/Nonsense-v5", "Nonsense-v5", "nonsense:Nonsense-v5"])
    def test_an_unknown_gymnasium_id(self, workdir: Path, name: str) -> None:
        assert f"No environment `{name}`" in error(name, "env")

    def test_goes_from_the_registered_to_the_library(self, workdir: Path) -> None:
        """Each place is asked before the next: a name of the nearer one hides the farther one's."""
        assert resolve("resnet18", "model") is torchvision.models.resnet18
        (workdir / "nets.py").write_text("class resnet18: pass\nclass AC2Agent: pass\n")
        assert resolve("resnet18", "model").__module__ == "nets"
        assert resolve("AC2Agent", "model") is AC2Agent
        mine = type("Mine", (), {})
        register("AC2Agent")(mine)
        register("resnet18")(mine)
        assert resolve("AC2Agent", "model") is resolve("resnet18", "model") is mine

    def test_a_file_here_is_asked_before_a_dotted_path(self, workdir: Path) -> None:
        (workdir / "collections.py").write_text("class Counter:\n    mine = True\n")
        assert resolve("collections.Counter", "model").mine

    @pytest.mark.parametrize(
        ("kind", "name", "nearest", "where"),
        [
            ("model", "AC2Agnet", "`AC2Agent`", "ml models"),
            ("model", "resnet19", "`resnet18`", "torchvision.models"),
            ("dataset", "MINST", "`MNIST`", "ml datasets"),
            ("optim", "Adamw", "`AdamW`", "torch.optim"),
            ("scheduler", "CosineLR", "`CosineAnnealingLR`", "lr_scheduler"),
            ("env", "CartPoll-v1", "`CartPole-v1`", ".py files"),
        ],
    )
    def test_a_miss_names_the_nearest(
        self, workdir: Path, kind: str, name: str, nearest: str, where: str
    ) -> None:
        text = error(name, kind)
        assert f"`{name}`" in text
        assert nearest in text
        assert where in text

    def test_a_miss_says_how_to_install_timm_where_it_is_missing(
        self, workdir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        command = "timm is not installed: pip install 'antelope-ml[timm]'"
        assert command in error("vit_tiny_patch16_224")
        assert command not in error("Adamw", "optim")

    def test_a_miss_also_names_what_is_here(self, workdir: Path) -> None:
        (workdir / "nets.py").write_text("class MyNetwork: pass\n")
        assert "`MyNetwork`" in error("MyNetwrk")

    def test_a_miss_in_a_file_names_the_nearest_there(self, workdir: Path) -> None:
        (workdir / "nets.py").write_text("class MyNetwork: pass\n")
        for name in ("nets.py:MyNetwrk", "nets.MyNetwrk"):
            assert "nets.py has no `MyNetwrk`. Did you mean `MyNetwork`?" in error(name)
        assert "There is no file absent.py" in error("absent.py:Net")

    def test_a_miss_of_a_path_that_cannot_be_imported(self, workdir: Path) -> None:
        assert "torch.nn has no `Linaer`. Did you mean `Linear`" in error("torch.nn.Linaer")
        assert "No model `no.such.module`" in error("no.such.module")

    def test_an_error_in_a_file_says_where(self, workdir: Path) -> None:
        (workdir / "nets.py").write_text("class Net: pass\n1 / 0\n")
        text = error("Net")
        assert "Importing nets.py raised ZeroDivisionError" in text
        assert "(nets.py, line 2" in text
        assert "nets" not in sys.modules

    def test_an_import_that_a_module_lacks_is_told(self, workdir: Path) -> None:
        (workdir / "lacking.py").write_text("import no_such_library\n")
        (workdir / "package").mkdir()
        (workdir / "package" / "lacking.py").write_text("import no_such_library\n")
        assert "no_such_library" in error("package.lacking.Net")
        assert "no_such_library" in error("lacking.Net")


class TestRegister:
    def test_gives_back_what_it_was_given(self) -> None:
        @register("my-net")
        class Net:
            pass

        assert resolve("my-net", "model") is Net

    def test_refuses_a_name_that_is_taken(self) -> None:
        register("mine")(nn.Linear)
        register("mine")(nn.Linear)  # The same again: a notebook cell run twice.
        with pytest.raises(ConfigError, match=r"already registered, by torch.*Linear"):
            register("mine")(nn.Conv2d)


class TestNames:
    @pytest.mark.parametrize("kind", ["model", "dataset", "aug"])
    def test_every_built_in_resolves(self, workdir: Path, kind: str) -> None:
        assert builtin_names(kind)
        for name in builtin_names(kind):
            assert resolve(name, kind).__module__.startswith("antelope.")

    def test_of_optimisers_are_optimisers(self) -> None:
        found = library_names("optim")
        assert {"SGD", "Adam", "AdamW", "RMSprop"} <= set(found)
        assert all(issubclass(getattr(torch.optim, name), torch.optim.Optimizer) for name in found)

    def test_of_schedulers_can_be_stepped(self) -> None:
        found = library_names("scheduler")
        assert {"StepLR", "CosineAnnealingLR", "ReduceLROnPlateau"} <= set(found)
        assert all(hasattr(getattr(torch.optim.lr_scheduler, name), "step") for name in found)

    def test_of_data_sets_are_data_sets(self) -> None:
        found = library_names("dataset")
        assert {"MNIST", "CIFAR10"} <= set(found)
        base = torch.utils.data.Dataset
        assert all(issubclass(getattr(torchvision.datasets, name), base) for name in found)
