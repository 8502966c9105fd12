"""YAML whose plain scalars mean what they mean as console words.

`1e-3` is a number here, and text in YAML 1.1; `off`, `010`, `1:30` and `2024-01-01` are text here, and
false, 8, 90 and a date there.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import yaml


class Loader(yaml.SafeLoader):
    """Safe: no tag makes an object."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}


_DIGITS = r"[0-9](?:_?[0-9])*"
for _tag, _pattern, _first in (
    ("bool", "true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    ("null", "~|null|Null|NULL|", [*"~nN", ""]),
    ("int", "[-+]?(?:0|[1-9](?:_?[0-9])*)", [*"-+0123456789"]),
    (
        "float",
        rf"[-+]?(?:{_DIGITS}\.(?:{_DIGITS})?|\.{_DIGITS}|{_DIGITS}(?=[eE]))(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.?(?:inf|Inf|INF)|\.?(?:nan|NaN|NAN)",
        [*"-+.0123456789iInN"],
    ),
):
    Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first
    )
