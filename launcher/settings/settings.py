"""The settings of a run as plain values, with the Python objects that travel beside them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .plain_yaml import dump
from .secrets import Path, without


@dataclass
class Settings:
    """A composed configuration.

    Attributes:
        values: Plain nested dicts, lists and scalars; what `config.yaml` holds.
        live: Python objects given in code, by dotted key: `{"model": Model}`. In `values` their
            place holds their name.
        given: Keys that words, code or a preset set, for warnings about settings without effect.
        places: Where a preset sets a value, by dotted key: `{"lr": "mine.yaml, line 3"}`.
        preset: The preset's file or name: `mine.yaml`, `task=classify/mnist`.
        hidden: What is written in place of secrets, by the path that leads to each in `values`.
        texts: Dotted keys that keywords of Python set, whose text may come from a file.
    """

    values: dict[str, Any]
    live: dict[str, Any] = field(default_factory=dict)
    given: set[str] = field(default_factory=set)
    places: dict[str, str] = field(default_factory=dict)
    preset: str | None = None
    texts: dict[str, bool] = field(default_factory=dict)
    hidden: dict[Path, str] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        # Not `self.values`: copying asks for attributes before there are any, and would recurse.
        try:
            return self.__dict__["values"][name]
        except KeyError:
            raise AttributeError(name) from None

    def place(self, key: str) -> str:
        """`mine.yaml, line 3: ` if a preset sets the key, else empty: the start of a message."""
        while key not in self.places and "." in key:
            key = key.rpartition(".")[0]
        return f"{self.places[key]}: " if key in self.places else ""

    @property
    def trusts(self) -> bool:
        """Whether the user trusts every name and folder that files and texts give."""
        return bool(self.values["trust"])

    def from_file(self, key: str) -> bool:
        """Whether a file set the key, or what it is an argument of."""
        return bool(self.place(key))

    def from_text(self, key: str) -> bool:
        """Whether keywords of Python set the key, or what it is an argument of."""
        while key not in self.texts and "." in key:
            key = key.rpartition(".")[0]
        return key in self.texts

    def yaml(self) -> str:
        """The text of `config.yaml`, without secrets."""
        return dump(self.written())

    def written(self) -> dict[str, Any]:
        """The values without secrets, as files hold them."""
        return without(self.values, self.hidden)
