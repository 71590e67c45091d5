"""Tables in parts: few, however many commits; in order; named by what they contain."""

import pyarrow as pa
import pytest

from store.dataset import parts
from store.dataset.parts import append_part, is_intact, part_rows, put_part
from store.fs.files import list_names, write_atomic
from store.fs.parquet import read_table


def rows_from(first, count):
    return pa.table({"row": list(range(first, first + count))})


def test_many_small_commits_leave_few_parts_with_all_rows_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "MERGED_ROWS", 40)
    root, names, written = str(tmp_path), (), 0
    for commit in range(100):
        known = set(names)
        names = append_part(root, "index", names, rows_from(3 * commit, 3))
        written += sum(part_rows(name) for name in names if name not in known)
    assert len(names) < 300 / 40 + parts.MAX_SMALL_PARTS
    rows = pa.concat_tables(read_table(f"{root}/{name}") for name in names)
    assert rows["row"].to_pylist() == list(range(300))
    assert written < 3 * 300, "a row is written about twice"


def test_no_rows_make_no_part(tmp_path):
    assert append_part(str(tmp_path), "index", (), rows_from(0, 0)) == ()


def test_a_part_knows_whether_it_is_intact_and_is_never_reused(tmp_path):
    root = str(tmp_path)
    name = put_part(root, "index", rows_from(0, 3))
    assert put_part(root, "index", rows_from(0, 3)) != name
    assert len(list_names(f"{root}/index")) == 2
    assert is_intact(root, name)
    content = (tmp_path / name).read_bytes()
    write_atomic(f"{root}/{name}", content[:-1] + b"x")
    assert not is_intact(root, name)
    with pytest.raises(FileNotFoundError):
        is_intact(root, "index/1-x-y.parquet")
