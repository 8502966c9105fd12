"""A run from its directory: `antelope.load("runs/...")`, to use the model and to look at the results.

Nothing is written into the directory, whose run may still be going on. What the model needs comes
from the newest valid checkpoint: its settings, spec, weights, statistics and the environments' spaces.
Runs before 0.5.0 kept less: there the environment or the data set is built once to look at it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from ...agents.policy.raw_observations import takes_raw
from ...envs.fingerprint import differences
from ...envs.interface import Interface
from ...envs.reading import Reading
from ...envs.running import RunningStatistics, normalizing
from ...envs.table_world import TableWorld
from ...envs.time_limits import cut_after
from ...replay import CheckpointError, ConfigError, DataError, Normalizer, Spec
from ...replay.devices import moving
from ...replay.randomness import forked_randomness, seed_everything
from ..assembly.agent import build_agent
from ..assembly.data import build_data
from ..assembly.device import arithmetic, build_device, device_wanted
from ..assembly.forward import check_forward
from ..assembly.model import Model
from ..assembly.optimisation import Average
from ..assembly.transforms import build_transforms
from ..learn.evaluate import Scored
from ..learn.learner import Learner
from ..learn.own_evaluation import own_evaluation
from ..process import left_as_found, threads
from ..record.checkpoint import find
from ..record.earlier import load_statistics
from ..record.progress import Progress
from ..record.resumption import saved_device
from ..record.spec_state import spec_from
from ..record.validation import check_structure, loading
from ..run import Run
from ..settings.compose import compose
from ..settings.kinds import model_kind
from ..settings.object_names import class_name
from ..settings.settings import Settings
from .examining import Examiner
from .loaded_strategies import loaded_strategies
from .loaded_world import LoadedData, LoadedEnvironments, LoadedTask
from .policy import Policies
from .predicting import Predictor
from .run_directory import find_run, history, tasks_of
from .saved_settings import MAY_BE_GIVEN, SavedSettings
from .trained import Trained

_WITHOUT = ("replay", "environment", "augmentation", "actor")  # What training alone needs.


def load(path: str | Path, *overrides: str, trust: bool = False, **settings: object) -> Run:
    """The run in a directory: `antelope.load("runs/default/Model/CartPole-v1/0", model=Model)`.

    The model is constructed again with the settings of its run, and loads the weights of the newest valid
    checkpoint. `act`, `reset`, `play`, `agent`, `spec`, `metrics`, `history`, `path`, `accuracy_matrix` and
    `tasks` are those of the `Run` that `ml` returned; the replay is left where it is.

    Args:
        path: A run directory, one of its `checkpoints/` folders, or a folder that holds one run.
        *overrides: Console words, such as `"model=model.py:Model"`.
        trust: Import and run whatever the directory names. Otherwise code that is not Antelope's, torch's
            or torchvision's must be named here.
        **settings: `model` (or `agent`), `policy`, `critic`, `encoder`, `generator`, `discriminator`, `env`,
            `device`: as for `ml`. Everything else comes from the run's `config.yaml`.

    Raises:
        CheckpointError: If there is no valid checkpoint, or its weights do not fit the model.
        ConfigError: For a name that must be given here (the error says how), or an invalid setting.
    """
    given = compose(overrides, settings)
    if wrong := sorted(given.given - set(MAY_BE_GIVEN)):
        raise ConfigError(
            f"antelope.load accepts {', '.join(MAY_BE_GIVEN)} and trust, not {', '.join(wrong)}: all else "
            "comes from the run. To continue training, use ml(..., resume=True) or ml(..., load=PATH)."
        )
    folder = find_run(Path(path))
    state = find(folder, without=_WITHOUT)
    directory = folder.parent.parent if (folder / "manifest.json").exists() else folder
    with left_as_found():  # The imports below add warning filters, which must not outlive the call.
        return Loaded(directory.absolute(), state, given, trust=trust).run()


class Loaded:
    """An open run, read from its directory: what `Run.act` and `Run.play` work on.

    Args:
        path: The run directory.
        state: Contents of the checkpoint, by part: `settings`, `learner`, `progress`, ...
        given: Settings that the user gave.
        trust: Whether names in the directory may be imported.

    Attributes:
        own: The user's module.
    """

    def __init__(self, path: Path, state: dict[str, Any], given: Settings, *, trust: bool):
        check_structure(state, without=_WITHOUT)
        self.path, self._state = path, state
        self._data_read: TableWorld | None = None
        self._saved = SavedSettings(path, state, given, trust=trust)
        self.plan = self._saved.plan()
        with forked_randomness(0):  # Constructing layers draws weights from the caller's stream.
            self._build()

    def run(self) -> Run:
        """The run's results, with the model in evaluation mode."""
        at = Progress()
        at.load_state_dict(self._state["progress"])
        run = Run(
            agent=self.own,
            spec=self.world.spec,
            metrics=dict(at.metrics),
            history=history(self.path, self._state["journal"]),
            replay=None,  # type: ignore[arg-type]
            path=self.path,
            accuracy_matrix=np.array(at.matrix, dtype=np.float64),
            task_il_matrix=np.array(at.task_il, dtype=np.float64),
            tasks=tasks_of(self.path)[: at.task],
        )
        del vars(run)["replay"]  # Reading it then raises an error that says where it is.
        vars(run)["_open"] = self
        return run

    # ---------------------------------------------------------------------------- as an OpenRun

    def learn_later(
        self, result: Run, data: object, name: str | None, test_dataset: object
    ) -> dict[str, float]:
        """Refuse to learn: a loaded run has no optimiser and no replay."""
        raise ConfigError(
            "A run from antelope.load cannot learn: it has no optimiser and no replay. Call learn_task on "
            "the run that ml returns with resume=True."
        )

    def policies(self) -> Policies:
        """A policy for each environment, from its own observations to its own actions."""
        interfaces = [task.interface for task in self.world.tasks if task.interface is not None]
        layout = self._state.get("info_layout")
        observe: Any = self._observe
        return Policies(self._learner, observe, interfaces, resting=lambda: True, layout=layout)

    def predictor(self) -> Predictor:
        """Predicts for raw inputs."""
        world: Any = self.world
        return Predictor(
            self._learner,
            self._plain,
            world,
            self.plan,
            playing=self.playing,
            resting=lambda: True,
        )

    def examiner(self) -> Examiner:
        """Evaluates on the held-out rows of the run's data, which is read again, or on other data."""
        at = Progress()
        at.load_state_dict(self._state["progress"])
        learnt = min(at.task + at.begun, self.world.spec.num_tasks) or 1
        learner = self._learner
        by_itself = own_evaluation(self.own)
        # What `loss=` named may have depended on the training data, which is not read.
        unknown = ("loss",) if self._state["settings"].get("loss") and by_itself is None else ()
        return Examiner(
            self.predictor(),
            self.plan,
            self._held_out,
            learnt=learnt,
            step=at.step,
            scored=Scored(learner, self._plain, told=self.world.told, by_itself=by_itself),
            unknown=unknown,
            more_measured=self._state["settings"].get("metrics") is not None,
        )

    @contextmanager
    def exporting(self) -> Iterator[Trained]:
        """Runs the block with the process settings of an evaluation, and the model ready to be exported."""
        with self.playing():
            yield Trained(self.own, self._learner, self._plain, self.world, self.plan, self.path)

    def make_env(self, task: int, **arguments: object) -> Any:
        """A fresh copy of an environment.

        Raises:
            ConfigError: If the user has to name it, or it cannot be made.
        """
        env = self._environments[task][1](**arguments)
        if (kept := self._state.get("environments")) is not None:
            # The model has only seen observations normalised with the statistics of training.
            running = RunningStatistics(env if isinstance(env, VectorEnv) else [env])
            if normalizing(env):
                running.load_shared(kept[task]["running"])
            running.freeze()  # Playing must not change them, as evaluation does not.
        return env

    def eval_limit(self, task: int) -> int | None:
        """Steps after which an episode played in an environment is cut; None: it ends by itself."""
        known = self.world.tasks[task].interface
        kept = self._state.get("environments")
        longest = 0 if kept is None else int(kept[task]["longest"])
        return cut_after(self.plan.eval_limit, known.longest, longest)  # type: ignore[union-attr]

    @contextmanager
    def playing(self) -> Iterator[None]:
        """Set up the process as for an evaluation, and restore it afterwards."""
        plan, device = self.plan, self._learner.device
        with (
            left_as_found(),
            arithmetic(plan, device),
            threads(plan.threads),
            forked_randomness(plan.seed),
        ):
            yield

    @cached_property
    def _environments(self) -> list[tuple[tuple[Any, dict[str, Any]], Any]]:
        """For each environment its target with arguments, and a function that makes a copy."""
        from ..assembly.environments import env_makers

        return env_makers(self._saved.plan_of_environments())

    # ------------------------------------------------------------------------------------ parts

    def _build(self) -> None:
        """Build the model with its weights, and the world and transforms around it."""
        plan, state = self.plan, self._state
        seed_everything(plan.seed)
        device = build_device(device_wanted(plan))
        self.world = world = self._world()
        transform, plain = build_transforms(plan, world, device)
        self._plain, self._observe = plain, plain.observe
        try:
            agent, self.own = build_agent(plan, world, device, (transform, plain))
        except AttributeError as error:
            if model_kind(plan.model.target) is None:
                raise
            raise ConfigError(
                f"{plan.model.short_name} learns by `observe` and is constructed from its data, so its runs "
                "cannot be loaded. To get the model, call ml(..., resume=True) with the same settings."
            ) from error
        model = check_forward(
            Model(agent, world.spec, device, plan.precision), world, transform=plain
        )
        average = Average(agent, decay=plan.ema) if plan.ema is not None else None
        strategies = loaded_strategies(
            state["learner"], self._saved.plan_of_strategies, world, model, plain
        )
        learner = Learner(model, average=average, supervised=world.labelled, strategies=strategies)
        with moving(saved_device(state), device):
            self._fill(learner)
        if strategies is not None:
            strategies.close()  # As at the end of a run.
        if average is not None and learner.optimised:  # Before any update there is no average.
            average.swap()
        agent.eval()
        takes_raw(self.own, world.normalizer)
        self._learner = learner

    def _fill(self, learner: Learner) -> None:
        """Load the checkpoint's weights, and the rest of the model's state.

        Raises:
            CheckpointError: If they do not fit the model.
        """
        kept = self._state["learner"]
        try:
            with loading(self.path):
                learner.load_state_dict(kept, but=("optimizer", "scheduler", "scaler"))
        except CheckpointError as error:
            if "strategies" not in kept:
                raise
            raise CheckpointError(
                f"{error} A strategy such as pnn may have added to the model: such runs cannot be "
                "loaded. To get the model, call ml(..., resume=True) with the same settings."
            ) from error

    def _world(self) -> LoadedData | LoadedEnvironments:
        state, plan = self._state, self.plan
        if plan.env is None:
            return self._data()
        with loading(self.path):
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
        """The statistics that the run normalised observations with; None if it did not."""
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
        """Interfaces of environments whose spaces the run did not, or could not, save: each is made once."""
        from ...envs.copies import Copies

        plan = self.plan
        found: list[Interface | None] = []
        options: dict[str, Any] = {"stack": plan.frame_stack, "channels": plan.channels}
        for number, ((target, _), _) in enumerate(self._environments):
            make = functools.partial(self.make_env, number)
            name = class_name(target)
            with closing(Copies(make, name=name, num_envs=1, **options)) as envs:
                found.append(Interface.of(envs, **options))
        return found

    def _data(self) -> LoadedData:
        """What is known about the data; for runs before 0.5.0 the data itself is read."""
        state = self._state
        if "spec" in state:
            with loading(self.path):
                return self._described()
        read = self._read()
        tasks = [LoadedTask(task.name, classes=task.classes) for task in read.tasks]
        return LoadedData(read.name, read.spec, tasks, scenario=read.scenario, reading=read.reading)

    def _described(self) -> LoadedData:
        """What the checkpoint says of the data."""
        state = self._state
        spec, name = spec_from(state["spec"]), state["name"]
        if "reading" not in state:
            tasks = [LoadedTask(str(number)) for number in range(spec.num_tasks)]
            return LoadedData(name, spec, tasks)
        return LoadedData(
            name,
            spec,
            [LoadedTask(task["name"], classes=task["classes"]) for task in state["tasks"]],
            scenario=state["scenario"],
            reading=Reading.from_state(state["reading"]),
            altering=self._read if state["altered"] else None,
        )

    def _read(self) -> TableWorld:
        """The run's data, read again.

        Raises:
            ConfigError: If the user has to name it.
            DataError: If it cannot be read.
        """
        if self._data_read is None:
            read = build_data(self._saved.plan_of_data())
            known = self._state.get("data")
            if known is not None and (words := differences(known, read.fingerprint)):
                raise DataError(
                    f"{read.name} is not what the run in {self.path} learnt from: {'; '.join(words)}. To "
                    "evaluate on it anyway, give it explicitly: run.evaluate(dataset=...)."
                )
            self._data_read = read
        return self._data_read

    def _held_out(self) -> TableWorld:
        """The run's data, to evaluate on; raises as `_read` does.

        Raises:
            ConfigError: Also if later tasks were added to it, whose data is not named anywhere.
        """
        if later := self._state.get("later"):
            names = ", ".join(str(task["name"]) for task in later)
            raise ConfigError(
                f"This run learnt data that was added later ({names}), which its settings do not name. Give "
                "the data to evaluate on: run.evaluate(dataset=...)."
            )
        return self._read()
