"""Reading from S3 without what boto3 does around each request: resolving the endpoint, events, models, parsing. That takes more time than a
small object takes to arrive, and all of it under the interpreter's lock.

The first request of a kind, for an object or for a page of a listing, is boto3's own. From what it sent follows how every other one
looks: the address, the region and the user agent; they are signed by botocore and go through its connections. Whatever is not answered as
expected is asked once more by boto3, which knows what to do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote_plus, urlencode
from xml.etree import ElementTree

SCOPE = re.compile(r"AWS4-HMAC-SHA256 Credential=[^/]+/\d{8}/([^/]+)/([^/]+)/aws4_request")
PLAIN = {404, 408, 412, 416, 429, 500, 502, 503, 504}  # whose meaning does not depend on how it was asked


@dataclass(frozen=True)
class Signed:
    """How objects of a bucket are asked for, or its listing. `base` is the address before a key, or before the question mark."""

    client: Any
    credentials: Any
    base: str
    region: str
    service: str
    agent: str

    @classmethod
    def like(cls, sent: Any, client: Any, credentials: Any, key: str) -> Signed | None:
        """As the request for an object that boto3 sent; None where it is of another kind: unsigned, or signed for a session."""
        name = quote(key, safe="/~")
        return cls._like(sent, client, credentials, sent.url[: len(sent.url) - len(name)]) if sent.url.endswith(f"/{name}") else None

    @classmethod
    def listing(cls, sent: Any, client: Any, credentials: Any) -> Signed | None:
        """As the request for a page that boto3 sent; None as of `like`."""
        return cls._like(sent, client, credentials, sent.url.partition("?")[0])

    @classmethod
    def _like(cls, sent: Any, client: Any, credentials: Any, base: str) -> Signed | None:
        scope = SCOPE.match(_text(sent.headers.get("Authorization", "")))
        if scope is None or credentials is None or "x-amz-s3session-token" in sent.headers:
            return None
        return cls(client, credentials, base, scope[1], scope[2], _text(sent.headers.get("User-Agent", "")))

    def get(self, key: str, headers: Mapping[str, str]) -> tuple[Mapping[str, str], bytes] | None:
        """Headers and body; None where boto3 is to ask. Raises what boto3 raises."""
        return self._answer("GetObject", self.base + quote(key, safe="/~"), headers)

    def page(self, prefix: str, token: str) -> tuple[list[tuple[str, int, str]], str] | None:
        """(key, bytes, ETag) of a page's objects, and the token of the next page, "" of none; the first has none. None and errors as of
        `get`. boto3 takes six times as long to parse a page, and that is most of the time that a listing takes."""
        asked = {"list-type": "2", "prefix": prefix, **({"continuation-token": token} if token else {}), "encoding-type": "url"}
        answer = self._answer("ListObjectsV2", f"{self.base}?{urlencode(asked, quote_via=quote, safe='')}", {})
        if answer is None:
            return None
        try:
            return _listed(answer[1])
        except (ElementTree.ParseError, KeyError, ValueError):  # boto3 says what is wrong with it
            return None

    def _answer(self, operation: str, url: str, headers: Mapping[str, str]) -> tuple[Mapping[str, str], bytes] | None:
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.exceptions import ClientError
        from botocore.parsers import create_parser
        from botocore.response import StreamingBody

        request = AWSRequest("GET", url, headers={**headers, "User-Agent": self.agent})
        S3SigV4Auth(self.credentials.get_frozen_credentials(), self.service, self.region).add_auth(request)
        prepared = request.prepare()
        prepared.stream_output = True  # else botocore puts the body together from pieces of 64 KiB: twice the processor's time
        answer = self.client._endpoint.http_session.send(prepared)
        if answer.status_code in (200, 206):
            with StreamingBody(answer.raw, answer.headers.get("content-length")) as body:
                return answer.headers, body.read()
        if answer.status_code not in PLAIN:
            return None
        told = {"headers": answer.headers, "status_code": answer.status_code, "body": answer.content}
        parsed = create_parser("rest-xml").parse(told, self.client.meta.service_model.operation_model(operation).output_shape)
        raise ClientError(parsed, operation)


def _listed(page: bytes) -> tuple[list[tuple[str, int, str]], str]:
    root = ElementTree.fromstring(page)
    space, brace, name = root.tag.rpartition("}")
    if name != "ListBucketResult":
        raise ValueError("another answer than a listing")
    top = f"{space}{brace}"
    decoded = unquote_plus if root.findtext(f"{top}EncodingType") == "url" else str
    found = list[tuple[str, int, str]]()
    for each in root.iterfind(f"{top}Contents"):
        told = {child.tag: child.text or "" for child in each}
        found.append((decoded(told[f"{top}Key"]), int(told[f"{top}Size"]), told.get(f"{top}ETag", "")))
    more = root.findtext(f"{top}IsTruncated") == "true"
    return found, (root.findtext(f"{top}NextContinuationToken") or "") if more else ""


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
