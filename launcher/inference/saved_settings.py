"""The settings of a saved run, with those that the user gives now.

A run directory is data: its names are looked up only if that runs no foreign code, or if the user trusts it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...envs.sources import folder_of, on_hub, table_file_of
from ...replay import ConfigError
from ..settings.dotted import split_target
from ..settings.interpolation import resolve_interpolations
from ..settings.named_by import reaching
from ..settings.object_names import makes_objects, name_of
from ..settings.plan import Plan, make_plan
from ..settings.schema import PARTS, schema
from ..settings.secrets import still_hidden, unsaved_secrets
from ..settings.settings import Settings
from ..settings.trust import (
    known_arguments,
    known_object,
    saved_argument,
    unknown_to_hub,
)

MODULES = ("model", *PARTS)
"""Settings that say what the model is made of."""

DATA = ("dataset", "test_dataset")
"""Settings that say what the run learnt from and is evaluated on."""

MAY_BE_GIVEN = (*MODULES, "strategy", "env", "env_wrappers", *DATA, "data_dir", "device")
"""Settings that may be given again: what the model is made of, its data or environments, and the device."""


class SavedSettings:
    """The settings of a saved run, with those that the user gives now.

    Args:
        path: The run directory, for messages.
        state: Contents of a checkpoint.
        given: What the user gives; only settings of `MAY_BE_GIVEN`.
        trust: Whether names in the directory may be imported.

    Raises:
        ConfigError: For a name that the user must give.
    """

    def __init__(
        self, path: Path, state: Mapping[str, Any], given: Settings, *, trust: bool
    ) -> None:
        self._path, self._given, self._trust = path, given, trust
        self._objects: frozenset[str] = frozenset(state.get("objects", ()))
        self._settings = self._merged(state["settings"])

    def plan(self) -> Plan:
        """The plan of the model alone; no other names are looked up."""
        return make_plan(self._settings, names=MODULES)

    def plan_of_environments(self) -> Plan:
        """The plan with the environments too, to make copies of them."""
        settings = self._settings
        if not (self._trust or self._said("env")):
            settings.live["env"] = self._known("env", settings.values["env"])
        if not (self._trust or self._said("env_wrappers")):
            settings.values["env_wrappers"] = self._known_wrappers(settings.values["env_wrappers"])
        return make_plan(settings, names=(*MODULES, "env", "env_wrappers"))

    def plan_of_strategies(self) -> Plan:
        """The plan with the strategies too, to predict as they do."""
        settings = self._settings
        if not (self._trust or self._said("strategy")):
            settings.live["strategy"] = self._known("strategy", settings.values["strategy"])
        return make_plan(settings, names=(*MODULES, "strategy"))

    def plan_of_data(self) -> Plan:
        """The plan with the data too, to read it."""
        settings = self._settings
        for key in DATA:
            if settings.values[key] is not None and not (self._trust or self._said(key)):
                settings.live[key] = self._known_data(settings.values[key], key)
        return make_plan(settings, names=(*MODULES, *DATA))

    def _merged(self, saved: Mapping[str, Any]) -> Settings:
        """The run's settings, overridden by those that the user gave."""
        given = self._given
        values = {**given.values, **{k: v for k, v in saved.items() if k in given.values}}
        for group in values.keys() - schema().keys():
            # The version that saved it may have had fewer settings: the others keep their defaults.
            values[group] = {**given.values[group], **values[group]}
        settings = Settings(values)
        for key in MAY_BE_GIVEN:
            if key in given.given:
                values[key] = _laid_over(saved.get(key), given, key)
                own = (k for k in given.live if k == key or k.startswith(f"{key}."))
                settings.live |= {k: given.live[k] for k in own}
                settings.given.add(key)
        values["trust"] = self._trust  # Not what the run's file says.
        settings.texts = {
            k: v for k, v in given.texts.items() if k.partition(".")[0] in MAY_BE_GIVEN
        }
        values["device"] = given.values["device"]  # Not that of the machine it was trained on.
        values["compile"] = False
        self._resolve(settings, saved)
        for key in MODULES:
            self._look_up(settings, key)
        return settings

    def _resolve(self, settings: Settings, saved: Mapping[str, Any]) -> None:
        """Replace `${oc.env:NAME}` in what is used here; the rest may need variables of another machine.

        Raises:
            ConfigError: For a variable that is not set, or a secret that the directory does not hold.
        """
        given, used = self._given, (*MODULES, "strategy", "env", "env_wrappers")
        settings.hidden = still_hidden(given.hidden, given.values, settings.values)
        part = replace(settings, values={k: v for k, v in settings.values.items() if k in used})
        part.values["trust"] = self._trust
        part.places = {k: f"{self._path}/config.yaml" for k in saved if k not in given.given}
        mistakes = list(unsaved_secrets(part.values, MODULES))
        resolve_interpolations(part, mistakes)
        if mistakes:
            raise ConfigError("\n".join(mistakes))
        settings.values.update(part.values)
        settings.hidden = part.hidden

    def _look_up(self, settings: Settings, key: str) -> None:
        """Look up what the run's directory names, without running foreign code.

        Raises:
            ConfigError: For a name or an object that the user must give.
        """
        value = settings.values.get(key)
        if not isinstance(value, dict):
            return
        name = value.get("_target_")
        named = self._trust or key in settings.live or self._said(key)
        if not named and isinstance(name, str):
            found = known_object(name, key)
            if found is None:
                raise self._unnamed(key, name)
            settings.live[key] = found
        said = self._said_arguments(key)
        refused = lambda name: self._unnamed(key, name)  # noqa: E731
        for argument, item in value.items():
            path = f"{key}.{argument}"
            if argument == "_target_" or argument in said or path in settings.live:
                continue
            if path in self._objects:
                settings.live[path] = saved_argument(str(item), trust=self._trust)
                if settings.live[path] is None:
                    raise ConfigError(
                        f"{path} was a Python object in the run in {self._path}, {item}. Pass it again, as "
                        f'in {key}={{"_target_": ..., "{argument}": ...}}.'
                    )
            elif not self._trust:
                for reached in reaching(item, key, argument):
                    raise self._unnamed(path, reached)
                value[argument] = known_arguments(item, refused)

    def _said(self, key: str) -> bool:
        """Whether the user names the object of a setting."""
        target, _ = split_target(self._given.values.get(key))
        return key in self._given.given and target is not None

    def _said_arguments(self, key: str) -> set[str]:
        _, arguments = split_target(self._given.values.get(key))
        return set(arguments) if key in self._given.given else set()

    def _known(self, key: str, value: object) -> Any:
        """The objects that the run's directory names for a setting, such as its environments.

        Raises:
            ConfigError: For a name that the user must give.
        """
        refused = lambda name: self._unnamed(key, name)  # noqa: E731

        def found(item: object) -> Any:
            name, arguments = split_target(item)
            target = known_object(str(name), key)
            if target is None:
                raise self._unnamed(key, str(name))
            for argument, value in arguments.items():
                for reached in reaching(value, key, argument):
                    raise self._unnamed(f"{key}.{argument}", reached)
            return {"_target_": target, **known_arguments(arguments, refused)}

        return [found(item) for item in (value if isinstance(value, list) else [value])]

    def _known_wrappers(self, value: object) -> Any:
        """The wrappers that the run's directory names, by full names, which no file here can shadow.

        Raises:
            ConfigError: For wrappers other than gymnasium's, and for functions given by name.
        """
        if value is None:
            return None
        found = []
        for item in value if isinstance(value, list) else [value]:
            target, arguments = split_target(item)
            name = str(target)
            known = known_object(name, "env_wrappers")
            # Text may name a function that the wrapper would look up and call.
            if known is None or not all(map(_is_plain, arguments.values())):
                raise self._unnamed("env_wrappers", name)
            found.append({"_target_": name_of(known), **arguments} if arguments else name_of(known))
        return found

    def _unnamed(self, key: str, name: str) -> ConfigError:
        """The error for a name that is not looked up, with what to do about it."""
        what = f"The {'environment' if key == 'env' else key} of the run in {self._path}"
        if key in DATA and " of " in name:
            return ConfigError(
                f"{what} was a Python object ({name}), which the directory does not hold. Give the data: "
                f"run.evaluate(dataset=...), or antelope.load(path, {key}=...)."
            )
        if name.startswith(("instance of ", "partial of ")):
            return ConfigError(
                f"{what} was a Python object ({name}). Pass one that is constructed in the same way: "
                f"antelope.load(path, {key}=...)."
            )
        if key == "env" and not {":", "."} & set(name):
            return ConfigError(
                f"{what} is {name}, which is not registered with gymnasium here. Import what registers it "
                "first, or give the class: env=..."
            )
        file, _, last = name.rpartition(":")
        python = last if file.endswith(".py") or not file else repr(name)
        python = python.rpartition(".")[2] + " (the class)" if python == last else python
        return ConfigError(
            f"{what} is {name}, and loading imports no code that a run directory names. Name it here: "
            f"{key}={python} in Python, {key}={name} in a console. Or set trust=true to import whatever "
            "the directory names."
        )

    def _known_data(self, value: object, key: str) -> Any:
        """The data sets that the run's directory names: folders, tables, the hub's, ours and torchvision's.

        Raises:
            ConfigError: For any other name.
        """
        if isinstance(value, list):
            return [self._known_data(item, key) for item in value]
        name, arguments = split_target(value)
        if on_hub(name) is not None and (unknown := unknown_to_hub(arguments)):
            raise self._unnamed(f"{key}.{unknown[0]}", str(arguments[unknown[0]]))
        if (
            folder_of(name) is not None
            or table_file_of(name) is not None
            or str(name).lower().endswith(".tar")
            or on_hub(name) is not None
        ):
            return value
        target = known_object(str(name), "dataset")
        if target is None:
            raise self._unnamed(key, str(name))
        return {"_target_": target, **arguments} if arguments else target


def _laid_over(saved: object, given: Settings, key: str) -> Any:
    """A setting as the user gives it, completed by the run's arguments unless it is an object."""
    value = given.values[key]
    target = given.live.get(key)
    takes = target is None or makes_objects(target)
    if isinstance(saved, dict) and isinstance(value, dict) and takes:
        return {**saved, **value}
    return value


def _is_plain(value: object) -> bool:
    """Whether an argument is free of names of functions and of objects to construct."""
    if isinstance(value, list):
        return all(isinstance(part, str) or _is_plain(part) for part in value)
    return not isinstance(value, (str, Mapping))
