"""One run, from composed settings to the `Run` that `ml` gives back."""

from __future__ import annotations

import functools
import re
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from ..agents.blocks.composition import Composition, View
from ..agents.blocks.parts import OBS, asks_for
from ..agents.traits import has_forward, traits
from ..replay import ConfigError, Diverged
from . import build, offline
from .actor import Actor
from .checkpoint import Checkpoints, find
from .config import Settings
from .console import Console
from .device import arithmetic, describe, device_wanted, place_tables, wants_channels_last
from .directory import RunDirectory
from .evaluate import Evaluator
from .forward import check_channels_last, check_forward, example
from .header import header
from .keeper import Interrupted, Keeper
from .learn_method import warn_of_others
from .learner import Learner
from .lengths import build_plans, build_schedule, evaluates_in_task, total_steps
from .log import CSV, Journal, Writer
from .loop import Loop
from .naming import model_name, unresolved
from .observe.observer import Observer
from .optimisation import Average, build_optimizer
from .pictures import Spared
from .randomness import kept_randomness, seed_everything
from .run import Run
from .schedulers import Scheduler, build_scheduler
from .session import Session
from .trackers import Tracker, check_installed
from .unread import of_the_optimiser, without_effect
from .weights import load_weights, start_weights


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
    build.complete(settings)
    saved = offline.adopt(settings)
    device = build.build_device(device_wanted(settings))
    with ExitStack() as stack:
        stack.enter_context(kept_randomness())  # The device's too, which is in use by now.
        stack.enter_context(arithmetic(settings, device))
        seed_everything(settings.seed)
        world = build.build_world(settings)
        stack.callback(world.close)
        for key, reason in without_effect(settings, world).items():
            warnings.warn(f"`{key}` has no effect in this run: {reason}.", stacklevel=3)
        placed = place_tables(world, device, settings.data) if world.on_data else None
        stack.enter_context(_threads(build.build_threads(settings, world, device)))
        transform, plain = build.build_transforms(settings, world, device)
        seed_everything(settings.seed)  # Weights do not depend on how the data was read.
        agent, own = build.build_agent(settings, world, device, (transform, plain))
        if saved is not None:
            offline.check_agent(agent, world.spec)
        options: dict[str, Any] = {"device": device, "precision": str(settings.precision)}
        if world.on_data:
            warn_of_others(agent)
        else:
            options["supervised"] = False
        trial = Learner(agent, world.spec, **options)
        channels_last = wants_channels_last(settings, world, device) and check_channels_last(
            trial, world, transforms=(plain, transform), needed=bool(settings.channels_last)
        )
        if not channels_last:
            check_forward(trial, world, transform=plain)
        recurrence = trial.recurrence
        obs = example(world, plain, trial)
        start_weights(settings, agent, world, obs)
        if settings.load is not None:
            earlier = find(Path(settings.load))["learner"]
            load_weights(agent, earlier["agent"], changed=earlier.get("grown"))
        strategies = build.build_strategies(settings, world, agent, transform, device)
        if strategies is not None:
            stack.callback(strategies.context.close)
        held = build.own_optimizers(settings, agent)
        if held is not None:
            stack.callback(held.close)
        optimizer = (held and held.only) or build_optimizer(settings, agent, own)
        scheduler, schedule = _scheduler(settings, world, optimizer)
        learner = Learner(
            agent,
            world.spec,
            optimizer=optimizer,
            own=held,
            scheduler=scheduler,
            clip_grad=settings.clip_grad,
            accumulate=settings.accumulate,
            average=Average(agent, decay=settings.ema) if settings.ema is not None else None,
            strategies=strategies,
            tasks=len(world.tasks),
            **options,
        )
        if recurrence is not None:
            learner.recurrence, transform.unpack = recurrence, recurrence.unpack
            transform.initial = recurrence.zeros
        if settings.compile:
            if isinstance(agent, Observer):
                agent.compile()
            else:  # A method of its own may be another thing: Keras' takes an optimiser and a loss.
                nn.Module.compile(agent)
        replay = build.build_replay(
            settings, world, transform, device, recurrent=recurrence is not None, saved=saved
        )
        saved = None  # What was read of it is in the replay now.
        stack.callback(replay.close)
        replay.before = None if strategies is None else strategies.before_batch
        if isinstance(agent, Observer):
            agent.bind(replay)
        about: dict[str, Any] = {"placed": placed, "schedule": schedule}
        about["where"] = describe(settings, device, channels_last)
        return _run(settings, world, learner, replay, plain, stack, own=own, obs=obs, about=about)


