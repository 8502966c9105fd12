"""One run, from composed settings to the `Run` that `ml` gives back."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..replay import ConfigError, Diverged
from . import build
from .attributes import load_object_state, object_state
from .checkpoint import Checkpoints, find
from .config import SHORTHANDS, Settings
from .console import Console
from .directory import RunDirectory
from .evaluate import Evaluator
from .forward import check_forward
from .keeper import Interrupted, Keeper
from .learner import Learner, load_weights
from .log import CSV, Journal, Log
from .loop import Schedule, run
from .naming import unresolved
from .optimisation import Average, build_optimizer, build_scheduler
from .progress import Progress
from .randomness import random_state, seed_everything, set_random_state
from .run import Run
from .trackers import Tracker, check_installed

# Settings that may differ between a run and its continuation without changing it.
_INCIDENTAL = ("resume", "path", "progress", "debug", "plot", "loggers", "save_every", "load")


def train(settings: Settings) -> Run:
    """Build everything, learn every task, and keep the results.

    Raises:
        ConfigError: Before any training, for anything that cannot work.
        Diverged: When the loss is no number any more.
        Interrupted: After SIGINT or SIGTERM, once the run is saved.
    """
    if mistakes := unresolved(settings):
        raise ConfigError("\n".join(mistakes))
    check_installed(settings.loggers)
    device = build.build_device(settings.device)
    with ExitStack() as stack:
        stack.enter_context(_determinism(settings.deterministic))
        seed_everything(settings.seed)
        world = build.build_world(settings)
        stack.callback(world.close)
        for key in build.without_effect(settings, world):
            kind = "data" if world.on_data else "an environment"
            reason = (
                "the optimiser is an instance" if key in SHORTHANDS else f"it learns from {kind}"
            )
            warnings.warn(f"`{key}` has no effect in this run: {reason}.", stacklevel=3)
        seed_everything(settings.seed)  # Weights do not depend on how the data was read.
        agent = build.build_agent(settings, world, device)
        transform, plain = build.build_transforms(settings, world, device)
        options: dict[str, Any] = {"device": device, "precision": str(settings.precision)}
        if not world.on_data:
            options["supervised"] = False
        check_forward(Learner(agent, world.spec, **options), world, transform=plain)
        if settings.load is not None:
            load_weights(agent, find(Path(settings.load))["learner"]["agent"])
        optimizer = build_optimizer(settings, agent)
        scheduler = build_scheduler(
            settings, optimizer, steps_per_epoch=build.steps_per_epoch(settings, world)
        )
        learner = Learner(
            agent,
            world.spec,
            optimizer=optimizer,
            scheduler=scheduler,
            clip_grad=settings.clip_grad,
            average=Average(agent, decay=settings.ema) if settings.ema is not None else None,
            **options,
        )
        if settings.compile:
            agent.compile()
        replay = build.build_replay(settings, world, transform, device)
        return _run(settings, world, learner, replay, plain, stack)


def _run(
    settings: Settings, world: Any, learner: Learner, replay: Any, plain: Any, stack: ExitStack
) -> Run:
    path = run_path(settings, world)
    schedule = build.build_schedule(settings, world)
    directory = RunDirectory(path, resume=settings.resume)
    stack.callback(directory.close)
    at, log = Progress(), Log()
    augmentation = getattr(replay.transform, "augment", None)
    journal = Journal(
        [
            *(
                CSV(path / f"{m}.csv", mode=m)
                for m in ("train", "eval")
                if "csv" in settings.loggers
            ),
            *(Tracker(n, path, settings.values) for n in settings.loggers if n != "csv"),
        ]
    )
    stack.callback(journal.close)
    console = Console(enabled=settings.progress, total=build.total_steps(schedule, settings, world))
    stack.callback(console.stop)
    checkpoints = Checkpoints(path / "checkpoints")

    def snapshot() -> dict[str, Any]:
        return {
            "progress": at.state_dict(),
            "learner": learner.state_dict(),
            "replay": replay.state_dict(),
            "augmentation": object_state(augmentation),
            "log": log.state_dict(),
            "journal": journal.state_dict(),
            "random": random_state(),
            "settings": settings.values,
        }

    def show() -> dict[str, Any]:
        loss = log.last("loss")
        return {} if loss is None else {"loss": loss}

    console.header(_header(settings, world, learner, path))
    state: dict[str, Any] | None = None
    if settings.resume:
        state, problems = checkpoints.newest()
        for problem in problems:
            console.problem(f"Passed over: {problem}")
        if state is None:
            console.note(f"No checkpoint to resume from in {path} yet: starting afresh.")
            directory.resume = False
        else:
            _resume(state, settings, world, learner, replay, at, log, journal, schedule, console)
            load_object_state(augmentation, state["augmentation"])
    keeper = Keeper(
        directory,
        checkpoints,
        journal,
        console,
        at=at,
        config_yaml=settings.yaml(),
        snapshot=snapshot,
        is_good=learner.is_finite,
        save_every=settings.save_every,
        show=show,
    )
    evaluate = Evaluator(
        world, learner, transform=plain, episodes=settings.eval_episodes, seed=settings.seed
    )
    began, first_step = time.monotonic(), at.step
    if state is not None:
        set_random_state(state["random"])
    try:
        with keeper:
            run(
                world,
                learner,
                replay,
                schedule=schedule,
                at=at,
                evaluate=evaluate,
                log=log,
                journal=journal,
                keeper=keeper,
            )
            keeper.start()
    except Diverged as error:
        keeper.finish("diverged", reason=str(error))
        kept = checkpoints.numbered()
        last = f"The last good checkpoint is {kept[0]}." if kept else "There is no checkpoint yet."
        raise Diverged(f"{error} {last} Try a smaller lr, or clip_grad=1.") from None
    except Exception as error:
        keeper.finish("failed", reason=f"{type(error).__name__}: {error}")
        raise
    except Interrupted as error:
        console.stop()
        outcome = f"saved to {path}" if error.saved else "not saved"
        console.note(f"Interrupted by {error} at step {at.step}; {outcome}.")
        raise
    seconds = time.monotonic() - began
    if learner.average is not None:
        learner.average.swap()
    learner.agent.eval()
    journal.close()
    if settings.plot:
        from .plots.curves import draw_run

        console.stop()
        draw_run(path, journal.history, matrix=at.matrix)
    keeper.finish("finished")
    console.finished(at, path, seconds=seconds, steps=at.step - first_step)
    return Run(
        agent=learner.agent,
        spec=world.spec,
        metrics=dict(at.metrics),
        history=journal.history,
        replay=replay,
        path=path,
        accuracy_matrix=np.array(at.matrix, dtype=np.float64),
    )


def _resume(
    state: dict[str, Any],
    settings: Settings,
    world: Any,
    learner: Learner,
    replay: Any,
    at: Progress,
    log: Log,
    journal: Journal,
    schedule: Schedule,
    console: Console,
) -> None:
    """Put everything back to where the checkpoint left it."""
    changed = changed_settings(state["settings"], settings.values)
    if "tasks" in changed:
        before, now = changed["tasks"]
        raise ConfigError(
            f"The run in {settings.path or 'this directory'} has tasks={before}, this one tasks={now}: "
            "it cannot be continued so. Give another path or experiment."
        )
    at.load_state_dict(state["progress"])
    anew = _parts_to_begin_anew(changed)
    learner.load_state_dict(state["learner"], but=anew)
    if "optimizer" not in anew and {"optim", "lr", "weight_decay"} & changed.keys():
        learner.reset_hyperparameters()
    console.note(f"Resumed at step {at.step}.")
    for key, (before, now) in changed.items():
        console.problem(f"Changed since the checkpoint: {key}: {before} -> {now}")
    finished = at.task == len(world.tasks)
    task = at.task - finished if at.begun or finished else None
    world.resume(task, replay, state["replay"])
    if finished:
        _reopen(at, schedule, replay, console)
    log.load_state_dict(state["log"])
    journal.load_state_dict(state["journal"])


def _parts_to_begin_anew(changed: dict[str, tuple[Any, Any]]) -> tuple[str, ...]:
    """The parts of a learner whose saved state is of another kind than what is asked for now."""
    before, now = changed.get("optim", ({}, {}))
    if (before or {}).get("_target_") != (now or {}).get("_target_"):
        return ("optimizer", "scheduler")
    return ("scheduler",) if {"scheduler", "lr_decay_epochs"} & changed.keys() else ()


def _reopen(at: Progress, schedule: Schedule, replay: Any, console: Console) -> None:
    """Continue the last task of a finished run that is now to go on for longer."""
    at.task, at.begun = at.task - 1, True
    if schedule.over(at, replay):
        at.end_task()
        console.note("This run is finished: there is nothing left to learn.")
    else:
        at.matrix.pop()


def changed_settings(before: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What differs between a checkpoint's settings and these, but for incidental ones."""
    return {
        key: (before.get(key), now.get(key))
        for key in {**before, **now}
        if key not in _INCIDENTAL and before.get(key) != now.get(key)
    }


