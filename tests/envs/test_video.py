"""video=true: a film of the first episode of each evaluation, or an error before training."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

from antelope.replay import ConfigError

from .toys import Diary

needs_moviepy = pytest.mark.skipif(
    importlib.util.find_spec("moviepy") is None, reason="needs moviepy"
)


class Screen(Diary):
    """A grey picture that gets brighter with every step."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()
        self.render_mode = render_mode

    def render(self) -> Any:
        return np.full((32, 48, 3), 40 * self.count, np.uint8)


@needs_moviepy
def test_each_evaluation_is_recorded(quick: Any) -> None:
    run = quick(agent="Random", env=Screen, video=True, eval_every=20, eval_episodes=3)
    films = sorted((run.path / "videos").iterdir())
    assert [film.name for film in films] == [f"step-{step}-episode-0.mp4" for step in (20, 40, 60)]
    assert all(film.stat().st_size > 500 for film in films)
    plain = quick(agent="Random", env=Screen, eval_every=20, eval_episodes=3, path="plain")
    assert run.history == plain.history  # Recording changes nothing.
    assert not (plain.path / "videos").exists()
    # As many pictures as the first episode has observations.
    from imageio_ffmpeg import count_frames_and_secs

    lengths = {count_frames_and_secs(str(film))[0] for film in films}
    assert len(lengths) == 1
    assert 2 <= lengths.pop() <= 6


@pytest.fixture(autouse=True)
def _workdir(workdir: Path) -> None:
    """Runs are written below the test's own directory."""


@needs_moviepy
def test_every_task_has_films_of_its_own(quick: Any) -> None:
    run = quick(agent="Random", env=[Screen, Screen], video=True, train_steps=10)
    # Those before learning, and of the task to come, are played for forward transfer.
    assert sorted(film.name for film in (run.path / "videos").iterdir()) == [
        f"{task}step-{step}-episode-0.mp4" for task in ("", "task-1-") for step in (0, 10, 20)
    ]


@needs_moviepy
@pytest.mark.parametrize(
    "settings",
    [{"num_envs": 2}, {"num_envs": 2, "vectorization": "async"}, {"action_repeat": 2}],
)
def test_with_copies_and_wrappers(settings: Any, quick: Any) -> None:
    run = quick(agent="Random", env=Screen, video=True, train_steps=10, **settings)
    assert len(list((run.path / "videos").iterdir())) == 1


@needs_moviepy
def test_a_gymnasium_environment(quick: Any) -> None:
    pytest.importorskip("pygame")
    run = quick(agent="Random", env="CartPole-v1", video=True, train_steps=10, time_limit=5)
    (film,) = (run.path / "videos").iterdir()
    assert film.stat().st_size > 1000


def refuses(quick: Any, message: str, **settings: Any) -> None:
    with pytest.raises(ConfigError, match=message):
        quick(agent="Random", video=True, path="refused", **settings)
    assert not Path("refused").exists()  # Before anything was begun.


def test_without_moviepy(quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "moviepy" else find(name, *a)
    )
    refuses(quick, r"^video=true needs moviepy: pip install 'antelope-ml\[video\]'", env=Screen)


@needs_moviepy
class TestRefused:
    def test_an_environment_without_render_mode(self, quick: Any) -> None:
        refuses(
            quick,
            "video=true cannot record Diary, which must accept render_mode='rgb_array': "
            "Diary has no parameter `render_mode`",
            env=Diary,
        )

    def test_an_environment_that_takes_no_notice_of_it(self, quick: Any) -> None:
        class Deaf(Diary):
            def __init__(self, render_mode: str | None = None) -> None:
                super().__init__()

        refuses(quick, "its render_mode is None", env=Deaf)

    def test_a_gymnasium_environment_without_pictures(self, quick: Any) -> None:
        gymnasium.register("ScreenlessOfThisTest-v0", lambda **settings: Ansi(**settings))
        refuses(quick, "cannot record ScreenlessOfThisTest-v0", env="ScreenlessOfThisTest-v0")

    def test_a_renderer_that_raises(self, quick: Any) -> None:
        class NoDisplay(Screen):
            def render(self) -> Any:
                raise OSError("no display")

        refuses(quick, "NoDisplay: its render\\(\\) raised OSError: no display", env=NoDisplay)

    def test_a_renderer_that_gives_none(self, quick: Any) -> None:
        class Blank(Screen):
            def render(self) -> Any:
                return None

        refuses(quick, "Blank: its render\\(\\) returned a NoneType, not a picture", env=Blank)

    def test_vector_environments(self, quick: Any) -> None:
        def several(render_mode: str | None = None) -> SyncVectorEnv:
            return SyncVectorEnv([Screen] * 2)

        refuses(quick, "cannot record several: it is a vector environment", env=several)


class Ansi(Diary):
    metadata = {"render_modes": ["ansi"]}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()
        if render_mode not in (None, "ansi"):
            raise ValueError(f"render_mode={render_mode}")


def test_render_mode_passes_through(quick: Any) -> None:
    made: list[str | None] = []

    class Noted(Screen):
        def __init__(self, render_mode: str | None = None) -> None:
            made.append(render_mode)
            super().__init__(render_mode)

    quick("env.render_mode=rgb_array", agent="Random", env=Noted, train_steps=5)
    assert set(made) == {"rgb_array"}
