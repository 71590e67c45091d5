"""Names of what only one run at a time may use."""

from flows.services.exclusive import exclusive, limit_name


def test_the_same_folder_has_one_name_and_another_another(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert limit_name("store", "data/store") == limit_name("store", f"{tmp_path}/data/store")
    assert limit_name("store", "data/store") != limit_name("store", "data/store2")
    assert limit_name("store", "s3://bucket/a-b") != limit_name("store", "s3://bucket/a_b")


def test_names_have_no_letters_that_prefect_forbids():
    name = limit_name("catalogue", "s3://bucket/Drum & Bass <100%>/a b")
    assert not set("/%&<>") & set(name)
    assert "Drum-Bass" in name


def test_nothing_is_held_outside_of_prefect():
    with exclusive("store", "data/store"), exclusive("store", "data/store"):
        pass
