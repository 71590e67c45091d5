"""What the design forbids, checked: imports that run upward, frameworks away from home, modules too long."""

import ast
from pathlib import Path

import pytest

FLOORS = ["store", "preprocessing", "training", "flows"]  # each may import those before it
HOMES = {
    "prefect": {"flows"},
    "dask": {"flows"},
    "distributed": {"flows"},
    "mlflow": {"flows"},
    "torch": {"training"},
    "torchaudio": {"training"},
    "safetensors": {"training"},
    "onnx": {"training"},
    "onnxruntime": {"training"},
    "onnxscript": {"training"},
    "soundfile": {"preprocessing"},
    "av": {"preprocessing"},
    "soxr": {"preprocessing"},
    "zarr": {"store"},
    "zstandard": {"store"},
    "fsspec": {"store"},
    "mutagen": {"store"},
}
FORBIDDEN_NAMES = {"utils", "common", "core", "base", "helpers", "manager"}
MOST_LINES = 400
MODULES = [path for floor in FLOORS for path in sorted(Path(floor).rglob("*.py"))]


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module
            case ast.ImportFrom():
                pytest.fail(f"{path}: relative import; write the floor's name")


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_point_down_and_frameworks_stay_home(path):
    floor = path.parts[0]
    above = set(FLOORS[FLOORS.index(floor) + 1 :])
    for name in imports_of(path):
        package = name.split(".")[0]
        assert package not in above, f"{path} imports {name}, which lies above it"
        assert floor in HOMES.get(package, {floor}), f"{path} imports {name}, whose home is {HOMES[package]}"


def test_torchaudio_has_one_door():
    """Beside a CPU-only torch its import dies, unless it goes through our repair."""
    importing = [
        path for path in MODULES if "torchaudio" in {name.split(".")[0] for name in imports_of(path)}
    ]
    assert importing == []  # the repair imports it by name
    assert [str(path) for path in MODULES if '"torchaudio' in path.read_text()] == [
        "training/fit/audio_transforms.py"
    ]


def test_modules_are_nouns_of_a_readable_size():
    for path in MODULES:
        assert path.stem not in FORBIDDEN_NAMES, path
        assert len(path.read_text().splitlines()) <= MOST_LINES, path


def test_deploy_holds_no_python():
    assert list(Path("deploy").rglob("*.py")) == []
