"""WebDataset's shards, written by tarfile."""

from __future__ import annotations

import io
import json
import re
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.forms.laid import Group, Laid, everything, opened, tar
from tests.data.places.memory import Counting
from tests.data.places.memory import place as placed
from trainjobs.api.errors import JobError
from trainjobs.data.forms.shards import shard_arrays
from trainjobs.data.forms.webdataset import key_and_column
from trainjobs.data.places.shelf import DiskShelf


def picture(seed: int = 0, form: str = "JPEG", size: int = 16) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)).save(file, form)
    return file.getvalue()


def shards(root: Path, count: int = 3, rows: int = 5) -> Path:
    for shard in range(count):
        members = {}
        for row in range(rows):
            key = f"{shard * rows + row:06}"
            members |= {f"{key}.jpg": picture(shard * rows + row), f"{key}.cls": str(row % 3).encode()}
        tar(root / f"train-{shard:04}.tar", members)
    return root


@pytest.mark.parametrize("here", [True, False])
def test_members_of_a_key_are_a_sample(tmp_path: Path, here: bool) -> None:
    records, board = opened(shards(tmp_path / "data"), here)
    assert records.form == "webdataset"
    assert dict(records.columns) == {"jpg": "image", "cls": "integer"}
    assert list(records.words()) == ["webdataset, 3 shards, 15 samples, jpg + cls"]
    assert [block.rows for block in records.blocks] == [5, 5, 5]
    assert [block.objects[0].name for block in records.blocks] == [f"train-000{number}.tar" for number in range(3)]
    assert records.names(1)[2] == "train-0001.tar/000007"
    rows = everything(records, board)
    assert [row.values["jpg"] for row in rows] == [picture(number) for number in range(15)]
    assert [row.values["cls"] for row in rows] == [0, 1, 2, 0, 1] * 3
    assert rows[7].name == "train-0001.tar/000007"
    assert rows[7].where.endswith("/train-0001.tar/000007")
    picked = records.read(board, 2, [4, 0, 4], ["cls"])
    assert [(row.name, row.values) for row in picked] == [
        ("train-0002.tar/000014", {"cls": 1}),
        ("train-0002.tar/000010", {"cls": 0}),
        ("train-0002.tar/000014", {"cls": 1}),
    ]


def test_names_and_classes_need_no_payload(tmp_path: Path) -> None:
    """Of shards with large members only headers are fetched; the index has the classes."""
    noise = np.random.default_rng(0).bytes(100_000)
    for shard in range(2):
        tar(
            tmp_path / "data" / f"{shard}.tar",
            {f"{row}.{end}": noise if end == "png" else b"7" for row in range(9) for end in ("cls", "png")},
        )
    records, board = opened(tmp_path / "data", here=False)
    assert records.names(0) == [f"0.tar/{row}" for row in range(9)]
    assert [row.values["cls"] for row in records.read(board, 1, range(9), ["cls"])] == [7] * 9
    assert board.held == []
    place = records.place
    assert isinstance(place, Laid)
    assert sum(stop - start for _, start, stop in place.reads) < 0.1 * 2 * 9 * 100_000


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a/001.jpg", ("a/001", "jpg")),
        ("001.seg.PNG", ("001", "seg.png")),
        ("v1.2/001.txt", ("v1.2/001", "txt")),
        ("README", None),
        (".hidden", None),
        ("__key__", None),
    ],
)
def test_keys_are_webdatasets(name: str, expected: tuple[str, str] | None) -> None:
    pattern = re.match(r"^((?:.*/|)[^.]+)[.]([^/]*)$", name)  # what the package splits by
    assert key_and_column(name) == expected == (pattern and (pattern[1], pattern[2].lower()))


def test_hidden_members_of_folders_make_no_sample() -> None:
    assert key_and_column("a/.DS_Store") is None


def test_every_extension_is_decoded(tmp_path: Path) -> None:
    array = io.BytesIO()
    np.save(array, np.arange(6.0).reshape(2, 3))
    told = {"caption": "a cat", "width": 3, "tags": ["a"], "none": None}
    tar(
        tmp_path / "data" / "a.tar",
        {
            "0.webp": picture(form="WEBP"),
            "0.txt": "žluťoučký".encode(),
            "0.cls": b"5\n",
            "0.json": json.dumps(told).encode(),
            "0.npy": array.getvalue(),
            "0.bin": b"\0\1",
            "0.seg.png": picture(form="PNG"),
        },
    )
    records, board = opened(tmp_path / "data")
    assert records.columns == {
        **{"webp": "image", "txt": "text", "cls": "integer", "json": "record"},
        **{"json.caption": "text", "json.width": "integer", "json.tags": "list", "json.none": "text"},
        **{"npy": "list", "bin": "bytes", "seg.png": "image"},
    }
    (row,) = everything(records, board)
    assert row.values["txt"] == "žluťoučký"
    assert row.values["cls"] == 5
    assert row.values["json"] == told
    assert (row.values["json.caption"], row.values["json.width"], row.values["json.none"]) == ("a cat", 3, None)
    np.testing.assert_array_equal(row.values["npy"], np.arange(6.0).reshape(2, 3))
    assert row.values["bin"] == b"\0\1"


