"""Environments that do wrong: one error names the environment, the step and the seed, and nothing hangs."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from torch import nn

from antelope import DataError, ml
from antelope.replay import ConfigError

from .toys import Diary, Echo

ROOT = Path(__file__).resolve().parents[2]


def breaks(how: Callable[[Any, list[Any]], Any], at: int = 3, **spaces_of: Any) -> Any:
    """A class of environments in which `how(env, what step gives)` happens at the step `at`."""

    class Broken(Echo):
        def __init__(self) -> None:
            super().__init__(**spaces_of)

        def step(self, action: Any) -> Any:
            given = list(super().step(action))
            if self.count == at:
                given = how(self, given)
            return tuple(given)

    return Broken


def gives(**parts: Any) -> Callable[[Any, list[Any]], Any]:
    """Something else as obs or reward."""
    place = {"obs": 0, "reward": 1}

    def how(_: Any, given: list[Any]) -> list[Any]:
        for name, value in parts.items():
            given[place[name]] = value
        return given

    return how


def raises(error: BaseException) -> Callable[[Any, list[Any]], Any]:
    def how(*_: Any) -> Any:
        raise error

    return how


class Unsendable(Exception):
    """Cannot be made again from its arguments, as pickle does it."""

    def __init__(self, one: int, two: int):
        super().__init__(f"{one} and {two}")


FREE = spaces.Box(-np.inf, np.inf, (3,), np.float32)
PLAIN = spaces.Box(-1, 1, (3,), np.float32)
DICT = spaces.Dict({"a": PLAIN, "b": spaces.Discrete(2)})
IMAGE = spaces.Box(0, 255, (8, 6, 3), np.uint8)
LOW = spaces.Box(0, 7, (3,), np.uint8)
FAULTS: dict[str, tuple[Any, str]] = {
    "raises": (breaks(raises(RuntimeError("no motor"))), "raised RuntimeError: no motor"),
    "raises without words": (breaks(raises(KeyError())), r"raised KeyError\."),
    "raises what cannot be sent": (breaks(raises(Unsendable(1, 2))), "raised Unsendable: 1 and 2"),
    "nan": (
        breaks(gives(obs=np.array([0, np.nan, 0], np.float32))),
        r"returned an observation with NaN or infinity: \[ 0. nan  0.\]",
    ),
    "infinite": (
        breaks(gives(obs=np.array([0, np.inf, 0], np.float32)), observation=FREE),
        "returned an observation with NaN or infinity",
    ),
    "outside": (
        breaks(gives(obs=np.array([0, 50, 0], np.float32))),
        r"returned an observation outside its space: \[ 0. 50.  0.\]",
    ),
    "shape": (
        breaks(gives(obs=np.zeros((3, 1), np.float32))),
        r"returned an observation of shape \[3, 1\] instead of \[3\]",
    ),
    "image's shape": (
        breaks(gives(obs=np.zeros((6, 8, 3), np.uint8)), observation=IMAGE),
        r"returned an observation of shape \[6, 8, 3\] instead of \[8, 6, 3\]",
    ),
    "dtype": (
        breaks(gives(obs=np.zeros((8, 6, 3), np.float32)), observation=IMAGE),
        "returned an observation of float32 instead of uint8",
    ),
    "byte outside": (
        breaks(gives(obs=np.array([0, 8, 0], np.uint8)), observation=LOW),
        r"returned an observation outside its space: \[0 8 0\]",
    ),
    "no array": (breaks(gives(obs="north")), "returned an observation of shape"),
    "nothing": (breaks(gives(obs=None)), "returned an observation of shape"),
    "choice outside": (
        breaks(gives(obs=3), observation=spaces.Discrete(3)),
        "returned an observation outside its space: 3",
    ),
    "choice below": (
        breaks(gives(obs=0), observation=spaces.Discrete(3, start=1)),
        "returned an observation outside its space: 0",
    ),
    "half a choice": (
        breaks(gives(obs=1.5), observation=spaces.Discrete(3)),
        "returned an observation of float64 instead of int64",
    ),
    "choices outside": (
        breaks(gives(obs=np.array([1, 2])), observation=spaces.MultiDiscrete([2, 2])),
        r"outside its space: \[1 2\]",
    ),
    "table's shape": (
        breaks(gives(obs=np.zeros((3, 2), np.int8)), observation=spaces.MultiBinary((2, 3))),
        r"does not fit its space: ValueError: shape \[3, 2\] instead of \[2, 3\]",
    ),
    "no key": (
        breaks(gives(obs={"a": np.zeros(3, np.float32)}), observation=DICT),
        r"returned an observation with \['a'\] instead of \['a', 'b'\]",
    ),
    "another key": (
        breaks(gives(obs={"a": np.zeros(3, np.float32), "b": 0, "c": 0}), observation=DICT),
        r"returned an observation with \['a', 'b', 'c'\] instead of \['a', 'b'\]",
    ),
    "no dict": (breaks(gives(obs=np.zeros(3)), observation=DICT), "returned an observation"),
    "within a dict": (
        breaks(gives(obs={"a": np.full(3, 9, np.float32), "b": 0}), observation=DICT),
        r"outside its space: \[9. 9. 9.\] \(in 'a'\)",
    ),
    "nan reward": (breaks(gives(reward=float("nan"))), "returned the reward nan"),
    "infinite reward": (breaks(gives(reward=-np.inf)), "returned the reward -inf"),
    "huge reward": (breaks(gives(reward=1e300)), "returned the reward 1e[+]300"),
    "no reward": (breaks(gives(reward=None)), "returned the reward None"),
    "several rewards": (breaks(gives(reward=np.ones(2))), "returned the reward array"),
    "four things": (
        breaks(lambda _, given: given[:4]),
        r"returned 4 values from step, not \(obs, reward, .*shimmy.GymV21CompatibilityV0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.row(29)
def test_a_fault_in_a_step_is_named_with_step_and_seed(name: str, how: str, quick: Any) -> None:
    env, message = FAULTS[name]
    began = time.monotonic()
    with pytest.raises(DataError, match=message) as raised:
        quick(agent="Random", env=env, num_envs=2, vectorization=how)
    assert time.monotonic() - began < 10
    assert re.search(
        r"^Broken \(copy . of 2\) .* At step 3 of the episode with seed \d+, action [01]\.$",
        str(raised.value).partition("\n")[0],
    )


def test_the_first_frames_of_the_message_are_those_of_the_environment(quick: Any) -> None:
    env, _ = FAULTS["raises"]
    with pytest.raises(DataError) as raised:
        quick(agent="Random", env=env)
    assert isinstance(raised.value.__cause__, RuntimeError)
    with pytest.raises(DataError) as raised:
        quick(agent="Random", env=env, vectorization="async")
    assert "in how" in raised.value.__cause__.__notes__[0]


class Unlucky(Diary):
    """Raises in the third step of some episodes, as its seed has it."""

    longest_run = 6

    def step(self, action: Any) -> Any:
        if self.count == 2 and self.episode % 7 == 0:
            raise RuntimeError(f"episode {self.episode}")
        return super().step(action)


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_fault_comes_again_with_the_seed_and_step_it_was_reported_with(
    how: str, quick: Any
) -> None:
    with pytest.raises(DataError) as raised:
        quick(agent="Random", env=Unlucky, num_envs=3, vectorization=how, train_steps=5000)
    found = re.search(
        r"raised RuntimeError: (episode \d+)\. At step (\d+) of the episode with seed (\d+)",
        str(raised.value),
    )
    assert found
    env = Unlucky()
    env.reset(seed=int(found[3]))
    for _ in range(int(found[2]) - 1):
        env.step(0)
    with pytest.raises(RuntimeError, match=f"{found[1]}$"):
        env.step(0)


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.row(29)
def test_a_fault_in_reset(how: str, quick: Any) -> None:
    class Once(Diary):
        begun = 0

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            self.begun += 1
            if self.begun == 3:
                raise OSError("no such level")
            return super().reset(seed=seed)

    with pytest.raises(
        DataError,
        match=r"^Once raised OSError: no such level in reset\. At step 0 of the episode with seed \d+",
    ):
        quick(agent="Random", env=Once, vectorization=how)


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_first_observation_outside_of_its_space(how: str, quick: Any) -> None:
    class Wrong(Diary):
        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            super().reset(seed=seed)
            return np.array([np.nan, 0], np.float32), {}

    with pytest.raises(
        DataError, match=r"^Wrong returned an observation with NaN .* At step 0 of the"
    ):
        quick(agent="Random", env=Wrong, vectorization=how)


def test_a_reset_that_takes_no_seed(quick: Any) -> None:
    class Old(Diary):
        def reset(self) -> Any:
            return super().reset()

    with pytest.raises(ConfigError, match=r"Old.reset\(\) has no parameter `seed`"):
        quick(agent="Random", env=Old)


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
@pytest.mark.filterwarnings("ignore:.*ERROR:UserWarning")  # gymnasium's words for it.
def test_faults_in_vector_environments_of_the_user(mode: Any, kind: Any, quick: Any) -> None:
    def several(name: str) -> Any:
        def make() -> Any:
            return kind([FAULTS[name][0]] * 2, autoreset_mode=mode)

        return make

    with pytest.raises(DataError, match=r"^make raised RuntimeError: no motor\. At step 3 "):
        quick(agent="Random", env=several("raises"))
    with pytest.raises(DataError, match=r"^make \(copy 0 of 2\) returned an observation with NaN"):
        quick(agent="Random", env=several("nan"))
    with pytest.raises(
        DataError, match=r"^make \(copy 0 of 2\) returned the reward nan\. At step 3"
    ):
        quick(agent="Random", env=several("nan reward"))


def begun_since(before: list[Any]) -> list[Any]:
    """The processes of this one that were not there before: other tests may have some of their own."""
    return [process for process in multiprocessing.active_children() if process not in before]


class TestDeath:
    """A process that ends does not take the run with it."""

    @pytest.mark.parametrize(
        ("end", "message"),
        [
            (lambda: os._exit(3), "ended with exit code 3"),
            (lambda: os.kill(os.getpid(), signal.SIGKILL), "ended with SIGKILL"),
            (lambda: sys.exit(4), "ended with exit code 4"),
        ],
        ids=["exit", "kill", "sys.exit"],
    )
    @pytest.mark.parametrize("at", [1, 4])
    @pytest.mark.row(30)
    def test_in_a_step(self, end: Any, message: str, at: int, quick: Any) -> None:
        parent = os.getpid()

        class Dies(Echo):
            def step(self, action: Any) -> Any:
                if self.count == at and os.getpid() != parent:
                    end()
                return super().step(action)

        began = time.monotonic()
        with pytest.raises(
            DataError,
            match=rf"^Dies \(copy . of 3\) has lost its process, which {message}\. At step {at + 1} of",
        ):
            quick(agent="Random", env=Dies, num_envs=3, vectorization="async")
        assert time.monotonic() - began < 10

    def test_between_two_steps(self, quick: Any) -> None:
        class Kills(nn.Module):
            acted = 0

            def act(self, obs: Any) -> Any:
                self.acted += 1
                if self.acted == 5:
                    victim = begun_since(before)[0]
                    victim.kill()
                    victim.join()
                return torch.zeros(len(obs), dtype=torch.long)

        before = multiprocessing.active_children()
        with pytest.raises(DataError, match="has lost its process, which ended with SIGKILL"):
            quick(model=Kills, env=Echo, num_envs=2, vectorization="async")
        assert begun_since(before) == []

    def test_in_the_constructor(self, quick: Any, capfd: pytest.CaptureFixture[str]) -> None:
        parent = os.getpid()

        class Fails(Echo):
            def __init__(self) -> None:
                super().__init__()
                if os.getpid() != parent:
                    raise OSError("port taken")

        with pytest.raises(DataError, match=r"^Fails \(copy .\) has lost its process, which ended"):
            quick(agent="Random", env=Fails, num_envs=2, vectorization="async")
        assert "port taken" in capfd.readouterr().err

    def test_of_a_vector_environment_of_the_user(self, quick: Any) -> None:
        parent = os.getpid()

        class Dies(Echo):
            def step(self, action: Any) -> Any:
                if self.count == 2 and os.getpid() != parent:
                    os._exit(1)
                return super().step(action)

        def make() -> AsyncVectorEnv:
            return AsyncVectorEnv([Dies] * 2)

        with pytest.raises(DataError, match=r"^make \(copy . of 2\) has lost its process"):
            quick(agent="Random", env=make)

    @pytest.mark.row(30)
    def test_leaves_no_process_behind(self, quick: Any) -> None:
        before = multiprocessing.active_children()
        quick(agent="Random", env=Echo, num_envs=2, vectorization="async", train_steps=10)
        assert begun_since(before) == []

    def test_ctrl_c_in_a_terminal_saves_the_run(self, tmp_path: Path) -> None:
        """The signal goes to all processes; the environments' must not answer it."""
        words = "env=CartPole-v1 agent=Random num_envs=2 vectorization=async train_steps=1000000"
        with subprocess.Popen(
            [sys.executable, str(ROOT / "run.py"), *words.split(), "path=run", "plot=false"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            deadline = time.monotonic() + 30
            while not (tmp_path / "run" / "train.csv").exists():
                assert time.monotonic() < deadline
                time.sleep(0.1)
            time.sleep(0.3)
            os.killpg(process.pid, signal.SIGINT)
            _, errors = process.communicate(timeout=30)
        assert process.returncode == 130
        assert list((tmp_path / "run" / "checkpoints").iterdir())
        assert "resume" in errors
        assert "Traceback" not in errors


class TestActions:
    """What is the model's mistake is not blamed on the environment."""

    @staticmethod
    def model(action: Any, extras: Any = None) -> Any:
        class Model(nn.Module):
            def act(self, obs: Any) -> Any:
                made = action(len(obs))
                return made if extras is None else (made, extras(len(obs)))

        return Model

    @pytest.mark.parametrize(
        ("action", "space", "message"),
        [
            (
                lambda n: torch.zeros(n, 1, dtype=torch.long),
                spaces.Discrete(2),
                r"Model.act returned actions \[2, 1\] for 2 observations; expected \[2\]: one of 2",
            ),
            (
                lambda n: torch.zeros(n),
                spaces.Discrete(2),
                "Model.act returned float32 actions; expected whole numbers: one of 2",
            ),
            (lambda n: torch.zeros(n), PLAIN, r"returned actions \[2\] .* expected \[2, 3\]"),
            (
                lambda n: torch.zeros(n, 4, dtype=torch.long),
                spaces.MultiDiscrete([2, 2]),
                r"returned actions \[2, 4\] .*expected \[2, 2\]: one of 2 and one of 2",
            ),
            (
                lambda n: torch.zeros(n, 3),
                DICT,
                r"Model.act returned a Tensor; expected a dict with",
            ),
            (
                lambda n: {"a": torch.zeros(n, 3)},
                DICT,
                r"returned \['a'\]; expected a dict with \['a', 'b'\]",
            ),
            (
                lambda n: {"a": torch.zeros(n, 3), "b": torch.zeros(n, 2).long()},
                DICT,
                r"Model \(b\).act returned actions \[2, 2\]",
            ),
        ],
    )
    def test_of_the_wrong_shape(self, action: Any, space: Any, message: str, quick: Any) -> None:
        class Env(Echo):
            def __init__(self) -> None:
                super().__init__(action=space)

        with pytest.raises(ConfigError, match=message):
            quick(model=self.model(action), env=Env, num_envs=2)

    @pytest.mark.parametrize("how", ["sync", "async"])
    def test_outside_of_their_space(self, how: str, quick: Any) -> None:
        with pytest.raises(DataError, match=r"action 5, which is outside Discrete\(2\)\.$"):
            quick(model=self.model(lambda n: torch.full((n,), 5)), env=Echo, vectorization=how)
        nan = self.model(lambda n: torch.full((n, 1), torch.nan))
        with pytest.raises(DataError, match=r"NaN .* action \[nan\], which is outside Box\(-2"):
            quick(model=nan, env="Pendulum-v1", vectorization=how)

    @pytest.mark.parametrize(
        ("extras", "message"),
        [
            (lambda n: {"value": torch.zeros(())}, r"the extra `value` \[\] for 2 .*\[2, \.\.\.\]"),
            (lambda n: {"value": torch.zeros(3)}, r"the extra `value` \[3\] for 2 observations"),
            (lambda n: {"reward": torch.zeros(n)}, "an extra named `reward`"),
            (lambda n: {"action": torch.zeros(n)}, "an extra named `action`"),
            (lambda n: {"obs": torch.zeros(n)}, "an extra named `?obs"),
        ],
    )
    def test_extras_that_cannot_be_stored(self, extras: Any, message: str, quick: Any) -> None:
        model = self.model(lambda n: torch.zeros(n, dtype=torch.long), extras)
        with pytest.raises(ConfigError, match=message):
            quick(model=model, env=Echo, num_envs=2)


class Climbs(gymnasium.Env[np.ndarray, np.int64]):
    """Is at 0, and from one step on far above all that it declares, as some well-known ones are."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, at: int, height: float = 20.0):
        self.at, self.height, self.steps = at, height, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        obs = np.zeros(2, np.float32)
        if self.steps > self.at:
            obs[1] = self.height
        return obs, 0.0, False, self.steps % 100 == 0, {}


def climbing(kind: str, **arguments: Any) -> dict[str, Any]:
    """Settings of a run in two of them, in one of the ways to step two."""
    if kind != "vector":
        return {"env": lambda: Climbs(**arguments), "num_envs": 2, "vectorization": kind}
    makes = [lambda: Climbs(**arguments)] * 2
    return {"env": lambda: gymnasium.vector.SyncVectorEnv(makes)}


KINDS = ["sync", "async", "vector"]


@pytest.mark.usefixtures("workdir")
class TestBounds:
    settings: ClassVar[dict[str, Any]] = {
        **{"agent": "Random", "train_steps": 2600, "eval_episodes": 1, "eval_every": 10**6},
        **{"plot": False, "progress": False},
    }

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_wrong_scale_is_found_at_once(self, kind: str) -> None:
        with pytest.raises(DataError, match=r"outside its space: \[ 0. 20.\]"):
            ml(**self.settings, **climbing(kind, at=30))

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_policy_that_leaves_the_space_late_loses_no_run(self, kind: str) -> None:
        run = ml(**self.settings, **climbing(kind, at=1100))
        assert run.replay.sample(200).obs.max() == 20

    @pytest.mark.parametrize("kind", KINDS)
    def test_what_is_no_number_is_found_at_any_time(self, kind: str) -> None:
        with pytest.raises(DataError, match="NaN or infinity"):
            ml(**self.settings, **climbing(kind, at=1100, height=float("nan")))
