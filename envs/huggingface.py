"""Hugging Face data sets, read through their Arrow columns.

Their own torch format makes int64 of bytes and converts value by value; the columns hold the numbers
as they were saved, and become arrays at once.

feature                        what a model receives
Value                          a column of a table (tables.py)
ClassLabel                     a column of a table, of categories
Image                          a picture, as from a folder
Array2D to Array5D             an array of that shape and dtype
List of numbers                an array, or, where lengths differ, a sequence
Value("string") alone          an error that says how to encode text
Audio, Video                   an error that says how to make arrays of them
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..replay import ConfigError, DataError, Mapped, Ragged
from ..replay.suggestions import did_you_mean
from .arrays import Arrays
from .datasets import read
from .decoded import Cache
from .feature_columns import LISTS, SCALAR, Images, column_of, kind_of, text_error
from .images import Pictures
from .labels import check_finite, check_labels, in_class_label
from .sources import OnHub, on_hub
from .table_columns import columns_in_words
from .table_fitting import Wishes, input_names
from .table_targets import read_columns
from .tables import Table

if TYPE_CHECKING:
    import pyarrow as pa

_HELD_OUT = ("test", "validation", "valid", "val", "dev", "eval")
_USUAL = ("label", "labels", "target", "targets", "fine_label")


@dataclass(frozen=True)
class Parts:
    """A Hugging Face data set: its training part, and its held-out part, if it has one.

    Attributes:
        notes: Remarks on how its parts are used, for the run's header.
    """

    name: str
    train: Any
    held_out: Any = None
    notes: tuple[str, ...] = field(default=())

    def part(self, *, train: bool) -> Any:
        """The training part, or the held-out part, which may be None."""
        return self.train if train else self.held_out


def is_saved(path: Path) -> bool:
    """Whether a folder was written by `save_to_disk`."""
    one = (path / "state.json").is_file() and (path / "dataset_info.json").is_file()
    return one or (path / "dataset_dict.json").is_file()


def is_hugging_face(value: object) -> bool:
    """Whether a value is one of their data sets, or a dict of them; their library is not imported to ask."""
    kind = type(value)
    return kind.__module__.partition(".")[0] == "datasets" and hasattr(value, "column_names")


def names_data(value: object) -> bool:
    """Whether a value is a data set of theirs, the folder of a saved one, or `hf:NAME`."""
    if isinstance(value, (str, Path)):
        return on_hub(value) is not None or is_saved(Path(value).expanduser())
    return is_hugging_face(value)


def open_parts(source: Any, arguments: Mapping[str, Any], wishes: Wishes) -> Parts:
    """The parts of a data set: `train`, and `test`, or without one `validation`.

    Args:
        source: A data set or a dict of them; the path of a saved one; a name on the hub.
        arguments: For a name, further arguments of `datasets.load_dataset`.
        wishes: Names the target, without which a test part is not one.

    Raises:
        ConfigError: If it is unclear which part to learn from.
        DataError: If it cannot be read or downloaded, or is a stream.
    """
    if isinstance(source, OnHub):
        found, name = _download(source, arguments), str(source)
    elif isinstance(source, Path):
        found, name = _load(source), source.resolve().name
    else:
        found, name = source, "the data set"
    if type(found).__name__.startswith("Iterable"):
        raise DataError(
            f"{name} is a stream ({type(found).__name__}), which has no rows by number. Load it without "
            "streaming=True."
        )
    if not isinstance(found, Mapping):
        return Parts(name, _as_formatted(found, name))
    found = {key: _as_formatted(part, name) for key, part in found.items()}
    if not (train := _training_part(found)):
        raise ConfigError(
            f"Which part of {name} is the training data? It has {', '.join(found)}. Give one as "
            "dataset=data['...'], and another as test_dataset=."
        )
    held_out = next(
        (
            key
            for key in _HELD_OUT
            if key in found and key != train and _has_labels(found[key], wishes)
        ),
        None,
    )
    rest = [key for key in found if key not in (train, held_out)]
    notes = [f"part{'s' * (len(rest) > 1)} {', '.join(rest)} not used"] if rest else []
    return Parts(name, found[train], None if held_out is None else found[held_out], tuple(notes))


def _as_formatted(part: Any, name: str) -> Any:
    """A part with the columns that its format lists (`set_format(columns=[...])`), if it has one.

    Raises:
        DataError: If it has a transform, which reading its columns would leave out.
    """
    if part.format["type"] == "custom":
        raise DataError(
            f"{name} has a transform (set_transform, with_transform), but its columns are read as they were "
            "saved. Apply it once: data.with_format(None).map(...); for random transforms of pictures, set "
            "aug=."
        )
    columns = part.format["columns"]
    return part if columns == part.column_names else part.select_columns(columns)


def is_table(part: Any, wishes: Wishes, name: str) -> bool:
    """Whether all of its inputs are single numbers or words: the columns of a table."""
    inputs = _inputs(part, wishes, name)
    kinds = {column: kind_of(part.features[column]) for column in inputs}
    if len(inputs) == 1 and (column := inputs[0]) not in wishes.categories:
        feature = part.features[column]
        if kinds[column] == "Value" and feature.dtype in ("string", "large_string"):
            fix = f"or say that its words are categories: categories=[{column}]"
            raise DataError(text_error(column, name, fix))
    return all(kind in SCALAR for kind in kinds.values())


def as_table(part: Any, name: str, wishes: Wishes, notes: tuple[str, ...] = ()) -> Table:
    """A part whose columns are those of a table."""
    features = part.features
    classes = {
        column: tuple(feature.names)
        for column, feature in features.items()
        if kind_of(feature) == "ClassLabel" and feature.names
    }
    scalars = [column for column, feature in features.items() if kind_of(feature) in SCALAR]
    usual = _usual(part) if wishes.target is None else None
    return Table(_arrow(part, scalars), name, classes=classes, usual=usual, notes=notes)


def read_part(
    part: Any,
    wishes: Wishes,
    *,
    name: str,
    pictures: Pictures,
    channels: str | None,
    cache: Cache | None = None,
) -> Arrays:
    """The arrays of a part whose inputs are pictures, arrays or sequences.

    Args:
        name: What errors call it.
        pictures: How decoded images become tensors, as settled by the training part.
        channels: Where arrays have their channels, as the user set it; None: inferred.
        cache: Says whether rows have to stay outside memory, and where they are written to.

    Raises:
        ConfigError: If no target is named and none is usual, or a name is unknown.
        DataError: If inputs are text, audio or video, or targets are missing.
    """
    target, inputs = _target(part, wishes, name), _inputs(part, wishes, name)
    features = part.features
    mapped = cache is not None and cache.rows is not None
    table = _arrow(part, target if mapped else (*inputs, *target))
    targets, names = _targets(table, target, features, wishes, name)
    if mapped:
        columns = _in_place(part, inputs, name)
    else:
        columns = {
            column: column_of(table[column], features[column], column, name) for column in inputs
        }
    only = columns[inputs[0]]
    source: Any
    if len(columns) > 1:
        source = ({key: _whole(value, key, name) for key, value in columns.items()}, targets)
    elif isinstance(only, Images):
        source = _Pictures(only, targets)
    else:  # Sequences are set below: there is no array of them.
        source = (torch.arange(len(only)) if isinstance(only, Ragged) else only, targets)
    options: dict[str, Any] = {"pictures": pictures, "channels": channels, "cache": cache}
    arrays = read(source, name=name, wanted=wishes.wanted, **options)
    if isinstance(only, Ragged):
        check_finite(only.values, f"inputs of {name}")
        arrays = replace(arrays, inputs=only)
    if names is not None and arrays.discrete:
        arrays.names, arrays.num_classes, arrays.values = names, len(names), None
        check_labels(arrays.targets, len(names), name, where=in_class_label(target[0]))
    return arrays


def inputs_of(part: Any, wishes: Wishes, *, name: str) -> Any:
    """The inputs of a part alone, which needs no target: one column, or a dict of them.

    Raises:
        DataError: If they are text, audio or video.
    """
    usual = _usual(part) if wishes.target is None else None
    out = {*wishes.drop, *(wishes.target or ()), usual}
    names = [column for column in (wishes.inputs or part.column_names) if column not in out]
    table = _arrow(part, names)
    columns = {
        column: column_of(table[column], part.features[column], column, name) for column in names
    }
    if len(columns) > 1:
        return columns
    only = next(iter(columns.values()))
    return [only[row] for row in range(len(only))] if isinstance(only, Ragged) else only


def _in_place(part: Any, names: list[str], name: str) -> dict[str, Any]:
    """Columns whose arrays stay in the files of a part, whatever rows of them it selects."""
    whole, rows = part.data.table, part._indices  # A selection has no public name.
    if rows is None:
        return {
            column: column_of(whole[column], part.features[column], column, name, mapped=True)
            for column in names
        }
    chosen = torch.from_numpy(rows.column(0).to_numpy().astype("int64"))
    columns = {}
    for column in names:
        taken: Any = None
        with suppress(DataError):  # Rows that are not selected may be the reason.
            taken = column_of(whole[column], part.features[column], column, name, mapped=True)
        if isinstance(taken, Mapped | Images):
            columns[column] = taken.rows(chosen)
        else:
            copied = _arrow(part, [column])[column]
            columns[column] = column_of(copied, part.features[column], column, name)
    return columns


def _whole(column: Any, name: str, source: str) -> Any:
    """A column that is one of several inputs."""
    if isinstance(column, Ragged):
        raise DataError(
            f"Column `{name}` of {source} holds lists of different lengths, which cannot be one of several "
            f"inputs. Pad them, or set inputs={name}."
        )
    return [*column] if isinstance(column, Images) else column


class _Pictures(Dataset[Any]):
    """Pictures with their targets, as items."""

    def __init__(self, images: Images, targets: Any):
        self.images = images
        self.targets = (
            targets.tolist() if isinstance(targets, Tensor) and targets.dim() == 1 else targets
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Any:
        return self.images[i], self.targets[i]


def _targets(
    table: pa.Table, target: tuple[str, ...], features: Any, wishes: Wishes, name: str
) -> tuple[Any, tuple[str, ...] | None]:
    """Targets in a form that `datasets.read` accepts, and names of their classes."""
    feature = features[target[0]]
    kind = kind_of(feature)
    if len(target) == 1 and kind not in SCALAR:
        if kind == "Image":
            raise DataError(
                f"target={target[0]} of {name} holds pictures. Give them as arrays: a pair (images, masks)."
            )
        return _target_array(table[target[0]], feature, target[0], name), None
    listed = len(target) == 1 and kind == "ClassLabel" and bool(feature.names)
    found = read_columns(table, target, "classes" if listed else wishes.target_type, name)
    if found.words is not None and isinstance(found.words[0], str):
        return [found.words[place] for place in found.rows.tolist()], None
    rows = found.rows.bool() if found.words is not None else found.rows
    return rows, tuple(feature.names) if listed else None


def _target_array(column: pa.ChunkedArray, feature: Any, target: str, name: str) -> Tensor:
    """A target that is an array in each row: several labels, or values."""
    import pyarrow.compute as pc

    ragged = kind_of(feature) in LISTS and len(pc.unique(pc.list_value_length(column))) > 1
    if ragged:
        raise DataError(
            f"target={target} of {name} holds lists of different lengths. A row has one target: a class, K "
            "values, or 0 and 1 in K columns for several labels. A target for each step (labelling, "
            "translation) is not supported."
        )
    found: Tensor = column_of(column, feature, target, name)
    return found


def _target(part: Any, wishes: Wishes, name: str) -> tuple[str, ...]:
    names = part.column_names
    if wishes.target is None:
        if (usual := _usual(part)) is None:
            raise ConfigError(
                f"Which column of {name} is to be predicted? Set target=NAME. Its columns are "
                f"{columns_in_words(names)}."
            )
        return (usual,)
    if unknown := [column for column in wishes.target if column not in names]:
        raise ConfigError(
            f"target={unknown[0]}: {name} has no such column.{did_you_mean(unknown[0], names)} It has "
            f"{columns_in_words(names)}."
        )
    return wishes.target


def _usual(part: Any) -> str | None:
    """The target where none is named: the only column of classes, or one with a usual name."""
    classes = [column for column, f in part.features.items() if kind_of(f) == "ClassLabel"]
    if len(classes) == 1:
        return classes[0]
    return next((name for name in _USUAL if name in part.column_names), None)


def _inputs(part: Any, wishes: Wishes, name: str) -> list[str]:
    return input_names(part.column_names, _target(part, wishes, name), wishes, name)


def _arrow(part: Any, columns: Sequence[str]) -> pa.Table:
    """Columns of a part as Arrow's, in its rows: a selection of them is applied."""
    kept = part.select_columns([column for column in part.column_names if column in columns])
    return kept.with_format("arrow")[:]


