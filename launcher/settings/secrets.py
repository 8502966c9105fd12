"""What a run knows and never writes: secrets of the environment, and arguments whose names say secret."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ...replay.shown import hide
from ...replay.shown import holds_secret as known_secret_in
from .schema import schema

Path = tuple[str | int, ...]
"""Keys and indices that lead to a value: `("model", "token")`."""

NOT_SAVED = "(a secret, not saved)"
"""What files hold in place of a secret that was given in plain."""

_WORDS = {"password", "passwd", "passphrase", "secret", "secrets", "credential", "credentials"}
_WORDS |= {"apikey", "token", "key"}
# `api_key` is a secret, `obs_key` the name of a part; `hf_token` is one, `pad_token` a word of a vocabulary.
_KEYS = {"api", "access", "secret", "private", "auth", "license", "service", "account", "ssh"}
_KEYS |= {"encryption", "storage"}
_OF_TEXT = {"pad", "mask", "bos", "eos", "sos", "cls", "sep", "unk", "class", "start", "stop"}
_OF_TEXT |= {"end", "special", "image", "blank", "next"}
_NUMBER = re.compile(r"[-+]?[\d.]+(e[-+]?\d+)?")
# Settings of these kinds are written as they were used: no secret fits in them.
_PLAIN_KINDS = ("int", "float", "bool", "one", "list", "whole", "shuffled,", "probabilities")


def may_be_secret(name: str) -> bool:
    """Whether an argument's name says token, key, password or secret: messages do not show its text."""
    return not _WORDS.isdisjoint(_parts(name))


def is_secret(name: str) -> bool:
    """Whether an argument's text is not written: that of `api_key`, but not of `obs_key` or `pad_token`."""
    *before, last = _parts(name)
    if last == "key":
        return not before or before[-1] in _KEYS
    if last == "token":
        return not before or before[-1] not in _OF_TEXT
    return not (_WORDS - {"token", "key"}).isdisjoint([*before, last])


def holds_secret(value: object, name: str) -> bool:
    """Whether an argument's value is a secret: a text, or a number that is meant as one.

    `password=12345678` is read as a number; but `key=3` is an index, and `max_token=512` counts.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float)) or value == "":
        return False
    counts = name == "key" or _parts(name)[-1] == "token"
    return is_secret(name) and not (counts and _NUMBER.fullmatch(str(value)))


def tells_secret(key: str, value: str) -> bool:
    """Whether a word as typed holds a secret; it does not where it names a variable of the environment.

    Args:
        key: `model.api_key`.
        value: `abc`, `${oc.env:NAME}`, or `{_target_:Net,api_key:abc}` once it has been composed.
    """
    named = holds_secret(value, key.rpartition(".")[2]) and not value.startswith("${oc.env:")
    return named or known_secret_in(value)


def named_secrets(values: Mapping[str, Any], hidden: Mapping[Path, str]) -> dict[Path, str]:
    """The arguments whose names say that they are secrets, each with what is written instead of its text."""
    found: dict[Path, str] = {}

    def look(value: object, path: Path) -> None:
        if isinstance(value, list):
            for place, item in enumerate(value):
                look(item, (*path, place))
        elif isinstance(value, Mapping):
            for name, item in value.items():
                look(item, (*path, name))
        elif len(path) > 1 and holds_secret(value, str(path[-1])):
            found.setdefault(path, NOT_SAVED)

    for key, setting in schema().items():
        if setting.names_object:
            look(values.get(key), (key,))
    found = {path: text for path, text in found.items() if path not in hidden}
    for path in found:
        hide(str(_at(values, path)), "***")
    return found


def without(values: dict[str, Any], hidden: Mapping[Path, str]) -> dict[str, Any]:
    """A copy of settings, with what is written instead in the place of each secret."""
    if not hidden:
        return values

    def copied(value: Any, path: Path) -> Any:
        setting = schema().get(".".join(map(str, path)))
        if path in hidden and not (setting and setting.kind.split()[0] in _PLAIN_KINDS):
            return hidden[path]
        if isinstance(value, Mapping):
            return {name: copied(item, (*path, name)) for name, item in value.items()}
        if isinstance(value, list):
            return [copied(item, (*path, place)) for place, item in enumerate(value)]
        return value

    plain: dict[str, Any] = copied(values, ())
    return plain


def still_hidden(
    hidden: Mapping[Path, str], before: Mapping[str, Any], now: Mapping[str, Any]
) -> dict[Path, str]:
    """Those of the secrets in settings that others have taken over, at the same places."""
    return {path: text for path, text in hidden.items() if _at(now, path) == _at(before, path)}


def _at(value: Any, path: Path) -> Any:
    for part in path:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def unsaved_secrets(values: Mapping[str, Any], keys: Iterable[str]) -> Iterator[str]:
    """A message for every secret that these settings need and that their file does not hold."""
    for key in keys:
        for path in _unsaved(values.get(key), key):
            yield (
                f"{path} was not saved, since its name says that it is a secret. Give it again: {path}=..., "
                f"or {path}='${{oc.env:NAME}}', which is read from the environment at each start."
            )


def _unsaved(value: object, path: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _unsaved(item, f"{path}.{name}")
    elif isinstance(value, list):
        for item in value:
            yield from _unsaved(item, path)
    elif value == NOT_SAVED:
        yield path


def _parts(name: str) -> list[str]:
    """`["api", "key"]` of `api_key`, `apiKey` and `API_KEY`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().replace("-", "_").split("_")
