"""What is different since the checkpoint that a run continues from, and what becomes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ...envs.fingerprint import differences, is_whole
from ...envs.world import World
from ...replay import CheckpointError, Replay, Transitions
from ..settings.plain_yaml import dump
from ..settings.plan import Plan
from .changes import MODULES, Changes, refusal
from .console import Console


class Resumption:
    """Compares the settings and the data with those of a checkpoint.

    Args:
        state: The whole checkpoint.
        plan: That of the run that continues.
        world: Holds its data.
        replay: Its own, before anything is loaded.
        console: Tells the user what is different.

    Attributes:
        changes: The settings that are different.
        restarted: The parts of the learner that start over: see `parts_to_restart`.

    Raises:
        ConfigError: For what must not change, unless `override` names it. Of modules, that is left to
            `check_modules`.
    """

    def __init__(
        self, state: Mapping[str, Any], plan: Plan, world: World, replay: Replay, console: Console
    ):
        self._state, self._plan, self._replay, self._console = state, plan, replay, console
        words = other_data(state, world, replay)
        same = words == [] and is_whole(world.fingerprint)
        self.changes = changes = Changes(state["settings"], plan, same_data=same)
        self.restarted = parts_to_restart(state["settings"], plan)
        wrong = [] if changes.allows_data or words is None else words
        if wrong or any(change.root not in MODULES for change in changes.refused):
            raise refusal(changes.refused, wrong)
        if words is None:
            console.note(
                "The checkpoint, of an earlier version, does not say what its data was; whether it is the "
                "same is not known."
            )
        self._other_data = words or []

    @property
    def state(self) -> dict[str, Any]:
        """What to load: the checkpoint, as if it came from a run on the data that there is now."""
        if not (
            self._other_data
            and self._replay.offline
            and isinstance(self._replay.storage, Transitions)
        ):
            return dict(self._state)
        origin = self._replay.storage.origin
        return {
            **self._state,
            "replay": {**self._state["replay"], "transitions": {"origin": origin}},
        }

    def check_modules(self) -> None:
        """Refuse settings of other modules, once the weights fit: those that do not say more.

        Raises:
            ConfigError: For what must not change.
        """
        if self.changes.refused:
            raise refusal(self.changes.refused, [])

    @property
    def new_rates(self) -> bool:
        """Whether the optimiser goes on with other options than those that come with its state."""
        asked = not self.changes.roots.isdisjoint({"optim", "lr", "weight_decay"})
        return asked and "optimizer" not in self.restarted

    def accept(self, step: int) -> tuple[Plan, list[dict[str, Any]]]:
        """Tell the user what is different now.

        Args:
            step: That of the checkpoint.

        Returns:
            The plan, in which settings for the start of a run are those of the checkpoint; and the settings
            that were other ones until a resumption, as `config_text` takes them.
        """
        changes, console, plan = self.changes, self._console, self._plan
        for line in (*changes, *(f"data: {words}" for words in self._other_data)):
            console.problem(f"Changed since the checkpoint: {line}")
        for name in changes.needless:
            console.note(f"override={name}: `{name}` is as it was in the checkpoint.")
        earlier = list(self._state.get("earlier", ()))
        if used := {change.key: change.was for change in changes}:
            earlier.append({"step": step, "used": used})
        for change in changes.without_effect:
            if change.root in plan.given:
                console.problem(
                    f"`{change.key}` has no effect on a resumed run, which began with {change.was}."
                )
            plan = plan.decided(**{change.root: change.was})
        return plan, earlier


def other_data(state: Mapping[str, Any], world: World, replay: Replay) -> list[str] | None:
    """What is different about the data since the checkpoint, in words; None: that is not known.

    Args:
        state: The whole checkpoint.

    Raises:
        CheckpointError: If what the checkpoint says of its data was not written by a run.
    """
    if (known := state.get("data")) is None:  # Before 0.5.0.
        return None
    try:
        words = differences(known, world.fingerprint)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"What the checkpoint says of its data was not written by a run: {error!r}."
        ) from error
    if isinstance(replay.storage, Transitions):
        origin = (state["replay"].get("transitions") or {}).get("origin")
        if origin != replay.storage.origin:
            words.append("the transitions of `offline` are other ones")
    return words


def parts_to_restart(before: Mapping[str, Any], plan: Plan) -> tuple[str, ...]:
    """The parts of a learner that cannot load their saved state, since the settings now name another class.

    Returns:
        Of "optimizer" and "scheduler", those that start over.
    """
    was, now = (values.get("optim") or {} for values in (before, plan.values))
    kinds = (was.get("_target_"), now.get("_target_"))
    if kinds[0] != kinds[1] or list(was.get("groups", ())) != list(now.get("groups", ())):
        return ("optimizer", "scheduler")
    schedule = ("scheduler", "lr_decay_epochs")
    changed = any(before.get(key) != plan.values.get(key) for key in schedule)
    return ("scheduler",) if changed else ()


def saved_device(state: Mapping[str, Any]) -> torch.device:
    """The device on which the checkpoint was written."""
    if "device" in state:
        return torch.device(state["device"])
    return torch.device("cuda" if "cuda" in state["random"] else "cpu")  # Before 0.5.0.


def config_text(plan: Plan, earlier: Sequence[Mapping[str, Any]]) -> str:
    """The text of config.yaml: the settings in use, and in comments those that were until a resumption.

    Args:
        earlier: For each resumption with other settings, its `step` and what was `used` until then, by key.
    """
    # They were words of this call only: a later resumption must not repeat them.
    text = dump({**plan.values, "override": None})
    for resumption in earlier:
        text += f"# Until step {resumption['step']}:\n"
        for key, value in resumption["used"].items():
            lines = dump({key: value}).splitlines()
            text += "".join(f"#   {line}\n" for line in lines)
    return text
