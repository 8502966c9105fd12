"""The elements of a picture of a module and their places: boxes, arrows and the borders of groups."""

from __future__ import annotations

from dataclasses import dataclass

Point = tuple[float, float]  # In points (1/72 inch), y downwards.
Group = tuple[str, ...]

MARGIN = 14.0
PADDING = 9.0  # Between a group's border and what is in it.
ARROW = 5.5  # Length of an arrow's head.
LOOP = 24.0  # How far an arrow from a box to itself goes out.


@dataclass
class Item:
    """Something to place."""

    width: float
    height: float
    group: Group = ()  # Paths of the groups that it is in, outermost first.


@dataclass
class Link:
    """An arrow to draw between two items, with the size of its label."""

    tail: int
    head: int
    width: float
    height: float


@dataclass
class Layout:
    """The place of every element, in points, y downwards."""

    width: float
    height: float
    centres: list[Point]  # Of the items.
    paths: list[list[Point]]  # Of the links: cubic Bezier curves, 1 + 3k points, tail to head.
    labels: list[Point]  # Centres of the links' labels.
    groups: dict[str, tuple[float, float, float, float]]  # Left, top, right, bottom.
