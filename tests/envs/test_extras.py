"""Presets for environments that need a package more: they run from end to end."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.wrappers import AddRenderObservation, ResizeObservation

from antelope import Run, ml


def short(*words: str, **settings: Any) -> Run:
    shared: dict[str, Any] = {
        **{"train_steps": 260, "seed_steps": 200, "learn_every": 20, "eval_episodes": 1},
        **{"capacity": 1000, "plot": False, "progress": False},
    }
    run = ml(*words, **shared | settings)
    assert np.isfinite(run.metrics["return"])
    assert any("loss" in row for row in run.history)
    return run


@pytest.mark.usefixtures("workdir")
class TestExtras:
    def test_atari(self) -> None:
        pytest.importorskip("ale_py", reason="needs the extra `atari`")
        run = short("task=rl/atari_dqn", "env.game=Breakout", time_limit=100)
        batch = run.replay.sample(3)
        assert batch.obs.shape == (3, 4, 84, 84)
        assert 0 <= float(batch.obs.min()) <= float(batch.obs.max()) <= 1
        assert run.path.parent.name == "ALE-Breakout-v5"

    def test_mujoco(self) -> None:
        pytest.importorskip("mujoco", reason="needs the extra `mujoco`")
        run = short("task=rl/hopper_sac")
        assert run.replay.sample(3).action.shape == (3, 3)

    def test_box2d(self) -> None:
        pytest.importorskip("Box2D", reason="needs the extra `box2d`")
        run = short("task=rl/lunarlander_dqn")
        assert run.replay.sample(3).obs.shape == (3, 8)

    def test_pixels(self) -> None:
        pytest.importorskip("pygame", reason="needs gymnasium[classic-control]")
        pytest.importorskip("cv2", reason="needs opencv")

        def pixels() -> gymnasium.Env[Any, Any]:
            env = gymnasium.make("Pendulum-v1", render_mode="rgb_array")
            return ResizeObservation(AddRenderObservation(env), (48, 48))

        run = short(
            agent="DrQV2", env=pixels, frame_stack=3, nstep=3, time_limit=50, batch_size=8, lr=1e-4
        )
        assert run.spec.obs.shape == (9, 48, 48)
        assert run.replay.storage.columns.arrays["obs"].dtype == np.uint8
