"""Environments and wrappers that a preset names: a preset is data, and runs no code of its own.

It may name what gymnasium, Antelope and installed packages of environments provide. Anything else must
be named by the user, as a console word or in code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .environment_names import split
from .object_names import name_of
from .settings import Settings
from .trust import known_argument, known_object, may_be_imported

ENVIRONMENTS = ("env", "env_wrappers")


def refused_names(settings: Settings, key: str) -> list[str]:
    """A message for every name under `env` or `env_wrappers` that would run code nobody here named.

    Names of gymnasium's wrappers are completed, so that no file in the working directory can shadow them.
    """
    value = settings.values[key]
    of_list = isinstance(value, list)
    mistakes = []
    for number, item in enumerate(value if of_list else [value]):
        node = item if isinstance(item, Mapping) else {"_target_": item}
        name = node.get("_target_")
        if isinstance(name, str) and settings.place(f"{key}._target_"):
            known = known_object(name, key) if key == "env_wrappers" else None
            if known is not None:
                full = name_of(known)
                if isinstance(item, dict):
                    item["_target_"] = full
                else:
                    value[number] = full
            elif not may_be_imported(name, key):
                mistakes.append(f"{settings.place(f'{key}._target_')}{_refusal(key, name)}")
                continue
        for argument, given in node.items():
            place = settings.places.get(key if of_list else f"{key}.{argument}")
            if argument != "_target_" and place:
                names = _run_by(given, key, argument)
                mistakes += [f"{place}: {_refusal(f'{key}.{argument}', n)}" for n in names]
    return mistakes


def _run_by(value: object, key: str, argument: str = "") -> Iterator[str]:
    """The names in an argument that are looked up and called, other than torch's and ours.

    Args:
        argument: The argument whose whole value it is; empty for a part of one.
    """
    if isinstance(value, Mapping):
        name = value.get("_target_")
        if (
            isinstance(name, str)
            and known_argument(name) is None
            and not may_be_imported(name, "env")
        ):
            yield name
        for part in value.values():
            yield from _run_by(part, key)
    elif isinstance(value, list):
        for part in value:
            yield from _run_by(part, key)
    elif isinstance(value, str):
        # Wrappers' texts may be names of functions; an environment may make what `module:id` names.
        looked_up = key == "env_wrappers" and (argument == "func" or (argument and "." in value))
        if looked_up or (split(value)[0] and not may_be_imported(value, "env")):
            yield value


def _refusal(key: str, name: str) -> str:
    module = split(name)[0] or name.rpartition(".")[0]
    what = f" imports {module}, which is" if module else ": it is"
    root = key.partition(".")[0]
    again = f"{root}={name}" if root == key else f"{root}=[...], with {name} in it"
    return (
        f"{key}={name}{what} not part of Antelope, gymnasium or an installed package "
        "of environments, and a preset runs no code of its own. To allow it, name it yourself, as a word: "
        f"{again}."
    )
