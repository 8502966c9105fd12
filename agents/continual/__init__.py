"""Strategies of continual learning, one per file. `NAMES` is the registry: what `strategy=` can name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...replay.lazy import lazily

if TYPE_CHECKING:
    from .agem import AGEM
    from .cumulative import Cumulative
    from .cwr import CWR
    from .der import DER
    from .derpp import DERPP
    from .er import ER
    from .er_ace import ERACE
    from .ewc import EWC
    from .ewc_online import EWCOnline
    from .gdumb import GDumb
    from .gem import GEM
    from .icarl import ICaRL
    from .joint import Joint
    from .lwf import LwF
    from .mas import MAS
    from .naive import Naive
    from .packnet import PackNet
    from .pnn import PNN
    from .si import SI
    from .strategy import Strategy

NAMES = {
    "strategy": {
        "naive": "Naive",
        "joint": "Joint",
        "cumulative": "Cumulative",
        "er": "ER",
        "er_ace": "ERACE",
        "der": "DER",
        "derpp": "DERPP",
        "ewc": "EWC",
        "ewc_online": "EWCOnline",
        "si": "SI",
        "mas": "MAS",
        "lwf": "LwF",
        "gem": "GEM",
        "agem": "AGEM",
        "gdumb": "GDumb",
        "cwr": "CWR",
        "icarl": "ICaRL",
        "pnn": "PNN",
        "packnet": "PackNet",
    },
}

_HOME = {name: file for file, name in NAMES["strategy"].items()} | {"Strategy": "strategy"}

__all__ = [
    "AGEM",
    "CWR",
    "DER",
    "DERPP",
    "ER",
    "ERACE",
    "EWC",
    "GEM",
    "MAS",
    "PNN",
    "SI",
    "Cumulative",
    "EWCOnline",
    "GDumb",
    "ICaRL",
    "Joint",
    "LwF",
    "Naive",
    "PackNet",
    "Strategy",
]


__getattr__ = lazily(__name__, _HOME)
