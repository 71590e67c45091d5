import hashlib

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from store.fs.column_hash import hash_columns


def hash_of(column):
    digest = hashlib.sha256()
    hash_columns(pa.table({"text": column}), digest)
    return digest.hexdigest()


@given(st.lists(st.none() | st.text(max_size=3)), st.data())
def test_texts_have_one_hash_however_they_are_held(texts, data):
    plain, at = pa.array(texts, pa.string()), data.draw(st.integers(0, len(texts)))
    halves = pa.chunked_array([plain[:at], plain[at:]])
    held = [halves, plain.dictionary_encode(), halves.dictionary_encode().unify_dictionaries()]
    assert {hash_of(it) for it in held} == {hash_of(plain)}


def test_other_texts_have_other_hashes():
    columns = [["ab", "c"], ["a", "bc"], ["c", "ab"], ["ab", None], ["ab", ""]]
    assert len({hash_of(pa.array(it).dictionary_encode()) for it in columns}) == len(columns)
