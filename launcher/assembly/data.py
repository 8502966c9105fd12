"""Reads the data sets that the plan names, and divides them into tasks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ...envs import datasets, folders, huggingface, shards, sources
from ...envs.arrays import Arrays
from ...envs.decoded import Cache
from ...envs.images import Pictures
from ...envs.later import are_numbers
from ...envs.numbering import number_labels
from ...envs.reading import Reading
from ...envs.table_columns import Columns
from ...envs.table_fitting import Wishes
from ...envs.table_world import TableWorld
from ...envs.tasks import DataWorld
from ...replay import ConfigError
from ...replay.spec import TargetKind
from ..settings.construct import construct
from ..settings.kinds import data_kind
from ..settings.named import Named
from ..settings.object_names import class_name, makes_objects
from ..settings.plan import Plan
from .decoded_cache import decoded_cache
from .open_data import COLUMN_SETTINGS, Opened, Tables, opened, wishes_of
from .subset import choose_subset
from .tables import read_tables, table_to_evaluate
from .torch_losses import targets_of

_OF_FILES = (folders.Parts, shards.Parts)
_PARTS = (*_OF_FILES, huggingface.Parts)


def build_data(plan: Plan) -> TableWorld:
    """The data sets, one per task or one to be split, with their held-out rows.

    Raises:
        ConfigError: If a data set cannot be identified, or settings contradict each other.
        DataError: If a data set cannot be read or learnt from.
    """
    named = plan.dataset or ()
    # A data set of another library, such as Mammoth's, may define its own tasks.
    if len(named) == 1 and (kind := data_kind(named[0].target)) is not None:
        _check_storage(plan, f"{class_name(named[0].target)}, which defines its own tasks")
        return kind.build(named[0].target, named[0].arguments, plan)
    train, test, notes, decoded, pictures = read_data(plan)
    return DataWorld(
        train,
        test,
        tasks=plan.tasks,
        classes_per_task=plan.classes_per_task,
        class_order=plan.class_order,
        num_classes=plan.num_classes,
        scenario=plan.scenario,
        validation=plan.validation,
        seed=plan.seed,
        standardize=plan.standardize if "standardize" in plan.given else None,
        notes=notes,
        decoded=decoded,
        pictures=pictures,
        channels=plan.channels,
    )


def read_data(
    plan: Plan, *, numbered: bool = True, columns: Columns | None = None
) -> tuple[list[Arrays], list[Arrays | None], list[str], set[bool], Pictures | None]:
    """The training and held-out rows of each data set; `notes`, `decoded` and `pictures` for `DataWorld`.

    Args:
        numbered: Whether to map labels to int64 0 to n - 1; else they stay unchanged.
        columns: How the columns of earlier tables became inputs; None: there are none.

    Raises:
        ConfigError: If a data set cannot be identified, or the two settings name different numbers.
        DataError: If one cannot be read.
    """
    wishes = wishes_of(plan)
    own = plan.test_dataset is None
    parts = [opened(named, wishes, split=own) for named in plan.dataset or ()]
    # Without test_dataset=, the data sets' own test parts, where they have any.
    others = None if own else _opened_held_out(plan, wishes, parts)
    if (tables := read_tables(parts, others, plan, numbered=numbered, known=columns)) is not None:
        _check_storage(plan, "a table")
        return *tables, {False}, None
    _check_columns_named(parts, plan)
    options = _options(plan, wishes)
    train: list[Arrays] = []
    test: list[Arrays | None] = []
    notes: list[str] = []
    decoded: set[bool] = set()
    first: Pictures | None = None
    for one, another in zip(parts, others or parts, strict=True):
        part, arguments, other = one.source, one.arguments, another.source
        of_folder = isinstance(part, _OF_FILES)
        if of_folder and not own and isinstance(other, _OF_FILES):
            other = other.numbered_as(part)
        # Held-out images are resized to the training images' size and channels.
        pictures = Pictures(plan.image_size, colour=of_folder)
        options["pictures"] = pictures
        arrays = _arrays(part, arguments, train=True, **options)
        assert arrays is not None
        asked: dict[str, Any] | None = another.arguments
        if own and makes_objects(part):
            asked = sources.own_test_arguments(part, arguments)
        rest = None if asked is None else _held_out(other, asked, own=own, like=arrays, **options)
        # Before `subset=` chooses classes: train and test rows must agree on the numbers.
        if numbered and (plan.num_classes is None or not are_numbers(arrays)):
            arrays, rest = number_labels(arrays, rest)
        train.append(choose_subset(arrays, arguments))
        test.append(None if rest is None else choose_subset(rest, asked or {}))
        found = pictures.decoded(arrays.inputs)
        decoded |= found
        if first is None and True in found:
            first = pictures
        notes += part.notes if isinstance(part, _PARTS) else []
        notes += [note] if (note := pictures.describe()) else []
    return train, test, [*notes, *options["cache"].notes], decoded, first


def _check_storage(plan: Plan, what: str) -> None:
    """Raise ConfigError if rows that can only be in memory are to be elsewhere."""
    if plan.storage != "ram":
        raise ConfigError(
            f"storage={plan.storage} is for arrays, pictures, items of a Dataset and Hugging Face's data; "
            f"this is {what}, whose rows are held in memory. Leave storage= out; or save the inputs of a "
            "large table as an array, and give dataset=(numpy.load(file, mmap_mode='r'), targets)."
        )


def _opened_held_out(plan: Plan, wishes: Wishes, parts: list[Opened]) -> list[Opened]:
    """The data sets that `test_dataset=` names, one for each part."""
    held_out = plan.test_dataset or ()
    if len(held_out) != len(parts):
        raise ConfigError(
            f"test_dataset= names {len(held_out)} data sets, but dataset= names {len(parts)}."
        )
    return [
        opened(named, wishes, role="held-out ", words=part.words)
        for named, part in zip(held_out, parts, strict=True)
    ]


def _options(plan: Plan, wishes: Wishes) -> dict[str, Any]:
    """The arguments of `_arrays` that are the same for all data sets."""
    data_dir = data_dir_of(plan)
    cache = decoded_cache(plan, data_dir)
    return {
        "data_dir": data_dir,
        "channels": plan.channels,
        "cache": cache,
        "wishes": wishes,
        "wanted": targets_of(plan.loss),
    }


def read_to_evaluate(named: Named, plan: Plan, reading: Reading, kind: TargetKind) -> Arrays:
    """The rows of a data set to evaluate on: its test part if it has one, else all; labels stay unchanged.

    Args:
        plan: The plan of the run.
        reading: How the run's own data was read: pictures are decoded, and columns encoded, like those.
        kind: What the run's targets are: a few others may look like something else.

    Raises:
        ConfigError: If it cannot be identified.
        DataError: If it cannot be read.
    """
    columns, wanted = reading.columns, None if kind == "classes" else kind
    wishes = replace(wishes_of(plan), wanted=wanted)
    part = opened(named, wishes, like=columns)
    if columns is not None or isinstance(part.source, Tables):
        return table_to_evaluate(part, wishes, columns)
    options = {**_options(plan, wishes), "wanted": wanted}
    options["pictures"] = reading.pictures or Pictures(plan.image_size)
    found = (_arrays(part.source, part.arguments, train=t, **options) for t in (False, True))
    return choose_subset(next(arrays for arrays in found if arrays is not None), part.arguments)


def data_dir_of(plan: Plan) -> Path:
    """The folder of downloaded data sets."""
    return Path(plan.data_dir) if plan.data_dir else sources.default_data_dir()


def _held_out(
    part: Any, arguments: dict[str, Any], *, own: bool, like: Arrays, **options: Any
) -> Arrays | None:
    """The held-out rows: the data set's own test part, or the test part of another data set.

    Args:
        own: Whether it is the training data's own test part. Another data set without a test part is
            held out as a whole.
        like: The training rows: a few held-out targets may look like something else.
    """
    options["wanted"] = None if like.discrete else like.kind
    held_out = _arrays(part, arguments, train=False, role="held-out ", **options)
    if held_out is None and not own:
        held_out = _arrays(part, arguments, train=True, role="held-out ", **options)
    return held_out


def _arrays(
    part: Any,
    arguments: dict[str, Any],
    *,
    train: bool,
    data_dir: Path,
    pictures: Pictures,
    channels: str | None,
    wishes: Wishes,
    wanted: TargetKind | None,
    cache: Cache,
    role: str = "",
) -> Arrays | None:
    """One part of a data set in memory, or None if it has no such part.

    Args:
        part: A data set, a function or class that opens one, arrays, or the parts of a folder or of a
            Hugging Face data set.
        train: Whether to read the training part, not the test part.
        pictures: Decodes and resizes image files.
        channels: Where arrays have their channels, or None.
        wishes: What the settings say of columns.
        wanted: What targets of 0 and 1 are, or None.
        cache: Keeps what is decoded.
        role: Starts the data set's name in errors.
    """
    # `subset=` is Antelope's own argument, which no data set knows.
    arguments = {key: value for key, value in arguments.items() if key != "subset"}
    name = f"{role}{data_name(part)}"
    if isinstance(part, huggingface.Parts):
        if (rows := part.part(train=train)) is None:
            return None
        wishes = replace(wishes, wanted=wanted)
        options: dict[str, Any] = {"pictures": pictures, "channels": channels, "cache": cache}
        return huggingface.read_part(rows, wishes, name=name, **options)
    source = _source(part, arguments, train=train, data_dir=data_dir)
    if source is None:
        return None
    return datasets.read(
        source, name=name, pictures=pictures, channels=channels, cache=cache, wanted=wanted
    )


def source_to_predict(named: Named, plan: Plan) -> Any:
    """The data set that a plan names, not read yet: its test part if it has one, else all of it."""
    wishes, data_dir = wishes_of(plan), data_dir_of(plan)
    part = opened(named, wishes).source
    if isinstance(part, Tables):
        return (part.held_out or part.train).rows
    if isinstance(part, huggingface.Parts):
        rows = part.train if part.held_out is None else part.held_out
        return huggingface.inputs_of(rows, wishes, name=part.name)
    found = (_source(part, named.arguments, train=t, data_dir=data_dir) for t in (False, True))
    return next(source for source in found if source is not None)


def _source(part: Any, arguments: dict[str, Any], *, train: bool, data_dir: Path) -> Any:
    """One part of a data set, not read yet; None if it has no such part."""
    if isinstance(part, _OF_FILES):
        if arguments:
            raise ConfigError(
                f"A folder has no argument `{next(iter(arguments))}`. It accepts: subset."
            )
        return part.train if train else part.held_out
    if not makes_objects(part):
        return part if train else None  # Arrays and instances have no test part to ask for.
    inference = sources.split_arguments(part, train=train, data_dir=data_dir)
    if inference is None:
        return None
    return sources.open_dataset(
        lambda **given: construct(part, given, {}, setting="dataset"),
        part,
        {**inference, **arguments},
        name=data_name(part),
        data_dir=data_dir,
    )


def _check_columns_named(parts: list[Opened], plan: Plan) -> None:
    """Raise ConfigError if settings name columns of data that has none, or treat them as a table's."""
    given = [key for key in COLUMN_SETTINGS if key in plan.given]
    if any(isinstance(part.source, huggingface.Parts) for part in parts):
        if wrong := [key for key in given if key in ("categories", "missing")]:
            raise ConfigError(
                f"{wrong[0]}= is about the columns of a table, but the data has pictures, arrays or "
                "sequences among its inputs. Leave those out, inputs=[...], or leave the setting out."
            )
        return
    if given == ["target"] and any(isinstance(part.source, shards.Parts) for part in parts):
        return  # A key of their `.json` files.
    if given:
        raise ConfigError(
            f"{given[0]}= is about columns, but the data is not a table: give dataset= a data frame, "
            "or a .csv, .parquet, .jsonl or .arrow file."
        )


def data_name(part: object) -> str:
    """What messages call a data set: the name of its class or folder, or `arrays`."""
    if isinstance(part, huggingface.Parts):
        return part.name
    if isinstance(part, folders.Parts):
        return part.path.resolve().name
    if isinstance(part, shards.Parts):
        return part.path.resolve().name if part.path.is_dir() else part.path.resolve().parent.name
    if isinstance(part, (tuple, list)):
        return "arrays"
    return class_name(part)
