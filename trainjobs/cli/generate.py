"""Files made from the models: `python -m trainjobs.cli.generate` writes them, a test fails when they are stale."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic_core import PydanticUndefined

from trainjobs.api import crd, foreign_names
from trainjobs.api.codes import CODES, index, page
from trainjobs.api.fields import Model
from trainjobs.api.job import API_VERSION, KIND, Job
from trainjobs.api.metrics import METRICS
from trainjobs.api.only import effects
from trainjobs.api.pools import POOLS
from trainjobs.api.profile import Profile
from trainjobs.api.schema import schema_text
from trainjobs.api.shape import Field, element, is_list, literals, members, model_of, walk
from trainjobs.data import modes
from trainjobs.plan.catalogue import nodes, source

TYPES = {int: "integer", float: "number", str: "string", bool: "boolean", Any: "anything"}
LIMITS = {Ge: ("ge", "≥"), Gt: ("gt", ">"), Le: ("le", "≤"), Lt: ("lt", "<"), MinLen: ("min_length", "min"), MaxLen: ("max_length", "max")}


def generated() -> dict[Path, str]:
    """Every generated file, by its path from the repository's root."""
    files = {Path("docs/errors/README.md"): index()}
    files |= {Path(f"docs/errors/{code}.md"): page(code) for code in CODES}
    files[Path("docs/reference/job.md")] = "\n".join([*fields_page(KIND, Job), *metrics_part()])
    files[Path("docs/reference/profile.md")] = "\n".join(fields_page("ComputeProfile", Profile))
    files[Path("docs/reference/nodes.md")] = nodes_page()
    files[Path("docs/reference/generativetrainingjob.schema.json")] = schema_text()
    files[Path("docs/reference/pictures.md")] = modes.page()
    files[Path("docs/reference/names.md")] = foreign_names.page()
    for folder in ("manifests/crd", "charts/gentrain/files/crd"):
        files |= {Path(folder) / name: text for name, text in crd.texts().items()}
    return files


def fields_page(kind: str, whole: type[Model]) -> list[str]:
    """The reference of every field: one table per part of the manifest."""
    lines = [
        f"# {kind}",
        "",
        f"Every field of a manifest (`apiVersion: {API_VERSION}`, `kind: {kind}`), made from the models in `trainjobs/api`.",
        "`*` stands for a name or a list index. Fields in bold are required.",
        "",
    ]
    parts: dict[tuple[str, ...], list[Field]] = {}
    for field in walk(whole):
        parts.setdefault(field.path[:-1], []).append(field)
    for path, fields in parts.items():
        lines += [f"## {'.'.join(path) or 'The manifest'}", ""]
        summary = " ".join((fields[0].holder.__doc__ or "").split())
        lines += [summary, ""] if summary and "BaseModel" not in summary else []
        lines += ["| Field | Type | Default | Meaning |", "| --- | --- | --- | --- |", *map(row, fields), ""]
    return lines


