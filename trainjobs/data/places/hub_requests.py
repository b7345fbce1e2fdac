"""Asking the Hugging Face hub: requests through huggingface_hub's own session (HF_ENDPOINT, HF_TOKEN, proxies and certificates are its
business), repeated while the hub is busy, and what a refusal means.

huggingface_hub's own retries are not used: they take as long as they like, and its call for trees has no timeout at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from trainjobs.api.errors import JobError
from trainjobs.stores.bucket import ANSWER
from trainjobs.stores.objects import Patience

T = TypeVar("T")
LATER = (408, 425, 429, 500, 502, 503, 504)
GONE = (400, 401, 403, 404, 410)  # of an address that was good for a while
KNOWN = 1000  # addresses of a kilobyte
LONGEST = 60.0  # seconds that one "later, in ... seconds" of the hub is waited for
TOKEN = "set HF_TOKEN in the environment; on a cluster from a Secret through spec.pod.env"


class CutShort(ConnectionError):
    """An answer that ended before its time, or was damaged on the way."""


@dataclass(frozen=True)
class Hub:
    """`endpoint` without a trailing slash. Moves to another process as it is: session and token are found anew there."""

    endpoint: str
    patience: Patience = field(default_factory=Patience, compare=False)
    kind: str = "dataset"  # of the repositories that are asked for: dataset or model
    elsewhere: dict[str, str] = field(default_factory=dict, compare=False)  # where a large file was last found to lie, by its path

    def json(self, path: str, repo: str, params: Mapping[str, Any] | None = None) -> Any:
        """The answer to one request."""

        def act() -> Any:
            with self.stream(path, params=params) as answer:
                return _parsed(answer.read(), self.endpoint)

        return self.ask(act, path, repo)

    def pages(self, path: str, repo: str, params: Mapping[str, Any]) -> Iterator[Any]:
        """The items of a list, of which the hub gives so many at a time."""
        following: str | None = path
        while following:
            url, first = following, following == path

            def act(url: str = url, first: bool = first) -> tuple[Any, str | None]:
                with self.stream(url, params=params if first else None) as answer:
                    return _parsed(answer.read(), self.endpoint), answer.links.get("next", {}).get("url")

            items, following = self.ask(act, path, repo)
            yield from items

    @contextmanager
    def stream(self, path: str, *, params: Mapping[str, Any] | None = None, wanted: str = "") -> Iterator[Any]:
        """One request, its body unread; `wanted` is a range. Raises huggingface_hub's and the HTTP client's errors."""
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

        # Of a large file the hub knows only where it lies, for an hour, and it counts who asks: ranges are asked for there.
        known = self.elsewhere.get(path) if wanted else None
        url = known or (path if "://" in path else self.endpoint + path)
        headers = {**build_hf_headers(token=False if known else None), "Accept-Encoding": "identity"}
        headers |= {"Range": wanted} if wanted else {}
        with get_session().stream("GET", url, headers=headers, params=params, timeout=ANSWER, follow_redirects=True) as answer:
            if answer.status_code >= 400:
                answer.read()
            if known and answer.status_code in GONE:
                self.elsewhere.pop(path, None)
                raise CutShort("the file lies elsewhere now")
            hf_raise_for_status(answer)
            if wanted and answer.history and answer.url.host != answer.history[0].url.host:
                if len(self.elsewhere) >= KNOWN:
                    self.elsewhere.clear()
                self.elsewhere[path] = str(answer.url)
            yield answer

    def ask(self, act: Callable[[], T], what: str, repo: str, progress: Callable[[], int] = lambda: 0) -> T:
        """The answer of `act`, repeated while the hub is busy. `progress` grows while it gets on, which begins patience anew.

        JobError GTJ0112 for what is refused, GTJ0113 for what is not there, GTJ0219 for what does not answer.
        """
        patience = self.patience
        began, tries, done = patience.now(), 0, progress()
        while True:
            tries += 1
            try:
                return act()
            except Exception as error:
                if not _of_the_hub(error):
                    raise
                status = _status(error)
                if status is not None and status not in LATER:
                    raise self.refusal(error, status, what, repo) from error
                if progress() > done:
                    began, tries, done = patience.now(), 1, progress()
                delay = max(patience.delay(tries), min(_told(error), LONGEST))
                spent = patience.now() - began
                if spent + delay > patience.seconds:
                    raise JobError(
                        "GTJ0219",
                        "the hub does not answer",
                        where=f"GET {self.endpoint}{what}",
                        why=f"asked {tries} times in {spent:.0f} s, the last time with: {_words(error)}",
                        how=f"see whether {self.endpoint} is up and reachable from here (HF_ENDPOINT, a proxy), and start again",
                    ) from error
                patience.pause(delay)

    def refusal(self, error: Exception, status: int, what: str, repo: str) -> JobError:
        """What an answer that will not change by asking again means for the repository `repo`."""
        from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

        where, page = f"GET {self.endpoint}{what}", f"{self.endpoint}/{'datasets/' if self.kind == 'dataset' else ''}{repo}"
        if isinstance(error, GatedRepoError):
            whom = self.whom()
            how = f"ask for access on {page}" + ("" if whom else f", make a token that may read it, and {TOKEN}")
            why = f"its owner gives access one by one, and {f'{whom} has none' if whom else 'nobody without a token has any'}"
            code = "GTJ0109" if self.kind == "model" else "GTJ0112"
            return JobError(code, f"the {self.kind} {repo} is gated", where=where, why=why, how=how)
        if isinstance(error, RevisionNotFoundError):
            told = (
                f"the revision stands at the end: hf://datasets/{repo}/config@revision" if self.kind == "dataset" else "it is base.revision"
            )
            how = f"see {page}/commits for those that there are; {told}"
            return JobError("GTJ0113", f"the {self.kind} {repo} has no such revision (any more)", where=where, why=_words(error), how=how)
        if isinstance(error, EntryNotFoundError):
            return JobError(
                "GTJ0113", f"the {self.kind} has no such file (any more)", where=where, why=_words(error), how=f"see {page}/tree"
            )
        if status == 404 or (isinstance(error, RepositoryNotFoundError) and status != 401):
            how = f"mend the name; a private one needs a token that may read it: {TOKEN}"
            return JobError(
                "GTJ0113", f"the hub has no {self.kind} {repo}", where=where, why=f"asked as {self.whom() or 'nobody'}", how=how
            )
        if isinstance(error, RepositoryNotFoundError):  # to those without a token the hub does not say which of the two
            why = "it is private, or there is none of that name, which the hub tells only to those with a token"
            how = f"mend the name, or {TOKEN}"
            return JobError("GTJ0112", f"the hub shows no {self.kind} {repo} without a token", where=where, why=why, how=how)
        if status in (401, 403):
            how = f"make a token that may read {repo}, and {TOKEN}"
            what_failed = f"the hub refused to read {repo} to {self.whom() or 'the token that is set'}"
            return JobError("GTJ0112", what_failed, where=where, why=_words(error), how=how)
        return JobError("GTJ0113", f"the {self.kind} {repo} cannot be read", where=where, why=_words(error), how=f"see {page}")

    def whom(self) -> str:
        """As whom is asked: "jane"; "" without a token, and where the hub does not know it."""
        from huggingface_hub.utils import get_token

        with suppress(Exception):
            if get_token():
                with self.stream("/api/whoami-v2") as answer:
                    return str(json.loads(answer.read())["name"])
        return ""


def _parsed(data: bytes, endpoint: str) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:
        start = " ".join(data[:60].decode("utf-8", "replace").split())
        how = "see whether HF_ENDPOINT names a hub, and what a proxy in between answers"
        raise JobError("GTJ0219", "what answers is no hub", where=endpoint, why=f"it says {start!r}", how=how) from error


def _of_the_hub(error: Exception) -> bool:
    """An answer of the hub, or a failure on the way to it; not of a disk here."""
    from huggingface_hub.errors import HfHubHTTPError

    return isinstance(error, (HfHubHTTPError, CutShort)) or type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore")


def _status(error: Exception) -> int | None:
    """The HTTP status of an answer; None for a connection that failed."""
    answer = getattr(error, "response", None)
    return int(answer.status_code) if answer is not None else None


def _told(error: Exception) -> float:
    """Seconds after which the hub wants to be asked again."""
    answer = getattr(error, "response", None)
    after = answer.headers.get("Retry-After", "").strip() if answer is not None else ""
    return float(after) if after.isdecimal() else 0.0


def _words(error: Exception) -> str:
    status, said = _status(error), getattr(error, "server_message", None)
    if status is not None:
        return f"HTTP {status}{f', {said}' if said else ''}"
    return str(error) or type(error).__name__
