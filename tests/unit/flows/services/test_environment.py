"""Loopback is exempt from proxies; a home that cannot be written is replaced by a folder here."""

import os
import sys
import urllib.request

import httpx
import pytest

from flows.services.environment import (
    bypass_proxies_on_loopback,
    choose_prefect_home,
    choose_prefect_ui_folder,
)


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for name in ("NO_PROXY", "no_proxy", "PREFECT_HOME", "PREFECT_PROFILES_PATH"):  # restored after the test
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


UI_FOLDER = "PREFECT_SERVER_UI_STATIC_DIRECTORY"


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ({}, "127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "intranet"}, "intranet,127.0.0.1,localhost,::1"),
        ({"no_proxy": "a, localhost", "NO_PROXY": "b"}, "a, localhost,127.0.0.1,::1"),
        ({"no_proxy": "*"}, "*"),
    ],
)
def test_this_machine_is_exempt_and_what_was_exempt_stays(before, expected, monkeypatch):
    for name, hosts in before.items():
        monkeypatch.setenv(name, hosts)
    bypass_proxies_on_loopback()
    assert urllib.request.getproxies()["no"] == expected


def test_a_proxy_is_not_asked_for_a_server_on_this_machine(http_url, monkeypatch):
    for name in ("HTTP_PROXY", "ALL_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # the port of discard: nothing responds
    bypass_proxies_on_loopback()
    assert httpx.get(http_url).status_code == httpx.codes.OK


def test_a_home_that_can_be_written_is_used(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    choose_prefect_home()
    assert "PREFECT_HOME" not in os.environ


def test_a_home_that_cannot_be_written_is_replaced_and_its_profiles_stay(tmp_path, monkeypatch):
    (tmp_path / "home").write_text("no folder")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    choose_prefect_home()
    assert os.environ["PREFECT_HOME"] == str(tmp_path / "work/data/prefect")
    monkeypatch.setenv("PREFECT_HOME", "given")
    choose_prefect_home()
    assert os.environ["PREFECT_HOME"] == "given"


def test_the_ui_is_below_the_home_where_the_installation_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "prefect").mkdir()
    (tmp_path / "prefect/__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "prefect", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(UI_FOLDER, raising=False)
    choose_prefect_ui_folder()
    assert UI_FOLDER not in os.environ  # Prefect's default
    (tmp_path / "prefect/server").write_text("no folder")
    choose_prefect_ui_folder()
    assert os.environ[UI_FOLDER] == str(tmp_path / "home/ui")
    monkeypatch.setenv(UI_FOLDER, "given")
    choose_prefect_ui_folder()
    assert os.environ[UI_FOLDER] == "given"
