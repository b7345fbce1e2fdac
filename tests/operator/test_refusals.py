"""What the API server's refusals mean for a job."""

from __future__ import annotations

import pytest

from gentrain_operator.kube.errors import ApiError
from gentrain_operator.refusals import refusal

POST = 'Internal error occurred: failed calling webhook "mrayjob.kb.io": failed to call webhook: Post "https://10.0.0.9:443/mutate": '


@pytest.mark.parametrize("near", ["10.0.0.7:{}", "[fd00::7]:{}"])
def test_a_broken_connection_is_the_same_refusal_at_every_try(near: str) -> None:
    """Its near end differs each time; a message that differs would be written each time, and each write be looked at at once."""
    tries = [
        refusal(ApiError(500, "InternalError", f"{POST}read tcp {near.format(port)}->10.0.0.9:443: connection reset by peer"), "RayJob")
        for port in (45952, 39004)
    ]
    assert tries[0] == tries[1]
    assert tries[0] is not None
    assert tries[0].reason == "WebhookFailed"
    assert "10.0.0.9:443" in tries[0].message


@pytest.mark.parametrize("verb", ["create", "patch"])
def test_a_missing_right_is_the_operators(verb: str) -> None:
    words = f'rayjobs.ray.io "a" is forbidden: User "system:serviceaccount:g:o" cannot {verb} resource "rayjobs" in API group "ray.io"'
    found = refusal(ApiError(403, "Forbidden", words), "RayJob")
    assert found is not None
    assert (found.reason, found.message.split(":")[0]) == ("Forbidden", "GTJ0305 the operator may not write the RayJob")
