"""Reading manifests: positions, YAML as kubectl reads it, several documents, --set, and the printed form of a problem."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from trainjobs.api.errors import JobError
from trainjobs.cli.diagnostics import block, plain
from trainjobs.cli.manifest import Found, InvalidManifest, load, load_job
from trainjobs.cli.overrides import Refused, override
from trainjobs.cli.positions import Position, documents, resolved

JOB = """\
apiVersion: gentrain.dev/v1alpha1
kind: GenerativeTrainingJob
metadata: {name: faces}
spec:
  vae: {}
  data: {source: builtin:digits}
  training:
    steps: 10
"""


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(text: str | bytes, name: str = "job.yaml") -> str:
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return str(path)

    return write


def problems(source: str, *sets: str, workers: int | None = None) -> list[Found]:
    return [found for manifest in load(source, sets, workers).manifests for found in manifest.found]


def test_valid_manifest(write: Any) -> None:
    manifest = load_job(write(JOB))
    assert manifest.job is not None
    assert manifest.job.metadata.name == "faces"
    assert manifest.text == JOB.encode()


def test_a_problem_is_shown_as_a_compiler_shows_it(write: Any) -> None:
    source = write(JOB + "    optimizers:\n      default:\n        learnigRate: 1e-4\n")
    (found,) = problems(source)
    assert block(found).splitlines() == [
        f'{source}:11:9: GTJ0101 unknown field "learnigRate" in spec.training.optimizers.default',
        "    11 |         learnigRate: 1e-4",
        "       |         ^^^^^^^^^^^",
        '       = did you mean "learningRate"?',
    ]


PLACES = [
    ("  compute: {workers: 3}\n", "GTJ0103", "3", "the workers, since the batch is a default"),
    ("    batch: {global: 65}\n  compute: {workers: 2}\n", "GTJ0103", "65", "the batch, since it is written"),
    ("    schedule: {name: cosin}\n", "GTJ0102", "cosin", "the value"),
    ("  diffusion: {}\n", "GTJ0106", "diffusion", "the key of the second family"),
    ("  evaluation:\n", "GTJ0105", "evaluation", "the key of an empty value"),
    ("    optimizers: {autoencodr: {}}\n", "GTJ0102", "autoencodr", "the key of a map"),
    ("  pod:\n    env:\n    - name: A\n", "GTJ0108", "n", "the item of a list"),
    ("  checkpoints: {every: {}}\n", "GTJ0108", "every", "the key of a mapping"),
    ('  budget: {maxUSD: "x"}\n', "GTJ0102", '"x"', "the value with its quotes"),
]


@pytest.mark.parametrize(("extra", "code", "marked", "why"), PLACES, ids=[why for *_, why in PLACES])
def test_the_caret_marks(write: Any, extra: str, code: str, marked: str, why: str) -> None:
    (found,) = problems(write(JOB + extra))
    assert found.problem.code == code
    assert found.at is not None
    assert found.line[found.at.column - 1 :][: found.at.length] == marked


def test_missing_field_points_at_its_parent(write: Any) -> None:
    (found,) = problems(write(JOB.replace("    steps: 10\n", "    seed: 1\n")))
    assert (found.at, found.problem.what) == (Position(7, 3, 8), 'missing field "steps" in spec.training')


def test_all_problems_come_at_once_in_the_order_of_the_file(write: Any) -> None:
    text = JOB.replace("digits", "digts").replace("steps: 10", "steps: ten") + "  deepsped: {}\n  compute: {workers: 3}\n"
    found = problems(write(text))
    assert [one.problem.code for one in found] == ["GTJ0102", "GTJ0105", "GTJ0101", "GTJ0103"]
    lines = [one.at.line for one in found if one.at]
    assert lines == sorted(lines) == [6, 8, 9, 10]


def test_invalid_manifest_speaks_for_the_first_problem_and_holds_all(write: Any) -> None:
    source = write(JOB + "  a: 1\n  b: 2\n")
    with pytest.raises(InvalidManifest) as caught:
        load_job(source)
    assert caught.value.exit_code == 3
    assert caught.value.line().startswith('GTJ0101 unknown field "a" in spec')
    assert f"({source}:9:3)" in caught.value.line()
    assert plain(caught.value).count("GTJ0101") == 2


MALFORMED = [
    ("a: [1, 2\nb: 3\n", 2, "expected ',' or ']'"),
    ("a: b: c\n", 1, "mapping values are not allowed"),
    ("a:\n\tb: 1\n", 2, "spaces"),
    ("a: 'open\n", 2, "unexpected end"),
    ("a: *nothing\n", 1, "undefined alias"),
    ("a: 1\nb: \x01\n", 2, "U+0001"),
    ("a: !!python/object:os.system x\n", 1, "means nothing in a manifest"),
    ("a: .inf\n", 1, "JSON"),
    ("? [1, 2]\n: 3\n", 1, "a key must be text"),
    ("<<: 3\na: 1\n", 1, "<< takes a mapping"),
]


@pytest.mark.parametrize(("text", "line", "words"), MALFORMED)
def test_malformed_yaml(write: Any, text: str, line: int, words: str) -> None:
    found = problems(write(text))
    shown = next(block(one) for one in found if words in block(one))
    assert f":{line}:" in shown.splitlines()[0]
    assert "GTJ010" in shown


def test_duplicate_keys_are_errors(write: Any) -> None:
    (found,) = problems(write(JOB + "    steps: 20\n"))
    assert (found.problem.code, found.problem.what, found.at) == ("GTJ0105", '"steps" is given twice', Position(9, 5, 5))
    assert "line 8" in found.problem.why


def test_aliases_may_not_multiply(write: Any) -> None:
    levels = ["a0: &a0 [1,1,1,1,1,1,1,1,1,1]"] + [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    (found,) = problems(write("\n".join(levels)))
    assert "aliases multiply" in found.problem.what


@pytest.mark.parametrize("text", ["&a [*a]", "[" * 1200, "{a: " * 1200, "&a {<<: *a}"])
def test_endless_and_deep_yaml_is_refused(write: Any, text: str) -> None:
    assert all(found.problem.code in ("GTJ0105", "GTJ0101") for found in problems(write(text)))
    assert problems(write(text))


def test_anchors_and_merge_keys(write: Any) -> None:
    text = JOB + "    optimizers:\n      default: &o {name: adam, learningRate: 1e-4}\n      autoencoder: {<<: *o, name: sgd}\n"
    job = load_job(write(text)).job
    assert job is not None
    assert (job.spec.training.optimizers["autoencoder"].name, job.spec.training.optimizers["autoencoder"].learning_rate) == ("sgd", 1e-4)


RESOLVED: list[tuple[str, Any]] = [
    ("1e-4", 1e-4),
    ("1E5", 100000),
    ("5e4", 50000),
    ("1.0", 1),
    ("1.", 1),
    (".5", 0.5),
    ("-0.25", -0.25),
    ("+7", 7),
    ("0x10", 16),
    ("0o17", 15),
    ("017", 15),
    ("0b11", 3),
    ("1_000", 1000),
    ("089", 89),
    ("1:30", "1:30"),
    ("2026-01-01", "2026-01-01"),
    ("1.2.3", "1.2.3"),
    ("yes", True),
    ("Off", False),
    ("y", True),
    ("N", False),
    ("yEs", "yEs"),
    ("~", None),
    ("null", None),
    ("nil", "nil"),
    ("1e400x", "1e400x"),
    ("-", "-"),
    ("_", "_"),
    ("0x", "0x"),
]


@pytest.mark.parametrize(("text", "value"), RESOLVED)
def test_scalars_resolve_as_kubectl_reads_them(text: str, value: Any) -> None:
    assert resolved(text) == value
    assert type(resolved(text)) is type(value)


@pytest.mark.parametrize(
    ("text", "why", "how"),
    [
        ("010", "YAML 1.1 (kubectl too) reads it as octal, 8, and YAML 1.2 as 10", 'write 8 or 10, whichever you mean, or "010" for text'),
        ("0_17", "octal, 15, and YAML 1.2 as 17", "write 15 or 17"),
        ("0o10", "YAML 1.2 reads it as octal, 8, and YAML 1.1 as the text 0o10", "write 8 for the number"),
        ("08", "some read it as 8, and others as the text 08", "write 8 for the number"),
    ],
)
def test_a_number_with_a_leading_zero_is_refused_as_ambiguous(text: str, why: str, how: str, write: Any) -> None:
    source = write(JOB.replace("steps: 10", f"steps: {text}"))
    (found,) = problems(source)
    assert (found.problem.code, found.problem.what, found.at) == ("GTJ0102", f"{text} is ambiguous", Position(8, 12, len(text)))
    assert why in found.problem.why
    assert how in found.problem.how
    (given,) = problems(write(JOB), f"training.steps={text}")
    assert why in given.problem.why


def test_what_has_one_reading_is_no_octal(write: Any) -> None:
    for text in ("0", "07", "-0", "00", "0.5", "0x10", "0b11"):
        (document,) = documents(f"a: {text}")
        assert document.problems == []
    (document,) = documents('a: "010"\nb: \'0o10\'\n"010": x')
    assert (document.data, document.problems) == ({"a": "010", "b": "0o10", "010": "x"}, [])
    (document,) = documents("010: x")
    assert [problem.what for _, problem in document.problems] == ["010 is ambiguous"]


TEXTS = st.text(max_size=12).filter(lambda text: resolved(text) == text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
        max_leaves=12,
    )
)
@settings(max_examples=50, deadline=None)
def test_what_pyyaml_writes_is_read_back(data: Any) -> None:
    (document,) = documents(yaml.safe_dump({"top": data}))
    assert document.problems == []
    assert document.data == {"top": data}


@given(st.text(max_size=12))
@settings(max_examples=100, deadline=None)
def test_quoted_text_stays_text(text: str) -> None:
    (document,) = documents(yaml.safe_dump({text: [text]}, default_style='"'))
    assert document.data == {text: [text]}


@given(st.text(alphabet="ab:-[]{}&*!#|>'\"\n\t %@`,?~.0", max_size=40))
@settings(max_examples=100, deadline=None)
def test_any_text_ends_in_data_or_problems(text: str) -> None:
    for document in documents(text):
        assert document.problems or document.data is not None


def test_other_documents_are_left_alone(write: Any) -> None:
    text = f"---\n# nothing\n---\nkind: Secret\napiVersion: v1\nstringData: {{a: b, a: c}}\n---\n{JOB}---\n"
    loaded = load(write(text))
    assert [manifest.name for manifest in loaded.manifests] == ["faces"]
    assert [note.rpartition(": ")[2] for note in loaded.notes] == ["Secret"]


def test_several_jobs_can_be_checked_but_not_run(write: Any) -> None:
    source = write(f"{JOB}---\n{JOB.replace('faces', 'bedrooms')}")
    assert [manifest.name for manifest in load(source).manifests] == ["faces", "bedrooms"]
    with pytest.raises(JobError) as caught:
        load_job(source)
    assert (caught.value.code, caught.value.why) == ("GTJ0105", "faces and bedrooms")


def test_positions_hold_in_a_later_document(write: Any) -> None:
    (found,) = problems(write(f"kind: Secret\napiVersion: v1\n---\n{JOB}  a: 1\n"))
    assert found.at == Position(12, 3, 1)


@pytest.mark.parametrize("text", ["", "# only words\n", "---\n---\n", "kind: Secret\n---\nkind: ConfigMap\n"])
def test_no_job_at_all(write: Any, text: str) -> None:
    (found,) = problems(write(text))
    assert (found.problem.code, found.at) == ("GTJ0105", None)


def test_a_single_document_of_another_kind_is_told_what_it_should_be(write: Any) -> None:
    found = problems(write("apiVersion: v1\nkind: Pod\nmetadata: {name: x}\n"))
    assert {one.problem.what for one in found} >= {'"Pod" is not allowed for kind', 'missing field "spec" in the manifest'}


def test_the_output_of_kubectl_get_is_a_manifest(write: Any) -> None:
    server = "metadata: {name: faces, uid: abc, generation: 3, creationTimestamp: null, resourceVersion: '7', managedFields: []}"
    text = JOB.replace("metadata: {name: faces}", server) + "status: {phase: Running}\n"
    job = load_job(write(text)).job
    assert job is not None
    assert job.metadata.uid == "abc"


@pytest.mark.parametrize(("content", "words"), [(b"\xff\xfe\x00", "UTF-8"), (b"a: \x80", "UTF-8")])
def test_other_encodings(write: Any, content: bytes, words: str) -> None:
    (found,) = problems(write(content))
    assert words in found.problem.what


def test_byte_order_mark_and_windows_line_ends(write: Any) -> None:
    assert load_job(write(b"\xef\xbb\xbf" + JOB.replace("\n", "\r\n").encode())).job is not None


def test_missing_file_suggests_its_neighbour(write: Any, tmp_path: Path) -> None:
    write(JOB, "faces.yaml")
    with pytest.raises(JobError) as caught:
        load(str(tmp_path / "face.yaml"))
    assert (caught.value.code, caught.value.exit_code) == ("GTJ0118", 7)
    assert "faces.yaml" in caught.value.how


def test_folder_and_giant(write: Any, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="a folder, not a manifest"):
        load(str(tmp_path))
    with pytest.raises(JobError, match="larger than 1 MiB"):
        load(write(b"#" * (1 << 20) + b"#"))


def base() -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(JOB)
    return data


SETS: list[tuple[str, Any, str]] = [
    ("training.steps=20", 20, "spec.training.steps"),
    ("spec.training.steps=2e1", 20, "spec.training.steps"),
    ("metadata.name=other", "other", "metadata.name"),
    ("training.optimizers.default.learningRate=1e-3", 1e-3, "spec.training.optimizers.default.learning_rate"),
    ("vae.network={latentDim: 3}", 3, "spec.vae.network.latent_dim"),
    ("compute.workers=2-4", "2-4", "spec.compute.workers"),
    ("checkpoints.uri=file:///a=b", "file:///a=b", "spec.checkpoints.uri"),
    ("deepspeed.config.zero_optimization.reduce_bucket_size=5", {"zero_optimization": {"reduce_bucket_size": 5}}, "spec.deepspeed.config"),
]


@pytest.mark.parametrize(("change", "value", "attribute"), SETS)
def test_set(write: Any, change: str, value: Any, attribute: str) -> None:
    current: Any = load_job(write(JOB), [change]).job
    for name in attribute.split("."):
        current = current[name] if isinstance(current, dict) else getattr(current, name)
    assert current == value


def test_set_changes_a_copy_and_may_remove_a_field() -> None:
    data = base()
    changed = override(data, "training.steps", None)
    assert changed["spec"]["training"] == {}
    assert data == base()
    assert override(data, "budget.maxUSD", None) == data


def test_set_reaches_into_lists() -> None:
    data = base()
    data["spec"]["pod"] = {"env": [{"name": "A", "value": "x"}]}
    for path in ("pod.env.0.value", "spec.pod.env[0].value"):
        assert override(data, path, "y")["spec"]["pod"]["env"][0]["value"] == "y"
    with pytest.raises(Refused, match="list of 1"):
        override(data, "pod.env.1.value", "y")


BAD_SETS = [
    ("trainig.steps=1", "GTJ0101", 'did you mean "training"?'),
    ("training.stepps=1", "GTJ0101", 'did you mean "steps"?'),
    ("learningRate=1", "GTJ0101", "unknown field"),
    ("steps=1", "GTJ0101", "did you mean training.steps, "),
    ("training.steps", "GTJ0105", "path=value"),
    ("training.steps=[1", "GTJ0105", "is not a value"),
    ("training.steps=ten", "GTJ0105", "must be an integer, not a string"),
    ("training.steps=", "GTJ0105", 'missing field "steps"'),
    ("compute.workers=3", "GTJ0103", "63 or 66"),
    ("training.steps.more=1", "GTJ0101", "unknown field"),
    ("diffusion={}", "GTJ0106", "exactly one family"),
]


@pytest.mark.parametrize(("change", "code", "words"), BAD_SETS)
def test_bad_set(write: Any, change: str, code: str, words: str) -> None:
    (found,) = problems(write(JOB), change)
    assert found.problem.code == code
    assert words in block(found)
    assert block(found).startswith(f"--set {change}: {code} ")


def test_workers_of_the_command_line_take_part_in_the_rules(write: Any) -> None:
    (found,) = problems(write(JOB), workers=7)
    assert (found.problem.code, found.problem.how) == ("GTJ0103", "nearest sizes that do: 63 or 70")


def test_tabs_before_the_caret_stay_tabs() -> None:
    found = Found("x", Position(1, 3, 2), "\t\tab", problems_like())
    assert block(found).splitlines()[2] == "       | \t\t^^"


def problems_like() -> Any:
    from trainjobs.api.problem import Problem

    return Problem("GTJ0105", (), "what")
