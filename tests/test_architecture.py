"""What the design forbids, checked: imports that run upward or in circles, frameworks away from home, long modules."""

from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.support.architecture import BEGIN, END, FLOORS, README, imports_of, modules, picture, room_imports

HOMES = {
    "prefect": {"flows"},
    "dask": {"flows"},
    "distributed": {"flows"},
    "mlflow": {"flows"},
    "optuna": {"flows"},
    "cryptography": {"flows"},
    "prometheus_client": {"flows"},
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
FORBIDDEN_NAMES = {"utils", "common", "core", "base", "helpers", "manager", "misc"}
MOST_LINES = 400
MOST_MODULES = 15  # "about a dozen": a folder of more wants rooms
MODULES = [path for floor in FLOORS for path in modules(floor)]


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_point_down_and_frameworks_stay_home(path):
    floor = path.parts[0]
    above = set(FLOORS[: FLOORS.index(floor)])
    for name in imports_of(path):
        package = name.split(".")[0]
        assert package not in above, f"{path} imports {name}, which lies above it"
        assert floor in HOMES.get(package, {floor}), f"{path} imports {name}, whose home is {HOMES[package]}"


@pytest.mark.parametrize("floor", FLOORS)
def test_rooms_of_a_floor_import_one_way(floor):
    TopologicalSorter(room_imports(floor)).prepare()  # raises CycleError, which names the rooms


def test_a_circle_of_rooms_is_found(tmp_path, monkeypatch):
    for room, other in (("ears", "eyes"), ("eyes", "ears")):
        (tmp_path / "store" / room).mkdir(parents=True)
        (tmp_path / "store" / room / "one.py").write_text(f"from store.{other}.one import x\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="cycle"):
        TopologicalSorter(room_imports("store")).prepare()


def test_the_readme_shows_the_rooms_as_they_are():
    """To draw them again: python -m tests.support.architecture"""
    assert README.read_text().partition(BEGIN)[2].partition(END)[0] == picture()


def test_torchaudio_has_one_door():
    """Beside a CPU-only torch its import dies, unless it goes through our repair."""
    importing = [
        path for path in MODULES if "torchaudio" in {name.split(".")[0] for name in imports_of(path)}
    ]
    assert importing == []  # the repair imports it by name
    naming = [path for path in MODULES if '"torchaudio' in path.read_text()]
    assert [path.name for path in naming] == ["audio_transforms.py"]


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_modules_are_nouns_of_a_readable_size(path):
    assert path.stem not in FORBIDDEN_NAMES
    assert not FORBIDDEN_NAMES & set(path.parts)
    assert len(path.read_text().splitlines()) <= MOST_LINES


def test_folders_of_many_modules_have_rooms():
    for folder in {path.parent for path in MODULES}:
        assert len([path for path in folder.glob("*.py") if path.stem != "__init__"]) <= MOST_MODULES, folder


def test_each_folder_is_a_package():
    for folder in {path.parent for path in MODULES}:
        assert (folder / "__init__.py").is_file(), folder


def test_deploy_holds_no_python():
    assert list(Path("deploy").rglob("*.py")) == []
