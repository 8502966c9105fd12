"""Raw dicts of inputs, in any form: a dict of arrays, a list of dicts, a data set of such items."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from ..replay import DataError
from ..replay.spec import space_words
from ..replay.tree import at_path, leaves, map_paths, map_tree, walk
from .inputs import called
from .item import plain_dict
from .raw_inputs import Items, raw_inputs


class PartRows(Protocol):
    """The rows of one part, which are read a few at a time."""

    def __len__(self) -> int: ...
    def parts(self, size: int) -> Iterator[Tensor]:
        """Stored rows, at most `size` at a time."""

    def stored(self, values: Sequence[Any], first: int) -> Tensor:
        """These raw values as stored rows `[n, *shape]`; `first` is the number of the first one."""


class DictRows:
    """Raw dicts of inputs as stored rows, read and checked a few at a time.

    Args:
        rows: The rows of each part, in the form of the run's inputs.
        items: The dicts, if they are read one by one: each once for all its parts; else None.

    Attributes:
        files: None: they come from no files.
    """

    files = None

    def __init__(self, rows: Any, items: Items | None):
        self._rows, self._items = rows, items

    def __len__(self) -> int:
        return len(leaves(self._rows)[0]) if self._items is None else len(self._items)

    def parts(self, size: int) -> Iterator[Any]:
        """Dicts of stored rows `[n, *shape]`, at most `size` at a time, in order.

        If there are no rows, one dict of empty parts.

        Raises:
            DataError: If a part holds something other than the training inputs did.
        """
        each = map_tree(lambda rows: rows.parts(size), self._rows) if self._items is None else None
        for first in range(0, len(self), size) or (0,):
            if self._items is None:
                yield map_tree(next, each)
                continue
            last = min(first + size, len(self._items))
            items = [self._items[i] for i in range(first, last)]
            yield map_paths(lambda path, rows: _stored(rows, items, path, first), self._rows)  # noqa: B023


def _stored(rows: PartRows, items: list[Any], path: tuple[str, ...], first: int) -> Tensor:
    return rows.stored([at_path(item, path) for item in items], first)


def raw_parts(inputs: Any, spaces: Mapping[str, Any], name: str) -> dict[str, Any] | Items:
    """Dicts of inputs, as one dict with the values of all rows in each part, or as items read one by one.

    Args:
        inputs: A dict of arrays or of lists of pictures; a list of dicts; a data set, of `(dict, target)` or
            of dicts alone; a pair of a dict of arrays and targets.
        spaces: The spaces of the run's inputs.
        name: What errors call them.

    Raises:
        DataError: If they are none of these, or have other parts than the run's inputs.
    """
    begin = f"{name[:1].upper()}{name[1:]}"
    if isinstance(inputs, tuple) and len(inputs) == 2 and _is_dict(inputs[0]) > _is_dict(inputs[1]):
        inputs = inputs[0]
    if _is_dict(inputs):
        return _checked(inputs, spaces, f"{begin} are")
    if isinstance(inputs, (list, tuple)) and len(inputs) and all(map(_is_dict, inputs)):
        found = Items(len(inputs), inputs.__getitem__)
    else:
        raw = raw_inputs(inputs, name, features=None)
        if not isinstance(raw, Items) or raw.files is not None:
            kind = "files" if isinstance(raw, Items) else "one array"
            raise DataError(f"{begin} are {kind}. {_learnt_from(spaces)}")
        found = raw
    return Items(len(found), lambda i: _checked(found[i], spaces, f"Item {i} of {name} is"))


def _checked(value: Any, spaces: Mapping[str, Any], begin: str) -> dict[str, Any]:
    """A dict with the parts of the run's inputs."""
    if not _is_dict(value):
        raise DataError(f"{begin} a {type(value).__name__}. {_learnt_from(spaces)}")
    found: dict[str, Any] = plain_dict(value, begin)
    given, known = ([path for path, _ in walk(tree)] for tree in (found, spaces))
    for path in known:
        if path not in given:
            raise DataError(f"{begin} a dict without{called(path)}. {_learnt_from(spaces)}")
    for path in given:
        if path not in known:
            raise DataError(f"{begin} a dict with{called(path)}. {_learnt_from(spaces)}")
    return found


def _is_dict(value: object) -> bool:
    return isinstance(value, Mapping)


def _learnt_from(spaces: Mapping[str, Any]) -> str:
    return f"The run was trained on dicts: {space_words(dict(spaces))}."
