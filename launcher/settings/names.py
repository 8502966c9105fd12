"""Names become classes (`resolve`), and constructors get their arguments by name (`construct`)."""

from __future__ import annotations

import ast
import difflib
import functools
import importlib
import importlib.util
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, TypeVar

from ...replay.errors import ConfigError
from ..assembly.passed_on import parameters_behind
from . import environment_names
from .compose import did_you_mean, name_of, nearest
from .foreign import answer
from .import_path import add_to_path

T = TypeVar("T")
_REGISTERED: dict[str, Any] = {}


def register(name: str) -> Callable[[T], T]:
    """Make a class known by a name of your own: `@register("my-net")`, then `model=my-net`.

    Raises:
        ConfigError: If the name is taken by something else.
    """

    def keep(item: T) -> T:
        taken = _REGISTERED.get(name)
        if taken is not None and name_of(taken) != name_of(item):
            raise ConfigError(f"The name `{name}` is registered already, by {name_of(taken)}.")
        _REGISTERED[name] = item
        return item

    return keep


@dataclass(frozen=True)
class Kind:
    """Where names of one kind are looked up, after the person's own.

    Attributes:
        noun: What a miss calls it.
        builtin: The folder of ours whose names count.
        libraries: The field's own modules, in order.
        accept: Which of a library's attributes are of this kind.
    """

    noun: str
    builtin: str | None
    libraries: tuple[str, ...]
    accept: Callable[[str, Any], bool]


def _is_class(_: str, item: Any) -> bool:
    return inspect.isclass(item)


def _is_public_class(name: str, item: Any) -> bool:
    return inspect.isclass(item) and not name.startswith("_")


def _is_dataset(name: str, item: Any) -> bool:
    return _is_class(name, item) and name not in ("VisionDataset", "DatasetFolder", "ImageFolder")


def _is_network(name: str, item: Any) -> bool:
    return inspect.isfunction(item) and name.islower() and not name.startswith(("get_", "list_"))


def _is_optimizer(name: str, item: Any) -> bool:
    return _is_public_class(name, item) and name != "Optimizer"


def _is_scheduler(name: str, item: Any) -> bool:
    return _is_public_class(name, item) and hasattr(item, "step") and name != "LRScheduler"


KINDS = {
    "model": Kind("model", "agents", ("torchvision.models",), _is_network),
    "encoder": Kind("encoder", "agents", ("torchvision.models",), _is_network),
    "policy": Kind("policy", "agents", (), _is_network),
    "critic": Kind("critic", "agents", (), _is_network),
    "generator": Kind("generator", "agents", (), _is_network),
    "discriminator": Kind("discriminator", "agents", (), _is_network),
    "dataset": Kind("data set", "envs", ("torchvision.datasets",), _is_dataset),
    "env": Kind("environment", "envs", (), _is_class),
    "env_wrappers": Kind("wrapper", None, ("gymnasium.wrappers",), _is_public_class),
    "optim": Kind("optimiser", None, ("torch.optim",), _is_optimizer),
    "scheduler": Kind("scheduler", None, ("torch.optim.lr_scheduler",), _is_scheduler),
    "test_dataset": Kind("data set", "envs", ("torchvision.datasets",), _is_dataset),
    "strategy": Kind("strategy", "agents.continual", (), _is_class),
    "aug": Kind("augmentation", "envs", ("torchvision.transforms.v2",), _is_public_class),
}


def resolve(name: str, kind: str) -> Any:
    """The class, function or object that a name means.

    Looked up in the order of the contract: registered, built in, `file.py:Name`, a class in a file
    of the working directory, a dotted path, the field's libraries.

    Raises:
        ConfigError: If there is none (with the nearest names), or two files define it.
    """
    place = KINDS[kind]
    if name in _REGISTERED:
        return _REGISTERED[name]
    if name in (builtin := _builtin(kind)):
        package, attribute = builtin[name]
        return getattr(package, attribute)
    if ".py:" in name:
        path, _, attribute = name.rpartition(":")
        module = _import_file(Path(path))
        if kind == "env" and not hasattr(module, attribute):  # An id that the file registers.
            make = environment_names.environment(attribute)
            return _attribute(module, attribute, name) if make is None else make
        return _attribute(module, attribute, name)
    if (found := _in_working_directory(name)) is not None:
        return found
    if "." in name and (found := _dotted(name)) is not None:
        return found
    for library in place.libraries:
        try:
            item = getattr(importlib.import_module(library), name, None)
        except Exception as error:  # Gymnasium's that are imported late, for what they need.
            raise ConfigError(f"{library}.{name} cannot be imported: {error}") from error
        if item is not None and place.accept(name, item):
            return item
    if kind in ("model", "encoder") and (network := timm_network(name)) is not None:
        return network
    if kind == "env" and (make := environment_names.environment(name)) is not None:
        return make
    raise ConfigError(_miss(name, kind))