def test_pictures_of_several_formats_are_one_column(tmp_path: Path) -> None:
    tar(tmp_path / "data" / "a.tar", {"0.jpg": b"j0", "0.cls": b"0", "1.png": b"p1", "1.cls": b"1", "2.jpg": b"j2", "2.cls": b"0"})
    records, board = opened(tmp_path / "data")
    assert list(records.words()) == ["webdataset, 1 shard, 3 samples, jpg/png + cls"]
    assert [row.values["jpg"] for row in everything(records, board)] == [b"j0", b"p1", b"j2"]


def broken(root: Path, **fields: str) -> JobError:
    with pytest.raises(JobError) as raised:
        everything(*opened(root, **fields))
    return raised.value


def test_a_member_without_partner_is_named(tmp_path: Path) -> None:
    root = shards(tmp_path / "data")
    members = {f"{row}.{end}": b"1" for row in range(5) for end in ("jpg", "cls") if (row, end) != (3, "cls")}
    tar(root / "train-0001.tar", members)
    error = broken(root)
    assert (error.code, error.where) == ("GTJ0113", str(root / "train-0001.tar"))
    assert error.what == "the sample 3 has no .cls beside its .jpg"
    assert error.why == "14 of 15 samples have one, 1 has none"
    records, board = opened(root, onBadSample="skip")
    assert len(records.read(board, 1, [0, 1, 2, 4], ["cls"])) == 4
    with pytest.raises(JobError, match=r"GTJ0113 the sample 3 has no \.cls"):
        records.read(board, 1, [3], ["jpg", "cls"])


def test_what_few_samples_have_is_no_partner(tmp_path: Path) -> None:
    members = {f"{row}.jpg": b"1" for row in range(3)}
    tar(tmp_path / "data" / "a.tar", dict(sorted({**members, "1.txt": b"rare"}.items())))
    records, board = opened(tmp_path / "data")
    assert list(records.words()) == ["webdataset, 1 shard, 3 samples, jpg, txt in 1 of them"]
    assert [row.values["txt"] for row in everything(records, board)] == [None, "rare", None]


def test_members_that_do_not_stand_together(tmp_path: Path) -> None:
    tar(tmp_path / "data" / "a.tar", {"0.jpg": b"", "1.jpg": b"", "0.cls": b"0", "1.cls": b"1"})
    error = broken(tmp_path / "data")
    assert (error.code, error.why) == ("GTJ0113", "0.cls comes after members of other keys")
    assert "--sort=name" in error.how


def test_a_column_twice_in_a_sample(tmp_path: Path) -> None:
    tar(tmp_path / "data" / "a.tar", [("0.jpg", b""), ("0.JPG", b"")])
    assert broken(tmp_path / "data").what == "the sample 0 has two members .jpg"


@pytest.mark.parametrize(
    ("members", "what", "where"),
    [
        ({"0.cls": b"cat"}, "the member holds no whole number", "a.tar/0.cls"),
        ({"0.cls": b"9" * 25}, "the number is too large", "a.tar/0.cls"),
        ({"0.txt": b"caf\xe9"}, "the text is not UTF-8", "a.tar/0.txt"),
        ({"0.json": b"{"}, "it is not JSON", "a.tar/0.json"),
        ({"0.npy": b"\x93NUMPY junk"}, "the member is no array of NumPy", "a.tar/0.npy"),
    ],
)
def test_values_that_cannot_be_read(tmp_path: Path, members: dict[str, bytes], what: str, where: str) -> None:
    tar(tmp_path / "data" / "a.tar", members)
    error = broken(tmp_path / "data")
    assert (error.code, error.what, error.where) == ("GTJ0113", what, str(tmp_path / "data" / where))


def test_an_array_that_is_a_program_is_not_run(tmp_path: Path) -> None:
    file = io.BytesIO()
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    tar(tmp_path / "data" / "a.tar", {"0.npy": file.getvalue()})
    assert broken(tmp_path / "data").what == "the member is no array of NumPy"


def test_shards_without_a_sample(tmp_path: Path) -> None:
    tar(tmp_path / "data" / "a.tar", {"README": b"hello"})
    error = broken(tmp_path / "data")
    assert (error.code, error.what) == ("GTJ0113", "there is no sample in the shards")
    assert error.why == "1 member without a key (name up to the first dot)"


def test_stray_members_are_counted(tmp_path: Path) -> None:
    tar(tmp_path / "data" / "a.tar", {"0.jpg": b"", ".DS_Store": b"", "LICENSE": b""})
    records, _ = opened(tmp_path / "data")
    assert list(records.words()) == ["webdataset, 1 shard, 1 sample, jpg", "2 members without a key left out"]


