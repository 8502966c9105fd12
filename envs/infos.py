"""The fields of `info` that `env_info` names: found in the dicts that environments give, and made arrays.

Where they lie: a value that is a dict has a field for each of its parts, `action_mask::move`.
"""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np

from ..replay import ConfigError, Space
from ..replay.field_names import IN, named
from ..replay.tree import map_tree

ACTION_MASK = "action_mask"
Rows = dict[str, np.ndarray]  # `{field: [N, *shape]}`.

# What batches have besides: fields of transitions, of sequences and of a prioritised replay.
_FIELDS = {"obs", "action", "reward", "discount", "next_obs", "terminated", "truncated", "task"}
_FIELDS |= {"index", "weight", "mask", "is_first", "state", "hop", "raw"}

_MISSING = object()
_WAITED = 1000  # Steps after which a field that never came is worth a warning.


@dataclass(frozen=True)
class Picked:
    """Of one environment's `info`: the fields asked for, and, where some are missing, what there is."""

    values: dict[str, np.ndarray]
    others: tuple[str, ...] = ()


class InfoFault(Exception):
    """What is wrong with an `info`, in words.

    Attributes:
        copy: Whose it is, where that is known.
        missing: A field that is not there.
    """

    def __init__(self, what: str, copy: int | None = None, missing: str | None = None):
        super().__init__(what, copy, missing)
        self.what, self.copy, self.missing = what, copy, missing


