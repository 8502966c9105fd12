"""Look up the objects that settings name, and find what is wrong with them and their arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ...envs.forms import form
from ...envs.sources import OnHub, check_file, folder_of, on_hub, table_file_of
from ...replay import ConfigError
from ...replay.suggestions import did_you_mean
from .construct import near_among_any, unknown_arguments
from .dotted import split_target
from .environment_names import of_spec, registered_as
from .kinds import model_kind
from .metric_names import recorded_name
from .named import Named
from .named_by import find, refused
from .object_names import canonical_name, makes_objects, name_of, short_name
from .schema import schema
from .settings import Settings
from .warn import warn_caller

# Only these: `strategy=er` must not mean a folder `er`, in which someone keeps runs of it.
_MAY_BE_FOLDERS = ("dataset", "test_dataset")


def named_object(settings: Settings, key: str) -> Named:
    """What `key` names, with its sub-keys.

    The name recorded in the configuration becomes the canonical one, so that both doors write the
    same `config.yaml`.

    Raises:
        ConfigError: If the name is unknown, or there are arguments without a name.
    """
    value: Any = settings.values[key]
    arguments = {k: v for k, v in (value or {}).items() if k != "_target_"}
    for name, item in settings.live.items():
        if name.startswith(f"{key}."):
            arguments[name.split(".", 1)[1]] = item
    if key in settings.live:
        item = settings.live[key]
        if key == "env" and (env_id := registered_as(item)) is not None:
            # Recorded by id, so that the run can be resumed and loaded without the object.
            settings.values[key] = {"_target_": env_id, **arguments}
        return _found(settings, key, item, arguments)
    if value is not None and "_target_" not in value:
        pair = (
            f" Pass arrays of a dict as a pair, {key}=(inputs, targets)."
            if "dataset" in key
            else ""
        )
        raise ConfigError(
            f"`{key}` has arguments ({', '.join(arguments)}) but no name: {key}=NAME.{pair}"
        )
    assert value is not None
    item = find(settings, value["_target_"], key, f"{key}._target_")
    value["_target_"] = _recorded(value["_target_"], item, key)
    return _found(settings, key, item, arguments)


def _recorded(name: str, item: object, key: str) -> str:
    """The name that the configuration holds for what a name means."""
    return recorded_name(name, item) if key == "metrics" else canonical_name(name, item)


def _found(settings: Settings, key: str, item: object, arguments: dict[str, Any]) -> Named:
    name, _ = split_target(settings.values[key])
    item = _environment(item) if key == "env" else item
    return Named(key, item, with_classes(settings, arguments, key), str(name))


def with_classes(settings: Settings, arguments: dict[str, Any], key: str) -> dict[str, Any]:
    """Arguments in which every `{_target_: NAME, ...}` holds the class instead of its name.

    Raises:
        ConfigError: If a name is unknown, or may not be named by whoever gave it.
    """
    return {n: _with_class(settings, value, key, f"{key}.{n}") for n, value in arguments.items()}


def _with_class(settings: Settings, value: object, key: str, at: str) -> Any:
    if isinstance(value, list):
        return [_with_class(settings, item, key, at) for item in value]
    # Only what a constructor would construct: other dicts are values, and stay the user's own objects.
    if not isinstance(value, Mapping) or "_target_" not in value:
        return value
    name = value["_target_"]
    found = {n: _with_class(settings, part, key, at) for n, part in value.items()}
    return {**found, "_target_": find(settings, name, key, at) if isinstance(name, str) else name}


def _environment(item: object) -> Any:
    """A value of `env=`, checked; an EnvSpec becomes what makes its environment.

    Raises:
        ConfigError: If it neither is an environment nor makes one.
    """
    import gymnasium
    from gymnasium.envs.registration import EnvSpec

    from ...envs.not_an_environment import advice_for, refuse_other

    if isinstance(item, EnvSpec):
        return of_spec(item)
    if isinstance(item, ModuleType):
        what, advice = advice_for(item) or (
            f"the module {item.__name__}",
            f"Name one of its environments: env={item.__name__}:NAME. `ml envs {item.__name__}` lists them.",
        )
        raise ConfigError(f"env is {what}. {advice}")
    ours = inspect.isclass(item) and issubclass(item, (gymnasium.Env, gymnasium.vector.VectorEnv))
    if inspect.isclass(item) and not ours and (known := advice_for(item)) is not None:
        raise ConfigError(f"env={name_of(item)} is {known[0]}, not a gymnasium.Env. {known[1]}")
    if not callable(item):
        refuse_other(item, made=False)
    return item


def named_objects(settings: Settings, key: str) -> list[Named]:
    """The objects that a setting such as `dataset=`, `env=` or `strategy=` names, each with its arguments.

    A folder of images is a `Path`.

    Raises:
        ConfigError: If a value is ambiguous, or a name is unknown.
    """
    value = settings.live.get(key, settings.values[key])
    of_data = key in _MAY_BE_FOLDERS
    kind = form(value) if of_data else "sequence" if isinstance(value, (list, tuple)) else "one"
    if kind == "unclear":
        raise ConfigError(
            f"{key}= is a pair of pairs: two tasks, or training and held-out data? Write a sequence as a "
            "list of tuples, [(x, y), (x, y)], and held-out data as dataset=(x, y), test_dataset=(x, y)."
        )
    if kind == "vectors":
        raise ConfigError(
            f"{key}= lists {len(value)} pairs of vectors: items (input, target), or {len(value)} data sets "
            "with one number per row? Write items as one pair of arrays, (numpy.stack(inputs), "
            "numpy.stack(targets)), and the inputs of data sets as columns, x[:, None]."
        )
    if kind == "arrays":
        raise ConfigError(
            f"{key}= holds {len(value)} arrays. Give a pair (inputs, targets), with several inputs as a "
            "dict, ({'first': a, 'second': b}, targets); held-out data is test_dataset=(inputs, targets)."
        )
    if of_data and kind == "sequence" and _lists_words(value):
        raise ConfigError(
            f"{key}= lists words, such as the names of files, as inputs. Put pictures in a folder for each "
            "class and give the folder, or write a Dataset whose __getitem__(i) opens file i and returns "
            "(input, target). Encode text as numbers."
        )
    if kind != "sequence":
        return [(of_data and _folder(key, value)) or named_object(settings, key)]
    parts: list[Named] = []
    names: list[Any] = []
    written = settings.values[key]
    for place, item in enumerate(value):
        arguments: dict[str, Any] = {}
        if isinstance(item, dict):  # Not any Mapping: an open .npz or HDF5 file is a data set.
            if "_target_" not in item:
                raise ConfigError(
                    f"`{key}` lists {item!r:.60}, which has arguments but no name: "
                    '{"_target_": NAME, ...}, or an object.'
                )
            item, arguments = split_target(item)
        elif value is not written:  # Objects of code, whose arguments words may have added to.
            arguments = split_target(written[place])[1]
        name = item if isinstance(item, str) else name_of(item)
        if isinstance(item, str):
            item = (of_data and _path_of(item)) or find(settings, item, key, f"{key}._target_")
            name = _recorded(name, item, key)
        elif key == "env":
            name, item = registered_as(item) or name, _environment(item)
        parts.append(Named(key, item, with_classes(settings, arguments, key), str(name)))
        names.append({"_target_": name, **arguments} if arguments else name)
    settings.values[key] = names
    return parts


def _lists_words(value: Any) -> bool:
    """Whether a list holds lists of words: `(paths, labels)`, or `(path, label)` for each file."""
    return any(
        isinstance(part, (list, tuple)) and any(isinstance(word, (str, Path)) for word in part)
        for part in value
    )


def _folder(key: str, value: object) -> Named | None:
    """The folder or the file that a setting names, and its sub-keys; None if it names none."""
    name, arguments = split_target(value)
    path = _path_of(name)
    return None if path is None else Named(key, path, arguments, str(path))


def _path_of(name: object) -> Path | OnHub | None:
    """The folder, or the file of a table, that a name is the path of; or a data set on the hub.

    Raises:
        ConfigError: If there is no such file.
    """
    if (hub := on_hub(name)) is not None:
        return hub
    if (path := folder_of(name)) is not None:
        return path
    if isinstance(name, (str, Path)) and str(name).lower().endswith(".tar"):
        return Path(name).expanduser() if str(name).startswith("~") else Path(name)
    if (path := table_file_of(name)) is None:
        check_file(name)
        return None
    if not path.is_file():
        near = did_you_mean(path.name, (p.name for p in path.parent.glob(f"*{path.suffix}")))
        raise ConfigError(f"There is no file {name} (looked in {path.parent.resolve()}).{near}")
    return path


def unresolved(settings: Settings) -> list[str]:
    """Every mistake in the given names and in their arguments."""
    mistakes = []
    for key, setting in schema().items():
        value = settings.values.get(key)
        if not setting.names_object or value is None:
            continue
        # Whatever else a run folder says was given: its arguments are text of a file.
        if found := refused(settings, key):
            mistakes += found
            continue
        if key not in settings.given:
            continue
        for item in value if isinstance(value, list) else [value]:
            named, given = split_target(item)
            target: Any = settings.live.get(key, named)
            # `subset` is ours: it chooses classes of any data set, once that is read.
            arguments = [name for name in given if name != "subset"]
            try:
                folder = key in _MAY_BE_FOLDERS and _path_of(target) is not None
                if isinstance(target, str) and not folder:
                    target = find(settings, target, key, f"{key}._target_")
            except ConfigError as error:
                mistakes.append(settings.place(f"{key}._target_") + str(error))
                continue
            kind = model_kind(target) if key == "model" else None
            if kind is not None and makes_objects(target):
                values = {n: settings.live.get(f"model.{n}", given[n]) for n in arguments}
                mistakes += kind.mistakes(target, values)
            elif makes_objects(target):
                # The launcher passes their first argument: parameters, optimiser, environment.
                skip = 1 if key in ("optim", "scheduler", "env_wrappers") else 0
                if key == "metrics" and inspect.isroutine(target):
                    skip = 2  # output and label
                if key == "optim":  # `groups` is ours: torch has groups inside the first argument.
                    arguments = [name for name in arguments if name != "groups"]
                elif key == "loss" and not inspect.isclass(target):
                    skip = 2  # A function receives the output and the label first.
                elif short_name(target) == "ChainedScheduler":
                    skip = 0  # Its first parameter is the schedulers.
                if key == "env":
                    _warn_of_near_names(target, arguments)
                for name in arguments:
                    found = unknown_arguments(target, [name], setting=key, skip=skip)
                    mistakes += [settings.place(f"{key}.{name}") + text for text in found]
    return mistakes


def _warn_of_near_names(target: Callable[..., Any], arguments: list[str]) -> None:
    """Warn of arguments that end up in **kwargs although a parameter has almost the same name."""
    for name in arguments:
        if near := near_among_any(target, name):
            warn_caller(
                f"`env.{name}` is not a parameter of {short_name(target)}, whose **kwargs "
                f"accept it. Did you mean `env.{near}`?"
            )
