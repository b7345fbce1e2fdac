"""What a page shows of manifests, and what is wrong with it.

The rules, all of them strict:

- A `yaml` block with a `kind` of ours is a whole manifest and is taken as it is; one of another kind has to be YAML with an `apiVersion`.
- A block on the chart's page without a `kind` is Helm values: it has to be YAML, of values that the chart has.
- Every other block is a part of a manifest. It belongs to the mapping nearest to the root whose fields have all its keys (`spec`, then what
  is in spec, and so on), and is laid into a small manifest there: of the family that it names, else of the one that the page is about (a
  page called gan.md), else of any.
- Inline code `a.b` or `path: value` is a field, written from any place below the root on; or it is a file, an API group, a name of
  Python's or a value of the chart. A value is laid into a manifest, too, unless it is a `<placeholder>` or of a field of the status.
- `--set path=value` names a field from spec on, or a value of the chart.
- No block of another language reads as a part of a manifest, so that none escapes for want of the word `yaml`.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from trainjobs.api.fields import Model
from trainjobs.api.job import API_VERSION, FAMILIES, KIND, Job
from trainjobs.api.parse import parse, parse_profile
from trainjobs.api.profile import Profile
from trainjobs.api.shape import annotation_at, element, fields, is_list, model_of, walk
from trainjobs.api.status import Status

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
CHART_PAGE = ROOT / "docs" / "reference" / "chart.md"
CHART: dict[str, Any] = yaml.safe_load((ROOT / "charts" / "gentrain" / "values.yaml").read_text())
MLP = {"architecture": "mlp"}
SMALL: dict[str, list[dict[str, Any]]] = {
    "gan": [
        {"gan": {}, "data": {"source": "builtin:digits"}},
        {"gan": {"generator": MLP, "discriminator": MLP}, "data": {"source": "builtin:ring"}},
    ],
    "vae": [{"vae": {}, "data": {"source": "builtin:digits"}}, {"vae": {"network": MLP}, "data": {"source": "builtin:ring"}}],
    "diffusion": [{"diffusion": {}, "data": {"source": "builtin:digits"}}],
    "language": [{"language": {}, "data": {"source": "builtin:stdlib-text"}}],
    "custom": [{"custom": {"objective": "package.module:build"}, "data": {"source": "builtin:digits"}}],
}
# Endings of file names; none is the name of a field.
FILES = ("csv", "json", "jsonl", "lock", "md", "py", "txt", "yaml", "html", "parquet", "png", "safetensors", "tar")
PACKAGES = ("json", "torch", "trainjobs")
PATH = r"[a-z]\w*(?:\.(?:\w+|\*)|\[\d+\])*"
# What looks like a field and is something else. A test holds that each is still needed.
OTHERS = {
    "batch.noise": "what an objective is given",
    "deepspeed.initialize": "a function of DeepSpeed, whose name is also a field",
    "distributed.checkpoint.async_save": "a function of torch, named behind the word torch",
    "enforce: restricted": "a label of a namespace, in short",
    "engine.forward": "a method of DeepSpeed's",
    'grafana_dashboard: "1"': "a label for Grafana's sidecar",
    "honorLabels: true": "a setting of Prometheus",
    "key: {}": "any key",
    "managed_gradient_accumulation: false": "a setting of DeepSpeed's",
    "metadata.frozen": "a part of a checkpoint's MANIFEST.json",
    "metadata.spec": "a part of a checkpoint's MANIFEST.json",
    "ray.train": "a package of Ray's, whose name is also a field of the status",
    "store.shared": "a function of the tests",
    "workers: {min: 2, max: 8}": "a decision's rejected alternative",
}


class Loader(yaml.SafeLoader):
    """YAML as `gtj` and kubectl read it where PyYAML differs and the pages use it: 1e-4 is a number."""


Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789"))


class Code(NamedTuple):
    """A block with its language, "" for none; or inline code, whose language is None."""

    where: str
    language: str | None
    text: str


def codes(page: Path) -> Iterator[Code]:
    """Every block and every inline code of a page."""
    text = page.read_text()
    block = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
    for found in block.finditer(text):
        yield Code(at(page, text, found.start()), found[2], textwrap.dedent(found[3]))
    rest = block.sub(lambda found: "\n" * found[0].count("\n"), text)
    for found in re.finditer(r"(`+)(.+?)\1", rest, re.DOTALL):
        yield Code(at(page, rest, found.start()), None, " ".join(found[2].split()))


def at(page: Path, text: str, place: int) -> str:
    return f"{page.relative_to(ROOT)}:{len(text[: place + 1].splitlines())}"


# --- Blocks --------------------------------------------------------------------------------------------------------------------------


def wrong(text: str, page: Path) -> list[str]:
    """What is wrong with a `yaml` block."""
    try:
        documents = list(yaml.load_all(text, Loader))
    except yaml.YAMLError as error:
        return [f"no YAML: {error}"]
    return [problem for document in documents for problem in (wrong_document(document, page) if document else ["an empty document"])]


def wrong_document(data: Any, page: Path) -> list[str]:
    if not isinstance(data, dict):
        return ["neither a manifest nor a part of one"]
    if "kind" in data:
        if data["kind"] in (KIND, "ComputeProfile"):
            return wrong_manifest(data)
        return [] if "apiVersion" in data and not str(data["apiVersion"]).startswith("gentrain.dev/") else ["a kind without its apiVersion"]
    if page == CHART_PAGE:
        return [f"the chart has no value {key}" for key in data if key not in CHART]
    found = holders(frozenset(data))
    if not found:
        return [f"nothing in a manifest has the fields {', '.join(map(str, data))}"]
    return shortest(wrong_part(root, path, data, page) for root, path in found)


def wrong_manifest(data: dict[str, Any]) -> list[str]:
    problems = parse(data)[1] if data["kind"] == KIND else parse_profile(data)[1]
    return [problem.error().line() for problem in problems]


@cache
def holders(keys: frozenset[str]) -> list[tuple[type[Model], tuple[str, ...]]]:
    """The mappings nearest to the root that have all these fields."""
    found = [(root, path) for root in (Job, Profile) for path, model in mappings(root) if keys <= set(fields(model))]
    return [(root, path) for root, path in found if len(path) == min(len(path) for _, path in found)]


def mappings(root: type[Model]) -> Iterator[tuple[tuple[str, ...], type[Model]]]:
    yield (), root
    for field in walk(root):
        path, inner = field.path, field.annotation
        while model_of(inner) is None and (below := element(inner)) is not None:
            path, inner = (*path, "*"), below
        if model := model_of(inner):
            yield path, model


def wrong_part(root: type[Model], path: tuple[str, ...], value: Any, page: Path) -> list[str]:
    """What is wrong with a manifest that has `value` at `path`: of the smallest number of problems that a family makes of it."""
    for at in reversed(range(len(path))):
        inside_list = path[at] == "*" and is_list(annotation_at(root, path[:at]))
        value = [value] if inside_list else {"default" if path[at] == "*" else path[at]: value}
    if root is Profile:
        return wrong_manifest(merged({"apiVersion": API_VERSION, "kind": "ComputeProfile", "spec": {}}, value))
    spec = value.get("spec")
    named = [family for family in FAMILIES if isinstance(spec, dict) and family in spec]
    wanted = named or ([page.stem] if page.stem in FAMILIES else FAMILIES)
    head = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "job"}}
    small = ({**head, "spec": {"training": {"steps": 1000}, **part}} for family in wanted for part in SMALL[family])
    return shortest(wrong_manifest(merged(manifest, value)) for manifest in small)


def merged(base: Any, over: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    return {**base, **{key: merged(base[key], value) if key in base else value for key, value in over.items()}}


def shortest(verdicts: Iterator[list[str]]) -> list[str]:
    """Of several places or families one will do; else what is nearest to right."""
    best: list[str] | None = None
    for verdict in verdicts:
        if not verdict:
            return []
        best = verdict if best is None or len(verdict) < len(best) else best
    return best or []


def is_part(text: str) -> bool:
    """Whether a block could be a manifest, or a part of one."""
    try:
        data = yaml.load(text, Loader)
    except yaml.YAMLError:
        return False
    return isinstance(data, dict) and ({"kind", "apiVersion"} <= set(data) or bool(holders(frozenset(data))))


# --- Inline code ---------------------------------------------------------------------------------------------------------------------


def wrong_inline(text: str, page: Path) -> list[str]:
    """What is wrong with inline code, if it is a dotted path, or a path and its value."""
    found = re.fullmatch(rf"({PATH})(?:: (.+))?", text)
    if not found or text in OTHERS:
        return []
    words, value = tuple(re.sub(r"\[\d+\]", ".*", found[1]).split(".")), found[2]
    if value is None and (len(words) == 1 or words[0] in PACKAGES or words[-1] in FILES or text.endswith((".io", ".dev"))):
        return []
    places = [(root, path) for root in (Job, Profile) for path in resolved(root, words)]
    if not places:
        return [] if resolved(Status, words) or in_chart(words) else [f"there is no field {found[1]}"]
    if value is None or re.search(r"<.+>", value):
        return []
    try:
        data = yaml.load(value, Loader)
    except yaml.YAMLError as error:
        return [f"no YAML: {error}"]
    return shortest(wrong_part(root, path, data, page) for root, path in places)


def wrong_sets(text: str) -> list[str]:
    """What is wrong with the `--set path=value` in any code."""
    paths = [tuple(path.split(".")) for path in re.findall(rf"--set[ =]['\"]?({PATH})=", text)]
    good = [("spec", *path) in resolved(Job, path) or in_chart(path) for path in paths]
    return [f"--set knows no {'.'.join(path)}" for path, known in zip(paths, good, strict=True) if not known]


def resolved(root: type[Model], words: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The full paths that end in `words`."""
    return [full for pattern in patterns(root) if (full := completed(pattern, words)) is not None]


@cache
def patterns(root: type[Model]) -> list[tuple[str, ...]]:
    """The path of every field; "*" is a key of a map or an index, "**" whatever is in a map of anything."""
    found = []
    for field in walk(root):
        inner, path = field.annotation, field.path
        found.append(path)
        while model_of(inner) is None and (inner := element(inner)) is not None:
            path = (*path, "**" if inner is Any else "*")
            found.append(path)
    return [("status", *path) for path in found] if root is Status else found


def completed(pattern: tuple[str, ...], words: tuple[str, ...]) -> tuple[str, ...] | None:
    """`words` with what is above them, if they are the end of the pattern. The first of them is a field's name, not a key of a map."""
    deep = range(1, len(words)) if pattern[-1] == "**" else ()
    for whole in [(*pattern[:-1], *["*"] * depth) for depth in deep] or [pattern]:
        above, end = whole[: -len(words)], whole[-len(words) :]
        if end[0] == words[0] and len(end) == len(words) and all(part in (word, "*") for part, word in zip(end, words, strict=True)):
            return (*above, *words)
    return None


def in_chart(words: tuple[str, ...]) -> bool:
    current: Any = CHART
    for word in words:
        if not (isinstance(current, dict) and word in current):
            return False
        current = current[word]
    return True
