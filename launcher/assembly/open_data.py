"""Opens the data sets that the plan names; rows that are not in a table are read later, by `data.py`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...envs import folders, huggingface, shards
from ...envs.arrow import as_arrow, is_text, read_file, word_columns
from ...envs.forms import is_table
from ...envs.media import media_of_class, refusal
from ...envs.sources import OnHub
from ...envs.table_columns import Columns
from ...envs.table_fitting import Wishes
from ...envs.tables import Table
from ...replay import ConfigError, DataError
from ..settings.loaders import unwrapped
from ..settings.named import Named
from ..settings.object_names import class_name
from ..settings.plan import Plan
from .torch_losses import targets_of

COLUMN_SETTINGS = ("target", "target_type", "inputs", "drop", "categories", "missing")
"""Settings that name columns, or say what they hold."""


@dataclass(frozen=True)
class Tables:
    """A table, and its own held-out part, if it has one."""

    train: Table
    held_out: Table | None = None


@dataclass(frozen=True)
class Opened:
    """A data set.

    Attributes:
        source: `Tables`, or the parts of a folder, of shards or of a Hugging Face data set; or what was
            named: a class, an instance, arrays.
        arguments: Its sub-keys.
    """

    source: Any
    arguments: dict[str, Any]

    @property
    def words(self) -> tuple[str, ...]:
        """The columns of a table's training part that hold words."""
        return word_columns(self.source.train.rows) if isinstance(self.source, Tables) else ()


def opened(
    named: Named,
    wishes: Wishes,
    *,
    split: bool = False,
    role: str = "",
    like: Columns | None = None,
    words: Collection[str] = (),
) -> Opened:
    """The data set that a setting names.

    Args:
        split: Whether a folder of pictures without a held-out part of its own is divided.
        like: Columns of the run's own table, whose text file was read with options.
        words: Columns that hold words in the training table, and therefore in a text file.
        role: Starts the name of one that has no name, in errors.

    Raises:
        ConfigError: For arguments that its kind does not have.
        DataError: If it cannot be read.
    """
    target: Any = unwrapped(named.target)
    if (kind := media_of_class(target)) is not None:
        raise DataError(refusal(class_name(target), kind))
    options = {key: value for key, value in named.arguments.items() if key != "subset"}
    if isinstance(target, Path) and target.is_file() and target.suffix.lower() != ".tar":
        if like is not None and is_text(target):
            options = {**like.options, **options}
        rows, notes = read_file(target, options, words if like is None else like.words)
        table = Table(rows, target.name, notes=tuple(notes), options=options)
        return Opened(Tables(table), named.arguments)
    if is_table(target):
        _refuse(options, "A table")
        name = f"the {role}table"
        return Opened(Tables(Table(as_arrow(target, name), name)), named.arguments)
    of_hub = isinstance(target, OnHub)
    saved = isinstance(target, Path) and huggingface.is_saved(target)
    if of_hub or saved or huggingface.is_hugging_face(target):
        if not of_hub:
            _refuse(options, "A data set of Hugging Face's")
        parts = huggingface.open_parts(target, options, wishes)
        return Opened(_tables(parts, wishes), named.arguments)
    if isinstance(target, Path):
        found: folders.Parts | shards.Parts
        if shards.shards_named(target) is not None:
            found = shards.open_shards(target, wishes.target)
        else:
            found = folders.open_folder(target)
        # Now, and not once it is decoded: taking rows out would copy them into memory.
        found = found.split() if split and "subset" not in named.arguments else found
        return Opened(found, named.arguments)
    return Opened(target, named.arguments)


def wishes_of(plan: Plan) -> Wishes:
    """What the settings say of columns."""
    return Wishes(
        target=None if plan.target is None else tuple(plan.target),
        target_type=plan.target_type,
        inputs=None if plan.inputs is None else tuple(plan.inputs),
        drop=tuple(plan.drop or ()),
        categories=tuple(plan.categories or ()),
        missing=plan.missing,
        wanted="values" if plan.target_type == "values" else targets_of(plan.loss),
    )


def _tables(parts: huggingface.Parts, wishes: Wishes) -> Tables | huggingface.Parts:
    """A data set whose columns are those of a table, as such; any other unchanged."""
    if not huggingface.is_table(parts.train, wishes, parts.name):
        return parts
    train = huggingface.as_table(parts.train, parts.name, wishes, parts.notes)
    if parts.held_out is None:
        return Tables(train)
    return Tables(train, huggingface.as_table(parts.held_out, f"held-out {parts.name}", wishes))


def _refuse(options: Mapping[str, Any], what: str) -> None:
    if options:
        raise ConfigError(
            f"{what} has no argument `{next(iter(options))}`. It accepts: subset. Columns are named by "
            f"{'=, '.join(COLUMN_SETTINGS)}=."
        )
