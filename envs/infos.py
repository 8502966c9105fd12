"""Reads the fields of `info` that `env_info` names, and stacks them as arrays.

A value that is a dict becomes a field for each of its parts: `action_mask::move`.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np

from ..replay import ConfigError
from ..replay.field_names import IN, named
from .info_layout import Layout
from .info_values import (
    MISSING,
    InfoFault,
    Picked,
    Rows,
    as_field,
    info_of_copy,
    paths_of,
    value_at,
)
from .masks import ACTION_MASK, checked_mask, masks_of, sampling_mask

# Fields that batches have anyway: of transitions, of sequences and of a prioritised replay.
_FIELDS = {"obs", "action", "reward", "discount", "next_obs", "terminated", "truncated", "task"}
_FIELDS |= {"index", "weight", "mask", "is_first", "state", "hop", "raw"}

_WAITED = 1000  # Steps after which a field that has never appeared is worth a warning.


class Infos:
    """Reads the `info` of one kind of environment.

    A name is a key of `info`, or a path into dicts in it: `episode/r`, `episode.r`. Values are numbers,
    booleans and arrays of them; floats are stored as float32, others in their own dtype. A field that is
    missing from an `info`, or None, is zero. A field that first appears after an environment's first
    step must be a single number, and is stored as float32.

    Args:
        names: Names of the fields, as the user wrote them.
        space: The action space, which `action_mask` (bool or integer `[choices]`) must fit: a `Space`, or a
            tree of them.
        layout: Shared with the other environments of the run.
    """

    def __init__(self, names: Sequence[str], space: Any, layout: Layout | None = None):
        # For each mask, the number of choices of each part of the action.
        self.masks = masks_of(space) if ACTION_MASK in names else {}
        if layout is None or any(
            layout.types[name][0] != (sum(sizes),)
            for name, sizes in self.masks.items()
            if name in layout.types
        ):
            # With other actions `shared_spec` refuses it, in words that help more than those on masks.
            layout = Layout()
        self.names, self.layout = tuple(names), layout
        self._space = space
        self.seen: set[str] = set()
        self._others: dict[str, None] = {}
        self._steps = 0

    # ------------------------------------------------------------------------ one environment

    def pick(self, info: Any) -> Picked:
        """The fields in one environment's `info`.

        Raises:
            InfoFault: If one is not numeric, or the mask does not fit the actions.
        """
        values: dict[str, np.ndarray] = {}
        for name in self.names:
            value = value_at(info, name)
            if value is MISSING or value is None:
                continue
            if self.masks and name == ACTION_MASK:
                value = checked_mask(value, self._space, name)
            for path, leaf in named(name, value):
                values[path] = as_field(leaf, path)
        complete = len({path.split(IN)[0] for path in values}) == len(self.names)
        return Picked(values, () if complete else tuple(paths_of(info)))

    def probe(self, env: gymnasium.Env[Any, Any]) -> None:
        """Find out dtypes and shapes from an episode's first step, before training.

        Raises:
            InfoFault: As `pick`.
            ConfigError: As `check_reset`.
        """
        try:
            _, first = env.reset(seed=0)
        except Exception:  # The run's first episode reports it with its seed.
            return
        rows = self.reset_rows([self.pick(first)])
        action = env.action_space
        try:
            action.seed(0)
            mask = sampling_mask(action, rows, ACTION_MASK) if self.masks else None
            _, _, _, _, then = env.step(action.sample(mask))
        except Exception:  # An episode of the run reports it with its seed.
            return
        self.rows([self.pick(then)])

    # ------------------------------------------------------------------------ N environments

    def rows(self, picked: Sequence[Picked | None]) -> Rows:
        """The fields of N environments; zeros where they are missing.

        Raises:
            InfoFault: If the shape or the kind of a field has changed.
        """
        layout = self.layout
        for copy, one in enumerate(picked):
            if one is None:
                continue
            for path, value in one.values.items():
                self.layout.fit(path, value, copy)
            self._note(one)
        rows: Rows = {}
        for path in self._fields():
            shape, dtype = layout.types.get(path, ((), np.dtype(np.float32)))
            rows[path] = array = np.zeros((len(picked), *shape), dtype)
            for copy, one in enumerate(picked):
                if one is not None and path in one.values:
                    array[copy] = one.values[path]
        return rows

    def reset_rows(self, picked: Sequence[Picked | None]) -> Rows:
        """`rows` of new episodes: fields that come with a reset belong to observations.

        Raises:
            InfoFault: As `rows`; also if `reset` returns no mask.
        """
        rows, layout = self.rows(picked), self.layout
        if layout.with_obs is not None:
            return rows
        if missing := self.masks.keys() - layout.types.keys():
            others = ", ".join(f"`{name}`" for name in self._others) or "nothing"
            raise InfoFault(
                f"returned no `{min(missing).replace(IN, '/')}` in the info of reset (there is {others}), "
                "but the first action of an episode needs it",
                missing=ACTION_MASK,
            )
        layout.with_obs = tuple(layout.types)
        return rows

    def of_vector(self, infos: Mapping[str, Any], n: int) -> list[Picked | None]:
        """The fields in the infos of a vector environment: `{name: [N, ...], _name: bool [N]}`."""
        tops = {
            key: value
            for key, value in infos.items()
            if not (key.startswith("_") and key[1:] in infos) and not key.startswith("final_")
        }
        return [self.pick(info_of_copy(tops, infos, copy)) for copy in range(n)]

    def final(self, infos: Mapping[str, Any], copy: int) -> Picked:
        """The fields of an episode's last step, if a vector environment has reset in that same step.

        Raises:
            InfoFault: If its infos lack `final_info`.
        """
        if "final_info" not in infos:
            raise InfoFault("returned no `final_info` in its infos", copy)
        final = infos["final_info"]
        return self.pick(
            info_of_copy(final, final, copy) if isinstance(final, Mapping) else final[copy]
        )

    def of_step(self, rows: Rows) -> Rows:
        """The fields that belong to the step."""
        with_obs = self.layout.with_obs or ()
        return {name: value for name, value in rows.items() if name not in with_obs}

    def of_obs(self, rows: Rows) -> Rows:
        """The fields that belong to the observation."""
        return {name: rows[name] for name in self.layout.with_obs or ()}

    def stuck(self, rows: Rows, acts: np.ndarray) -> tuple[int, str] | None:
        """A copy among those that act next, bool `[N]`, whose mask allows no action, and the mask's name."""
        for name, sizes in self.masks.items():
            start = 0
            for size in sizes:
                some = rows[name][:, start : start + size].any(1)
                start += size
                if (none := acts & ~some).any():
                    return int(none.argmax()), name.replace(IN, "/")
        return None

    def to_act_by(self, rows: Rows) -> Rows:
        """The fields as `act` receives them: a mask that allows nothing allows everything.

        Such a mask belongs to a copy that rests or is about to be reset, whose action is not executed: a
        policy without any allowed action would be NaN there.
        """
        opened: Rows = {}
        for name, sizes in self.masks.items():
            mask, starts = rows[name], np.cumsum((0, *sizes[:-1]))
            some = np.logical_or.reduceat(mask != 0, starts, axis=1)  # (N, parts)
            if not some.all():
                opened[name] = np.where(np.repeat(some, sizes, axis=1), mask, 1).astype(mask.dtype)
        return {**rows, **opened} if opened else rows

    def settle(self, *, ended: bool, name: str) -> None:
        """Fix the layout after a step of all copies, and check that every field appears within an episode.

        Args:
            ended: Whether an episode ended in this step.
            name: What errors call the environment.

        Raises:
            ConfigError: If one has not; the message lists the fields that have.
        """
        self.layout.settled = True
        self.check(ended=ended, name=name)

    def check(self, *, ended: bool, name: str) -> None:
        """As `settle`, for an evaluation, which fixes nothing."""
        if len(self.seen) == len(self.names):
            return
        self._steps += 1
        missing = [n for n in self.names if n not in self.seen]
        if ended:
            raise ConfigError(_never(missing, self._others, name))
        if self._steps == _WAITED:
            warnings.warn(
                f"env_info: `{missing[0]}` is missing from the first {_WAITED:,} steps of {name}; it counts "
                "as zero until it appears.",
                stacklevel=2,
            )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with the layout of an earlier run."""
        self.layout.load_state_dict(state)
        self.seen.update(path.split(IN)[0] for path in self.layout.types)

    def _fields(self) -> list[str]:
        """All fields, including the names of those that have not appeared yet."""
        come = {path.split(IN)[0] for path in self.layout.types}
        return [*self.layout.types, *(name for name in self.names if name not in come)]

    def _note(self, one: Picked) -> None:
        if len(self.seen) == len(self.names):
            return
        self.seen.update(path.split(IN)[0] for path in one.values)
        self._others.update(dict.fromkeys(one.others))


def elsewhere(env: Any, fault: InfoFault) -> str:
    """Advice on a field that an environment has elsewhere, as PettingZoo's and sb3-contrib's masks are."""
    name = fault.missing
    if name is None:
        return ""
    space, methods = env.observation_space, (name, f"{name}s")
    if name in getattr(space, "spaces", ()):
        return (
            f" Its observation has `{name}`: put it into the info of reset and step too, with a "
            "gymnasium.Wrapper."
        )
    if found := next((m for m in methods if callable(getattr(env.unwrapped, m, None))), None):
        return (
            f" It has a method `{found}()`: put its result into the info of reset and step, with a "
            "gymnasium.Wrapper."
        )
    return ""


def check_names(names: Sequence[str]) -> None:
    """Refuse names of fields that batches already have.

    Raises:
        ConfigError: With every name refused.
    """
    mistakes = []
    for name in names:
        if name in _FIELDS or name.removeprefix("next_") in {"obs", *names} - {name}:
            mistakes.append(
                f"env_info={name}: batches already have a field `{name}`. Rename it in the environment's "
                "info, with a wrapper."
            )
        elif IN in name or names.count(name) > 1:
            what = "is given twice" if names.count(name) > 1 else f"a name cannot contain `{IN}`"
            mistakes.append(f"env_info={name}: {what}.")
    if mistakes:
        raise ConfigError("\n".join(dict.fromkeys(mistakes)))


def _never(missing: list[str], others: Mapping[str, None], name: str) -> str:
    """The message on fields that have not appeared in a whole episode."""
    lines = []
    for field_name in missing:
        close = difflib.get_close_matches(field_name, others, 1)
        near = f" Did you mean `{close[0]}`?" if close else ""
        lines.append(
            f"env_info={field_name}: {name} returned no such field in a whole episode.{near}"
        )
    there = ", ".join(f"`{other}`" for other in others)
    lines.append(f"Its info has {there}." if there else "Its info is empty.")
    if not any("Did you mean" in line for line in lines):
        lines.append(
            "A field that appears only now and then must be in the info of an episode's last step, even as 0."
        )
    return " ".join(lines)
