"""A run from its directory: `antelope.load("runs/...")`, to use the model and to look at the results.

Nothing is written into the directory, and it may be of a run that goes on. What the model needs comes
from the newest valid checkpoint: its settings, spec, weights, statistics and the environments' spaces.
Runs before 0.5.0 kept less: there the environment or the data set is built once to look at it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor

from ...agents.policy.raw_observations import takes_raw
from ...envs.interface import Interface
from ...envs.kinds import OfData, OfEnvironments
from ...envs.running import RunningStatistics, normalizing
from ...envs.sources import folder_of
from ...envs.time_limits import cut_after
from ...replay import CheckpointError, ConfigError, Normalizer, Spec
from ...replay.devices import moving
from ...replay.randomness import forked_randomness, seed_everything
from ..assembly.agent import build_agent
from ..assembly.device import build_device, device_wanted
from ..assembly.forward import check_forward
from ..assembly.model import Model
from ..assembly.optimisation import Average
from ..assembly.transforms import build_transforms
from ..assembly.world import build_world
from ..learn.learner import Learner
from ..process import left_as_found
from ..record.checkpoint import Checkpoints, find
from ..record.earlier import load_statistics
from ..record.log import read_csv
from ..record.progress import Progress
from ..record.resumption import saved_device
from ..record.spec_state import spec_from
from ..run import Run
from ..settings.compose import compose
from ..settings.kinds import model_kind
from ..settings.names import resolve
from ..settings.object_names import makes_objects, name_of
from ..settings.plan import make_plan
from ..settings.schema import PARTS
from ..settings.settings import Settings
from ..settings.trust import known_argument, known_arguments, known_object
from .policy import Policies

# Settings that say what the model is made of, where it acts, and on what device.
_MODULES = ("model", *PARTS)
_MAY_BE_SAID = (*_MODULES, "env", "env_wrappers", "dataset", "device")
_WITHOUT = ("replay", "environment", "augmentation", "actor")  # What training alone needs.


def load(path: str | Path, *overrides: str, trust: bool = False, **settings: Any) -> Run:
    """The run in a directory: `antelope.load("runs/default/Model/CartPole-v1/0", model=Model)`.

    The model is constructed again with the settings of its run, and gets the weights of the newest valid
    checkpoint. `act`, `reset`, `play`, `agent`, `spec`, `metrics`, `history`, `path`, `accuracy_matrix` and
    `tasks` are those of the `Run` that `ml` returned; the replay is left where it is.

    Args:
        path: A run directory, one of its `checkpoints/` folders, or a folder that holds one run.
        *overrides: Console words, such as `"model=model.py:Model"`.
        trust: Import and run whatever the directory names. Otherwise code that is not Antelope's, torch's
            or torchvision's has to be named here.
        **settings: `model` (or `agent`), `policy`, `critic`, `encoder`, `generator`, `discriminator`, `env`,
            `device`: as for `ml`. What is not named is as the run's `config.yaml` says.

    Raises:
        CheckpointError: If there is no valid checkpoint, or its weights do not fit the model.
        ConfigError: For a name that has to be given here (the error says how), or a wrong setting.
    """
    given = compose(overrides, settings)
    if wrong := sorted(given.given - set(_MAY_BE_SAID)):
        raise ConfigError(
            f"antelope.load takes {', '.join(_MAY_BE_SAID)} and trust, not {', '.join(wrong)}: the rest is "
            "as in the run. To train on, use ml(..., resume=True) or ml(..., load=PATH)."
        )
    folder = find_run(Path(path))
    state = find(folder, without=_WITHOUT)
    directory = folder.parent.parent if (folder / "manifest.json").exists() else folder
    with left_as_found():  # Imports add warning filters.
        return Loaded(directory.absolute(), state, given, trust=trust).run()


def find_run(path: Path) -> Path:
    """The run directory or checkpoint that a path means.

    Raises:
        ConfigError: If there is not exactly one.
    """
    path = path.expanduser()
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise ConfigError(
            f"{path} {what}. Give a run directory, as run.path or the console shows it."
        )
    if any((path / name).exists() for name in ("config.yaml", "checkpoints", "manifest.json")):
        return path
    if Checkpoints(path).numbered():
        return path.parent if path.name == "checkpoints" else path
    found = sorted(file.parent for file in path.glob("**/config.yaml"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise ConfigError(
            f"{path} is not a run directory, and holds none: there is no config.yaml."
        )
    some = ", ".join(map(str, found[:5])) + (", ..." if len(found) > 5 else "")
    raise ConfigError(f"{path} holds {len(found)} runs. Name one: {some}")


@dataclass
class LoadedTask:
    """One task of a run that was loaded."""

    name: str
    interface: Interface | None = None


class LoadedData(OfData):
    """What is known of the data of a run that was loaded."""

    scenario: str | None = None  # Strategies, which it matters to, are not loaded.

    def __init__(self, name: str, spec: Spec, tasks: list[LoadedTask]):
        self.name, self.spec, self.tasks = name, spec, tasks

    def example(self, n: int, device: torch.device) -> Tensor:
        """`n` rows of made-up inputs on a device, `[n, *shape]`, as they would be stored."""
        space = self.spec.obs
        shape = (n, *space.shape)
        if space.ids is not None:
            return torch.randint(space.ids, shape, device=device)
        rows = torch.rand(shape, device=device)
        return (rows * 2).to(space.dtype) if space.scale is None else rows


class LoadedEnvironments(OfEnvironments):
    """What is known of the environments of a run that was loaded.

    Args:
        normalizer: Running statistics of observations, or None.
    """

    def __init__(
        self, name: str, spec: Spec, tasks: list[LoadedTask], normalizer: Normalizer | None
    ):
        self.name, self.spec, self.tasks, self.normalizer = name, spec, tasks, normalizer


class Loaded:
    """A run from its directory, as a `Run` needs it.

    Args:
        path: The run directory.
        state: Of a checkpoint.
        given: Settings that the user gave.
        trust: Whether names in the directory may be imported.

    Attributes:
        own: The user's module.
    """

    def __init__(self, path: Path, state: dict[str, Any], given: Settings, *, trust: bool):
        self.path, self._state, self._trust = path, state, trust
        self._given = given
        self.settings = self._merged(given)
        self.plan = make_plan(self.settings, names=_MODULES)
        with forked_randomness(0):
            self._build()

    def run(self) -> Run:
        """The run's results, with the model in evaluation mode."""
        at = Progress()
        at.load_state_dict(self._state["progress"])
        run = Run(
            agent=self.own,
            spec=self.world.spec,
            metrics=dict(at.metrics),
            history=self._history(),
            replay=None,  # type: ignore[arg-type]
            path=self.path,
            accuracy_matrix=np.array(at.matrix, dtype=np.float64),
            task_il_matrix=np.array(at.task_il, dtype=np.float64),
            tasks=_tasks(self.path)[: at.task],
        )
        del vars(run)["replay"]  # Which then says where it is.
        vars(run)["_open"] = self
        return run

    def _history(self) -> list[dict[str, Any]]:
        """The rows of the CSV files up to the checkpoint."""
        counts = self._state["journal"]
        rows = [
            row
            for mode in ("train", "eval")
            for row in read_csv(self.path / f"{mode}.csv")[: counts.get(mode, 0)]
        ]
        return sorted(rows, key=lambda row: row["step"])

    # ---------------------------------------------------------------------------- as an OpenRun

    def learn_later(
        self, result: Run, data: Any, name: str | None, test_dataset: Any
    ) -> dict[str, float]:
        """Refuse to learn: a run that was loaded has no optimiser and no replay."""
        raise ConfigError(
            "A run that antelope.load returned is there to be used. To learn more, call learn_task on "
            "one that ml returns with resume=True."
        )

    def policies(self) -> Policies:
        """What the model does in each environment, by their own observations and actions."""
        interfaces = [task.interface for task in self.world.tasks if task.interface is not None]
        layout = self._state.get("info_layout")
        observe: Any = self._observe
        return Policies(self._learner, observe, interfaces, resting=lambda: True, layout=layout)

    def make_env(self, task: int, **arguments: Any) -> Any:
        """A fresh copy of an environment.

        Raises:
            ConfigError: If it has to be named by the user, or cannot be made.
        """
        env = self._environments[task][1](**arguments)
        if (kept := self._state.get("environments")) is not None:
            # Statistics of wrappers such as NormalizeObservation, as they were.
            running = RunningStatistics(env if isinstance(env, VectorEnv) else [env])
            if normalizing(env):
                running.load_shared(kept[task]["running"])
            running.freeze()
        return env

    def eval_limit(self, task: int) -> int | None:
        """Steps after which an episode played in an environment is cut; None: it ends by itself."""
        known = self.world.tasks[task].interface
        kept = self._state.get("environments")
        longest = 0 if kept is None else int(kept[task]["longest"])
        return cut_after(self.plan.eval_limit, known.longest, longest)  # type: ignore[union-attr]

    @contextmanager
    def playing(self) -> Iterator[None]:
        """Inside, the process is set up as for an evaluation, and as before afterwards."""
        with left_as_found(), forked_randomness(self.plan.seed):
            yield

    @cached_property
    def _environments(self) -> list[tuple[tuple[Any, dict[str, Any]], Any]]:
        """Of each environment what it is, and what makes a copy."""
        from ..assembly.environments import env_makers

        if not (self._trust or self._said("env")):
            self.settings.live["env"] = self._known_environments(self.settings.values["env"])
        if not (self._trust or self._said("env_wrappers")):
            value = self.settings.values["env_wrappers"]
            self.settings.values["env_wrappers"] = self._known_wrappers(value)
        return env_makers(make_plan(self.settings, names=(*_MODULES, "env", "env_wrappers")))

    # --------------------------------------------------------------------------------- settings

    def _merged(self, given: Settings) -> Settings:
        """The run's settings, overridden by those that the user gave."""
        saved = self._state["settings"]
        values = {**given.values, **{k: v for k, v in saved.items() if k in given.values}}
        settings = Settings(values)
        for key in _MAY_BE_SAID:
            if key in given.given:
                values[key] = _laid_over(saved.get(key), given, key)
                own = (k for k in given.live if k == key or k.startswith(f"{key}."))
                settings.live |= {k: given.live[k] for k in own}
                settings.given.add(key)
        values["device"] = given.values["device"]  # Not that of the machine it was trained on.
        values["compile"] = False
        for key in _MODULES:
            self._look_up(settings, key)
        return settings

    def _look_up(self, settings: Settings, key: str) -> None:
        """Find what the run's directory names, without running anybody's code."""
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
            if path in self._state.get("objects", ()):
                settings.live[path] = self._argument(str(item))
                if settings.live[path] is None:
                    raise ConfigError(
                        f"{path} was a Python object in the run in {self.path}, {item}. Give it again, as in "
                        f'{key}={{"_target_": ..., "{argument}": ...}}.'
                    )
            elif not self._trust:
                value[argument] = known_arguments(item, refused)

    def _argument(self, name: str) -> Any:
        """The object that a constructor was given, by the name that it was recorded under, or None."""
        if (found := known_argument(name)) is not None or not self._trust:
            return found
        try:
            return resolve(name, "model")
        except ConfigError:
            return None

    def _said(self, key: str) -> bool:
        """Whether the user names the object of a setting."""
        value = self._given.values.get(key)
        named = isinstance(value, dict) and "_target_" in value
        return key in self._given.given and (named or isinstance(value, list))

    def _said_arguments(self, key: str) -> set[str]:
        value = self._given.values.get(key)
        own = isinstance(value, dict) and key in self._given.given
        return set(value or ()) if own else set()

    def _known_environments(self, value: Any) -> Any:
        """What an `env` of the run's directory names."""
        refused = lambda name: self._unnamed("env", name)  # noqa: E731

        def found(item: Any) -> Any:
            name, arguments = item, {}
            if isinstance(item, Mapping):
                name = item.get("_target_")
                arguments = {k: v for k, v in item.items() if k != "_target_"}
            target = known_object(str(name), "env")
            if target is None:
                raise self._unnamed("env", str(name))
            return {"_target_": target, **known_arguments(arguments, refused)}

        items = value if isinstance(value, list) else [value]
        return [found(item) for item in items]

    def _known_wrappers(self, value: Any) -> Any:
        """What `env_wrappers` of the run's directory names, in full, which no file here can take.

        Raises:
            ConfigError: For wrappers other than gymnasium's, and those that are given a function by name.
        """
        if value is None:
            return None
        found = []
        for item in value if isinstance(value, list) else [value]:
            arguments = dict(item) if isinstance(item, Mapping) else {"_target_": item}
            name = str(arguments.pop("_target_", None))
            known = known_object(name, "env_wrappers")
            if known is None or not all(map(_is_plain, arguments.values())):
                raise self._unnamed("env_wrappers", name)
            found.append({"_target_": name_of(known), **arguments} if arguments else name_of(known))
        return found

    def _unnamed(self, key: str, name: str) -> ConfigError:
        """What to do about a name that is not looked up for a directory."""
        what = f"The {'environment' if key == 'env' else key} of the run in {self.path}"
        if name.startswith(("instance of ", "partial of ")):
            return ConfigError(
                f"{what} was a Python object ({name}). Give one that is made the same way: "
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
            f"{what} is {name}, and a run directory's own words run no code. Name it here: {key}={python} in "
            f"Python, {key}={name} in a console. Or say trust=true, to import whatever the directory names."
        )

    # ------------------------------------------------------------------------------------ parts

    def _build(self) -> None:
        """The model with its weights, and what is around it."""
        plan, state = self.plan, self._state
        seed_everything(plan.seed)
        device = build_device(device_wanted(plan))
        self.world = world = self._world()
        transform, plain = build_transforms(plan, world, device)
        self._observe = plain.observe
        try:
            agent, self.own = build_agent(plan, world, device, (transform, plain))
        except AttributeError as error:
            if model_kind(plan.model.target) is None:
                raise
            raise ConfigError(
                f"{plan.model.short_name} learns by `observe` and is made with its data at hand; such runs "
                "cannot be loaded. ml(..., resume=True) with the same settings gives the model."
            ) from error
        model = check_forward(
            Model(agent, world.spec, device, plan.precision), world, transform=plain
        )
        average = Average(agent, decay=plan.ema) if plan.ema is not None else None
        learner = Learner(model, average=average, supervised=world.labelled)
        with moving(saved_device(state), device):
            self._fill(learner)
        if average is not None and learner.optimised:
            average.swap()
        agent.eval()
        takes_raw(self.own, world.normalizer)
        self._learner = learner

    def _fill(self, learner: Learner) -> None:
        """Put the checkpoint's weights, and what else the model holds, into it."""
        kept = self._state["learner"]
        try:
            learner.load_state_dict(kept, but=("optimizer", "scheduler", "scaler"))
        except CheckpointError as error:
            if "strategies" not in kept:
                raise
            raise CheckpointError(
                f"{error} A strategy may have added to it, as pnn does: such runs cannot be loaded. "
                "ml(..., resume=True) with the same settings gives the model."
            ) from error

    def _world(self) -> LoadedData | LoadedEnvironments:
        state, plan = self._state, self.plan
        if plan.env is None:
            return self._data()
        interfaces = [
            None if kept is None else Interface.from_state(kept)
            for kept in state.get("interfaces", [None])
        ]
        if any(known is None for known in interfaces):
            interfaces = self._opened()
        tasks = [LoadedTask(known.name, known) for known in interfaces if known is not None]
        if "spec" in state:
            spec = spec_from(state["spec"])
        else:
            assert tasks[0].interface is not None
            obs, action = tasks[0].interface.spaces
            spec = Spec(obs, action, num_tasks=len(tasks))
        name = "-".join(task.name for task in tasks)
        return LoadedEnvironments(name, spec, tasks, self._normalizer(spec))

    def _normalizer(self, spec: Spec) -> Normalizer | None:
        """The statistics of observations that the run has learnt with, if it normalised them."""
        plan = self.plan
        if not plan.normalize_obs:
            return None
        from ...envs.normalized import normalized_shapes

        normalizer = Normalizer(
            normalized_shapes(spec.obs),
            num_envs=1,
            discount=plan.discount,
            obs=True,
            reward=False,
        )
        load_statistics(normalizer, self._state)
        return normalizer

    def _opened(self) -> list[Interface | None]:
        """Of a run that did not keep its environments' spaces, or could not: by making each once."""
        from ...envs.copies import Copies

        plan = self.plan
        found: list[Interface | None] = []
        options: dict[str, Any] = {"stack": plan.frame_stack, "channels": plan.channels}
        for number, ((target, _), _) in enumerate(self._environments):
            make = functools.partial(self.make_env, number)
            name = getattr(target, "__name__", type(target).__name__)
            with closing(Copies(make, name=name, num_envs=1, **options)) as envs:
                found.append(Interface.of(envs, **options))
        return found

    def _data(self) -> LoadedData:
        """A data set's part in a run; before 0.5.0 the data itself has to be read."""
        state = self._state
        if "spec" in state:
            spec, name = spec_from(state["spec"]), state["name"]
            tasks = [LoadedTask(str(number)) for number in range(spec.num_tasks)]
            return LoadedData(name, spec, tasks)
        if not (self._trust or self._said("dataset")):
            self.settings.live["dataset"] = self._known_data(self.settings.values["dataset"])
        names = (*_MODULES, "dataset", "test_dataset", "aug")
        read = build_world(make_plan(self.settings, names=names))
        tasks = [LoadedTask(task.name) for task in read.tasks]
        return LoadedData(read.name, read.spec, tasks)

    def _known_data(self, value: Any) -> Any:
        """What the `dataset` of a run's directory names: folders, and data sets of ours and torchvision's."""
        if isinstance(value, list):
            return [self._known_data(item) for item in value]
        name, arguments = value, {}
        if isinstance(value, Mapping):
            name = value.get("_target_")
            arguments = {k: v for k, v in value.items() if k != "_target_"}
        if folder_of(name) is not None:
            return value
        target = known_object(str(name), "dataset")
        if target is None:
            raise self._unnamed("dataset", str(name))
        return {"_target_": target, **arguments} if arguments else target


def _laid_over(saved: Any, given: Settings, key: str) -> Any:
    """A setting as the user gives it, with the run's arguments where it takes any."""
    value = given.values[key]
    target = given.live.get(key)
    takes = target is None or makes_objects(target)
    if isinstance(saved, dict) and isinstance(value, dict) and takes:
        return {**saved, **value}
    return value


def _is_plain(value: Any) -> bool:
    """Whether nothing in an argument names a function or an object to make."""
    if isinstance(value, list):
        return all(isinstance(part, str) or _is_plain(part) for part in value)
    return not isinstance(value, (str, Mapping))


def _tasks(path: Path) -> list[dict[str, Any]]:
    """What `status.json` says of the tasks."""
    try:
        tasks = json.loads((path / "status.json").read_text())["tasks"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return tasks if isinstance(tasks, list) else []
