import pyarrow as pa

from store.dataset.genre_tree import genre_parents, with_genre_parents
from store.fs.parquet import read_table, write_table

SCHEMA = pa.schema([("track_id", pa.string())])


def test_a_tree_survives_a_table_on_disk(tmp_path):
    schema = with_genre_parents(SCHEMA.with_metadata({"other": "stays"}), {"Noise-Rock": "Röck"})
    write_table(str(tmp_path / "t.parquet"), pa.table({"track_id": ["a"]}, schema=schema))
    read = read_table(str(tmp_path / "t.parquet")).schema
    assert genre_parents(read) == {"Noise-Rock": "Röck"}
    assert read.metadata[b"other"] == b"stays"


def test_a_catalogue_of_an_older_store_has_no_tree():
    assert genre_parents(SCHEMA) == {}
    assert with_genre_parents(SCHEMA, {}).metadata is None, "and a source without one is stored as before"
