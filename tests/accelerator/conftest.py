"""A device to run on: the pretend one, and the machine's own accelerator where it has one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .pretend import Pretend


@pytest.fixture(scope="session")
def pretend(request: pytest.FixtureRequest) -> Iterator[Pretend]:
    """A process with the pretend device."""
    try:
        device = Pretend(request.config.cache.mkdir("pretend"))  # type: ignore[union-attr]
    except RuntimeError as error:
        pytest.skip(str(error))
    yield device
    device.close()


@pytest.fixture(scope="session")
def pretend_without_float64(pretend: Any, request: pytest.FixtureRequest) -> Iterator[Pretend]:
    """Another one, for runs on a device like Apple's."""
    device = Pretend(request.config.cache.mkdir("pretend"))  # type: ignore[union-attr]
    yield device
    device.close()