def registered(name: str) -> Any:
    """What `@register(name)` has named in this process, or None."""
    return _REGISTERED.get(name)


def builtin_names(kind: str) -> list[str]:
    """Our own names of one kind, without importing them."""
    return list(_builtin(kind))


def _builtin(kind: str) -> dict[str, tuple[ModuleType, str]]:
    """Our own names of one kind, each with the package it is in and what it is called there."""
    folder = KINDS[kind].builtin
    if folder is None:
        return {}
    places = [(folder, kind.removeprefix("test_"))]
    if folder == "agents":
        places.append(("agents.blocks", "model"))  # Blocks are models, and parts of models.
    found: dict[str, tuple[ModuleType, str]] = {}
    for place, listed in places:
        package = importlib.import_module(f"antelope.{place}")
        names = package.NAMES.get(listed, ())
        for name in names:
            attribute = names[name] if isinstance(names, dict) else name
            found.setdefault(name, (package, attribute))
    return found


def library_names(kind: str) -> list[str]:
    """The names of one kind that the field's libraries hold."""
    place = KINDS[kind]
    found: dict[str, None] = {}
    for library in place.libraries:
        module = importlib.import_module(library)
        found.update((n, None) for n, item in vars(module).items() if place.accept(n, item))
    if kind == "env":
        import gymnasium

        found.update(dict.fromkeys(gymnasium.registry))
    return sorted(found, key=str.lower)


def construct(
    target: Callable[..., Any],
    given: Mapping[str, Any],
    inferred: Mapping[str, Any],
    *,
    setting: str,
    positional: tuple[Any, ...] = (),
    instead: Mapping[str, str] = MappingProxyType({}),
) -> Any:
    """Call `target` with the arguments given and those of the inferred that it has parameters for.

    Args:
        target: A class or function.
        given: Sub-keys of the setting. A dict with `_target_` is constructed first.
        inferred: What is known from the data; explicit values always win.
        setting: The setting's name, for errors: `model`.
        positional: Arguments that come first, such as an optimiser's parameters.
        instead: Why a parameter cannot be inferred here, and what can.

    Raises:
        ConfigError: For an unknown sub-key, a missing argument, or a constructor that raises.
    """
    name = getattr(target, "__name__", str(target))
    named, _ = _parameters(target, skip=len(positional))
    mistakes = unknown_arguments(target, given, setting=setting, skip=len(positional))
    arguments = {key: value for key, value in inferred.items() if key in named}
    arguments |= {key: _nested(value, setting) for key, value in given.items()}
    missing = [
        key
        for key, parameter in named.items()
        if parameter.default is parameter.empty and key not in arguments
    ]
    if missing:
        quoted = " and ".join(f"`{key}`" for key in missing)
        # A constructor of torch's cannot be made to ask for anything.
        own = not str(getattr(target, "__module__", "")).startswith("torch")
        can = f", or ask for any of: {', '.join(inferred)}" if inferred and own else ""
        values = " ".join(f"{setting}.{key}=..." for key in missing)
        were = "was" if len(missing) == 1 else "were"
        mistakes.append(
            f"{name} needs {quoted}, which {were} not given and cannot be inferred. Pass {values}{can}."
        )
        reasons = dict.fromkeys(instead[key] for key in missing if key in instead)
        mistakes += [f"{name}: {reason}." for reason in reasons]
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    try:
        return target(*positional, **arguments)
    except ConfigError:
        raise
    except Exception as error:
        shown = ", ".join(f"{key}={_short(value)}" for key, value in arguments.items())
        where = _user_frame(error)
        raise ConfigError(
            f"{name}({shown}) raised {type(error).__name__}: {error}{where}"
            f"{_meant(error, arguments, setting, named)}"
        ) from error


def _meant(error: BaseException, arguments: Iterable[str], setting: str, own: Iterable[str]) -> str:
    """Where an argument was passed on to what does not take it: the nearest that there is.

    Args:
        own: The parameters of what passed it on.
    """
    found = re.search(
        r"(\S+?)(?:\.__init__)?\(\) got an unexpected keyword argument '(\w+)'", str(error)
    )
    if found is None or found[2] not in arguments:
        return ""
    chain: BaseException | None = error
    while chain is not None:
        for frame, _ in traceback.walk_tb(chain.__traceback__):
            for item in (*frame.f_locals.values(), *frame.f_globals.values()):
                if getattr(item, "__qualname__", None) == found[1] and callable(item):
                    named, _ = _passed_on(item, _parameters(item, skip=0)[0])
                    near = _near(f"{setting}.{found[2]}", [*own, *named])
                    return f".{near} {found[1]} has: {', '.join(named) or 'none'}."
        chain = chain.__cause__ or chain.__context__
    return ""


