"""Offline runs: learning from a saved replay, without acting in the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from ...agents.policy.masks import ACTION_MASK
from ...agents.traits import stated_traits
from ...replay import CheckpointError, ConfigError, Spec, archive
from ...replay.field_names import IN
from ...replay.offline import saved_sizes
from ..assembly.replay import with_source_named
from ..settings.plan import Plan
from ..settings.warn import warn_caller
from .checkpoint import find

# Settings that were fixed when the replay was filled, and the names that the replay saved them under.
_SAVED = {"discount": "discount", "nstep": "nstep", "frame_stack": "stack"}
# Settings about acting, and their values in a run that does not act.
_OF_ACTING = {"seed_steps": 0, "learn_every": 1, "normalize_reward": False}


def settings_from_replay(plan: Plan) -> tuple[Plan, dict[str, Any] | None]:
    """Read the transitions of `offline=`, and adapt the plan to them.

    Returns:
        The plan, and the state for `replay.offline.open_saved`; None for a run that acts.

    Raises:
        ConfigError: If there is not exactly one environment.
        CheckpointError: If nothing was saved there, or it is damaged.
    """
    if plan.offline is None:
        return plan, None
    if plan.env is None or len(plan.env) > 1:
        raise ConfigError(
            f"offline={plan.offline} needs the environment in which the model is evaluated. Set env= to "
            "exactly one."
        )
    state = _saved(Path(plan.offline))
    try:
        sizes = saved_sizes(state)
    except CheckpointError as error:
        raise with_source_named(plan, error) from error
    acting = {*_OF_ACTING, "num_envs", "capacity"} & plan.given
    for key in sorted(acting):
        warn_caller(f"`{key}` has no effect in this run: offline, nothing acts.")
    for key, name in _SAVED.items():
        if key in plan.given and plan.values[key] != sizes[name]:
            warn_caller(
                f"`{key}={plan.values[key]}` has no effect in this run: the replay was saved with "
                f"{sizes[name]}."
            )
    sized = {key: sizes[name] for key, name in _SAVED.items()}
    return plan.decided(**sized, **_OF_ACTING, env_info=_with_mask(plan, state)), state


def _with_mask(plan: Plan, state: dict[str, Any]) -> list[str] | None:
    """`env_info`, with `action_mask` added if the replay has it: evaluations must mask actions too.

    Raises:
        ConfigError: If the user asks for `action_mask`, and the replay lacks it.
    """
    kept = {name.split(IN)[0] for name in state.get("beside", ())}
    if ACTION_MASK in kept:
        return [ACTION_MASK, *(n for n in plan.env_info or () if n != ACTION_MASK)]
    if ACTION_MASK in (plan.env_info or ()):
        raise ConfigError(
            f"env_info=action_mask: the replay in offline={plan.offline} was saved without it, so "
            "learning would count on invalid actions. Collect it again with env_info=[action_mask]."
        )
    return plan.env_info


def _saved(folder: Path) -> dict[str, Any]:
    """The transitions in a folder that `replay.save` wrote, or in a run's newest checkpoint."""
    if not folder.is_dir():
        raise CheckpointError(f"offline={folder}: there is no such folder.")
    a_run = (folder / "checkpoints").is_dir()
    state = find(folder)["replay"] if a_run else archive.load(folder)
    transitions = state.get("transitions")
    if not isinstance(transitions, dict):
        raise CheckpointError(
            f"offline={folder} was saved from a data set and holds no transitions."
        )
    if "origin" in transitions:
        raise CheckpointError(
            f"offline={folder} was itself an offline run. Set offline= to the replay that it learnt from."
        )
    return transitions


def check_agent(agent: nn.Module, spec: Spec) -> None:
    """Refuse an on-policy agent, which learns from its own recent actions only.

    Raises:
        ConfigError: Naming agents for this action space that learn off-policy.
    """
    if not stated_traits(agent).on_policy:
        return
    if isinstance(spec.action, dict) or spec.action.nvec or spec.action.binary:
        others = "your own model that learns from next(replay)"
    elif spec.action.discrete:
        others = "DQN with model.conservative=0.5, or SAC"
    else:
        others = "TD3 with model.imitation=0.4, or SAC or DDPG"
    raise ConfigError(
        f"{type(agent).__name__} learns on-policy, from its own newest actions, and with offline= nothing "
        f"acts. Use {others}."
    )


def check_path(plan: Plan, path: Path) -> None:
    """Refuse a run directory that contains the replay of `offline=`, since a run moves an earlier one aside.

    Args:
        path: The run directory.

    Raises:
        ConfigError: If it contains the replay.
    """
    if plan.offline is None:
        return
    source = Path(plan.offline).resolve()
    if source == path.resolve() or path.resolve() in source.parents:
        raise ConfigError(
            f"This run's directory, {path}, contains the replay it learns from. Set another path or "
            "experiment."
        )
