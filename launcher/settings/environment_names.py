"""gymnasium's names of environments: ids, and `module:id` for those of a package that registers its own.

A word that the user typed may import the module it names. Nothing else is imported to answer a name:
what installed packages and the files here register is read from their source.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import inspect
import io
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeGuard

from ...replay.errors import ConfigError
from ...replay.suggestions import did_you_mean, nearest
from .environment_packages import Package, find_top, here, installed
from .import_path import add_to_path, file_of, is_data
from .warn import warn_caller

if TYPE_CHECKING:
    from gymnasium.envs.registration import EnvSpec

# What gymnasium's own environments need, by where they are defined: the module, how it is installed.
_NEEDS = {
    "ale_py": ("ale_py", "antelope-ml[atari]"),
    "gymnasium.envs.box2d": ("Box2D", "antelope-ml[box2d]"),
    "gymnasium.envs.mujoco": ("mujoco", "antelope-ml[mujoco]"),
    "gymnasium.envs.phys2d": ("jax", "gymnasium[jax]"),
    "gymnasium.envs.tabular": ("jax", "gymnasium[jax]"),
}
# Packages that register names beginning so: how each is installed, and imported.
_KNOWN = {
    "MiniGrid-": ("minigrid", "minigrid"),
    "BabyAI-": ("minigrid", "minigrid"),
    "highway-": ("highway-env", "highway_env"),
    "FlappyBird-": ("flappy-bird-gymnasium", "flappy_bird_gymnasium"),
    "dm_control/": ("shimmy[dm-control]", "shimmy"),
    "Fetch": ("gymnasium-robotics", "gymnasium_robotics"),
    "AntMaze": ("gymnasium-robotics", "gymnasium_robotics"),
    "PointMaze": ("gymnasium-robotics", "gymnasium_robotics"),
    "FrankaKitchen-": ("gymnasium-robotics", "gymnasium_robotics"),
}
_ID = re.compile(r"(?:([\w:-]+)/)?([\w:.-]+?)(?:-v(\d+))?")


def environment(name: str) -> Any:
    """What makes the environment of a gymnasium id, or of `module:id`, whose module is imported.

    The colon may also be followed by a class or function of the module, as in gymnasium's `entry_point`.

    Returns:
        A function that makes one, or None for a name without a module that is not registered.

    Raises:
        ConfigError: If the module cannot be imported or registers no such environment, or a package
            that the environment needs is not installed.
    """
    import gymnasium

    module, env_id = split(name)
    if module:
        before = set(gymnasium.registry)
        imported = import_module(module, name)
        if env_id not in gymnasium.registry:
            if callable(item := getattr(imported, env_id, None)):
                return item
            raise ConfigError(_not_in(name, imported, set(gymnasium.registry) - before))
    elif env_id not in gymnasium.registry and importlib.util.find_spec("ale_py") is not None:
        import_module("ale_py", name)  # Importing it registers its games.
    spec = gymnasium.registry.get(env_id)
    if spec is not None:
        return _maker(name, env_id, str(spec.entry_point))
    if env_id.startswith("ALE/"):
        _check_installed(name, "ale_py")
    return None


def of_spec(spec: EnvSpec) -> Any:
    """A function that makes the environment which an EnvSpec describes."""
    make = functools.partial(make_registered, spec)
    make.__name__ = spec.id  # type: ignore[attr-defined]
    return make


def registered_as(item: object) -> str | None:
    """The id under which gymnasium has registered an EnvSpec; None for anything else."""
    import gymnasium
    from gymnasium.envs.registration import EnvSpec

    if isinstance(item, EnvSpec) and gymnasium.registry.get(item.id) == item:
        return item.id
    return None


def make_registered(name: str | EnvSpec, **arguments: Any) -> Any:
    """One environment, by its id, its `module:id`, or its EnvSpec.

    Imports the module in the current process, which may be a worker. Gymnasium's own checker is off: the
    run itself checks what environments return, at every step.
    """
    import gymnasium

    spec = _spec(name)
    try:
        with warnings.catch_warnings():
            # It is about float64 bounds, which whoever names an environment cannot change.
            warnings.filterwarnings("ignore", message=".*precision lowered by casting")
            return gymnasium.make(spec, **{"disable_env_checker": True, **arguments})
    except ImportError as error:  # Gymnasium keeps old versions' ids, but not their code.
        if (newest := _newest(spec.id)) == spec.id:
            raise
        raise ConfigError(f"{spec.id} cannot be made: {error} Use env={newest}.") from error


def vector_form(target: object, arguments: dict[str, Any]) -> Callable[[int], Any] | None:
    """What builds n copies as one vector environment, if a gymnasium id has such a form."""
    import gymnasium

    if not _makes_registered(target):
        return None
    name, mode = target.args[0], "vector_entry_point"
    if _spec(name).vector_entry_point is None:
        return None
    arguments = {**target.keywords, **arguments}
    return lambda n: gymnasium.make_vec(
        _spec(name), num_envs=n, vectorization_mode=mode, **arguments
    )


def creator(target: object) -> Any:
    """The class or function that makes the environment of an id; None for anything else."""
    from gymnasium.envs.registration import load_env_creator

    if not _makes_registered(target) or not target.args:
        return None
    try:
        entry = _spec(target.args[0]).entry_point
        return entry if callable(entry) else load_env_creator(entry)
    except Exception:  # A dependency may be missing; making the environment reports it.
        return None


def _makes_registered(target: object) -> TypeGuard[functools.partial[Any]]:
    """Whether calling it makes the environment of an id or an EnvSpec."""
    import gymnasium

    makers = (make_registered, gymnasium.make)
    return isinstance(target, functools.partial) and target.func in makers


def taken_by_make() -> dict[str, inspect.Parameter]:
    """Parameters of gymnasium.make itself, which it has for every environment."""
    import gymnasium

    parameters = inspect.signature(gymnasium.make).parameters
    return {k: p for k, p in parameters.items() if k != "id" and p.kind is not p.VAR_KEYWORD}


def split(name: str) -> tuple[str, str]:
    """The module and the id of `module:id`; no module (`""`) in front of a bare id.

    >>> split("ale_py:ALE/Pong-v5"), split("CartPole-v1")
    (('ale_py', 'ALE/Pong-v5'), ('', 'CartPole-v1'))
    """
    module, colon, env_id = name.partition(":")
    if colon and all(part.isidentifier() for part in module.split(".")):
        return module, env_id
    return "", name


def import_module(module: str, name: str) -> ModuleType:
    """Import a module that the user named; an installed package's prints and warnings are hidden.

    Args:
        name: What the user wrote, for errors.

    Raises:
        ConfigError: If there is none, or importing it raises.
    """
    if module in sys.modules:
        return sys.modules[module]
    spec = find_top(module)
    if spec is None and not is_data(Path.cwd()):
        add_to_path(Path.cwd())  # Not before: a file here must not replace an installed package.
        spec = find_top(module)
    if spec is None:
        raise ConfigError(_no_module(module, name))
    running = file_of(sys.modules["__main__"])
    if spec.origin and running and Path(spec.origin).resolve() == Path(running).resolve():
        return sys.modules["__main__"]  # The script that is running must not run a second time.
    try:
        with _quietly(spec.origin):
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise ConfigError(_import_failed(name, module, error)) from error
        raise ConfigError(_no_module(module, name)) from None
    except (Exception, SystemExit) as error:
        raise ConfigError(_import_failed(name, module, error)) from error


def all_names() -> list[str]:
    """Every id that can be named without an import, and every `module:id` that is known."""
    import gymnasium

    others = [f"{p.module}:{i}" for p in (*installed(), *here()) for i in p.ids]
    return sorted([*gymnasium.registry, *others], key=str.lower)


def miss(name: str, others: Iterable[str]) -> str:
    """The message for an unknown environment, with what to write instead.

    Args:
        others: Names of environments that are not gymnasium's.
    """
    import gymnasium

    start = f"No environment `{name}`"
    if called := re.search(r"make(?:_vec)?\(\s*[\"']?([\w./:-]+)", name):
        return f"{start}: the id alone is enough. Write env={called[1]}."
    packages = [*here(), *installed()]
    distribution, colon, rest = name.partition(":")
    if colon and (of := next((p for p in packages if p.name == distribution), None)):
        return f"{start}: {of.name} is imported as `{of.module}`. Write env={of.module}:{rest}."
    if package := next((p for p in packages if name in (p.name, p.module)), None):
        return (
            f"{start}: that is the package. Name one of its environments, as in env={_one_of(package)}. "
            f"`ml envs {package.module}` lists them."
        )
    for package in packages:
        if name in package.ids:
            return (
                f"{start}: {package.name} registers it and is not imported yet. Name the module too "
                f"(gymnasium's `module:id`): env={package.module}:{name}."
            )
    imported = {gymnasium_id: gymnasium_id for gymnasium_id in gymnasium.registry}
    spelled = {i: f"{p.module}:{i}" for p in packages for i in p.ids} | imported
    if near := _of_the_same_name(name, spelled):
        _, _, version = _parts(name)
        why = "ids end in a version" if version is None else "it has other versions"
        return f"{start}: {why}. Use {' or '.join(f'`{n}`' for n in near)}. `ml envs` lists all."
    for prefix, (package_name, module) in _KNOWN.items():
        if name.startswith(prefix) and importlib.util.find_spec(module) is None:
            return (
                f"{start}: {package_name} is not installed. pip install '{package_name}', and write "
                f"env={module}:{name}."
            )
    close = [spelled.get(n, n) for n in nearest(name, [*spelled, *others])]
    mean = f" Did you mean {' or '.join(f'`{n}`' for n in close)}?" if close else ""
    return (
        f"{start}.{mean} `ml envs` lists what can be named. If the package is not imported yet, name its "
        f"module too: env=module:{name.strip(' :')}. Looked in the .py files of {Path.cwd()}."
    )


def _spec(name: str | EnvSpec) -> Any:
    import gymnasium

    if not isinstance(name, str):
        return name  # An EnvSpec.
    module, env_id = split(name)
    if module:
        import_module(module, name)
    return gymnasium.registry[env_id]


def _maker(name: str, env_id: str, place: str) -> Any:
    """What makes a registered environment; warns if a newer version is registered."""
    import gymnasium

    _check_installed(name, place)
    if gymnasium.registry[env_id].entry_point is None:
        raise ConfigError(
            f"{name} is registered as a vector environment only. Give a function that makes it: "
            f'ml(env=lambda: gymnasium.make_vec("{name}", num_envs=8)).'
        )
    if (newest := _newest(env_id)) != env_id:
        warn_caller(f"{env_id} is out of date: the newest version is {newest}.")
    # Imports it in other processes too.
    module = "ale_py:" if place.startswith("ale_py") and ":" not in name else ""
    make = functools.partial(make_registered, module + name)
    make.__name__ = env_id  # type: ignore[attr-defined]
    return make


def _check_installed(name: str, place: str) -> None:
    """Raise ConfigError if a package that an environment needs is missing.

    Args:
        place: The module of its entry point.
    """
    for needed, (package, install) in _NEEDS.items():
        if place.startswith(needed) and importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"{name} needs {package}, which is not installed: pip install '{install}'."
            )


def _newest(env_id: str) -> str:
    """The id of an environment's highest registered version."""
    import gymnasium

    namespace, base, version = _parts(env_id)
    if version is None:
        return env_id
    versions = [_parts(other) for other in gymnasium.registry]
    highest = max(
        (v for ns, b, v in versions if (ns, b) == (namespace, base) and v is not None),
        default=version,
    )
    return env_id if highest <= version else re.sub(r"\d+$", str(highest), env_id)


