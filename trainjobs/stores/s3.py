"""S3, and what speaks its protocol, through boto3.

Credentials, region, endpoint, proxy and certificates are boto3's business: environment, ~/.aws, a web identity (IRSA), EKS Pod Identity,
the instance's role; AWS_ENDPOINT_URL names another store. Each request carries a CRC32 of its body, unless the environment asks botocore
for less (AWS_REQUEST_CHECKSUM_CALCULATION=when_required, for stores that do not know it).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache, cached_property
from threading import Lock, local
from typing import Any

from trainjobs.stores.bucket import ANSWER, CONNECT, CONNECTIONS, Found, Page, Piece, Trouble, by_status
from trainjobs.stores.signed import Signed

ACTIONS = {
    "get": "s3:GetObject",
    "list": "s3:ListBucket",
    "delete": "s3:DeleteObject",
    "sweep": "s3:ListBucketMultipartUploads",
}
LATER = {"SlowDown", "RequestTimeout", "ConditionalRequestConflict", "OperationAborted", "InternalError", "ServiceUnavailable"}
LATER |= {"BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"}  # damaged on the way; what we hold is whole
CREDENTIALS = {"ExpiredToken", "InvalidToken", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthorizationHeaderMalformed"}
REGION = {"PermanentRedirect", "IllegalLocationConstraintException"}  # where boto3 has found no way to the bucket's own
NO_SPACE = {"QuotaExceeded", "InsufficientCapacity", "XMinioStorageFull"}
NONCE = "gentrain-upload"
MAKING = Lock()  # a session makes one client at a time


class S3:
    def __init__(self, bucket: str, prefix: str) -> None:
        self.bucket, self.prefix = bucket, prefix
        self._signed: Signed | None = None
        self._pages: Signed | None = None
        self._sent = local()  # what this thread asked of boto3 last

    def __reduce__(self) -> tuple[Any, ...]:
        return (S3, (self.bucket, self.prefix))

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    def put(self, path: str, data: bytes, *, absent: bool) -> None:
        condition = {"IfNoneMatch": "*"} if absent else {}
        self._client.put_object(Bucket=self.bucket, Key=path, Body=data, **condition)

    def get(self, path: str, start: int, length: int, version: str) -> Piece:
        part = f"bytes={start}-{start + length - 1}"
        try:
            if (signed := self._signed) is not None:
                headers = {"Range": part, **({"If-Match": version} if version else {})}
                if (answer := signed.get(path, headers)) is not None:
                    return _piece(answer[1], answer[0].get("Content-Range", ""), answer[0].get("ETag", ""))
            condition = {"IfMatch": version} if version else {}
            found = self._client.get_object(Bucket=self.bucket, Key=path, Range=part, **condition)
        except self._errors.ClientError as error:
            if start == 0 and error.response["Error"].get("Code") == "InvalidRange":  # an empty object has no first byte
                return Piece(b"", 0, version)
            raise
        with found["Body"] as body:
            data = body.read()
        if signed is None and (sent := getattr(self._sent, "request", None)) is not None:
            self._signed = Signed.like(sent, self._client, self._session.get_credentials(), path)
        return _piece(data, found.get("ContentRange", ""), found.get("ETag", ""))

    def list(self, prefix: str, token: str = "") -> Page:
        """No digests: an ETag is the contents' MD5 or not, depending on how they came and how they are encrypted."""
        if self._pages is not None and (told := self._pages.page(prefix, token)) is not None:
            return Page(tuple(Found(*each) for each in told[0]), told[1])
        more = {"ContinuationToken": token} if token else {}
        page = self._client.list_objects_v2(Bucket=self.bucket, Prefix=prefix, **more)
        found = tuple(Found(item["Key"], item["Size"], item.get("ETag", "")) for item in page.get("Contents", []))
        if self._pages is None and (sent := getattr(self._sent, "request", None)) is not None:
            self._pages = Signed.listing(sent, self._client, self._session.get_credentials())
        return Page(found, page.get("NextContinuationToken", "") if page.get("IsTruncated") else "")

    def folders(self, prefix: str) -> Iterator[str]:
        for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix, Delimiter="/"):
            for item in page.get("CommonPrefixes", []):
                yield item["Prefix"]

    def delete(self, path: str) -> None:
        self._client.delete_object(Bucket=self.bucket, Key=path)

    def begin(self, path: str) -> str:
        nonce = secrets.token_hex(16)
        begun = self._client.create_multipart_upload(Bucket=self.bucket, Key=path, Metadata={NONCE: nonce})
        return f"{nonce} {begun['UploadId']}"

    def part(self, path: str, upload: str, number: int, data: bytes) -> str:
        name = upload.split(" ", 1)[1]
        done = self._client.upload_part(Bucket=self.bucket, Key=path, UploadId=name, PartNumber=number + 1, Body=data)
        return str(done["ETag"])

    def finish(self, path: str, upload: str, parts: Sequence[str]) -> None:
        nonce, name = upload.split(" ", 1)
        listed = {"Parts": [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(parts, start=1)]}
        try:
            self._client.complete_multipart_upload(Bucket=self.bucket, Key=path, UploadId=name, MultipartUpload=listed)
        except self._errors.ClientError as error:
            # An upload that is finished does not exist any more. When the answer to the first request was lost, the object tells.
            if error.response["Error"].get("Code") != "NoSuchUpload":
                raise
            with suppress(self._errors.ClientError):
                if self._client.head_object(Bucket=self.bucket, Key=path)["Metadata"].get(NONCE) == nonce:
                    return
            raise

    def abort(self, path: str, upload: str) -> None:
        self._client.abort_multipart_upload(Bucket=self.bucket, Key=path, UploadId=upload.split(" ", 1)[1])

    def sweep(self, prefix: str) -> None:
        """Without the right to list uploads, a lifecycle rule has to do this."""
        with suppress(self._errors.ClientError):
            for page in self._client.get_paginator("list_multipart_uploads").paginate(Bucket=self.bucket, Prefix=prefix):
                for item in page.get("Uploads", []):
                    self._client.abort_multipart_upload(Bucket=self.bucket, Key=item["Key"], UploadId=item["UploadId"])

    def action(self, verb: str) -> str:
        return ACTIONS.get(verb, "s3:PutObject")

    def identity(self) -> str:
        """The ARN, or at least the access key's identifier, which is no secret."""
        try:
            return str(self._session.client("sts", config=self._config).get_caller_identity()["Arn"])
        except Exception:
            credentials = self._session.get_credentials()
            return f"access key {credentials.access_key}" if credentials else ""

    def region(self) -> str:
        """Where the bucket is; "" where that cannot be told."""
        try:
            found = self._client.head_bucket(Bucket=self.bucket)
        except Exception:
            return ""
        return str(found.get("BucketRegion") or found["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region") or "")

    def trouble(self, error: Exception) -> Trouble | None:
        errors = self._errors
        if isinstance(error, errors.ClientError):
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            code, message = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "")
            why = f"{code} {message}".strip() if code != str(status) else f"HTTP {status} {message}".strip()
            if code in LATER:
                return Trouble("busy", why)
            if code == "NoSuchBucket":
                return Trouble("no bucket", f"there is no bucket {self.bucket}")
            if code in REGION or (code == "AuthorizationHeaderMalformed" and error.response["Error"].get("Region")):
                return Trouble("region", why)
            if code in CREDENTIALS:
                return Trouble("credentials", why)
            if code in NO_SPACE:
                return Trouble("full", why)
            if code == "NoSuchUpload":
                return Trouble("failed", why)
            return by_status(status, why)
        if isinstance(error, (errors.HTTPClientError, errors.ConnectionError, errors.IncompleteReadError, errors.ResponseStreamingError)):
            return Trouble("busy", str(error))
        if isinstance(error, (errors.NoRegionError, errors.InvalidRegionError)):
            return Trouble("region", str(error))
        if isinstance(error, errors.BotoCoreError):
            missing = isinstance(error, (errors.NoCredentialsError, errors.PartialCredentialsError, errors.CredentialRetrievalError))
            return Trouble("credentials" if missing else "failed", str(error))
        return None

    @cached_property
    def _errors(self) -> Any:
        import botocore.exceptions

        return botocore.exceptions

    @cached_property
    def _session(self) -> Any:
        import boto3
        import botocore.session

        session = botocore.session.get_session()
        session.register_component("data_loader", _models(session.get_config_variable("data_path")))
        return boto3.Session(botocore_session=session)

    @cached_property
    def _config(self) -> Any:
        from botocore.config import Config

        once = {"total_max_attempts": 1, "mode": "standard"}
        # Without TLS botocore would hash each body once more for the signature; its CRC, which is signed, and our digest guard it anyway.
        plain = {"payload_signing_enabled": False}
        return Config(
            connect_timeout=CONNECT, read_timeout=ANSWER, retries=once, max_pool_connections=CONNECTIONS, tcp_keepalive=True, s3=plain
        )

    @cached_property
    def _client(self) -> Any:
        with MAKING:
            client = self._session.client("s3", config=self._config)
        for operation in ("GetObject", "ListObjectsV2"):
            client.meta.events.register(f"before-send.s3.{operation}", lambda request, **_: setattr(self._sent, "request", request))
        return client


@cache
def _models(folders: str | None) -> Any:
    """What botocore knows of the services, read and parsed once in a process, not by each session: that is most of the time that a client
    takes to be made. `folders`: where else such files lie."""
    from botocore.loaders import create_loader

    return create_loader(folders)


def _piece(data: bytes, told: str, version: str) -> Piece:
    """`told` is "bytes 0-9/100"."""
    return Piece(data, int(told.rpartition("/")[2]) if "/" in told else len(data), version)
