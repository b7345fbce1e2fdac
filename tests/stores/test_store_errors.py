"""What the stores say when they are asked for something they cannot do: in plain words, with the verb and the identity."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.stores.places import Injected, MemoryBucket
from trainjobs.api.checkpoints import Keep
from trainjobs.api.errors import JobError
from trainjobs.checkpoints import Checkpoints, open_store
from trainjobs.stores.az import AzureBlobs
from trainjobs.stores.bucket import Kind, Page, Trouble
from trainjobs.stores.gs import GoogleStorage
from trainjobs.stores.objects import ObjectStore, Patience
from trainjobs.stores.s3 import S3
from trainjobs.stores.store import StoreError


class Moody(MemoryBucket):
    """Answers everything with one trouble, so often."""

    def __init__(self, kind: Kind, why: str, times: int = 10**9) -> None:
        super().__init__(lambda objects: None)
        self.answer, self.left, self.asked = Trouble(kind, why), times, 0

    def put(self, path: str, data: bytes, *, absent: bool) -> None:
        self.asked += 1
        if self.asked <= self.left:
            raise Injected(self.answer)
        super().put(path, data, absent=absent)

    def action(self, verb: str) -> str:
        return "s3:PutObject"

    def identity(self) -> str:
        return "arn:aws:iam::1:role/trainer"


class Clock:
    def __init__(self) -> None:
        self.time, self.pauses = 0.0, []  # type: ignore[var-annotated]

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.time += seconds


def opened(bucket: MemoryBucket, clock: Clock, seconds: float = 120.0) -> ObjectStore:
    return ObjectStore(bucket, Patience(seconds, lambda: clock.time, clock.pause, lambda: 1.0))


def test_a_busy_store_is_asked_again_with_growing_pauses() -> None:
    clock, bucket = Clock(), Moody("busy", "SlowDown", 9)
    assert opened(bucket, clock).put_if_absent("a", b"1")
    assert clock.pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 8.0, 8.0]


def test_patience_ends() -> None:
    clock, bucket = Clock(), Moody("busy", "SlowDown")
    with pytest.raises(StoreError, match=r"s3:PutObject failed 21 times in 117 s, the last time with: SlowDown") as caught:
        opened(bucket, clock).put_if_absent("a", b"1")
    assert caught.value.reason == "failed"
    assert clock.time <= 120


def test_a_refusal_is_not_repeated_and_says_who_was_refused_what(tmp_path: Path) -> None:
    clock, bucket = Clock(), Moody("denied", "AccessDenied")
    checkpoints = Checkpoints(opened(bucket, clock), keep=Keep())
    with pytest.raises(JobError) as caught:
        checkpoints.probe()
    assert caught.value.line() == (
        "GTJ0112 checkpoints cannot be written (memory://bucket/run): "
        "s3:PutObject was refused to arn:aws:iam::1:role/trainer: AccessDenied. grant that right, or set checkpoints.uri to another place"
    )
    assert (bucket.asked, clock.pauses) == (1, [])
    with pytest.raises(
        JobError, match=r"GTJ0211 an attempt cannot begin \(memory://bucket/run/log/0000000000000001.json\): s3:PutObject was"
    ):
        checkpoints.begin()


@pytest.mark.parametrize("kind", ["full", "no bucket"])
def test_other_refusals(kind: Kind) -> None:
    with pytest.raises(StoreError) as caught:
        opened(Moody(kind, "why"), Clock()).put_if_absent("a", b"1")
    assert caught.value.reason == kind


def test_the_probe_survives_a_lost_answer() -> None:
    class Forgetful(MemoryBucket):
        asked = 0

        def put(self, path: str, data: bytes, *, absent: bool) -> None:
            super().put(path, data, absent=absent)
            self.asked += 1
            if self.asked == 1:
                raise ConnectionError("connection reset")

    Checkpoints(opened(Forgetful(lambda objects: None), Clock()), keep=Keep(), pause=lambda seconds: None).probe()


def test_the_probe_refuses_a_store_that_ignores_conditions_and_one_that_lists_late() -> None:
    class Careless(MemoryBucket):
        def put(self, path: str, data: bytes, *, absent: bool) -> None:
            super().put(path, data, absent=False)

    class Late(MemoryBucket):
        def list(self, prefix: str, token: str = "") -> Page:
            return Page(())

    for bucket, message in ((Careless, "GTJ0112 the store ignores conditional writes"), (Late, "GTJ0112 the store is not consistent")):
        with pytest.raises(JobError, match=message):
            Checkpoints(opened(bucket(lambda objects: None), Clock()), keep=Keep()).probe()


def test_an_answer_that_breaks_off_is_asked_for_again() -> None:
    class Short(MemoryBucket):
        asked = 0

        def get(self, path: str, start: int, length: int, version: str) -> Any:
            self.asked += 1
            piece = super().get(path, start, length, version)
            return piece if self.asked > 1 else type(piece)(piece.data[:1], piece.total, piece.version)

    store = opened(Short(lambda objects: None), Clock())
    store.put_if_absent("a", b"123")
    assert store.get("a") == b"123"


@pytest.mark.parametrize(
    ("scheme", "module"), [("s3", "boto3"), ("gs", "google.cloud.storage"), ("az", "azure.storage.blob"), ("az", "azure.identity")]
)
def test_a_missing_package_is_named_with_the_command(scheme: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        JobError, match=rf"GTJ0107 a package is not installed .*needs the package {module}. pip install .*{module.replace('.', '-')}"
    ):
        open_store(f"{scheme}://a/b/c")


def test_opening_asks_nothing_and_needs_no_credentials() -> None:
    for uri in ("s3://bucket/folder", "gs://bucket/a/b", "az://account/container/folder/"):
        assert open_store(uri).uri == uri.rstrip("/")


@pytest.mark.slow
def test_what_s3_answers() -> None:
    from botocore import exceptions

    def error(status: int, code: str) -> Exception:
        answer = {"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": status}}
        return exceptions.ClientError(answer, "PutObject")

    elsewhere = error(400, "AuthorizationHeaderMalformed")
    elsewhere.response["Error"]["Region"] = "eu-west-1"  # type: ignore[attr-defined]
    cases: list[tuple[Exception, Kind | None]] = [
        (error(404, "NoSuchKey"), "missing"),
        (error(404, "NoSuchBucket"), "no bucket"),
        (error(412, "PreconditionFailed"), "condition"),
        (error(409, "ConditionalRequestConflict"), "busy"),
        (error(503, "SlowDown"), "busy"),
        (error(429, "TooManyRequests"), "busy"),
        (error(500, "InternalError"), "busy"),
        (error(400, "BadDigest"), "busy"),
        (error(403, "AccessDenied"), "denied"),
        (error(400, "ExpiredToken"), "credentials"),
        (error(507, "XMinioStorageFull"), "full"),
        (error(400, "InvalidArgument"), "failed"),
        (error(301, "PermanentRedirect"), "region"),
        (error(400, "IllegalLocationConstraintException"), "region"),
        (elsewhere, "region"),
        (error(400, "AuthorizationHeaderMalformed"), "credentials"),
        (exceptions.InvalidRegionError(region_name="Frankfurt 1"), "region"),
        (exceptions.EndpointConnectionError(endpoint_url="http://x"), "busy"),
        (exceptions.ReadTimeoutError(endpoint_url="http://x"), "busy"),
        (exceptions.NoCredentialsError(), "credentials"),
        (ValueError("a mistake of ours"), None),
    ]
    for given, kind in cases:
        found = S3("b", "p").trouble(given)
        assert (found.kind if found else None) == kind, given


@pytest.mark.slow
def test_what_google_answers() -> None:
    from google.api_core import exceptions
    from google.auth.exceptions import DefaultCredentialsError, TransportError

    cases: list[tuple[Exception, Kind | None]] = [
        (exceptions.NotFound("No such object: b/o"), "missing"),
        (exceptions.NotFound("The specified bucket does not exist."), "no bucket"),
        (exceptions.PreconditionFailed("x"), "condition"),
        (exceptions.TooManyRequests("x"), "busy"),
        (exceptions.ServiceUnavailable("x"), "busy"),
        (exceptions.Forbidden("x does not have storage.objects.create access"), "denied"),
        (TransportError("x"), "busy"),
        (DefaultCredentialsError("x"), "credentials"),
        (ValueError("a mistake of ours"), None),
    ]
    for given, kind in cases:
        found = GoogleStorage("b", "p").trouble(given)
        assert (found.kind if found else None) == kind, given


@pytest.mark.slow
def test_what_azure_answers() -> None:
    from azure.core import exceptions
    from azure.storage.blob import StorageErrorCode

    def error(status: int, code: str) -> Exception:
        made = exceptions.HttpResponseError(code)
        made.status_code, made.error_code = status, code  # type: ignore[attr-defined]
        return made

    cases: list[tuple[Exception, Kind | None]] = [
        (error(404, "BlobNotFound"), "missing"),
        (error(404, "ContainerNotFound"), "no bucket"),
        (error(409, "BlobAlreadyExists"), "condition"),
        (error(412, "ConditionNotMet"), "condition"),
        (error(503, "ServerBusy"), "busy"),
        (error(400, "Md5Mismatch"), "busy"),
        (error(400, StorageErrorCode.MD5_MISMATCH), "busy"),  # what the SDK really gives
        (error(403, "AuthorizationPermissionMismatch"), "denied"),
        (error(403, "AuthenticationFailed"), "credentials"),
        (exceptions.ClientAuthenticationError("x"), "credentials"),
        (exceptions.ServiceRequestError("x"), "busy"),
        (exceptions.ServiceResponseError("x"), "busy"),
        (ValueError("a mistake of ours"), None),
    ]
    for given, kind in cases:
        found = AzureBlobs("a", "c", "p").trouble(given)
        assert (found.kind if found else None) == kind, given


def test_the_campaign_page_is_made_from_the_results() -> None:
    import json

    from tests.stores.campaign import PAGE, RESULTS, page

    assert PAGE.read_text() == page(json.loads(RESULTS.read_text())["places"])
