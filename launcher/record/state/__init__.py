"""What a checkpoint holds of objects: described (capture.py), checked (checks.py), put back
(restore.py), and weights."""

from .capture import Constructed, Look, attribute_state, object_state, optimizer_fields
from .checks import check_attributes, check_object
from .optimizer_checks import check_optimizer, check_scheduler
from .restore import load_attribute_state, load_object_state, load_optimizer_fields, load_part
from .weights import (
    add_copies,
    check_growth,
    check_weights,
    fill_empty_buffers,
    load_in_place,
    load_weights,
)

__all__ = [
    "Constructed",
    "Look",
    "add_copies",
    "attribute_state",
    "check_attributes",
    "check_growth",
    "check_object",
    "check_optimizer",
    "check_scheduler",
    "check_weights",
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
