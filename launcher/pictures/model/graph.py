"""A module's forward as boxes and the arrows between them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Node:
    """A box, or something smaller that arrows begin or end at."""

    kind: str  # "box", "op", "input", "output" or "parameter".
    title: str
    path: str = ""
    also: list[str] = field(default_factory=list)  # Other paths to the same module.
    detail: str = ""
    parameters: int = 0  # That no box before it has.
    shared: int = 0  # Parameters that a box before it has.
    share: float = 0.0  # Of all parameters of the model, 0-1.
    frozen: bool = False
    times: int = 1  # How often it was called.
    results: list[str] = field(default_factory=list)
    groups: tuple[str, ...] = ()  # The opened modules it is in, outermost first.


@dataclass
class Edge:
    """An arrow between two nodes, with what goes along it."""

    tail: int
    head: int
    labels: list[str] = field(default_factory=list)
    lost: bool = False  # Assumed, not traced: the values left torch in between.


@dataclass
class Graph:
    """A module's forward; nodes are in the order in which they were reached."""

    name: str
    total: int
    trainable: int
    nodes: list[Node]
    edges: list[Edge]
    groups: dict[str, str]  # Path of an opened module to its class.
    unused: list[Node]
