"""`batch_size=auto`: halves the batch until a learning step fits into memory, before the run begins.

Each size is tried in a copy of this process that takes a few learning steps and ends: nothing of the trial
is left in the model, in random streams, or in memory, and a system that ends processes for their memory ends
the copy. Gradients are then accumulated over as many batches as make up the whole one.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import warnings
from typing import Any, NoReturn

import torch

from ..replay import CheckpointError, ConfigError
from .learn.out_of_memory import is_out_of_memory
from .process import Workplace
from .record.checkpoint import find
from .record.log import Log
from .session import Session
from .settings.plan import Plan, make_plan
from .settings.settings import Settings
from .settings.warn import warn_caller

_STEPS = 3  # The first fills the optimiser's averages, the later ones need them too.


def plan_that_fits(settings: Settings) -> Plan:
    """The plan of the settings, in which `batch_size=auto` is decided, as it is in the settings afterwards.

    Raises:
        ConfigError: As `make_plan`, and if no batch fits, or none can be tried.
    """
    whole = _take_auto(settings)
    plan = make_plan(settings)
    if whole is not None:
        plan = _fitting(plan, whole)
        settings.values.update(batch_size=plan.batch_size, accumulate=plan.accumulate)
    return plan


def _take_auto(settings: Settings) -> int | None:
    """Take `auto` or `auto:N` out of the settings; returns N, 0 for the default size, or None if neither.

    Raises:
        ConfigError: If it cannot be tried.
    """
    wanted = settings.values["batch_size"]
    if not isinstance(wanted, str):
        return None
    settings.values["batch_size"] = None
    if settings.values["env"] is not None:
        raise ConfigError(
            "batch_size=auto needs a data set: in an environment, accumulating gradients would change how "
            "often the model is updated."
        )
    if not hasattr(os, "fork") or torch.cuda.is_initialized():
        why = "a GPU is in use in it" if hasattr(os, "fork") else "this system has no fork"
        raise ConfigError(
            f"batch_size=auto tries sizes in copies of this process, which is impossible: {why}. Set "
            "batch_size, and accumulate, or use the console: ml ... batch_size=auto."
        )
    return int(wanted.partition(":")[2] or 0)


def _fitting(plan: Plan, whole: int) -> Plan:
    """The plan with the largest batch that fits, and gradients accumulated up to the whole batch.

    A run that is resumed goes on with what it began with.

    Args:
        whole: Rows per update; 0: the default batch size.

    Raises:
        ConfigError: If not even the smallest batch fits.
    """
    size, pieces = whole or plan.batch_size, 1
    while True:
        tried = plan.decided(batch_size=size, accumulate=pieces * plan.accumulate)
        found = _tried(tried)
        if found.get("known"):
            return plan.decided(**found["known"])
        if found.get("fits", True):  # What else went wrong, the run itself will say.
            break
        if size % 2:
            raise ConfigError(
                f"batch_size=auto: not even batches of {size} fit into memory, which is as far as "
                f"{whole or plan.batch_size} can be halved. Use a smaller model, or precision=bf16."
            )
        size, pieces = size // 2, pieces * 2
    if pieces > 1:
        alone = (
            ""
            if found.get("optimised", True)
            else (" But the model updates itself, and so by each batch alone.")
        )
        warn_caller(
            f"batch_size=auto: batches of {size * pieces} rows do not fit into memory. This run learns from "
            f"batches of {size} and updates after {tried.accumulate} (accumulate).{alone}"
        )
    return tried


def _tried(plan: Plan) -> dict[str, Any]:
    """Take a few steps in a copy of this process.

    Returns:
        `fits`, whether there was enough memory; `optimised`, whether `learn` returned a loss; or `known`,
        the sizes of the run that is resumed. Empty if something else went wrong.
    """
    read, write = os.pipe()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    with warnings.catch_warnings():
        # Python 3.12 warns of threads, which the copy does not use.
        warnings.simplefilter("ignore")
        child = os.fork()
    if child == 0:
        os.close(read)
        _try(plan, write)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        said = answer.read()
    _, status = os.waitpid(child, 0)
    if said:
        found: dict[str, Any] = json.loads(said)
        return found
    return {"fits": False} if os.WIFSIGNALED(status) else {}


def _try(plan: Plan, answer: int) -> NoReturn:
    found: dict[str, Any] = {}
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        found = _steps(plan.decided(progress=False, plot=False))
    except BaseException as error:
        if is_out_of_memory(error):
            found = {"fits": False}
    finally:
        with contextlib.suppress(OSError):
            os.write(answer, json.dumps(found).encode() if found else b"")
        os._exit(0)  # Nothing of the run may be cleaned up here.


def _steps(plan: Plan) -> dict[str, Any]:
    workplace = Workplace()
    with workplace.spell(), Session.build(plan, workplace) as session:
        if plan.resume and (known := _known(session)):
            return {"known": known}
        session.rest.end()
        session.begin(0)
        for _ in range(_STEPS * plan.accumulate):
            session.collect()
            session.learner.step(session.replay, Log())
        return {"fits": True, "optimised": session.learner.optimised}


def _known(session: Session) -> dict[str, int]:
    """The sizes of the run in the session's directory; empty if there is none."""
    try:
        settings = find(session.path, without=("replay", "learner"))["settings"]
        return {name: int(settings[name]) for name in ("batch_size", "accumulate")}
    except (CheckpointError, KeyError, TypeError, ValueError):
        return {}
