"""Networks and an objective of the user's own."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from trainjobs.api.fields import Model


class Custom(Model):
    """A user's own networks and objective, by import path."""

    objective: Annotated[str, Field(max_length=253, pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")] = Field(
        description='"package.module:build", called as build(spec, data) and returning (networks, objective).'
    )
    options: dict[str, Any] = Field({}, description="Passed through to build.")
