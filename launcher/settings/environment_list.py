"""`ml envs`: the environments that can be named, by the package they come from."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...replay.errors import ConfigError
from ...replay.suggestions import did_you_mean
from .environment_names import import_module
from .environment_packages import Package, here, installed
from .names import builtin_names, describe_names

if TYPE_CHECKING:
    from gymnasium.envs.registration import EnvSpec

_SHOWN = 12  # Names of a package that registers many, unless it is asked for.


@dataclass
class _Group:
    """Names of one package.

    Attributes:
        prefix: What names begin with, `minigrid:`, while it is not imported.
        whole: Whether all names are shown.
    """

    title: str
    names: list[str]
    prefix: str = ""
    module: str = ""
    whole: bool = False


def print_environments(words: list[str]) -> None:
    """Print all environments, those of a named package, or those that match every word.

    Raises:
        ConfigError: If none match, or the package registers none.
    """
    if len(words) == 1 and (package := _package(words[0])) is not None:
        return _show([_of(package)])
    groups = [_Group("Built in", builtin_names("env"), whole=True), *_registered(), *_others()]
    if words:
        groups = _with(groups, words)
    _show(groups)
    if not words:
        print(
            "\n`ml envs WORD` lists those with that word, `ml envs PACKAGE` all of a package. Also "
            "file.py:Name, a dotted path, or @register('name') in your own code."
        )


def _package(word: str) -> Package | None:
    """The installed package, or file here, of that name."""
    for package in (*here(), *installed()):
        if word in (package.name, package.module):
            return package
    if word.isidentifier() and Path(f"{word}.py").is_file():
        return Package(f"{word}.py", word, Path(f"{word}.py"), ())
    return None


def _of(package: Package) -> _Group:
    """Everything that a package registers; it is imported, since the user has named it."""
    import gymnasium

    # New ids count wherever their code lies; if the package was already imported, none are new.
    before = set(gymnasium.registry)
    import_module(package.module, package.module)
    names = [
        env_id
        for env_id, spec in gymnasium.registry.items()
        if env_id not in before or _place(spec).partition(".")[0] == package.module
    ]
    if not names:
        raise ConfigError(f"{package.name} registers no environments.")
    # Names of ale-py need no module: Antelope imports it by itself.
    prefix = "" if package.module == "ale_py" else f"{package.module}:"
    return _Group(package.name, names, prefix, package.module, whole=True)


def _registered() -> list[_Group]:
    """What is already registered: by gymnasium, ale-py, and packages that gymnasium has loaded."""
    import gymnasium

    if importlib.util.find_spec("ale_py") is not None:
        import_module("ale_py", "ale_py")
    groups: dict[str, _Group] = {}
    for env_id, spec in gymnasium.registry.items():
        module = _place(spec).partition(".")[0]
        group = groups.setdefault(module, _Group(module, [], module=module))
        group.whole = module == "gymnasium"
        group.names.append(env_id)
    return list(groups.values())


def _others() -> list[_Group]:
    """What importing further packages would register, read from their source."""
    import gymnasium

    groups = []
    for package in (*installed(), *here()):
        if names := [env_id for env_id in package.ids if env_id not in gymnasium.registry]:
            groups.append(_Group(package.name, names, f"{package.module}:", package.module))
    return groups


def _place(spec: EnvSpec | None) -> str:
    """The module that defines an environment's entry point; empty if it has none."""
    place = None if spec is None else spec.entry_point or spec.vector_entry_point
    if place is None:
        return ""
    return str(place if isinstance(place, str) else place.__module__).partition(":")[0]


def _with(groups: Iterable[_Group], words: list[str]) -> list[_Group]:
    """The names that contain every word, in themselves, their package or their module, in any case."""
    import gymnasium

    found, everything = [], []
    for group in groups:
        everything += group.names
        names = []
        for name in group.names:
            place = _place(gymnasium.registry.get(name))
            written = f"{group.title} {group.prefix}{name} {place}".lower()
            if all(word.lower() in written for word in words):
                names.append(name)
        if names:
            found.append(_Group(group.title, names, group.prefix, group.module, whole=True))
    if not found:
        near = did_you_mean(" ".join(words), everything)
        raise ConfigError(f"No environment has `{' '.join(words)}` in its name.{near}")
    return found


def _show(groups: list[_Group]) -> None:
    for number, group in enumerate(groups):
        own = group.title == "Built in"
        names = sorted(group.names, key=str.lower)
        how = f", named with its module: env={group.prefix}{names[0]}" if group.prefix else ""
        title = group.title if own else f"From {group.title}{how}"
        shown = names if group.whole else names[:_SHOWN]
        print(f"{chr(10) if number else ''}{title}\n{describe_names(shown)}")
        if rest := len(names) - len(shown):
            print(f"  ... and {rest} more: ml envs {group.module}")