def _run(
    settings: Settings,
    world: Any,
    learner: Learner,
    replay: Any,
    plain: Any,
    stack: ExitStack,
    *,
    own: nn.Module,
    obs: Any,
    about: dict[str, Any],
) -> Run:
    """Claim the directory, continue or begin, run the loop, and close the books.

    Args:
        own: The user's own module, which may be a part of what learns.
        obs: Two observations, as it meets them.
        about: What the header says of its device and of its data's place.
    """
    path = run_path(settings, world)
    offline.check_path(settings, path)
    schedule = build_schedule(settings, world)
    directory = RunDirectory(path, resume=settings.resume)
    stack.callback(directory.close)
    journal = _journal(settings, path)
    stack.callback(journal.close)
    told = world.scenario == "task"
    total = total_steps(schedule, settings, world)
    console = Console(enabled=settings.progress, total=total, told=told)
    stack.callback(console.stop)
    acts = not world.on_data and not replay.offline
    actor = Actor(learner, plain.observe, as_stored=plain.as_stored) if acts else None
    session = Session(settings, world, learner, actor, replay, schedule, journal)
    checkpoints = Checkpoints(path / "checkpoints")
    samples = build.build_pictures(settings, world, path)
    evaluate = Evaluator(
        world,
        learner,
        transform=plain,
        episodes=settings.eval_episodes,
        seed=settings.seed,
        folder=path / "videos",
        draw=None if samples is None else Spared(samples, "pictures of samples", console.problem),
    )
    rates = about.pop("schedule")
    console.header(header(settings, world, learner, replay, path, **about, rates=rates[:1]))
    for problem in rates[1:]:
        console.problem(problem)
    draw = functools.partial(_draw_model, own, learner.agent, obs, path / "plots", console)
    if settings.resume:
        directory.resume = _resume(session, checkpoints, console)
    keeper = Keeper(
        directory,
        checkpoints,
        journal,
        console,
        at=session.at,
        config_yaml=settings.yaml(),
        snapshot=session.state_dict,
        is_good=learner.is_finite,
        save_every=settings.save_every,
        newest_loss=lambda: session.log.last("loss"),
        begun=Spared(draw, "picture of the model", console.problem)
        if settings.render_model
        else None,
    )
    at, first_step, began = session.at, session.at.step, time.monotonic()
    try:
        with keeper:
            Loop(
                world,
                learner,
                actor,
                replay,
                schedule=schedule,
                at=at,
                evaluate=evaluate,
                log=session.log,
                journal=journal,
                keeper=keeper,
            ).run()
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
    learner.unreached.warn()
    if learner.unmoved.begun and not learner.optimised and (problem := learner.unmoved.problem()):
        console.problem(problem)
    if learner.own is not None and learner.optimised:
        learner.own.warn_of_schedulers()
    if learner.steps and not learner.optimised and at.step > first_step:
        for key in of_the_optimiser(settings):
            if key in traits(learner.agent).reads:
                continue
            console.problem(
                f"`{key}` had no effect: {model_name(settings)} updates itself. `model.lr=...` and the "
                "like set its own arguments, where it has them."
            )
    if learner.scaler is not None and learner.steps and not learner.optimised:
        console.problem(
            f"precision=16: {model_name(settings)} updates itself, so its losses were not scaled, and small "
            "gradients may have been lost. precision=bf16 needs no scaling."
        )
    if learner.average is not None and learner.optimised:
        learner.parameters.look()
        learner.average.swap()
    learner.agent.eval()
    journal.close()
    keeper.finish("finished")
    if settings.plot:
        tasks = f" in {len(world.tasks)} tasks" if len(world.tasks) > 1 else ""
        Spared(_draw_run, "pictures of the run", console.problem)(
            path,
            journal.history,
            matrix=at.matrix,
            # Where tasks share their outputs, to tell the task makes no difference.
            task_il=at.task_il if at.task_il and world.scenario != "domain" else None,
            told=told,
            parameters=keeper.tasks[-1].get("parameters") if keeper.tasks else None,
            title=f"{model_name(settings)} on {world.name}{tasks}, seed {settings.seed}",
        )
    console.finished(at, path, seconds=seconds, steps=at.step - first_step)
    return Run(
        agent=own,
        spec=world.spec,
        metrics=dict(at.metrics),
        history=journal.history,
        replay=replay,
        path=path,
        accuracy_matrix=np.array(at.matrix, dtype=np.float64),
        task_il_matrix=np.array(at.task_il, dtype=np.float64),
        tasks=keeper.tasks,
    )


