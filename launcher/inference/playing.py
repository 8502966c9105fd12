"""Whole episodes of a trained policy in a fresh copy of its environment, to watch or to film."""

from __future__ import annotations

import importlib.util
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gymnasium import Env
from gymnasium.vector import VectorEnv

from ...envs.episodes import Played
from ...envs.episodes import play as play_vector
from ...envs.evaluation import EVALUATED_AT_ONCE, EVALUATION_SEED
from ...envs.recording import Recording
from ...envs.step import seed_of_episode
from ...envs.unseen import seen
from ...envs.vector import Vector
from ...replay import ConfigError, DataError
from ..settings.warn import warn_caller
from .policy import Policy

Make = Callable[..., Any]


def play(
    policy: Policy,
    make: Make,
    *,
    episodes: int,
    render: bool = False,
    video: str | Path | None = None,
    seed: int | None = None,
    limit: int | None = None,
    show: Callable[[int, float, int], None] | None = None,
) -> list[float]:
    """The returns of whole episodes, played greedily.

    Args:
        policy: A policy that nobody else uses, at an episode's start.
        make: Makes the environment; called with `render_mode=` to watch or film it.
        episodes: How many, at least 1.
        render: Open a window, if the environment has one.
        video: An .mp4 file for one film of all episodes, or a folder for a film of each.
        seed: Seeds the episodes; None: the seeds of the run's own evaluations.
        limit: Steps after which an episode is cut; None: it ends by itself.
        show: Called after each episode with its number (from 0), return and length in steps.

    Raises:
        ConfigError: If it cannot be watched or filmed, or an argument is invalid.
        DataError: If the environment raises.
    """
    _check(episodes, render=render, video=video, seed=seed)
    name = policy.interface.name
    env = _made(make, name, render=render, video=video)
    # An evaluation steps this many copies at once: seeded alike, the first episodes are the same.
    at_once = min(episodes, EVALUATED_AT_ONCE)
    first = EVALUATION_SEED if seed is None else seed
    if isinstance(env, VectorEnv):
        played = _play_vector(policy, env, episodes=episodes, seed=first, limit=limit)
        for number, (gained, length) in enumerate(zip(played.returns, played.lengths, strict=True)):
            if show is not None:
                show(number, gained, length)
        _warn_of_cut(played.cut, name, limit)
        return played.returns
    returns, cut = [], 0
    try:
        _check_spaces(env, policy)
        if video is not None:
            env = _filmed(env, Path(video), name)
        for number in range(episodes):
            began = seed_of_episode(first, number % at_once, number // at_once + 1)
            gained, length, over = _episode(env, policy, began, name, limit)
            returns.append(gained)
            cut += not over
            if show is not None:
                show(number, gained, length)
    finally:
        env.close()
    _warn_of_cut(cut, name, limit)
    return returns


def _check(episodes: object, *, render: bool, video: str | Path | None, seed: object) -> None:
    if isinstance(episodes, bool) or not isinstance(episodes, int) or episodes < 1:
        raise ConfigError(f"episodes={episodes!r}: expected a whole number, at least 1.")
    if render and video is not None:
        raise ConfigError(
            "render=True and video= are both given: an environment can do only one of them."
        )
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or seed < 0):
        raise ConfigError(f"seed={seed!r}: expected a whole number, at least 0.")


def _warn_of_cut(cut: int, name: str, limit: int | None) -> None:
    if cut:
        some, verb = ("1 episode", "was") if cut == 1 else (f"{cut} episodes", "were")
        warn_caller(
            f"{some} of {name} did not end and {verb} cut after {limit:,} steps (eval_limit)."
        )


def _episode(
    env: Env[Any, Any], policy: Policy, seed: int, name: str, limit: int | None
) -> tuple[float, int, bool]:
    """One episode's return and length, and whether it ended by itself."""
    policy.reset()
    total, steps, over = 0.0, 0, False
    try:
        obs, info = env.reset(seed=seed)
        while not over and steps != limit:
            action = policy.act(obs, info)
            obs, reward, terminated, truncated, info = env.step(action)
            total, steps, over = total + float(reward), steps + 1, terminated or truncated
    except ConfigError:
        raise
    except Exception as error:
        raise DataError(
            f"{name} raised {type(error).__name__}: {error}. At step {steps + 1} of the episode with seed "
            f"{seed}."
        ) from error
    return total, steps, bool(over)