def unknown_arguments(
    target: Callable[..., Any], given: Iterable[str], *, setting: str, skip: int = 0
) -> list[str]:
    """A message for every sub-key that `target` has no parameter for."""
    named, takes_any = _parameters(target, skip=skip)
    if takes_any and any(key not in named for key in given):
        named, takes_any = _passed_on(target, named)
    name = getattr(target, "__name__", None) or name_of(target)
    return [
        f"{name} has no parameter `{key}` (`{setting}.{key}`).{_near(f'{setting}.{key}', named)} "
        f"It has: {', '.join(named) or 'none'}."
        for key in given
        if key not in named and not takes_any
    ]


def near_among_any(target: Callable[..., Any], key: str) -> str | None:
    """A parameter with almost the name `key`, of what takes any others too and does not read `key`."""
    target = environment_names.creator(target) or target
    named, takes_any = _parameters(target, skip=0)
    if key in named or not takes_any or not _passed_on(target, named)[1]:
        return None
    code = getattr(getattr(target, "__init__", target), "__code__", None)
    if code is not None and key in code.co_consts:
        return None
    return next(iter(difflib.get_close_matches(key, named, n=1, cutoff=0.8)), None)


def _passed_on(
    target: Callable[..., Any], named: dict[str, inspect.Parameter]
) -> tuple[dict[str, inspect.Parameter], bool]:
    """As `_parameters`, with those that **kwargs are passed on to, as far as it can be told."""
    creator = environment_names.creator(target)
    if creator is not None:
        its, takes_any = _parameters(creator, skip=0)
        its, takes_any = _passed_on(creator, its) if takes_any else (its, False)
        return its | environment_names.taken_by_make(), takes_any
    behind = parameters_behind(target)
    return (named, True) if behind is None else (named | behind, False)


def _near(path: str, named: Iterable[str]) -> str:
    """` Did you mean `momentum`?`, or what another tool's word is here."""
    foreign = answer(path)
    return f" {foreign}" if foreign else did_you_mean(path.rpartition(".")[2], named)