def nodes_page() -> str:
    """The kinds of node pools, and the types of GPU nodes that are known."""
    lines = [
        "# Node pools and node types",
        "",
        "What a ComputeProfile can name, made from `trainjobs/api/pools.py` and `trainjobs/plan/catalogue.json`.",
        "",
        "| provider | pool | capacity | fabric | found by | notice of a spot node |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for (provider, pool), known in POOLS.items():
        columns = (provider, pool, ", ".join(known.capacities), ", ".join(known.fabrics), f"`{known.needs}`", f"{known.notice} s")
        lines.append(f"| {' | '.join(columns)} |")
    lines += ["", "List prices on demand, in USD per hour:", *(f"- {source(provider)}" for provider in ("aws", "azure", "gcp")), ""]
    lines += ["Left for pods: CPU and memory; a dash where the source does not say.", ""]
    lines += ["| type | GPUs | CPU | memory | EFA | NVMe | price from |", "| --- | --- | --- | --- | --- | --- | --- |"]
    for name, node in nodes().items():
        price = min(map(float, node.prices.values()), default=None)
        known_of = (node.cpu, node.memory, str(node.efa or ""), f"{node.nvme_gb} GB" if node.nvme_gb else "", f"{price:g}" if price else "")
        lines.append(f"| {name} | {node.gpus} x {node.gpu} | {' | '.join(value or '-' for value in known_of)} |")
    return "\n".join([*lines, ""])


def metrics_part() -> list[str]:
    """The metrics that are known by name; an objective of one's own measures what it likes."""
    lines = [
        "## Metrics",
        "",
        "What `metrics.jsonl`, reports and `keep.best` call what is measured; in bold what evaluations measure when they are asked.",
        "",
    ]
    lines += ["| Metric | Chart | Measured for | Better | Unit |", "| --- | --- | --- | --- | --- |"]
    for metric in METRICS:
        name = f"**{metric.name}**" if metric.asked else metric.name
        better = {"min": "lower", "max": "higher", "": ""}[metric.mode]
        lines.append(f"| {name} | {metric.chart}: {metric.label} | {metric.whose} | {better} | {metric.unit} |")
    return [*lines, ""]


def row(field: Field) -> str:
    name = field.path[-1]
    required = field.info.is_required()
    sometimes = [effect.sentence for effect in effects(field.holder) if effect.name == name]
    meaning = field.info.description or ("see below" if model_of(field.annotation) else "")
    text = cell(" ".join([f"{meaning.removesuffix('.')}.", *sometimes]) if sometimes else meaning)
    return f"| {f'**{name}**' if required else name} | {cell(kind(field))} | {cell(default(field))} | {text} |"


def kind(field: Field) -> str:
    """integer ≥ 1, or one of a, b, or list of numbers (2 entries)."""
    if literals(field.annotation):
        return choice(literals(field.annotation))
    found = dict(pair for item in (*field.info.metadata, *inner_metadata(field.annotation)) for pair in limits(item))
    words = named(field.annotation)
    least, most = found.pop("min", 0), found.pop("max", None)
    bounds = ", ".join(f"{sign} {value:g}" for sign, value in found.items() if value != 2**31 - 1)
    if most is not None and words != "string":
        words += f" ({most} entries)" if least == most else f" ({least} to {most} entries)"
    return f"{words} {bounds}".strip()


def choice(values: tuple[Any, ...]) -> str:
    return str(values[0]) if len(values) == 1 else "one of " + ", ".join(map(str, values))


def limits(item: Any) -> Iterator[tuple[str, Any]]:
    for kind_, (attribute, words) in LIMITS.items():
        if isinstance(item, kind_):
            yield words, getattr(item, attribute)
    for inner in getattr(item, "metadata", ()):
        yield from limits(inner)


def inner_metadata(annotation: Any) -> tuple[Any, ...]:
    """Constraints within `Annotated[...] | None`, when there is one alternative only."""
    found = [part for part in getattr(annotation, "__args__", ()) if hasattr(part, "__metadata__")]
    return tuple(found[0].__metadata__) if len(found) == 1 and get_origin(annotation) not in (list, dict) else ()


def named(annotation: Any, plural: str = "") -> str:
    """The type in words; `plural` is its ending."""
    if literals(annotation):
        return choice(literals(annotation))
    if model_of(annotation):
        return "mapping" + plural
    inner = element(annotation)
    if inner is not None:
        return f"{'list' if is_list(annotation) else 'map'}{plural} of {named(inner, '' if inner is Any else 's')}"
    return " or ".join(dict.fromkeys(TYPES.get(member, "string") + plural for member in members(annotation)))


def default(field: Field) -> str:
    value = field.info.default
    if value is PydanticUndefined or value is None or isinstance(value, Model):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    for path, text in generated().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    print(f"wrote {len(generated())} files")


if __name__ == "__main__":
    main()
