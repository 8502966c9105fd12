"""Where a run directory is, and whether a run may be written there."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ...envs.world import World
from ...replay import ConfigError
from ...replay.files import link_in
from ..pictures.status import LOCK
from ..settings.plan import Plan
from .owner import FILE as OWNER

# In a folder that holds no run yet, only these matter: it may be a project, with links of its own.
_NAMES = (
    *("config.yaml", "status.json", "train.csv", "eval.csv", LOCK, OWNER),
    *("checkpoints", "plots", "videos", "tensorboard", "wandb"),
)
_TRACKED = ("wandb",)  # W&B keeps links to its newest run there.


def run_path(plan: Plan, world: World | None = None) -> Path:
    """The run directory, absolute: `path=`, or one under `runs/` named by model, source and seed.

    Args:
        world: None: not known yet, so that the last folders of the default path are missing.
    """
    if plan.path is not None:
        return Path(plan.path).absolute()
    if world is None:
        return Path("runs", plan.experiment).absolute()
    names = (plan.model.short_name, world.name, str(plan.seed))
    # Names may contain slashes, such as `ALE/Pong-v5`.
    safe = [re.sub(r"[^\w.+-]+", "-", name) for name in names]
    return Path("runs", plan.experiment, *safe).absolute()


def check_place(path: Path, *, known: bool) -> None:
    """Refuse a run directory that could not be written, before minutes are spent on reading data.

    Args:
        path: The run directory, or the folder in which it will be.
        known: Whether it is the directory itself.

    Raises:
        ConfigError: If something is in the way, or the user may not write there.
    """
    try:
        there = next(p for p in (path, *path.parents) if p.exists() or p.is_symlink())
        if known:
            check_links(path)
    except OSError as error:
        reason = error.strerror or str(error)
    else:
        if not there.is_dir():
            reason = f"{there} is not a folder"
        elif not os.access(there, os.W_OK | os.X_OK):
            reason = f"{there}: Permission denied"
        else:
            return
    raise ConfigError(f"Cannot write the run to {path} ({reason}). Set another path=.")


def check_links(path: Path) -> None:
    """Refuse a directory from elsewhere whose links could lead our writes out of it.

    Raises:
        ConfigError: If it is a link, or there is a link, FIFO or device where a run writes.
    """
    found: Path | None = None
    if path.is_symlink():
        found = path
    elif (path / "config.yaml").is_file():
        found = link_in(path, tracked=_TRACKED)
    elif path.is_dir():
        found = link_in(path, names=_NAMES, tracked=_TRACKED)
    if found is not None:
        what = "a link" if found.is_symlink() else "neither a file nor a folder"
        if found == path and found.is_symlink():
            raise ConfigError(
                f"{path} is a link to {path.resolve()}, and no run is written through a link in its own "
                f"place, which may come from anybody. If it is yours, name the folder: path={path.resolve()}."
            )
        raise ConfigError(
            f"{found} is {what}. No run is written to a folder with such entries, since they could lead its "
            "files elsewhere. Remove it, or set another path=."
        )
    lock = path / LOCK
    if lock.is_file() and lock.stat().st_size and lock.stat().st_nlink > 1:
        # Taking the lock may empty the file: as a hard link it can be any file of the user's.
        raise ConfigError(f"{lock} is a hard link to another file. Remove it.")
