"""The settings of a run as a table shows them: by dotted name, with short names of classes and files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ...envs.arrow import table_suffix
from ...replay.files import read_text
from ..settings.plain_yaml import load_foreign

Settings = dict[str, Any]
"""Settings by dotted name, with the names of objects: `{"optim": "torch.optim.sgd.SGD", "optim.lr": 0.1}`."""

_NAME = re.compile(r"[\w./:-]+")  # A name within a text, such as a list's.
_DOTTED = re.compile(r"(?:.+:|[\w.]+\.)([A-Za-z_]\w*)")  # The name of a class or function.


def read_settings(config: Path) -> Settings | None:
    """The settings in a config.yaml; None if it cannot be read."""
    try:
        values = load_foreign(read_text(config))
    except (OSError, ValueError):
        return None
    return _flat(values) if isinstance(values, Mapping) else None


def _flat(values: Mapping[str, Any], prefix: str = "") -> Settings:
    flat: Settings = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            if "_target_" in value:
                flat[name] = value["_target_"]
            flat |= _flat({k: v for k, v in value.items() if k != "_target_"}, f"{name}.")
        elif isinstance(value, list):
            flat[name] = "+".join(_item(item) for item in value)
        else:
            flat[name] = value
    return flat


def _item(item: object) -> str:
    """An item of a list: a strategy, a width."""
    if not isinstance(item, Mapping):
        return str(item)
    arguments = [f"{key}={value}" for key, value in item.items() if key != "_target_"]
    return str(item.get("_target_")) + (f"({', '.join(arguments)})" if arguments else "")


def short_forms(values: Iterable[object]) -> dict[object, str]:
    """The short form of each text; the text itself where another has the same short form.

    >>> list(short_forms(["torch.optim.sgd.SGD", "a.py:Net", "b.py:Net", "one.csv", 0.1]).values())
    ['SGD', 'a.py:Net', 'b.py:Net', 'one.csv']
    """
    texts = dict.fromkeys(value for value in values if isinstance(value, str))
    short = {text: _NAME.sub(lambda found: _short(found[0]), text) for text in texts}
    count = Counter(short.values())
    return {text: form if count[form] == 1 else text for text, form in short.items()}


def _short(name: str) -> str:
    """`SGD` of `torch.optim.sgd.SGD`, `Model` of `model.py:Model`; a file or anything else as it is."""
    dotted = None if table_suffix(name) else _DOTTED.fullmatch(name)
    return dotted[1] if dotted else name


def comparable(value: object) -> str:
    """A setting's value as something to compare: 1 and 1.0 are equal, 1 and true are not."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return repr(float(value))
    return repr(value)
