"""Films of episodes, none of which is worth a run."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium.wrappers import RecordVideo


def filmed(
    make: Callable[..., gymnasium.Env[Any, Any]], folder: Path, prefix: str
) -> gymnasium.Env[Any, Any]:
    """An environment that films its first episode, to `<folder>/<prefix>-episode-0.mp4`."""
    env = make(render_mode="rgb_array")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Videos of other steps are there, and stay there.
            return _Recorder(
                env, str(folder), episode_trigger=lambda episode: episode == 0, name_prefix=prefix
            )
    except Exception as error:  # The folder cannot be made, say.
        _say(error)
        return env


class _Recorder(RecordVideo):
    """Gives the film up, and says so, where a frame or the file cannot be made."""

    def _capture_frame(self) -> None:
        try:
            super()._capture_frame()
        except Exception as error:
            self._give_up(error)

    def stop_recording(self) -> None:
        try:
            super().stop_recording()
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self.recorded_frames, self.recording = [], False
        _say(error)


def _say(error: Exception) -> None:
    warnings.warn(
        f"An episode could not be recorded ({type(error).__name__}: {error}). The run continues.",
        stacklevel=2,
    )
