"""One line of progress, from progress.json: for a terminal (cut to its width by dropping the least useful parts), or for a log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainjobs.api.metrics import WAIT
from trainjobs.run.numbers import duration, instant, short, size, waiting

SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
ASCII_SPINNER = "|/-\\"
BAR = 12


def live(name: str, progress: Mapping[str, Any], *, width: int, tick: int, elapsed: float, ascii_only: bool = False) -> str:
    """At most `width` columns. `tick` turns the spinner; `elapsed` is the time since the driver was started, in seconds."""
    frames = ASCII_SPINNER if ascii_only else SPINNER
    spin = frames[tick % len(frames)]
    if not started(progress):
        return clip(f"{spin} {name}  {waiting_for(progress)}  {duration(elapsed)}", width)
    # (rank, text): the largest rank is dropped first when the line does not fit.
    parts = [
        (6, name),
        (5, bar(fraction(progress), ascii_only)),
        (0, position(progress)),
        (1, activity(progress)),
        (2, losses(progress)),
        (2, aim(progress)),
        (7, heldout(progress)),
        (3, throughput(progress)),
        (3, wait(progress)),
        (4, memory(progress)),
        (2, eta(progress)),
    ]
    kept = [part for part in parts if part[1]]
    while len(kept) > 1 and len(f"{spin} " + "  ".join(text for _, text in kept)) > width:
        kept.remove(max(kept))
    return clip(f"{spin} " + "  ".join(text for _, text in kept), width)


def plain(name: str, progress: Mapping[str, Any], *, elapsed: float) -> str:
    """The same for a log file: everything, on one line, whatever its length."""
    if not started(progress):
        return f"{name}: {waiting_for(progress)} ({duration(elapsed)})"
    figures = (losses(progress), aim(progress), heldout(progress), throughput(progress), wait(progress), memory(progress), eta(progress))
    parts = (position(progress), activity(progress), *figures)
    return f"{name}: " + ", ".join(part for part in parts if part)


def started(progress: Mapping[str, Any]) -> bool:
    """Whether a step has been made in this attempt: before that, what is being waited for says more than a zero."""
    return progress.get("phase") in ("Running", "Stopping", "Succeeded", "Stopped") and bool(progress.get("metrics"))


def waiting_for(progress: Mapping[str, Any]) -> str:
    if progress.get("phase") == "Failed":
        return "ending"  # why is said once, when the trainer has ended
    return str(progress.get("message") or progress.get("phase") or "starting").split("\n")[0]


def fraction(progress: Mapping[str, Any]) -> float:
    step, total = progress.get("step"), progress.get("totalSteps")
    if not isinstance(step, int) or not isinstance(total, int) or total < 1:
        return 0.0
    return min(1.0, step / total)


def bar(share: float, ascii_only: bool) -> str:
    full, empty = ("#", "-") if ascii_only else ("━", "─")
    done = int(share * BAR)
    return full * done + empty * (BAR - done)


def position(progress: Mapping[str, Any]) -> str:
    return f"{fraction(progress):4.0%} {progress.get('step') or 0}/{progress.get('totalSteps', '?')}".strip()


def activity(progress: Mapping[str, Any]) -> str:
    """What is being done beside steps, if anything: "drawing 64 samples, 23/64"."""
    found = progress.get("activity")
    return found if isinstance(found, str) else ""


def losses(progress: Mapping[str, Any]) -> str:
    """ "loss 0.0413", or "loss D 0.61 G 1.32" for several networks. At most three."""
    metrics = progress.get("metrics") or {}
    if "loss" in metrics:
        return f"loss {short(metrics['loss'])}"
    named = [(key.removeprefix("loss/"), value) for key, value in sorted(metrics.items()) if key.startswith("loss/")]
    return " ".join(["loss", *(f"{key} {short(value)}" for key, value in named[:3])]) if named else ""


def aim(progress: Mapping[str, Any]) -> str:
    """What is to rise, where the loss alone says little: the mean reward, or the share of pairs that are told apart."""
    metrics = progress.get("metrics") or {}
    named = (("reward", "reward"), ("rewards/accuracy", "accuracy"))
    return next((f"{word} {short(metrics[name])}" for name, word in named if name in metrics), "")


def heldout(progress: Mapping[str, Any]) -> str:
    value = (progress.get("metrics") or {}).get("heldout/loss")
    return "" if value is None else f"held-out {short(value)}"


def throughput(progress: Mapping[str, Any]) -> str:
    rate = progress.get("throughput")
    if not isinstance(rate, Mapping) or rate.get("value") is None:
        return ""
    return f"{short(rate['value'])} {rate.get('unit', 'samples/s')}"


def wait(progress: Mapping[str, Any]) -> str:
    """Of a run whose steps wait for data."""
    return waiting((progress.get("metrics") or {}).get(WAIT))


def memory(progress: Mapping[str, Any]) -> str:
    used = progress.get("memoryBytes")
    return size(used) if isinstance(used, int | float) and used > 0 else ""


def eta(progress: Mapping[str, Any]) -> str:
    seconds = progress.get("etaSeconds")
    return f"ETA {duration(seconds)}" if isinstance(seconds, int | float) else ""


def age(progress: Mapping[str, Any], now: float) -> str:
    start = instant(progress.get("startedAt"))
    return "-" if start is None else duration(now - start)


def clip(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"
