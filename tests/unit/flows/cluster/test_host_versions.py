import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from flows.cluster.host_versions import FLOORS, HostVersions, check_same_versions, read_versions
from store.errors import BadInput

HERE = HostVersions("0.1.0-aaaaaaaa", {"torch": "2.13.0", "zarr": "3.1.6"})


def test_this_host_is_like_itself():
    versions = read_versions()
    assert versions == read_versions()
    assert versions.packages["torch"].startswith("2."), "and nothing says +cpu"
    check_same_versions(versions, {"a": versions, "b": versions})


def code_in(folder):
    """Return the version of the code that runs in a folder."""
    program = "from flows.cluster.host_versions import read_versions; print(read_versions().code)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_changed_or_new_file_of_a_package_within_a_package_is_other_code(tmp_path):
    for floor in FLOORS:
        shutil.copytree(floor, tmp_path / floor, ignore=shutil.ignore_patterns("__pycache__"))
    codes = [read_versions().code, code_in(tmp_path)]
    with (tmp_path / "flows/cluster/fan_out.py").open("a") as file:
        file.write("# changed\n")
    codes.append(code_in(tmp_path))
    (tmp_path / "store/new/room").mkdir(parents=True)
    (tmp_path / "store/new/room/module.py").write_text("")
    codes.append(code_in(tmp_path))
    assert codes[0] == codes[1]
    assert len(set(codes)) == 3


def test_other_code_is_refused_with_both_versions():
    other = replace(HERE, code="0.1.0-bbbbbbbb")
    with pytest.raises(
        BadInput, match=r"host b: runs code 0\.1\.0-bbbbbbbb, this flow 0\.1\.0-aaaaaaaa; install"
    ):
        check_same_versions(HERE, {"a": HERE, "b": other})


def test_another_package_is_refused_with_both_versions():
    other = replace(HERE, packages={"torch": "2.12.1", "zarr": "3.1.6"})
    with pytest.raises(BadInput, match=r"host b: has torch 2\.12\.1, host a has 2\.13\.0; install both"):
        check_same_versions(HERE, {"a": HERE, "b": other})
    check_same_versions(HERE, {"b": other})


def test_cuda_packages_of_gpu_hosts_do_not_matter():
    check_same_versions(HERE, {"a": HERE, "b": replace(HERE, packages={**HERE.packages, "nvidia-nccl": "2"})})


def test_code_that_cannot_tell_its_versions_is_refused():
    old = ModuleNotFoundError("No module named 'flows.cluster.host_versions'")
    with pytest.raises(
        BadInput, match=r"host b: runs other code than this flow \(0.1.0-aaaaaaaa\): No module"
    ):
        check_same_versions(HERE, {"a": HERE, "b": old})