def _training_part(found: Mapping[str, Any]) -> str | None:
    if "train" in found:
        return "train"
    return next(iter(found)) if len(found) == 1 else None


def _has_labels(part: Any, wishes: Wishes) -> bool:
    """Whether its targets are known: those of a competition's test part are -1, or missing."""
    target = wishes.target or ((usual,) if (usual := _usual(part)) else ())
    if not target or any(column not in part.column_names for column in target):
        return False
    column = _arrow(part, [target[0]])[target[0]]
    if not len(column) or column.null_count == len(column):
        return False
    if kind_of(part.features[target[0]]) != "ClassLabel":
        return True
    return bool(column[0].as_py() != -1 or column[len(column) - 1].as_py() != -1)


def _load(path: Path) -> Any:
    library = _library(str(path))
    try:
        return library.load_from_disk(str(path))
    except Exception as error:  # Files of another version raise anything.
        raise DataError(f"{path} cannot be read: {type(error).__name__}: {error}") from error


def _download(source: OnHub, arguments: Mapping[str, Any]) -> Any:
    library = _library(str(source))
    try:
        return library.load_dataset(source.name, **{"name": source.config, **arguments})
    except Exception as error:  # Each of the many libraries below raises its own.
        said = str(error).splitlines()[0][:300] if str(error) else ""
        raise DataError(
            f"{source} could not be loaded ({type(error).__name__}: {said}). Check its name on "
            "huggingface.co/datasets and the network; or load it elsewhere, data.save_to_disk('FOLDER'), and "
            "give dataset=FOLDER."
        ) from error


def _library(name: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"{name} is read with Hugging Face's `datasets`, which is not installed: "
            "pip install 'antelope-ml[hf]'"
        ) from error
    return datasets