def test_a_shard_cut_short_is_named(tmp_path: Path) -> None:
    root = shards(tmp_path / "data")
    path = root / "train-0002.tar"
    path.write_bytes(path.read_bytes()[:3000])
    for here in (True, False):
        with pytest.raises(JobError, match=r"GTJ0113 the shard is cut short \(.*train-0002.tar\): its 3,000 bytes end amid"):
            opened(root, here)


def test_ranks_share_the_index_and_have_the_same(tmp_path: Path) -> None:
    root, group = shards(tmp_path / "data", count=5), Group(2)
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda rank: opened(root, here=False, ranks=group.rank(rank)), range(2)))
    alone, board = opened(root)
    for records, _ in both:
        assert [records.names(block) for block in range(5)] == [alone.names(block) for block in range(5)]
        assert everything(records, board, "cls")[8].values == everything(alone, board, "cls")[8].values
    fetched = [{name for name, _, _ in records.place.reads} for records, _ in both]  # type: ignore[attr-defined]
    assert fetched == [{"train-0000.tar", "train-0002.tar", "train-0004.tar"}, {"train-0001.tar", "train-0003.tar"}]


def test_an_error_on_one_rank_is_raised_on_both(tmp_path: Path) -> None:
    root, group = shards(tmp_path / "data", count=4), Group(2)
    (root / "train-0003.tar").write_bytes(b"junk" * 1000)

    def one(rank: int) -> str:
        with pytest.raises(JobError) as raised:
            opened(root, ranks=group.rank(rank))
        return raised.value.line()

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(one, range(2))
    assert first == second
    assert "train-0003.tar" in first


def test_many_threads_read_the_same(tmp_path: Path) -> None:
    records, board = opened(shards(tmp_path / "data"), here=False)
    expected = [row.values for row in everything(records, board)]
    with ThreadPoolExecutor(8) as pool:
        for rows in pool.map(lambda _: everything(records, board), range(16)):
            assert [row.values for row in rows] == expected


def test_a_bad_value_is_no_bad_shard(tmp_path: Path) -> None:
    """Where bad samples are skipped, the others of the shard are read; the index is the same for both."""
    tar(tmp_path / "data" / "a.tar", {"0.cls": b"cat", "0.jpg": b"j", "1.cls": b"1", "1.jpg": b"j"})
    assert broken(tmp_path / "data").where.endswith("a.tar/0.cls")
    records, board = opened(tmp_path / "data", onBadSample="skip")
    assert records.read(board, 0, [1], ["cls"])[0].values == {"cls": 1}
    with pytest.raises(JobError, match="GTJ0113 the member holds no whole number"):
        records.read(board, 0, [0], ["cls"])
    assert broken(tmp_path / "data").where.endswith("a.tar/0.cls")


def test_a_shard_of_small_members_is_fetched_once_to_be_indexed(tmp_path: Path) -> None:
    bucket = Counting({"data/0.tar": shards(tmp_path / "made", count=1).joinpath("train-0000.tar").read_bytes()})
    place, shelf = placed(bucket, "data"), DiskShelf(tmp_path / "cache", 1 << 30)
    assert int(shard_arrays(place, place.listed().objects[0], shelf)["rows"]) == 5
    assert shelf.counts.fetched_bytes == len(bucket.objects["data/0.tar"])


def test_a_few_requests_tell_that_the_members_of_a_large_shard_are_small(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number in range(400):
            for name, size in ((f"{number}.jpg", 17_000), (f"{number}.cls", 1)):
                member = tarfile.TarInfo(name)
                member.size = size
                tar.addfile(member, io.BytesIO(b"1" * size))
    bucket = Counting({"data/0.tar": out.getvalue()})
    place, shelf = placed(bucket, "data"), DiskShelf(tmp_path, 1 << 30)
    assert int(shard_arrays(place, place.listed().objects[0], shelf)["rows"]) == 400
    assert shelf.counts.fetched == 1
    assert bucket.asked["get"] <= 3, "its begin, perhaps a header more, and all of it"
    assert bucket.sent <= 1.05 * len(out.getvalue())


def test_headers_of_large_members_are_fetched_once(tmp_path: Path) -> None:
    """Of a shard that is not here: whoever tells whether its members are large has read them already."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number in range(8):
            member = tarfile.TarInfo(f"{number}.jpg")
            member.size = 40_000
            tar.addfile(member, io.BytesIO(bytes(40_000)))
    bucket = Counting({"data/0.tar": out.getvalue()})
    place = placed(bucket, "data")
    arrays = shard_arrays(place, place.listed().objects[0], DiskShelf(tmp_path, 1 << 30))
    assert int(arrays["rows"]) == 8
    assert bucket.asked["get"] == 9, "a request for each header, and one for the end's mark"
    assert bucket.sent <= 9 * 1536
