import builtins
import copy

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
from training.inference.model_version import ModelIdentity, load_model
from training.inference.onnx_export import export_onnx, open_session, relative_rounding
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


@pytest.mark.parametrize("name", ["short-chunk-resnet", pytest.param("shallow", marks=pytest.mark.soak)])
def test_any_number_of_crops_is_predicted_as_by_torch(tmp_path, name):
    model, target = published(tmp_path, name), f"{tmp_path}/model.onnx"
    crops = (
        np.random.default_rng(1).normal(-20, 15, (5, model["identity"].crop_frames, 16)).astype(np.float32)
    )
    export_onnx(**model, target_url=target, crops=crops)
    onnx.checker.check_model(onnx.load(target))
    session = open_session(**model, onnx_url=target)
    network = load_model(model["version_url"], model["identity"])
    for count in (1, 3, 5):
        (found_BG,) = session.run(None, {"mel": crops[:count]})
        with torch.inference_mode():
            wanted_BG = network(torch.from_numpy(crops[:count])).numpy()
        bound = relative_rounding(network) * np.abs(wanted_BG).max()
        np.testing.assert_allclose(found_BG, wanted_BG, rtol=0, atol=bound)
    assert session.get_session_options().intra_op_num_threads == 1


def export_another(monkeypatch, change):
    """Let torch's exporter export a changed copy of the network."""
    export = torch.onnx.export

    def export_changed(network, *arguments, **options):
        changed = copy.deepcopy(network)
        with torch.no_grad():
            change(changed)
        return export(changed, *arguments, **options)

    monkeypatch.setattr(torch.onnx, "export", export_changed)


def draw_other_weights(network):
    torch.manual_seed(7)
    network.load_state_dict(build_model(ModelSettings(name="shallow", width=4), 3, MEL.bands).state_dict())


def change_largest_weight(layer):
    def change(network):
        weights = network.get_submodule(layer).weight
        index = np.unravel_index(int(weights.abs().argmax()), weights.shape)
        weights[index] *= 1.01

    return change


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(draw_other_weights, id="other-weights", marks=pytest.mark.soak),
        pytest.param(change_largest_weight("trunk.2.0"), id="convolution"),
        pytest.param(change_largest_weight("fc"), id="linear", marks=pytest.mark.soak),
    ],
)
def test_a_wrong_export_is_not_written(tmp_path, monkeypatch, change):
    """Of other weights, or with one weight that differs by 1 %."""
    model = published(tmp_path)
    export_another(monkeypatch, change)
    with pytest.raises(BadInput, match=r"a logit of its ONNX export differs by .*; use backend torch"):
        export_onnx(**model, target_url=f"{tmp_path}/model.onnx")
    assert not (tmp_path / "model.onnx").exists()
    with pytest.raises(BadInput, match="its ONNX export differs"):
        open_session(**model)


def test_crops_without_a_finite_prediction_verify_nothing(tmp_path):
    model = published(tmp_path)
    shape = (1, model["identity"].crop_frames, 16)
    with pytest.raises(BadInput, match="differs by nan"):
        export_onnx(**model, target_url=f"{tmp_path}/model.onnx", crops=np.full(shape, np.nan, np.float32))


def test_the_bound_grows_with_depth_and_width_and_stays_far_below_one_percent():
    def bound(name, width=16):
        return relative_rounding(build_model(ModelSettings(name=name, width=width), 3, 128))

    assert bound("shallow") < bound("shallow", width=64) < bound("short-chunk-resnet", width=64)
    # By hand: three convolutions of 9, 9 * 16 and 9 * 32 products, and a linear layer of 128.
    products = 9**0.5 + (9 * 16) ** 0.5 + (9 * 32) ** 0.5 + 128**0.5
    assert bound("shallow") == pytest.approx(products * 2.0**-23)
    assert bound("resnet50") < 1e-3


def test_a_file_of_another_model_is_refused(tmp_path):
    """Of one that differs only in its weights."""
    one, other = published(tmp_path / "1"), published(tmp_path / "2", seed=5)
    target = f"{tmp_path}/model.onnx"
    export_onnx(**one, target_url=target)
    open_session(**one, onnx_url=target)
    with pytest.raises(BadInput, match=r"model\.onnx: not exported from .*; export it again"):
        open_session(**other, onnx_url=target)


def test_a_file_that_is_not_onnx_is_refused(tmp_path):
    model = published(tmp_path)
    with pytest.raises(BadInput, match="no such file; export the model there first"):
        open_session(**model, onnx_url=f"{tmp_path}/nothing.onnx")
    for content in (b"", b"<html>" * 50, bytes(1_000)):
        (tmp_path / "page.onnx").write_bytes(content)
        open_session.cache_clear()
        with pytest.raises(BadInput, match="not a model that onnxruntime can run"):
            open_session(**model, onnx_url=f"{tmp_path}/page.onnx")


def test_without_the_extra_the_message_names_it(tmp_path, monkeypatch):
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