def _made(make: Make, name: str, *, render: bool, video: str | Path | None) -> Any:
    """A new environment, with the render mode that watching or filming needs.

    Raises:
        ConfigError: If it does not support that mode, or moviepy is missing.
    """
    if video is not None and importlib.util.find_spec("moviepy") is None:
        raise ConfigError("video= needs moviepy: pip install 'antelope-ml[video]'.")
    mode = "human" if render else "rgb_array" if video is not None else None
    if mode is None:
        return make()
    asked = "render=True" if render else "video="
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # What gymnasium warns about is checked below.
            env = make(render_mode=mode)
    except Exception as error:
        raise ConfigError(
            f"{asked} needs an environment that supports render_mode={mode!r}, but {name} raised: {error}"
        ) from error
    if isinstance(env, VectorEnv):
        env.close()
        raise ConfigError(f"{asked} needs a single environment; {name} is a vector environment.")
    if env.render_mode != mode:
        has = env.metadata.get("render_modes", [])
        env.close()
        raise ConfigError(
            f"{asked} needs render_mode={mode!r}, but {name} has "
            f"render_mode={env.render_mode!r} (its metadata lists {', '.join(map(str, has)) or 'none'})."
        )
    return env


def _check_spaces(env: Env[Any, Any], policy: Policy) -> None:
    known = policy.interface
    if (seen(env.observation_space), env.action_space) != (known.observation, known.action):
        raise ConfigError(
            f"The spaces differ from those that the model was trained on in {known.name}: observations "
            f"{env.observation_space} instead of {known.observation}, actions {env.action_space} instead of "
            f"{known.action}."
        )


def _filmed(env: Env[Any, Any], video: Path, name: str) -> Env[Any, Any]:
    """The environment, recorded: all episodes in one .mp4 file, or each in a file in a folder."""
    video = video.expanduser().absolute()
    one = video.suffix == ".mp4"
    if not one and video.suffix and not video.is_dir():
        env.close()
        raise ConfigError(f"video={video}: expected a file that ends in .mp4, or a folder.")
    folder = video.parent if one else video
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Otherwise a folder without write access would only fail once all episodes are played.
        with tempfile.TemporaryFile(dir=folder):
            pass
        with warnings.catch_warnings():
            # About older videos of the same name, which are replaced.
            warnings.simplefilter("ignore")
            if one:
                return _OneFilm(env, video)
            prefix = "".join(c if c.isalnum() or c in "-_." else "-" for c in name)
            return Recording(env, str(folder), episode_trigger=lambda _: True, name_prefix=prefix)
    except OSError as error:
        env.close()
        raise ConfigError(f"video={video} cannot be written: {error}.") from error


class _OneFilm(Recording):
    """Records all episodes, one after another, into a single file."""

    def __init__(self, env: Env[Any, Any], file: Path):
        super().__init__(
            env,
            str(file.parent),
            episode_trigger=lambda episode: episode == 0,
            video_length=2**31,  # In frames: longer than any film, so that no episode ends it.
            name_prefix=file.stem,
        )
        self.file = file


def _play_vector(
    policy: Policy, env: VectorEnv[Any, Any, Any], *, episodes: int, seed: int, limit: int | None
) -> Played:
    """Play the first episodes of each copy in a vector environment."""
    known = policy.interface
    options: dict[str, Any] = {"name": known.name, "channels": known.channels}
    envs = Vector(env, seed=seed, infos=policy.infos, stack=known.stack, **options)
    try:
        act, stack = policy.act_stored, known.stack
        return play_vector(envs, act, episodes=episodes, stack=stack, limit=limit)
    finally:
        envs.close()
