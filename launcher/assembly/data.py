"""The data sets that the settings name, read and divided into tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...envs import datasets, folders, sources
from ...envs.images import Pictures
from ...envs.later import are_numbers
from ...envs.numbering import number_labels
from ...envs.table_world import TableWorld
from ...envs.tasks import DataWorld
from ...replay import ConfigError
from ..settings.compose import Settings
from ..settings.named import makes_objects, named_objects
from ..settings.names import construct
from .loaders import unwrapped


def build_data(settings: Settings) -> TableWorld:
    """Data sets, one per task or one to be split, with what is held out of each.

    Raises:
        ConfigError: If what is named cannot be told, or settings contradict each other.
        DataError: If a data set cannot be read or learnt from.
    """
    named = named_objects(settings, "dataset")
    if len(named) == 1 and hasattr(named[0][0], "get_data_loaders"):
        from ..mammoth.observe.own_world import SequenceWorld, is_sequence  # Few runs observe.

        if is_sequence(named[0][0]):
            return SequenceWorld(named[0][0], settings, named[0][1])
    train, test, notes, decoded = read_data(settings)
    return DataWorld(
        train,
        test,
        tasks=settings.tasks,
        classes_per_task=settings.classes_per_task,
        class_order=settings.class_order,
        num_classes=settings.num_classes,
        scenario=settings.scenario,
        validation=settings.validation,
        seed=settings.seed,
        standardize=settings.standardize if "standardize" in settings.given else None,
        notes=notes,
        decoded=decoded,
    )


def read_data(
    settings: Settings, *, numbered: bool = True
) -> tuple[list[datasets.Arrays], list[datasets.Arrays | None], list[str], set[bool]]:
    """What is learnt from and what is held out, and what `DataWorld` calls `notes` and `decoded`.

    Args:
        numbered: Whether labels are to be 0 to n - 1; else they stay as they are read.
    """
    data_dir = Path(settings.data_dir) if settings.data_dir else sources.default_data_dir()
    options = {"data_dir": data_dir, "channels": settings.channels}
    parts = held_out = named_objects(settings, "dataset")
    own = settings.test_dataset is None  # The data sets' own test parts, where they have any.
    if not own and len(held_out := named_objects(settings, "test_dataset")) != len(parts):
        raise ConfigError(
            f"test_dataset= names {len(held_out)} data sets, dataset= names {len(parts)}."
        )
    train: list[datasets.Arrays] = []
    test: list[datasets.Arrays | None] = []
    notes: list[str] = []
    decoded: set[bool] = set()
    for (part, arguments), (other, others) in zip(parts, held_out, strict=True):
        part, other = unwrapped(part), unwrapped(other)
        part = folders.open_folder(part) if isinstance(part, Path) else part
        of_folder = isinstance(part, folders.Parts)
        if own:
            other, others = part, arguments
        elif isinstance(other, Path):
            other = folders.open_folder(other)
            other = other.numbered_as(part) if of_folder else other
        # Held-out images are given the size and the channels of those that are learnt from.
        pictures = Pictures(settings.image_size, colour=of_folder)
        options["pictures"] = pictures
        arrays = _arrays(part, arguments, train=True, **options)
        assert arrays is not None
        asked: dict[str, Any] | None = others
        if own and makes_objects(part):
            asked = sources.own_test_arguments(part, arguments)
        rest = None if asked is None else _held_out(other, asked, own=own, **options)
        # Classes are chosen by the number that both parts know them by.
        if numbered and (settings.num_classes is None or not are_numbers(arrays)):
            arrays, rest = number_labels(arrays, rest)
        train.append(_of_classes(arrays, arguments))
        test.append(None if rest is None else _of_classes(rest, asked or {}))
        decoded.add(pictures.size is not None)
        notes += part.notes if of_folder else []
        notes += [note] if (note := pictures.describe()) else []
    return train, test, notes, decoded


def _held_out(
    part: Any, arguments: dict[str, Any], *, own: bool, **options: Any
) -> datasets.Arrays | None:
    """The test part of what is learnt from (`own`), or of other data: all of it, if it has no parts."""
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
    role: str = "",
) -> datasets.Arrays | None:
    """One part of the world in memory, or None for a test part that it has not got."""
    arguments = {key: value for key, value in arguments.items() if key != "subset"}
    name = _data_name(part)
    if isinstance(part, folders.Parts):
        if arguments:
            raise ConfigError(
                f"A folder has no argument `{next(iter(arguments))}`. It takes: subset."
            )
        source = part.train if train else part.held_out
    elif makes_objects(part):
        inference = sources.split_arguments(part, train=train, data_dir=data_dir)
        if inference is None:
            return None
        source = sources.open_dataset(
            lambda: construct(part, {**inference, **arguments}, {}, setting="dataset"),
            name=name,
            data_dir=data_dir,
        )
    else:
        source = part if train else None
    if source is None:
        return None
    return datasets.read(source, name=f"{role}{name}", pictures=pictures, channels=channels)


def _of_classes(arrays: datasets.Arrays, arguments: dict[str, Any]) -> datasets.Arrays:
    """The classes that `subset=` chooses, if it does."""
    subset = arguments.get("subset")
    return arrays if subset is None else datasets.take_classes(arrays, list(subset))


def _data_name(part: Any) -> str:
    if isinstance(part, folders.Parts):
        return part.path.resolve().name
    if isinstance(part, (tuple, list)):
        return "arrays"
    return getattr(part, "__name__", type(part).__name__)
