"""What the API server answers instead of what was asked for."""

from __future__ import annotations


class ApiError(Exception):
    """The server refused (status 400 and above), or could not be asked (status 0, reason "Unreachable")."""

    def __init__(self, status: int, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after

    @property
    def not_found(self) -> bool:
        return self.status == 404

    @property
    def conflict(self) -> bool:
        """Written by somebody else in between, or already there."""
        return self.status == 409

    @property
    def expired(self) -> bool:
        """The resource version is too old to go on from."""
        return self.status == 410

    @property
    def refused(self) -> bool:
        """It will not get better by asking again: invalid, or not allowed."""
        return self.status in (400, 403, 422)
