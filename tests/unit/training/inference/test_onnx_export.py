import builtins

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.torch
import torch

from preprocessing.mel.settings import MelSettings
from store.errors import BadInput
from store.model_registry import publish_version
from training.fit.settings import TrainSettings
from training.inference import onnx_export
from training.inference.model_version import ModelIdentity, load_model
from training.inference.onnx_export import export_onnx, open_session
from training.networks.network import WEIGHTS_FILE, build_model
from training.networks.settings import ModelSettings

MEL = MelSettings(sample_rate_hz=8_000, window=256, hop=256, bands=16)


def published(folder, name="shallow", seed=0):
    who = ModelIdentity(
        genres=("Folk", "Rock", "Techno"),
        mel=MEL,
        training=TrainSettings(model=ModelSettings(name=name, width=4)),
    )
    torch.manual_seed(seed)
    network = build_model(who.training.model, 3, MEL.bands)
    files = {WEIGHTS_FILE: safetensors.torch.save(network.state_dict())}
    version = publish_version(str(folder), files, who.model_dump(mode="json"))
    return {"version_url": f"{folder}/{version}", "identity": who}


@pytest.mark.parametrize("name", ["short-chunk-resnet", "shallow"])
def test_any_number_of_crops_comes_out_as_torch_has_it(tmp_path, name):
    model, target = published(tmp_path, name), f"{tmp_path}/model.onnx"
    crops = (
        np.random.default_rng(1).normal(-20, 15, (5, model["identity"].crop_frames, 16)).astype(np.float32)
    )
    assert export_onnx(**model, target_url=target, crops=crops) < 1e-5
    onnx.checker.check_model(onnx.load(target))
    session = open_session(**model, onnx_url=target)
    network = load_model(model["version_url"], model["identity"])
    for count in (1, 3, 5):
        (found_BG,) = session.run(None, {"mel": crops[:count]})
        with torch.inference_mode():
            np.testing.assert_allclose(found_BG, network(torch.from_numpy(crops[:count])), atol=1e-4)
    assert session.get_session_options().intra_op_num_threads == 1


def test_an_export_that_differs_is_not_written(tmp_path, monkeypatch):
    model = published(tmp_path)
    monkeypatch.setattr(onnx_export, "MAX_LOGIT_DIFFERENCE", -1.0)
    with pytest.raises(BadInput, match=r"its ONNX export differs from it by .*; listen with torch"):
        export_onnx(**model, target_url=f"{tmp_path}/model.onnx")
    assert not (tmp_path / "model.onnx").exists()
    with pytest.raises(BadInput, match="its ONNX export differs"):
        open_session(**model)
    monkeypatch.undo()
    shape = (1, model["identity"].crop_frames, 16)
    with pytest.raises(BadInput, match="differs from it by nan"):
        export_onnx(**model, target_url=f"{tmp_path}/model.onnx", crops=np.full(shape, np.nan, np.float32))


def test_a_file_of_another_model_is_refused(tmp_path):
    """Of one that differs in nothing but its weights."""
    one, other = published(tmp_path / "1"), published(tmp_path / "2", seed=5)
    target = f"{tmp_path}/model.onnx"
    export_onnx(**one, target_url=target)
    open_session(**one, onnx_url=target)
    with pytest.raises(BadInput, match=r"model\.onnx: not exported of .*; export it again"):
        open_session(**other, onnx_url=target)


def test_what_is_no_onnx_file_is_refused(tmp_path):
    model = published(tmp_path)
    with pytest.raises(BadInput, match="no such file; export the model there first"):
        open_session(**model, onnx_url=f"{tmp_path}/nothing.onnx")
    for content in (b"", b"<html>" * 50, bytes(1_000)):
        (tmp_path / "page.onnx").write_bytes(content)
        open_session.cache_clear()
        with pytest.raises(BadInput, match="not a model that onnxruntime can run"):
            open_session(**model, onnx_url=f"{tmp_path}/page.onnx")


def test_without_the_extra_it_says_what_to_install(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments):
        if name == "onnxscript":
            raise ImportError(name)
        return real(name, *arguments)

    model = published(tmp_path)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(BadInput, match=r"onnxscript is not installed; pip install 'spectrogram-one\[onnx\]'"):
        export_onnx(**model, target_url=f"{tmp_path}/model.onnx")
    assert onnxruntime.__version__