def _parts(env_id: str) -> tuple[str | None, str, int | None]:
    """Namespace, name and version of an id."""
    match = _ID.fullmatch(env_id)
    if match is None:
        return None, env_id, None
    namespace, base, version = match.groups()
    return namespace, base, None if version is None else int(version)


def _of_the_same_name(name: str, spelled: dict[str, str]) -> list[str]:
    """Names of an environment's newest version; in other namespaces if its own has none."""
    namespace, base, _ = _parts(split(name)[1])
    best: dict[str | None, tuple[int, str]] = {}
    for env_id, written in spelled.items():
        ns, other, version = _parts(env_id)
        if other.lower() == base.lower() and namespace in (None, ns):
            best[ns] = max(best.get(ns, (-1, "")), (version or 0, written))
    same = [written for version, written in best.values() if version == _parts(split(name)[1])[2]]
    own = best.get(namespace)
    return [*same, own[1]] if own else [written for _, written in best.values()]


def _not_in(name: str, module: ModuleType, new: set[str]) -> str:
    """The message for a module that registers no such environment, with the nearest that it does."""
    import gymnasium

    top, env_id = module.__name__.partition(".")[0], split(name)[1]
    entries = {i: str(spec.entry_point) for i, spec in gymnasium.registry.items()}
    known = [i for i, entry in entries.items() if i in new or re.match(rf"{top}\b", entry)]
    start = f"No environment `{name}`: {module.__name__} registers no `{env_id}`."
    if not env_id:
        start = f"No environment `{name}`: name one after the colon."
    if known:
        known += [n for n, item in vars(module).items() if inspect.isclass(item) and n[0] != "_"]
    if not known:
        origin = file_of(module)
        where = f" (it is {origin})" if origin else ""
        return f"{start} It registers no environments{where}."
    prefix = split(name)[0]
    close = _of_the_same_name(env_id, {i: i for i in known}) or nearest(env_id, known)
    mean = f" Did you mean {' or '.join(f'`{prefix}:{n}`' for n in close)}?" if close else ""
    return f"{start}{mean} `ml envs {top}` lists what it registers."


