from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.data.places.hubs import clock as clock
from tests.data.places.hubs import serve as serve
from trainjobs.api.job import Spec


@pytest.fixture(scope="session")
def job() -> Callable[..., Spec]:
    """job("vae", "builtin:digits", images={"size": 8}): a spec with the other fields at their defaults."""

    def make(family: str, source: str, options: dict[str, Any] | None = None, **data: Any) -> Spec:
        return Spec.model_validate({family: options or {}, "data": {"source": source, **data}, "training": {"steps": 1}})

    return make