def run_path(settings: Settings, world: Any) -> Path:
    """The run directory, absolute."""
    if settings.path is not None:
        return Path(settings.path).absolute()
    names = (model_name(settings), world.name, str(settings.seed))
    safe = [re.sub(r"[^\w.+-]+", "-", name) for name in names]
    return Path("runs", settings.experiment, *safe).absolute()


def model_name(settings: Settings) -> str:
    """`Model` of `model.py:Model`, `resnet18` of `torchvision.models.resnet.resnet18`."""
    return re.split(r"[.:]", settings.model["_target_"])[-1]


def _header(settings: Settings, world: Any, learner: Learner, path: Path) -> dict[str, str]:
    count = sum(p.numel() for p in learner.agent.parameters())
    spec = world.spec
    lines = {
        "model": f"{model_name(settings)}, {count:,} parameters, on {learner.device}",
        "data" if world.on_data else "env": world.describe(),
        "spec": str(spec),
    }
    if spec.obs.mean is not None:
        mean, stddev = (float(x.double().mean()) for x in (spec.obs.mean, spec.obs.stddev))
        lines["spec"] += f" (inputs: mean {mean:.4g}, deviation {stddev:.4g})"
    lines["run"] = str(path)
    return lines


@contextmanager
def _determinism(wanted: bool) -> Iterator[None]:
    if not wanted:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
