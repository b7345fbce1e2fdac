"""Requests to S3 without boto3's own way around each: they look as its do, and what is not a plain answer is left to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from botocore.exceptions import ClientError

from trainjobs.stores.s3 import S3
from trainjobs.stores.signed import Signed

NOT_NOW = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


@dataclass
class Wire:
    """What botocore sends through; `answers` are given one after the other, the last again and again."""

    answers: list[tuple[int, Mapping[str, str], bytes]]
    sent: list[Any] = field(default_factory=list)

    def send(self, request: Any) -> Any:
        self.sent.append(request)
        status, headers, content = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        raw = SimpleNamespace(
            stream=lambda *given, **more: iter([content]), read=lambda *given: content, close=lambda: None, headers=headers
        )
        return SimpleNamespace(status_code=status, headers=dict(headers), content=content, raw=raw, text=content.decode("latin-1"))


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> S3:
    told = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret"}
    for name, value in {**told, "AWS_DEFAULT_REGION": "eu-west-3", "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
    return S3("photos", "")


def through(store: S3, *answers: tuple[int, Mapping[str, str], bytes]) -> Wire:
    wire = Wire(list(answers))
    store._client._endpoint.http_session = wire
    return wire


GOOD = (206, {"Content-Range": "bytes 0-3/10", "ETag": '"e"'}, b"four")


def test_the_second_request_looks_as_the_first(store: S3) -> None:
    wire = through(store, GOOD)
    pieces = [store.get(key, 0, 4, '"e"') for key in ("a b/ü~1.jpg", "a b/ü~1.jpg", "plain")]
    assert [(piece.data, piece.total, piece.version) for piece in pieces] == [(b"four", 10, '"e"')] * 3
    first, second, third = wire.sent
    assert store._signed is not None
    assert second.url == first.url == "http://127.0.0.1:9/photos/a%20b/%C3%BC~1.jpg"
    assert third.url == "http://127.0.0.1:9/photos/plain"
    for name in ("Range", "If-Match", "User-Agent"):
        assert _text(second.headers[name]) == _text(first.headers[name])
    assert "/eu-west-3/s3/aws4_request" in _text(second.headers["Authorization"])


def test_what_is_said_means_the_same(store: S3) -> None:
    through(store, GOOD)
    store.get("a", 0, 4, "")
    for status, body, kind in ((503, NOT_NOW, "busy"), (404, b"", "missing"), (412, b"", "condition")):
        wire = through(store, (status, {}, body))
        with pytest.raises(ClientError) as raised:
            store.get("a", 0, 4, "")
        trouble = store.trouble(raised.value)
        assert trouble is not None
        assert trouble.kind == kind
        assert len(wire.sent) == 1
    through(store, (416, {}, b"<Error><Code>InvalidRange</Code></Error>"))
    assert store.get("empty", 0, 4, "v").data == b""


def test_a_refusal_is_asked_once_more_by_boto3(store: S3) -> None:
    through(store, GOOD)
    store.get("a", 0, 4, "")
    wire = through(store, (403, {}, b"<Error><Code>ExpiredToken</Code></Error>"), GOOD)
    assert store.get("a", 0, 4, "").data == b"four"
    assert len(wire.sent) == 2


SPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


def page(*keys: str, token: str = "", name: str = "ListBucketResult") -> tuple[int, Mapping[str, str], bytes]:
    more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    found = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2030-01-01T00:00:00Z</LastModified><ETag>&quot;{at}&quot;</ETag><Size>{at}</Size>"
        f"<Owner><ID>x</ID></Owner></Contents>"
        for at, key in enumerate(keys)
    )
    return 200, {}, f'<{name} xmlns="{SPACE}"><EncodingType>url</EncodingType>{more}{found}</{name}>'.encode()


def test_further_pages_of_a_listing_look_as_the_first_and_say_the_same(store: S3) -> None:
    keys = ("a%26b+c", "%C3%BC/1%2B1.jpg")
    wire = through(store, page(*keys, token="t+/="))
    first = store.list("photos/ü")
    assert first.token == "t+/="
    assert [one.path for one in first.objects] == ["a&b c", "ü/1+1.jpg"]
    further = store.list("photos/ü", first.token)
    assert store._pages is not None
    assert further == first
    query = [dict(parse_qsl(urlsplit(sent.url).query)) for sent in wire.sent]
    assert query[1] == query[0] | {"continuation-token": "t+/="}
    assert [urlsplit(sent.url)[:3] for sent in wire.sent] == [("http", "127.0.0.1:9", "/photos")] * 2
    assert _text(wire.sent[1].headers["User-Agent"]) == _text(wire.sent[0].headers["User-Agent"])
    wire = through(store, page("last"))
    assert store.list("photos/ü").token == ""
    assert dict(parse_qsl(urlsplit(wire.sent[0].url).query)) == query[0], "a first page, too"


def test_a_page_that_is_none_is_asked_once_more_by_boto3(store: S3) -> None:
    through(store, page("a", token="t"))
    store.list("")
    for answer in (page("a", name="Other"), (200, {}, b"<ListBucketResult><Contents><Size>1</Size></Contents></ListBucketResult>")):
        wire = through(store, answer, page("b"))
        assert [one.path for one in store.list("", "t").objects] == ["b"]
        assert len(wire.sent) == 2
    wire = through(store, (503, {}, NOT_NOW))
    with pytest.raises(ClientError) as raised:
        store.list("", "t")
    trouble = store.trouble(raised.value)
    assert trouble is not None
    assert (trouble.kind, len(wire.sent)) == ("busy", 1)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "AWS AKID:signature"},
        {"Authorization": "AWS4-HMAC-SHA256 Credential=A/20300101/r/s3/aws4_request", "x-amz-s3session-token": "t"},
    ],
)
def test_what_is_signed_otherwise_is_left_to_boto3(headers: Mapping[str, str]) -> None:
    sent = SimpleNamespace(headers=headers, url="https://photos.s3.amazonaws.com/a")
    assert Signed.like(sent, None, object(), "a") is None
    good = {"Authorization": b"AWS4-HMAC-SHA256 Credential=A/20300101/us-east-1/s3/aws4_request, SignedHeaders=host"}
    assert Signed.like(SimpleNamespace(headers=good, url=sent.url), None, object(), "b") is None  # another address than it seems
    found = Signed.like(SimpleNamespace(headers=good, url=sent.url), None, object(), "a")
    assert found is not None
    assert (found.base, found.region, found.service) == ("https://photos.s3.amazonaws.com/", "us-east-1", "s3")


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