def _draw_run(*args: Any, **options: Any) -> None:
    from .plots.curves import draw_run  # Matplotlib is loaded where there is something to draw.

    draw_run(*args, **options)


def _scheduler(
    settings: Settings, world: Any, optimizer: Optimizer | None
) -> tuple[Scheduler | None, list[str]]:
    """The scheduler, and what is said of it before the run."""
    schedule = build_schedule(settings, world)
    plans = build_plans(schedule, settings, world)
    if (n := settings.accumulate) > 1 and n > (most := max(p.learning_steps for p in plans)):
        of = "the run" if len(plans) == 1 else "a task"
        warnings.warn(
            f"accumulate={n} is more than the {most:,} learning steps of {of}: the weights are updated "
            "only once, at its end. accumulate= counts learning steps, not examples.",
            stacklevel=2,
        )
    return build_scheduler(
        settings,
        optimizer,
        plans,
        evaluations=evaluates_in_task(schedule, plans, world),
        validation=schedule.validation,
    )


def _draw_model(own: nn.Module, agent: nn.Module, obs: Any, folder: Path, console: Console) -> None:
    """A picture of the user's module, or of the parts that an agent is composed of."""
    from .render.model import render_model

    composition = traits(agent).composition
    drawn = View(composition) if isinstance(composition, Composition) else own
    if not has_forward(drawn):
        console.problem(f"render_model: {type(drawn).__name__} has no forward to draw.")
        return
    if drawn is own and asks_for(own, "obs_shapes") and not isinstance(obs, dict):
        obs = {OBS: obs}
    render_model(drawn, (obs,), folder, title=type(own).__name__, report=console.problem)


def _journal(settings: Settings, path: Path) -> Journal:
    writers: list[Writer] = []
    for name in settings.loggers:
        if name == "csv":
            writers += [CSV(path / f"{mode}.csv", mode=mode) for mode in ("train", "eval")]
        else:
            writers.append(Tracker(name, path, settings.values))
    return Journal(writers)


def _resume(session: Session, checkpoints: Checkpoints, console: Console) -> bool:
    """Continue from the newest valid checkpoint; returns whether there was one."""
    state, problems = checkpoints.newest()
    for problem in problems:
        console.problem(f"Passed over: {problem}")
    if state is None:
        console.note(
            f"No checkpoint to resume from in {checkpoints.folder.parent} yet: starting afresh."
        )
        return False
    session.load_state_dict(state, console)
    return True


def run_path(settings: Settings, world: Any) -> Path:
    """The run directory, absolute."""
    if settings.path is not None:
        return Path(settings.path).absolute()
    names = (model_name(settings), world.name, str(settings.seed))
    safe = [re.sub(r"[^\w.+-]+", "-", name) for name in names]
    return Path("runs", settings.experiment, *safe).absolute()


@contextmanager
def _threads(wanted: int | None) -> Iterator[None]:
    if wanted is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)