@dataclass
class Layout:
    """What the fields are, the same for all environments of a run.

    Attributes:
        types: Shape and type of each field that has come so far.
        with_obs: Those that `reset` gives too, so that they belong to the observation; None: no
            environment has been reset yet. The others belong to the step, like its reward.
        settled: Whether rows are kept by now, so that no type can change any more.
    """

    types: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = field(default_factory=dict)
    with_obs: tuple[str, ...] | None = None
    settled: bool = False

    def state_dict(self) -> dict[str, Any]:
        types = [[name, list(shape), dtype.str] for name, (shape, dtype) in self.types.items()]
        return {"types": types, "with_obs": self.with_obs and list(self.with_obs)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.types = {name: (tuple(shape), np.dtype(kind)) for name, shape, kind in state["types"]}
        self.with_obs = None if state["with_obs"] is None else tuple(state["with_obs"])
        self.settled = True


class Infos:
    """Reads the `info` of one kind of environment.

    A name is a key of `info`, or a path into dicts in it: `episode/r`, `episode.r`. Values are numbers,
    booleans and arrays of them; floats are kept as float32, others in their own type. What is missing in
    one `info`, or None, is zero. A field that comes for the first time after an environment's first
    step has to be a single number, and is kept as float32.

    Args:
        names: Of the fields, as the user wrote them.
        space: Of the actions, which `action_mask` has to fit: a `Space`, or a dict of them.
        layout: Shared with the other environments of the run.
    """

    def __init__(self, names: Sequence[str], space: Any, layout: Layout | None = None):
        # Of each mask, into how many choices for each part of the action it falls.
        self.masks = _masks(space) if ACTION_MASK in names else {}
        if layout is None or any(
            layout.types[name][0] != (sum(sizes),)
            for name, sizes in self.masks.items()
            if name in layout.types
        ):
            # With other actions it is refused for its spaces, in words that help, not for its mask.
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
            value = _lookup(info, name)
            if value is _MISSING or value is None:
                continue
            if self.masks and name == ACTION_MASK:
                value = _mask(value, self._space, name)
            for path, leaf in named(name, value):
                values[path] = _array(leaf, path)
        complete = len({path.split(IN)[0] for path in values}) == len(self.names)
        return Picked(values, () if complete else tuple(_paths(info)))

    def probe(self, env: gymnasium.Env[Any, Any]) -> None:
        """Find out types and shapes in an episode's first step, before anything is learnt.

        Raises:
            InfoFault: As `pick`.
            ConfigError: As `check_reset`.
        """
        try:
            _, first = env.reset(seed=0)
        except Exception:  # It is told with its seed when a run's first episode begins.
            return
        rows = self.reset_rows([self.pick(first)])
        action = env.action_space
        try:
            action.seed(0)
            mask = _sampling_mask(action, rows, ACTION_MASK) if self.masks else None
            _, _, _, _, then = env.step(action.sample(mask))
        except Exception:  # It is told with its seed when it happens in a run's own episodes.
            return
        self.rows([self.pick(then)])

    # ------------------------------------------------------------------------ N environments

    def rows(self, picked: Sequence[Picked | None]) -> Rows:
        """The fields of N environments; zeros where they are missing.

        Raises:
            InfoFault: If a field is of another shape or kind than before.
        """
        layout = self.layout
        for copy, one in enumerate(picked):
            if one is None:
                continue
            for path, value in one.values.items():
                self._fit(path, value, copy)
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
        """`rows` of new episodes: what comes with these belongs to observations.

        Raises:
            InfoFault: As `rows`; also if a mask does not come with `reset`.
        """
        rows, layout = self.rows(picked), self.layout
        if layout.with_obs is not None:
            return rows
        if missing := self.masks.keys() - layout.types.keys():
            others = ", ".join(f"`{name}`" for name in self._others) or "nothing"
            raise InfoFault(
                f"gave no `{min(missing).replace(IN, '/')}` in the info of reset (there is {others}): the "
                "first action of an episode is chosen by it",
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
        return [self.pick(_of_copy(tops, infos, copy)) for copy in range(n)]

    def final(self, infos: Mapping[str, Any], copy: int) -> Picked:
        """Of an episode's last step, where a vector environment has reset in that same step.

        Raises:
            InfoFault: If it does not give it.
        """
        if "final_info" not in infos:
            raise InfoFault("gives no `final_info` in its infos", copy)
        final = infos["final_info"]
        return self.pick(
            _of_copy(final, final, copy) if isinstance(final, Mapping) else final[copy]
        )

    def of_step(self, rows: Rows) -> Rows:
        """The fields that belong to the step."""
        with_obs = self.layout.with_obs or ()
        return {name: value for name, value in rows.items() if name not in with_obs}

    def of_obs(self, rows: Rows) -> Rows:
        """The fields that belong to the observation."""
        return {name: rows[name] for name in self.layout.with_obs or ()}

    def stuck(self, rows: Rows, acts: np.ndarray) -> tuple[int, str] | None:
        """An environment of those that go on, bool `[N]`, whose mask allows no action; and which mask."""
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

        It belongs to a copy that rests or is about to be reset, whose action is not executed: a policy
        that is restricted to no action at all would be NaN there.
        """
        opened: Rows = {}
        for name, sizes in self.masks.items():
            mask, starts = rows[name], np.cumsum((0, *sizes[:-1]))
            some = np.logical_or.reduceat(mask != 0, starts, axis=1)  # (N, parts)
            if not some.all():
                opened[name] = np.where(np.repeat(some, sizes, axis=1), mask, 1).astype(mask.dtype)
        return {**rows, **opened} if opened else rows

    def settle(self, *, ended: bool, name: str) -> None:
        """After each step of all copies: whether every field has come by the end of an episode.

        Args:
            ended: Whether one of them ended with it.
            name: Of the environment.

        Raises:
            ConfigError: If one has not, with what came instead.
        """
        self.layout.settled = True
        self.check(ended=ended, name=name)

    def check(self, *, ended: bool, name: str) -> None:
        """As `settle`, of an evaluation."""
        if len(self.seen) == len(self.names):
            return
        self._steps += 1
        missing = [n for n in self.names if n not in self.seen]
        if ended:
            raise ConfigError(_never(missing, self._others, name))
        if self._steps == _WAITED:
            warnings.warn(
                f"env_info: `{missing[0]}` has not come in the first {_WAITED:,} steps of {name}, and is "
                "zero as long as it does not.",
                stacklevel=2,
            )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with a layout whose fields have come before."""
        self.layout.load_state_dict(state)
        self.seen.update(path.split(IN)[0] for path in self.layout.types)

    def _fields(self) -> list[str]:
        """All fields, those that have not come yet by their names."""
        come = {path.split(IN)[0] for path in self.layout.types}
        return [*self.layout.types, *(name for name in self.names if name not in come)]

    def _fit(self, path: str, value: np.ndarray, copy: int) -> None:
        """Learn a field's type, or hold a value against it."""
        layout, words = self.layout, path.replace(IN, "/")
        if path not in layout.types:
            if layout.settled:
                if IN in path:
                    raise InfoFault(
                        f"gave `{path.split(IN)[0]}` in its info for the first time, and it is a dict: "
                        f"name the parts that are wanted, as in env_info=[{words}]",
                        copy,
                    )
                if value.shape:
                    raise InfoFault(
                        f"gave `{words}` in its info for the first time, {_said(value)}: a field that is "
                        "missing at first has to be a single number. Give it in reset, or in every step",
                        copy,
                    )
                value = value.astype(np.float32)
            layout.types[path] = value.shape, value.dtype
            return
        shape, dtype = layout.types[path]
        if value.shape != shape:
            raise InfoFault(
                f"gave `{words}` in its info {_said(value)}, and {dtype} {list(shape)} before", copy
            )
        if value.dtype == dtype or np.can_cast(value.dtype, dtype, "same_kind"):
            return
        if dtype.kind == "f":  # Integers and booleans among floats.
            return
        if not layout.settled:
            layout.types[path] = shape, np.promote_types(dtype, value.dtype)
            if layout.types[path][1].kind == "f":
                layout.types[path] = shape, np.dtype(np.float32)
        elif (value.astype(dtype) != value).any():
            raise InfoFault(
                f"gave `{words}` in its info {_said(value)}, and {dtype} before. Give it in one type "
                "from the first reset on, 0.0 instead of 0",
                copy,
            )

    def _note(self, one: Picked) -> None:
        if len(self.seen) == len(self.names):
            return
        self.seen.update(path.split(IN)[0] for path in one.values)
        self._others.update(dict.fromkeys(one.others))


def elsewhere(env: Any, fault: InfoFault) -> str:
    """What to say of a field that an environment has elsewhere, as PettingZoo's and sb3-contrib's do."""
    name = fault.missing
    if name is None:
        return ""
    space, methods = env.observation_space, (name, f"{name}s")
    if name in getattr(space, "spaces", ()):
        return (
            f" Its observation has `{name}`: put that into the info of reset and step, too, by a "
            "gymnasium.Wrapper."
        )
    if found := next((m for m in methods if callable(getattr(env.unwrapped, m, None))), None):
        return (
            f" It has a method `{found}()`: put what that returns into the info of reset and step, by a "
            "gymnasium.Wrapper."
        )
    return ""


def check_names(names: Sequence[str]) -> None:
    """Refuse names of fields that batches have already.

    Raises:
        ConfigError: With all that cannot be.
    """
    mistakes = []
    for name in names:
        if name in _FIELDS or name.removeprefix("next_") in {"obs", *names} - {name}:
            mistakes.append(
                f"env_info={name}: batches have a field `{name}` already. Give it another name in the "
                "environment's info, by a wrapper."
            )
        elif IN in name or names.count(name) > 1:
            what = "is given twice" if names.count(name) > 1 else f"names have no `{IN}` in them"
            mistakes.append(f"env_info={name}: {what}.")
    if mistakes:
        raise ConfigError("\n".join(dict.fromkeys(mistakes)))


def _lookup(info: Any, name: str) -> Any:
    """The value of a key, or of a path into dicts."""
    if not isinstance(info, Mapping):
        return _MISSING
    if name in info:
        return info[name]
    for key in re.split("[/.]", name):
        if not isinstance(info, Mapping) or key not in info:
            return _MISSING
        info = info[key]
    return info


def _paths(info: Any, within: str = "") -> Iterator[str]:
    """What may be asked for of an `info`."""
    if not isinstance(info, Mapping):
        return
    for key, value in info.items():
        yield f"{within}{key}"
        if isinstance(value, Mapping):
            yield from _paths(value, f"{within}{key}/")


def _of_copy(level: Mapping[str, Any], flags: Mapping[str, Any], copy: int) -> dict[str, Any]:
    """One environment's `info` of those of a vector environment."""
    info = {}
    for key, value in level.items():
        if (key.startswith("_") and key[1:] in flags) or not _there(flags.get(f"_{key}"), copy):
            continue
        if isinstance(value, Mapping):
            info[key] = _of_copy(value, value, copy)
        else:
            info[key] = value[copy] if np.ndim(value) or isinstance(value, list) else value
    return info


def _there(flags: Any, copy: int) -> bool:
    return flags is None or bool(flags[copy])


def _array(value: Any, path: str) -> np.ndarray:
    words = path.replace(IN, "/")
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):
        array = np.asarray(None)
    if array.dtype.kind not in "biuf":
        raise InfoFault(
            f"gave `{words}` in its info as {_short(value)}: env_info keeps numbers, booleans and arrays "
            "of them"
        )
    if array.dtype.kind == "f":
        return array.astype(np.float32, copy=False)
    # torch has few operations on these.
    return array.astype(np.int64) if array.dtype.str[1:] in ("u2", "u4", "u8") else array


def _masks(space: Any) -> dict[str, tuple[int, ...]]:
    """The masks of an action, by field: how many choices each of its parts has."""
    return {name: s for name, s in named(ACTION_MASK, map_tree(_choices, space)) if s}


def _choices(space: Space) -> tuple[int, ...]:
    if not space.discrete:
        return ()
    if space.binary:
        return (2,) * space.n
    return space.nvec or (space.n,)


def _mask(value: Any, space: Any, name: str) -> Any:
    """The mask as it is kept: one array for each action, with the choices of its parts in a row.

    Raises:
        InfoFault: If it does not fit.
    """
    if isinstance(space, dict):
        if isinstance(value, (tuple, list)) and len(value) == len(space):
            value = dict(zip(space, value, strict=True))
        parts = {key: part for key, part in space.items() if _masks(part)}
        if isinstance(value, Mapping):
            value = {str(key): part for key, part in value.items()}
        if not isinstance(value, Mapping) or value.keys() - space.keys():
            given = sorted(value) if isinstance(value, Mapping) else f"a {type(value).__name__}"
            raise InfoFault(
                f"gave `{name}` in its info as {given}: a dict with a mask for each of "
                f"{', '.join(parts)} is needed"
            )
        # An action that is not named may be anything.
        return {
            key: _mask(value[key], part, f"{name}/{key}")
            if value.get(key) is not None
            else _everything(part)
            for key, part in parts.items()
        }
    sizes = _choices(space)
    try:
        if isinstance(value, (tuple, list)) and any(np.ndim(part) for part in value):
            value = np.concatenate([np.asarray(part).reshape(-1) for part in value])
        array = np.asarray(value)
        if array.shape == (len(sizes), sizes[0]) and len(set(sizes)) == 1:
            array = array.reshape(-1)
        fits = array.dtype.kind in "biuf" and array.shape == (sum(sizes),)
    except (TypeError, ValueError):
        array, fits = np.asarray(None), False
    if not fits:
        raise InfoFault(
            f"gave `{name}` in its info {_said(array) if array.dtype != object else _short(value)}: a mask "
            f"holds a 1 for each action that is allowed and a 0 for each that is not, [{sum(sizes)}] for "
            f"{space}"
        )
    if not ((array == 0) | (array == 1)).all():
        raise InfoFault(f"gave `{name}` in its info as {_short(array)}: a mask holds 0 and 1 only")
    return array


def _sampling_mask(space: gymnasium.Space[Any], rows: Rows, field_name: str) -> Any:
    """The first mask of some rows, as gymnasium's `space.sample` takes it."""
    if isinstance(space, gymnasium.spaces.Dict):
        parts = named(field_name, dict.fromkeys(space))
        return {
            k: _sampling_mask(space[k], rows, n) for k, (n, _) in zip(space, parts, strict=True)
        }
    if isinstance(space, gymnasium.spaces.Tuple):
        return tuple(
            _sampling_mask(part, rows, f"{field_name}{IN}{i}") for i, part in enumerate(space)
        )
    if field_name not in rows:  # Numbers.
        return None
    mask = rows[field_name][0].astype(np.int8)
    if isinstance(space, gymnasium.spaces.MultiBinary):
        no, yes = mask.reshape(-1, 2).T
        return np.where(no & yes, 2, yes).astype(np.int8).reshape(space.shape)
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        return tuple(np.split(mask, np.cumsum(space.nvec.reshape(-1))[:-1]))
    return mask


def _everything(space: Any) -> Any:
    if isinstance(space, dict):
        return {key: _everything(part) for key, part in space.items() if _masks(part)}
    return np.ones(sum(_choices(space)), np.bool_)


def _never(missing: list[str], others: Mapping[str, None], name: str) -> str:
    """What to say of fields that have not come in a whole episode."""
    lines = []
    for field_name in missing:
        close = difflib.get_close_matches(field_name, others, 1)
        near = f" Did you mean `{close[0]}`?" if close else ""
        lines.append(f"env_info={field_name}: {name} gave no such field in a whole episode.{near}")
    there = ", ".join(f"`{other}`" for other in others)
    lines.append(f"Its info has {there}." if there else "Its info is empty.")
    if not any("Did you mean" in line for line in lines):
        lines.append(
            "One that comes now and then has to come with every episode's end: as 0 where it does not hold."
        )
    return " ".join(lines)


def _said(value: np.ndarray) -> str:
    return f"as {value.dtype} {list(value.shape)}" if value.shape else f"as {value.dtype} {value}"


def _short(value: Any) -> str:
    text = f"{value!r}"
    return text if len(text) < 80 else text[:77] + "..."
