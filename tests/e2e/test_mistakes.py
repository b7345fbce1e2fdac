"""What users get wrong, and what is then shown by kubectl and gtj: the cause, the evidence, the remedy."""

from __future__ import annotations

import pytest

from tests.e2e.jobs import Team, environment, manifest


def waiting(team: Team, name: str, reason: str, seconds: float = 120) -> str:
    """What is shown of a job, once one of its conditions has that reason."""

    def there() -> bool:
        return any(one["reason"] == reason for one in team.status(name).get("conditions") or ())

    team.cluster.until(f"{name} with {reason}", there, seconds)
    return team.shown(name)


def test_an_image_that_is_not_there(team: Team) -> None:
    team.submit(manifest("image", pod__image="localhost/no-such-image:1"))
    shown = waiting(team, "image", "ImagePullFailed")
    assert "GTJ0204" in shown
    assert "localhost/no-such-image:1" in shown
    assert "pod.image" in shown


def test_a_secret_that_is_not_there_and_then_is(team: Team) -> None:
    """The job waits, says for what, and goes on by itself."""
    team.submit(manifest("secret", steps=10, pod__env=environment("late")))
    shown = waiting(team, "secret", "SecretNotFound")
    assert "GTJ0111" in shown
    assert 'secret "late" not found' in shown
    team.secret("late")
    assert team.succeed("secret")["attempts"] == 1


def test_credentials_that_are_wrong(team: Team) -> None:
    team.secret("wrong", secret="not-the-key")
    team.submit(manifest("credentials", pod__env=environment("wrong")))
    status = team.fail("credentials")
    shown = team.shown("credentials")
    assert status["attempts"] == 1
    assert status["failure"]["code"] == "GTJ0112", status["failure"]
    assert "SignatureDoesNotMatch" in shown


def test_a_bucket_that_is_not_there(team: Team) -> None:
    team.submit(manifest("bucket", checkpoints__uri="s3://no-such-bucket/bucket"))
    status = team.fail("bucket")
    assert status["attempts"] == 1
    assert status["failure"]["code"] == "GTJ0112", status["failure"]
    assert "no-such-bucket" in team.shown("bucket")


@pytest.mark.parametrize("source", ["file:///data/faces"])
def test_a_dataset_that_is_not_there(team: Team, source: str) -> None:
    team.submit(manifest("data", data__source=source))
    status = team.fail("data")
    assert status["attempts"] == 1
    assert status["failure"]["code"] == "GTJ0113", status["failure"]
    assert source in team.shown("data")
