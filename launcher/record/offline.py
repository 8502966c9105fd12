"""Learning an environment from a replay that was saved before, without acting in it."""

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

# What is as it was when the replay was filled, by the names of a replay's sizes.
_SAVED = {"discount": "discount", "nstep": "nstep", "frame_stack": "stack"}
# What says how to act, and what it is where nothing is done.
_OF_ACTING = {"seed_steps": 0, "learn_every": 1, "normalize_reward": False}


def settings_from_replay(plan: Plan) -> tuple[Plan, dict[str, Any] | None]:
    """The plan with what the saved transitions of `offline=` decide, and these.

    Returns:
        Of them what `replay.offline.open_saved` takes; None for a run that acts.

    Raises:
        ConfigError: If there is no environment, or are several.
        CheckpointError: If nothing was saved there, or it is damaged.
    """
    if plan.offline is None:
        return plan, None
    if plan.env is None or len(plan.env) > 1:
        raise ConfigError(
            f"offline={plan.offline} is learnt from for one environment, in which the model is "
            "evaluated: give env=, and one only."
        )
    state = _saved(Path(plan.offline))
    try:
        sizes = saved_sizes(state)
    except CheckpointError as error:
        raise with_source_named(plan, error) from error
    acting = {*_OF_ACTING, "num_envs", "capacity"} & plan.given
    for key in sorted(acting):
        warn_caller(f"`{key}` has no effect in this run: it does not act.")
    for key, name in _SAVED.items():
        if key in plan.given and plan.values[key] != sizes[name]:
            warn_caller(
                f"`{key}={plan.values[key]}` has no effect in this run: the replay was saved with "
                f"{sizes[name]}."
            )
    sized = {key: sizes[name] for key, name in _SAVED.items()}
    return plan.decided(**sized, **_OF_ACTING, env_info=_with_mask(plan, state)), state


def _with_mask(plan: Plan, state: dict[str, Any]) -> list[str] | None:
    """`env_info`, with `action_mask` where it is learnt with, for evaluations.

    Raises:
        ConfigError: If it was not saved.
    """
    kept = {name.split(IN)[0] for name in state.get("beside", ())}
    if ACTION_MASK in kept:
        return [ACTION_MASK, *(n for n in plan.env_info or () if n != ACTION_MASK)]
    if ACTION_MASK in (plan.env_info or ()):
        raise ConfigError(
            f"env_info=action_mask: the replay in offline={plan.offline} was saved without it, so that "
            "learning would count on actions that are ruled out. Collect it with env_info=[action_mask]."
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
            f"offline={folder} was itself an offline run. Give the replay that it learnt from."
        )
    return transitions


def check_agent(agent: nn.Module, spec: Spec) -> None:
    """Refuse an agent that learns from what it does itself.

    Raises:
        ConfigError: Naming those that learn from what others have done.
    """
    if not stated_traits(agent).on_policy:
        return
    if isinstance(spec.action, dict) or spec.action.nvec or spec.action.binary:
        others = "a model of your own that learns from next(replay)"
    elif spec.action.discrete:
        others = "DQN with model.conservative=0.5, or SAC"
    else:
        others = "TD3 with model.imitation=0.4, or SAC or DDPG"
    raise ConfigError(
        f"{type(agent).__name__} learns on-policy, from what it has just done, and with offline= nothing is "
        f"done. Take {others}."
    )


def check_path(plan: Plan, path: Path) -> None:
    """Refuse a run directory that what is learnt from lies in: a run moves an earlier one aside.

    Raises:
        ConfigError: If it does.
    """
    if plan.offline is None:
        return
    source = Path(plan.offline).resolve()
    if source == path.resolve() or path.resolve() in source.parents:
        raise ConfigError(
            f"This run's directory, {path}, is that of the replay it learns from. Give another path or "
            "experiment."
        )
