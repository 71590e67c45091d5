"""A secret that is planted in the environment or in a URL is in no log, artifact, stored setting or message."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from flows.security.urls import has_password
from flows.settings import BuildSettings, NightlySettings, TagSettings, TrainModelSettings
from tests.support.prefect_ui import COMMAND

SECRET = "pl4nted-s3cret"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (f"ftp://user:{SECRET}@host/music", True),
        (f"s3://key:{SECRET}@bucket/music", True),
        (f"zip://a.mp3::https://user:{SECRET}@host/a.zip", True),
        ("ftp://user@host/music", False),
        ("s3://bucket/a:b@c/music", False),
        ("/music/a:b@c", False),
        ("http://host:8080/music", False),
    ],
)
def test_passwords_in_urls(url, expected):
    assert has_password(url) is expected


@pytest.mark.parametrize(
    "make",
    [
        lambda url: BuildSettings(source=url),
        lambda url: BuildSettings(source="music", store=url),
        lambda url: TrainModelSettings(models=url),
        lambda url: TagSettings(source=url),
        lambda url: NightlySettings(build=BuildSettings(source=url)),
    ],
)
def test_settings_refuse_them_without_repeating_them(make):
    with pytest.raises(ValidationError, match="the URL of host contains a password") as refused:
        make(f"ftp://user:{SECRET}@host/music")
    assert SECRET not in refused.value.errors()[0]["msg"]


def test_a_secret_of_the_environment_is_in_nothing_that_is_written(tmp_path):
    """By a build that fails: what it prints, logs as JSON and leaves in its folder."""
    planted = {
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "PREFECT_SERVER_API_AUTH_STRING": f"admin:{SECRET}",
        "PREFECT_API_AUTH_STRING": f"admin:{SECRET}",
        "MLFLOW_TRACKING_PASSWORD": SECRET,
    }
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "a.mp3").write_bytes(b"no audio")
    done = subprocess.run(
        [COMMAND, "build", "music", "--store", "store", "--log-json", "--max-reject-share", "1"],
        cwd=tmp_path,
        env={"PATH": sys.exec_prefix, "HOME": str(tmp_path), **planted},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "not-audio" in done.stdout + done.stderr
    written = [it for it in tmp_path.rglob("*") if it.is_file()]
    assert any(it.suffix == ".parquet" for it in written)
    assert SECRET not in done.stdout + done.stderr
    assert not [it for it in written if SECRET.encode() in it.read_bytes()]
