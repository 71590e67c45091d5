"""The places that a store can lie in: local disk, memory, an S3 double."""

import uuid

import pytest


@pytest.fixture(params=["local", "memory", "s3"])
def root(request, tmp_path):
    match request.param:
        case "local":
            return str(tmp_path / "store")
        case "memory":
            return f"memory://{uuid.uuid4().hex}/store"
        case "s3":
            return request.getfixturevalue("s3_url") + "/store"
