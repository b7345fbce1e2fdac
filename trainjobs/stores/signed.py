"""Reading from S3 without what boto3 does around each request: resolving the endpoint, events, models, parsing. That takes more time than a
small object takes to arrive, and all of it under the interpreter's lock.

The first request is boto3's own. From what it sent follows how every other one looks: the address, the region and the user agent; they
are signed by botocore and go through its connections. Whatever is not answered as expected is asked once more by boto3, which knows what
to do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

SCOPE = re.compile(r"AWS4-HMAC-SHA256 Credential=[^/]+/\d{8}/([^/]+)/([^/]+)/aws4_request")
PLAIN = {404, 408, 412, 416, 429, 500, 502, 503, 504}  # whose meaning does not depend on how it was asked


@dataclass(frozen=True)
class Signed:
    """How objects of a bucket are asked for. `base` is the address before a key."""

    client: Any
    credentials: Any
    base: str
    region: str
    service: str
    agent: str

    @classmethod
    def like(cls, sent: Any, client: Any, credentials: Any, key: str) -> Signed | None:
        """As the request for an object that boto3 sent; None where it is of another kind: unsigned, or signed for a session."""
        name, scope = quote(key, safe="/~"), SCOPE.match(_text(sent.headers.get("Authorization", "")))
        if scope is None or credentials is None or not sent.url.endswith(f"/{name}") or "x-amz-s3session-token" in sent.headers:
            return None
        base = sent.url[: len(sent.url) - len(name)]
        return cls(client, credentials, base, scope[1], scope[2], _text(sent.headers.get("User-Agent", "")))

    def get(self, key: str, headers: Mapping[str, str]) -> tuple[Mapping[str, str], bytes] | None:
        """Headers and body; None where boto3 is to ask. Raises what boto3 raises."""
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.exceptions import ClientError
        from botocore.parsers import create_parser
        from botocore.response import StreamingBody

        request = AWSRequest("GET", self.base + quote(key, safe="/~"), headers={**headers, "User-Agent": self.agent})
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
        parsed = create_parser("rest-xml").parse(told, self.client.meta.service_model.operation_model("GetObject").output_shape)
        raise ClientError(parsed, "GetObject")


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