def _parameters(
    target: Callable[..., Any], *, skip: int
) -> tuple[dict[str, inspect.Parameter], bool]:
    """What can be given by name, the first `skip` aside, and whether anything else can be."""
    try:
        parameters = dict(inspect.signature(target).parameters)
    except (TypeError, ValueError):  # A builtin without a signature: pass what was given.
        return {}, True
    named = {
        key: parameter
        for key, parameter in list(parameters.items())[skip:]
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    return named, any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _nested(value: Any, setting: str) -> Any:
    """A sub-key's value, with `{_target_: Name, ...}` inside it constructed."""
    if isinstance(value, Mapping) and "_target_" in value:
        rest = {key: item for key, item in value.items() if key != "_target_"}
        target = value["_target_"]
        if isinstance(target, str):
            target = resolve(target, setting if setting in KINDS else "model")
        return construct(target, rest, {}, setting=setting)
    if isinstance(value, list):
        return [_nested(item, setting) for item in value]
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"<{type(value).__name__}>"


def _user_frame(error: BaseException) -> str:
    """` (model.py, line 7, in __init__)` for the innermost frame of the user's own code."""
    for frame in reversed(user_frames(error)):
        return f" ({Path(frame.filename).name}, line {frame.lineno}, in {frame.name})"
    return ""


def user_frames(error: BaseException) -> list[traceback.FrameSummary]:
    """The frames of an error that are neither ours, nor a library's, nor Python's."""
    root = Path(__file__).resolve().parents[2]
    ours = tuple(f"{root / folder}{os.sep}" for folder in ("launcher", "replay", "envs", "agents"))
    python = f"{Path(os.__file__).parent}{os.sep}"
    return [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "site-packages" not in frame.filename
        and not frame.filename.startswith((*ours, python, "<frozen"))
        and Path(frame.filename) not in (root / "run.py", Path(sys.prefix) / "bin" / "ml")
    ]


def _miss(name: str, kind: str) -> str:
    place = KINDS[kind]
    if kind.endswith("dataset") and Path(name).expanduser().is_file():
        return (
            f"{kind}={name} is a file. Give a folder of class folders of images (unpack an archive "
            "first), or arrays: ml(dataset=(inputs, targets))."
        )
    if (foreign := answer(f"{kind.removeprefix('test_')}={name}")) is not None:
        return f"No {place.noun} `{name}`: {foreign}"
    if kind.endswith("dataset") and ("/" in name or name.startswith(".")):
        return f"No {place.noun} `{name}`: there is no such folder (looked in {Path.cwd()})."
    called = kind == "env" and "(" in name  # gymnasium.make(...), say, as a word.
    if "." in name and not called and (module := _dotted(name.rpartition(".")[0])) is not None:
        inside, _, attribute = name.rpartition(".")
        near = did_you_mean(attribute, dir(module))
        return f"No {place.noun} `{name}`: {inside} has no `{attribute}`.{near}"
    if kind == "env":
        return environment_names.miss(name, [*_REGISTERED, *builtin_names(kind), *classes_here()])
    names = [*_REGISTERED, *builtin_names(kind), *classes_here(), *library_names(kind)]
    command = {
        "model": "ml models",
        "dataset": "ml datasets",
        "strategy": "ml strategies",
    }.get(kind)
    listed = f" `{command}` lists what can be named." if command else ""
    if not command and not nearest(name, names):
        listed = f" There are: {', '.join(names)}."
    looked = ", ".join((f"the .py files of {Path.cwd()}", *place.libraries))
    return f"No {place.noun} `{name}`.{did_you_mean(name, names)}{listed} Looked in {looked}."


def _in_working_directory(name: str) -> Any:
    """The class `Name`, or `file.Name`, of a .py file of the working directory, or None."""
    if name.count(".") == 1:
        stem, attribute = name.split(".")
        path = Path(f"{stem}.py")
        return _attribute(_import_file(path), attribute, name) if path.is_file() else None
    files = classes_here().get(name, [])
    if len(files) > 1:
        choices = " or ".join(f"{file}:{name}" for file in files)
        raise ConfigError(f"`{name}` is defined in {len(files)} files. Write {choices}.")
    return getattr(_import_file(Path(files[0])), name) if files else None


def classes_here() -> dict[str, list[str]]:
    """Top-level classes of the working directory's .py files, found without importing them."""
    found: dict[str, list[str]] = {}
    for path in sorted(Path.cwd().glob("*.py")):
        try:
            tree = ast.parse(path.read_text())
        except (SyntaxError, UnicodeDecodeError, OSError):
            continue  # Not ours to judge: another file may hold what is asked for.
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(path.name)
    return found


def _import_file(path: Path) -> ModuleType:
    """The module in a file; the running script itself is not run a second time."""
    file = path.resolve()
    if not file.is_file():
        raise ConfigError(f"There is no file {path} (looked in {Path.cwd()}).")
    for module in list(sys.modules.values()):
        source = getattr(module, "__file__", None)
        if source and source.endswith(file.name) and Path(source).resolve() == file:
            return module
    add_to_path(file.parent)  # So that the file can import its neighbours.
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A file named like a library (`random.py`) must not replace it for everybody else.
    name = file.stem if file.stem not in sys.modules else str(file)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ConfigError(
            f"Importing {path} raised {type(error).__name__}: {error}{_user_frame(error)}"
        ) from error
    return module


def _attribute(module: ModuleType, attribute: str, name: str) -> Any:
    item: Any = module
    for part in attribute.split("."):
        if not hasattr(item, part):
            names = [n for n in vars(module) if not n.startswith("_")]
            raise ConfigError(
                f"`{name}`: {Path(module.__file__ or '').name} has no `{attribute}`."
                f"{did_you_mean(attribute, names)}"
            )
        item = getattr(item, part)
    return item


def _dotted(name: str) -> Any:
    """The object at a dotted import path, or None."""
    parts = name.split(".")
    if not all(part.isidentifier() for part in parts):
        return None
    add_to_path(Path.cwd())
    for split in range(len(parts), 0, -1):
        module_name = ".".join(parts[:split])
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name and (
                module_name == error.name or module_name.startswith(error.name + ".")
            ):
                continue
            raise ConfigError(f"Importing {module_name} raised {error}") from error
        except Exception as error:
            raise ConfigError(
                f"Importing {module_name} raised {type(error).__name__}: {error}"
            ) from error
        item: Any = module
        for part in parts[split:]:
            item = getattr(item, part, None)
        return item
    return None


def timm_network(name: str) -> Any:
    """What makes one of timm's networks; None if timm is not here, or has none of this name."""
    if importlib.util.find_spec("timm") is None:
        return None
    import timm

    if not timm.is_model(name):
        return None
    network = functools.partial(timm.create_model, name)
    network.__name__ = name  # type: ignore[attr-defined]
    network.__module__ = "timm"
    return network


def describe_names(names: Iterable[str], width: int = 96) -> str:
    """Names in lines of at most `width` characters."""
    import textwrap

    wrapper = textwrap.TextWrapper(width, initial_indent="  ", subsequent_indent="  ")
    wrapper.break_on_hyphens = False  # Ids hold some.
    return wrapper.fill(", ".join(names))
