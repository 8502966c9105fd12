"""What a checkpoint holds of objects: described (capture.py), put back (restore.py), and weights."""

from .capture import Constructed, Look, attribute_state, object_state, optimizer_fields
from .restore import load_attribute_state, load_object_state, load_optimizer_fields, load_part
from .weights import add_copies, fill_empty_buffers, load_in_place, load_weights

__all__ = [
    "Constructed",
    "Look",
    "add_copies",
    "attribute_state",
    "fill_empty_buffers",
    "load_attribute_state",
    "load_in_place",
    "load_object_state",
    "load_optimizer_fields",
    "load_part",
    "load_weights",
    "object_state",
    "optimizer_fields",
]
