"""Options that many of Mammoth's models declare alike."""

from __future__ import annotations

from argparse import ArgumentParser


def add_rehearsal_args(parser: ArgumentParser) -> None:
    """Declare `buffer_size`, and `minibatch_size`: as many rows as are new unless it is given."""
    parser.add_argument("--buffer_size", type=int, required=True, help="rows of the memory")
    parser.add_argument("--minibatch_size", type=int, help="rows of a batch from the memory")
