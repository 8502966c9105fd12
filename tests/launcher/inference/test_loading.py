"""antelope.load: a run from its directory, which is only read, and whose names run no code."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

import antelope
from antelope import CheckpointError, ConfigError, ml
from antelope.launcher.inference.loaded_strategies import predicting
from antelope.launcher.record import checkpoint

from .test_policy import Forward, environment

QUIET: dict[str, Any] = {"plot": False, "progress": False}
SHORT = {**QUIET, "train_steps": 30, "seed_steps": 20, "eval_episodes": 2, "batch_size": 16}
WRITTEN = Path(__file__).parents[2] / "faults" / "written_by_0_4_0"


class Net(nn.Module):
    def __init__(self, in_features: int, out_features: int, hidden: int = 4, act: Any = nn.ReLU):
        super().__init__()
        first = nn.Linear(in_features, hidden)
        self.layers = nn.Sequential(nn.Flatten(), first, act(), nn.Linear(hidden, out_features))

    def forward(self, obs: Tensor) -> Tensor:
        return self.layers(obs)


def check_same(loaded: Any, run: Any) -> None:
    """All that a run and the one from its directory have in common."""
    one, two = loaded.agent.state_dict(), run.agent.state_dict()
    torch.testing.assert_close(dict(one), dict(two), rtol=0, atol=0)
    assert not any(module.training for module in loaded.agent.modules())
    assert str(loaded.spec) == str(run.spec)
    assert loaded.metrics == run.metrics
    assert loaded.history == run.history
    assert loaded.path == run.path
    np.testing.assert_array_equal(loaded.accuracy_matrix, run.accuracy_matrix)
    np.testing.assert_array_equal(loaded.task_il_matrix, run.task_il_matrix)
    assert [task["steps"] for task in loaded.tasks] == [task["steps"] for task in run.tasks]


X = np.random.default_rng(0).normal(size=(60, 5)) + 1e9
DATA: dict[str, dict[str, Any]] = {
    "default agent": {"train_steps": 3},
    "tasks": {"tasks": 2, "strategy": ["er", "ewc"], "train_steps": 5, "encoder": "MLP"},
    "averaged weights": {"ema": 0.5, "train_steps": 5},
    "named classes": {"dataset": (X, np.array(["a", "b", "c"] * 20)), "train_steps": 3},
    "regression": {"dataset": "Diabetes", "train_steps": 3},
    "tokens": {"dataset": (np.arange(300).reshape(60, 5) % 9, np.arange(60) % 3), "train_steps": 3},
    "generative": {"model": "VAE", "train_steps": 3},
    "torchvision": {"model": "resnet18", "train_steps": 1, "batch_size": 4},
}


@pytest.mark.parametrize("case", DATA)
def test_a_run_on_data_comes_back_without_its_data(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ml(**DATA[case], **QUIET, path=tmp_path)
    monkeypatch.setattr("antelope.launcher.inference.loading.build_data", None)
    loaded = antelope.load(tmp_path)
    check_same(loaded, run)
    space, own = run.spec.obs, loaded.spec.obs
    assert loaded.spec.action.names == run.spec.action.names
    for kept, known in ((own.mean, space.mean), (own.stddev, space.stddev)):
        assert kept is known is None or torch.equal(kept, known)


def test_a_run_in_an_environment_comes_back_without_it(tmp_path: Path) -> None:
    run = ml(model="PPO", env=environment(), **SHORT, path=tmp_path)
    loaded = antelope.load(tmp_path)
    check_same(loaded, run)
    assert loaded.act([0, 0, 0]) == run.act([0, 0, 0])
    with pytest.raises(AttributeError, match=r"offline=.*resume=True"):
        _ = loaded.replay
    with pytest.raises(ConfigError, match="learn_task on the run that ml returns"):
        loaded.learn_task("Digits")


def test_the_model_is_constructed_as_it_was(tmp_path: Path) -> None:
    made = {"_target_": Net, "hidden": 7, "act": nn.Tanh}
    run = ml(model=made, **QUIET, train_steps=3, path=tmp_path)
    check_same(antelope.load(tmp_path, model=Net), run)
    check_same(antelope.load(str(tmp_path), agent=Net), run)
    check_same(antelope.load(tmp_path, model=Net(64, 10, 7, nn.Tanh)), run)
    loaded = antelope.load(tmp_path, model=Net)
    assert isinstance(loaded.agent.layers[2], nn.Tanh)
    with pytest.raises(CheckpointError, match=r"the model's is \[9, 64\]"):
        antelope.load(tmp_path, model={"_target_": Net, "hidden": 9})


def test_an_object_that_is_not_there_any_more_is_asked_for(tmp_path: Path) -> None:
    ml(model={"_target_": Net, "act": lambda: nn.Tanh()}, **QUIET, train_steps=1, path=tmp_path)
    with pytest.raises(ConfigError, match=r"model\.act was a Python object"):
        antelope.load(tmp_path, model=Net)
    antelope.load(tmp_path, model={"_target_": Net, "act": nn.Tanh})
    ml(model=Net(64, 10), **QUIET, train_steps=1, path=tmp_path / "instance")
    with pytest.raises(ConfigError, match=r"was a Python object \(instance of .*Net\)"):
        antelope.load(tmp_path / "instance")


def test_a_model_has_to_be_named_unless_the_directory_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("told.py").write_text(
        "from torch import nn\n\n\nclass Told(nn.Module):\n"
        "    def __init__(self, in_features, out_features):\n        super().__init__()\n"
        "        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(in_features, out_features))\n\n"
        "    def forward(self, obs):\n        return self.layers(obs)\n"
    )
    run = ml(model="told.py:Told", **QUIET, train_steps=1, path="run")
    with pytest.raises(
        ConfigError, match=r"model=Told \(the class\) in Python, model=told\.py:Told"
    ):
        antelope.load("run")
    check_same(antelope.load("run", "model=told.py:Told"), run)
    check_same(antelope.load("run", model="Told"), run)
    check_same(antelope.load("run", trust=True), run)


def rewrite(folder: Path, state: dict[str, Any]) -> None:
    """Put another state into a checkpoint, with hashes that fit."""
    for file in folder.iterdir():
        file.unlink()
    checkpoint.write(folder, state)


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "antelope.launcher.record.directory.os.system",
        "antelope.launcher.record.directory.RunDirectory",
        "antelope.agents.dqn.random.seed",
        "torch.nn.modules.module.warnings.warn",
        "torch.nn.init.zeros_",
        "torch.hub.load",
        "torchvision.models._api.load_state_dict_from_url",
    ],
)
def test_names_of_a_directory_run_no_code(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ml(**QUIET, train_steps=1, path=tmp_path)
    folder = max((tmp_path / "checkpoints").iterdir())
    ran: list[Any] = []
    for harm in ("os.system", "random.seed", "warnings.warn"):
        monkeypatch.setattr(harm, lambda *a, **k: ran.append(a))
    harmless = "antelope.agents.blocks.mlp.MLP"
    for setting in ({"_target_": name}, {"_target_": harmless, "of": {"_target_": name}}):
        state = checkpoint.read(folder)
        state["settings"]["model"] = setting
        rewrite(folder, state)
        with pytest.raises(
            ConfigError, match=f"is {name}, and loading imports no code that a run directory names"
        ):
            antelope.load(tmp_path)
    state["settings"] |= {"model": None, "encoder": {"_target_": name}}
    rewrite(folder, state)
    with pytest.raises(ConfigError, match="The encoder of the run"):
        antelope.load(tmp_path)
    assert not ran


def test_an_environment_of_a_directory_runs_no_code(tmp_path: Path) -> None:
    ml(model="DQN", env="CartPole-v1", **SHORT, path=tmp_path)
    folder = max((tmp_path / "checkpoints").iterdir())
    for name, word in (
        ("os:system", "env='os:system' in Python"),
        ("evil.py:Env", r"env=Env \(the class\)"),
        ("Unheard-v0", "not registered with gymnasium here"),
    ):
        state = checkpoint.read(folder)
        state["settings"]["env"] = {"_target_": name}
        rewrite(folder, state)
        loaded = antelope.load(tmp_path)
        assert loaded.act([0, 0, 0, 0]) in (0, 1)
        with pytest.raises(ConfigError, match=word):
            loaded.play()
        assert antelope.load(tmp_path, env="CartPole-v1").play()


def test_loading_leaves_the_directory_as_it_is(tmp_path: Path) -> None:
    def look() -> dict[str, int]:
        return {str(file): file.stat().st_mtime_ns for file in sorted(tmp_path.rglob("*"))}

    ml(model="DQN", env="CartPole-v1", **SHORT, path=tmp_path / "run")
    before = look()
    antelope.load(tmp_path / "run").play()
    assert look() == before


def test_a_run_is_found_from_a_folder_above_or_from_a_checkpoint(tmp_path: Path) -> None:
    run = ml(**QUIET, train_steps=2, save_every=1, path=tmp_path / "a" / "b")
    check_same(antelope.load(tmp_path), run)
    folders = sorted((tmp_path / "a" / "b" / "checkpoints").iterdir())
    check_same(antelope.load(folders[-1]), run)
    check_same(antelope.load(folders[0].parent), run)
    ml(**QUIET, train_steps=1, path=tmp_path / "c")
    with pytest.raises(ConfigError, match=r"holds 2 runs\. Name one: .*a/b, .*c"):
        antelope.load(tmp_path)
    with pytest.raises(ConfigError, match="does not exist"):
        antelope.load(tmp_path / "d")
    with pytest.raises(ConfigError, match="is a file"):
        antelope.load(tmp_path / "c" / "config.yaml")


def test_the_newest_valid_checkpoint_is_taken(tmp_path: Path) -> None:
    ml(**QUIET, train_steps=3, save_every=1, path=tmp_path)
    *_, older, newest = sorted((tmp_path / "checkpoints").iterdir())
    before = antelope.load(older)
    (newest / "tensors.safetensors").write_bytes(b"torn")
    check_same(antelope.load(tmp_path), before)
    for folder in (tmp_path / "checkpoints").iterdir():
        shutil.rmtree(folder)
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        antelope.load(tmp_path)


def test_what_belongs_to_training_is_not_taken(tmp_path: Path) -> None:
    ml(**QUIET, train_steps=1, path=tmp_path)
    with pytest.raises(ConfigError, match=r"not lr, seed.*resume=True"):
        antelope.load(tmp_path, lr=1.0, seed=2)
    with pytest.raises(ConfigError, match="Did you mean `model`"):
        antelope.load(tmp_path, modle=Net)


def test_runs_of_0_4_0_are_loaded_by_looking_at_what_they_learnt_in() -> None:
    loaded = antelope.load(WRITTEN / "transitions")
    assert loaded.act([0, 0, 0, 0]) in (0, 1)
    assert all(0 < gained <= 20 for gained in loaded.play(2))  # time_limit=20
    assert [task.name for task in loaded._open.world.tasks] == ["CartPole-v1"]
    with pytest.raises(ConfigError, match=r"model=Small \(the class\)"):
        antelope.load(WRITTEN / "sequence")
    from tests.faults.test_older_checkpoints import Small

    loaded = antelope.load(WRITTEN / "sequence", model=Small)
    assert loaded.accuracy_matrix.shape == (1, 2)
    assert loaded.metrics["accuracy"] == loaded.accuracy_matrix[0, 0]


def test_strategies_of_runs_of_0_4_0_that_predict_are_known_by_their_names() -> None:
    kept: dict[str, Any] = {"strategies": {"ewc": {}, "icarl": {}, "mine": {}}}
    assert predicting(kept) == ["icarl"]


def test_spaces_that_cannot_be_written_down_are_looked_at_again(tmp_path: Path) -> None:
    class Mine(spaces.Box):
        """More than a Box."""

    env = environment(Mine(-1, 1, (3,), np.float32))
    run = ml(model="DQN", env=env, **SHORT, path=tmp_path)
    with pytest.raises(ConfigError, match="Name it here: env="):
        antelope.load(tmp_path)
    loaded = antelope.load(tmp_path, env=env)
    assert loaded.act([1, 0, 0]) == run.act([1, 0, 0])


def test_a_running_run_can_be_loaded(tmp_path: Path) -> None:
    tasks = ml.tasks(**QUIET, tasks=2, train_steps=2, path=tmp_path)
    for number, task in enumerate(tasks, 1):
        task.learn()
        assert antelope.load(tmp_path).accuracy_matrix.shape == (number, 2)


def test_a_forward_of_the_users_is_loaded_into_the_default_agent(tmp_path: Path) -> None:
    run = ml(model=Forward, env=environment(), ema=0.5, **SHORT, path=tmp_path)
    loaded = antelope.load(tmp_path, model=Forward)
    check_same(loaded, run)
    assert loaded.act([1, 2, 3]) == run.act([1, 2, 3])


def test_what_cannot_be_loaded_says_so(tmp_path: Path) -> None:
    ml(model=Net, **QUIET, train_steps=1, path=tmp_path / "net")
    with pytest.raises(CheckpointError, match=r"the model's is \[9, 64\]"):
        antelope.load(tmp_path / "net", model={"_target_": Net, "hidden": 9})
    assert os.listdir(tmp_path) == ["net"]
