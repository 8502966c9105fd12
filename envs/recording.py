"""Records videos of episodes; a video that fails never ends a run."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv
from gymnasium.wrappers import RecordVideo

from ..replay import ConfigError
from ..replay.files import replacing_by_name
from .checked import describe_error
from .copies import Make
from .opening import close


def recordable(make: Make, name: str, *, seed: int) -> gymnasium.Env[Any, Any]:
    """Make an environment that can be recorded, and render one frame to be sure.

    Args:
        seed: Seeds the episode with that frame.

    Raises:
        ConfigError: If moviepy is missing, or the environment renders no frames.
    """
    # gymnasium imports moviepy only when it writes the first video, long after training has begun.
    if importlib.util.find_spec("moviepy") is None:
        raise ConfigError("video=true needs moviepy: pip install 'antelope-ml[video]'.")
    refused = f"video=true cannot record {name}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Whatever gymnasium warns of is checked below.
            env = make(render_mode="rgb_array")
    except ConfigError as error:
        raise ConfigError(
            f"{refused}, which must accept render_mode='rgb_array': {error}"
        ) from error
    try:
        if isinstance(env, VectorEnv):
            raise ConfigError(f"{refused}: it is a vector environment.")
        if env.render_mode != "rgb_array":
            raise ConfigError(
                f"{refused}: made with render_mode='rgb_array', its render_mode is {env.render_mode}."
            )
        env.reset(seed=seed)
        frame = env.render()
        if not isinstance(frame, np.ndarray) or frame.ndim != 3:
            raise ConfigError(
                f"{refused}: its render() returned a {type(frame).__name__}, not a picture."
            )
    except ConfigError:
        close([env])
        raise
    except Exception as error:
        close([env])
        raise ConfigError(f"{refused}: its render() raised {describe_error(error)}") from error
    except BaseException:
        close([env])
        raise
    return env


def filmed(env: gymnasium.Env[Any, Any], folder: Path, prefix: str) -> gymnasium.Env[Any, Any]:
    """The environment with its first episode recorded to `<folder>/<prefix>-episode-0.mp4`."""
    try:
        with warnings.catch_warnings():
            # gymnasium warns that the folder exists: it has earlier videos.
            warnings.simplefilter("ignore")
            return _Recorder(
                env, str(folder), episode_trigger=lambda episode: episode == 0, name_prefix=prefix
            )
    except Exception as error:  # The folder may be read-only, for example.
        _say(error)
        return env


def developed(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    """The environment that `filmed` wrapped, once its video is written."""
    if not isinstance(env, _Recorder):
        return env
    if env.recording:  # The evaluation may have been interrupted.
        env.stop_recording()
    return env.env


class Recording(RecordVideo):
    """Writes a film under a free name, then moves it to its place: never through a link that is there.

    Attributes:
        file: Where every film belongs; None: to `<folder>/<prefix>-episode-<number>.mp4`.
    """

    file: Path | None = None

    def stop_recording(self) -> None:
        folder, place = self.video_folder, Path(self.video_folder, f"{self._video_name}.mp4")
        with replacing_by_name(self.file or place) as free:
            self.video_folder, self._video_name = str(free.parent), free.stem
            try:
                super().stop_recording()
            finally:
                self.video_folder = folder


class _Recorder(Recording):
    """Abandons the video with a warning if a frame or the file cannot be made."""

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
