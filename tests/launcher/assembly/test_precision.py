"""Numbers far from zero: what tells them apart reaches the model, the loss and the metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor, nn

from antelope import ConfigError, Run, ml
from antelope.envs.placing import place_tables


@pytest.fixture
def quick(tmp_path: Path) -> Any:
    """`ml` that writes to a directory of this test, and shows nothing."""

    def run(**settings: Any) -> Run:
        return ml(**{"path": tmp_path / "run", "plot": False, "progress": False, **settings})

    return run


class Linear(nn.Module):
    def __init__(self, in_features: int, out_features: int, spec: Any):
        super().__init__()
        self.layer, self.spec = nn.Linear(in_features, out_features), spec
        self.labels: set[Any] = set()

    def forward(self, obs: Tensor) -> Tensor:
        return self.layer(obs)


class Units(Linear):
    """In the targets' units, as the error says."""

    def forward(self, obs: Tensor) -> Tensor:
        return self.layer(obs) * self.spec.action.stddev + self.spec.action.mean


class Learns(Units):
    def learn(self, replay: Any) -> Tensor:
        batch = next(replay)
        self.labels.add(batch.label.dtype)
        return F.mse_loss(self(batch.obs), batch.label)


RANDOM = np.random.default_rng(0)
INPUTS = RANDOM.normal(size=(300, 3)).astype(np.float32)
VALUES = INPUTS.astype(np.float64) @ np.array([1, 2, -1])


class TestInputs:
    @pytest.mark.parametrize("dtype", [np.float64, np.int64])
    def test_time_stamps_a_second_apart(self, dtype: type, quick: Any) -> None:
        seconds = (1.7e9 + np.arange(200)).astype(dtype)[:, None]
        run = quick(dataset=(seconds, (np.arange(200) > 99).astype(int)), epochs=20)
        assert run.metrics["accuracy"] > 0.9
        batch = run.replay.sample(2000)
        assert len(batch.obs.unique()) > 150
        mean, stddev = float(run.spec.obs.mean), float(run.spec.obs.stddev)
        assert abs(float(batch.obs.mean())) < 0.1
        assert mean == pytest.approx(1.7e9 + 99.5, abs=15)
        assert stddev == pytest.approx(57.7, abs=3)

    def test_features_a_billionth_apart(self, quick: Any) -> None:
        inputs = 1 + 1e-9 * RANDOM.normal(size=(300, 2))
        run = quick(dataset=(inputs, (inputs.sum(1) > 2).astype(int)))
        assert run.metrics["accuracy"] > 0.9

    def test_statistics_are_float32_where_these_will_do(self, quick: Any) -> None:
        run = quick(dataset=(INPUTS.astype(np.float64), VALUES), epochs=1)
        for space in (run.spec.obs, run.spec.action):
            assert space.mean.dtype == space.stddev.dtype == torch.float32


