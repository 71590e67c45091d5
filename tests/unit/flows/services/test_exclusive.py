"""Names of what only one run at a time may use."""

from flows.services.exclusive import exclusive, limit_name


def test_what_differs_has_another_name():
    assert limit_name("store", "/data/store") == limit_name("store", "/data/store")
    assert limit_name("store", "/data/store") != limit_name("store", "/data/store2")
    assert limit_name("training", "tcp://10.0.0.1:8786") != limit_name("training", "local://host")
    assert limit_name("store", "s3://bucket/a-b") != limit_name("store", "s3://bucket/a_b")


def test_names_have_no_letters_that_prefect_forbids():
    name = limit_name("catalogue", "s3://bucket/Drum & Bass <100%>/a b")
    assert not set("/%&<>") & set(name)
    assert "Drum-Bass" in name


def test_nothing_is_held_outside_of_prefect():
    with exclusive("store", "/data/store"), exclusive("store", "/data/store"):
        pass
