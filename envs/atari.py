"""Atari games, prepared as the field does."""

from __future__ import annotations

from typing import Any

import gymnasium

from ..replay import ConfigError


def Atari(
    game: str = "Pong",
    *,
    frame_skip: int = 4,
    screen_size: int = 84,
    noop_max: int = 30,
    terminal_on_life_loss: bool = False,
    **arguments: Any,
) -> gymnasium.Env[Any, Any]:
    """A game in grey, `screen_size` pixels wide, one frame in four (Machado et al., 2018, 1709.06009).

    Observations are uint8 `[84, 84]`; `frame_stack=4` makes them the usual stacks. Sticky actions
    (a quarter of all actions is repeated) are on, as in `ALE/<game>-v5`.

    Args:
        game: `Pong`, `Breakout`, `SpaceInvaders`, ...
        frame_skip: Frames per step, of which the pixelwise maximum of the last two (uint8) is observed.
        noop_max: Most steps without action, their number random, at an episode's start.
        terminal_on_life_loss: End the episode with each life lost.
        arguments: Further ones of the environment: `difficulty`, `render_mode`, ...

    Raises:
        ConfigError: If ale-py is not installed, or there is no such game.
    """
    try:
        import ale_py
    except ImportError as error:
        raise ConfigError(
            "Atari games need ale-py: pip install 'antelope-ml[atari]' (its ROMs come with it)."
        ) from error
    from gymnasium.wrappers import AtariPreprocessing

    # gymnasium 1.0 no longer imports plug-ins by itself.
    gymnasium.register_envs(ale_py)
    try:
        # Without frame skipping, since AtariPreprocessing skips frames and refuses to do so twice.
        env = gymnasium.make(f"ALE/{game}-v5", frameskip=1, disable_env_checker=True, **arguments)
    except gymnasium.error.UnregisteredEnv as error:
        raise ConfigError(f"There is no Atari game {game!r}: {error}") from error
    return AtariPreprocessing(
        env,
        noop_max=noop_max,
        frame_skip=frame_skip,
        screen_size=screen_size,
        terminal_on_life_loss=terminal_on_life_loss,
    )