class TestTargets:
    def test_the_default_agent_predicts_them(self, quick: Any) -> None:
        near, far = (quick(dataset=(INPUTS, VALUES + origin)) for origin in (0, 1e9))
        for run in (near, far):
            assert run.metrics["r2"] > 0.98
        assert far.metrics["mse"] == pytest.approx(near.metrics["mse"], rel=1e-3)
        assert far.spec.action.mean.dtype == torch.float64

    def test_metrics_are_those_of_the_outputs_by_hand(self, quick: Any) -> None:
        targets = (1e9 + VALUES)[:, None]
        data = {"dataset": (INPUTS, targets), "test_dataset": (INPUTS[:50], targets[:50])}
        run = quick(model=Units, epochs=3, **data)
        mean, stddev = INPUTS.mean(0, dtype=np.float64), INPUTS.std(0, dtype=np.float64)
        with torch.no_grad():
            inputs = torch.from_numpy((INPUTS[:50] - mean) / stddev).float()
            output = run.agent(inputs).numpy()
        error = output - targets[:50]
        assert output.dtype == np.float64
        assert run.metrics["mse"] == pytest.approx((error**2).mean(), rel=1e-4)
        assert run.metrics["mae"] == pytest.approx(abs(error).mean(), rel=1e-4)
        r2 = 1 - (error**2).sum() / ((targets[:50] - targets[:50].mean()) ** 2).sum()
        assert run.metrics["r2"] == pytest.approx(r2, rel=1e-4)

    def test_where_labels_are_rounded_metrics_are_not(self, quick: Any) -> None:
        # 0.1 is no float32: a model that gives it as one is wrong by its rounding, not by nothing.
        run = quick(dataset=(INPUTS, np.full(300, 0.1)), epochs=1)
        assert 0 < run.metrics["mae"] < 1e-8
        assert next(run.replay).label.dtype == torch.float32

    def test_a_model_that_gives_float32_is_refused(self, quick: Any) -> None:
        message = (
            r"Linear.forward returned float32. The targets are around 1e\+09.*Subtract their mean"
        )
        with pytest.raises(ConfigError, match=message):
            quick(model=Linear, dataset=(INPUTS, 1e9 + VALUES))

    @pytest.mark.parametrize("model", [Units, Learns])
    def test_a_model_in_their_units_learns(self, model: type[nn.Module], quick: Any) -> None:
        run = quick(model=model, dataset=(INPUTS, 1e9 + VALUES), lr=0.02)
        assert run.metrics["r2"] > 0.99
        assert run.agent.labels <= {torch.float64}

    def test_one_of_several_is_enough(self, quick: Any) -> None:
        run = quick(dataset=(INPUTS, np.stack([VALUES, 1e9 + VALUES], 1)))
        assert run.metrics["r2"] > 0.98

    def test_a_sequence_of_them(self, quick: Any) -> None:
        data = [(INPUTS, 1e9 + VALUES), (INPUTS, 1e9 - VALUES)]
        run = quick(dataset=data, strategy=["er", "ewc"], epochs=5)
        assert 0 < run.metrics["mse"] < 100

    def test_a_device_that_cannot_hold_them_is_refused(self, monkeypatch: Any, quick: Any) -> None:
        spec = quick(dataset=(INPUTS, 1e9 + VALUES), epochs=1).spec
        monkeypatch.setattr("antelope.envs.placing.has_float64", lambda kind: kind != "mps")
        with pytest.raises(ConfigError, match=r"mps has no float64.*device=cpu"):
            place_tables((), spec, torch.device("mps"), "auto", name="mine")


class Clock(gymnasium.Env[Any, Any]):
    """Tells the time in seconds since 1970, and nothing else."""

    dtype: Any = np.float64

    def __init__(self) -> None:
        high = 2**40 if self.dtype is np.int64 else np.inf
        self.observation_space = spaces.Box(0, high, (1,), self.dtype)
        self.action_space = spaces.Discrete(2)
        self.seconds = 1_700_000_000

    def _now(self) -> np.ndarray:
        self.seconds += 1
        return np.array([self.seconds], self.given)

    @property
    def given(self) -> Any:
        return self.dtype

    def reset(self, **_: Any) -> Any:  # type: ignore[override]
        self.steps = 0
        return self._now(), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        return self._now(), 1.0, False, self.steps == 20, {}


class Counts(Clock):
    dtype = np.int64


class Rounds(Clock):
    dtype = np.float32

    @property
    def given(self) -> Any:
        return np.float64


class Acts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.acted: list[float] = []

    def act(self, obs: Tensor) -> Tensor:
        assert obs.dtype == torch.float32
        if self.training:
            self.acted += obs.flatten().tolist()
        return torch.zeros(len(obs), dtype=torch.long)

    def learn(self, replay: Any) -> Tensor:
        next(replay)
        return self.weight.sum()


SHORT: dict[str, Any] = {"train_steps": 200, "seed_steps": 50, "eval_episodes": 1, "seed": 0}


class TestClocks:
    @pytest.mark.parametrize("env", [Clock, Counts])
    def test_are_normalised_with_all_their_digits(self, env: type, quick: Any) -> None:
        run = quick(model=Acts, env=env, normalize_obs=True, **SHORT)
        obs = run.replay.sample(2000).obs[:, 0]
        assert obs.dtype == torch.float32
        assert len(obs.unique()) > 150  # Of 200 seconds.
        assert abs(float(obs.mean())) < 0.2
        assert abs(float(obs.std()) - 1) < 0.2
        assert len(set(run.agent.acted)) > 100

    def test_in_a_space_that_rounds_them_are_warned_of(self, quick: Any) -> None:
        with pytest.warns(UserWarning, match="its space is float32, which rounds them"):
            quick(model=Acts, env=Rounds, normalize_obs=True, **SHORT)