def _no_module(module: str, name: str) -> str:
    start, env_id = f"No environment `{name}`: there is no module `{module}`.", split(name)[1]
    packages = [*here(), *installed()]
    for package in packages:
        if env_id in package.ids:
            return f"{start} {package.name} registers it: env={package.module}:{env_id}."
    for prefix, (package_name, known) in _KNOWN.items():
        if module == known or env_id.startswith(prefix):
            return f"{start} pip install '{package_name}', and write env={known}:{env_id}."
    near = did_you_mean(module, [package.module for package in packages])
    return (
        f"{start}{near} It is imported by that name, so install the package that it comes from, or "
        f"write the name of a .py file in {Path.cwd()}."
    )


def _one_of(package: Package) -> str:
    return f"{package.module}:{package.ids[0] if package.ids else 'NAME'}"


def _import_failed(name: str, module: str, error: BaseException) -> str:
    return f"{name}: importing {module} raised {type(error).__name__}: {error}"


@contextmanager
def _quietly(origin: str | None) -> Iterator[None]:
    """Hide what an installed package prints and warns about, but nothing from the user's own files.

    Args:
        origin: The file that is imported; None if unknown.
    """
    if origin is not None and "-packages" not in origin:
        yield
        return
    silent = io.StringIO()
    with warnings.catch_warnings(), redirect_stdout(silent), redirect_stderr(silent):
        warnings.simplefilter("ignore")
        yield
