import io
import os

import numpy as np
import pytest
import safetensors.torch
import torch
from pydantic import ValidationError

from preprocessing.mel.settings import MelSettings
from store.errors import BadInput
from store.model_registry import publish_version
from tests.support.torchvision_reference import random_state, reference_maps, zero_state
from training.inference.onnx_export import relative_rounding
from training.networks.network import build_model
from training.networks.pretrained import load_pretrained, read_pretrained
from training.networks.settings import ModelSettings, PretrainedSettings

MEL = MelSettings(bands=16)
GENRES = ("Folk", "Rock", "Blues")
RESNET18 = ModelSettings(name="resnet18")
OURS = ModelSettings(width=4)


@pytest.fixture(scope="module")
def imagenet():
    """ImageNet-shaped weights of ResNet-18, random."""
    return random_state("resnet18")


@pytest.fixture
def hollow():
    return zero_state("resnet18")


def saved(state, **how):
    buffer = io.BytesIO()
    torch.save(state, buffer, **how)
    return buffer.getvalue()


def put(folder, name, data):
    (folder / name).write_bytes(data)
    return str(folder / name)


def read(url, settings=RESNET18, genres=GENRES, target="top", mel=MEL):
    return safetensors.torch.load(read_pretrained(url, settings, genres, target, mel))


def refusal(url, *what, **others):
    """Return the message of the refusal; it is always one line that names the file."""
    with pytest.raises(BadInput, match=r"\w") as refused:
        read(url, *what, **others)
    message = str(refused.value)
    assert "\n" not in message
    assert url in message
    assert len(message) < len(url) + 350
    return message.removeprefix(url)


FORMS = {
    "zip.pth": saved,
    "legacy.pt": lambda state: saved(state, _use_new_zipfile_serialization=False),
    "parallel.pth": lambda state: saved({f"module.{name}": tensor for name, tensor in state.items()}),
    "plain.safetensors": safetensors.torch.save,
    "old.pth": lambda state: saved(
        {
            name: torch.nn.Parameter(tensor)
            for name, tensor in state.items()
            if not name.endswith("num_batches_tracked")
        }
    ),
    "double.pth": lambda state: saved(
        {name: tensor.double() if tensor.ndim else tensor for name, tensor in state.items()}
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_torchvisions_weights_have_the_same_output_for_a_grey_image(tmp_path, imagenet, form):
    data = read_pretrained(put(tmp_path, form, FORMS[form](imagenet)), RESNET18, GENRES, "top", MEL)
    numbers = {tensor.dtype for tensor in safetensors.torch.load(data).values()}
    assert numbers == {torch.float32, torch.int64}
    model = build_model(RESNET18, len(GENRES), MEL.bands).eval()
    load_pretrained(model, data)
    grey_B1FM = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        wanted = reference_maps("resnet18", imagenet, grey_B1FM.expand(-1, 3, -1, -1))
        bound = relative_rounding(model.trunk) * wanted.abs().max().item()
        torch.testing.assert_close(model.trunk(grey_B1FM), wanted, atol=bound, rtol=0)


@pytest.mark.parametrize("name", [pytest.param("resnet34", marks=pytest.mark.soak), "resnet50", "vgg16"])
def test_the_weights_of_each_of_torchvisions_networks_can_be_loaded(tmp_path, name):
    state, settings = random_state(name), ModelSettings(name=name)
    data = read_pretrained(put(tmp_path, "x.pth", saved(state)), settings, GENRES, "top", MEL)
    model = build_model(settings, 2, 8).eval()
    load_pretrained(model, data)
    first, *others = [key for key in state if not key.startswith(("fc.", "classifier."))]
    loaded = model.trunk.state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in others)
    torch.testing.assert_close(loaded[first], state[first].sum(1, keepdim=True))


def test_pretrained_weights_are_exactly_the_trunk_and_leave_the_rest_random(tmp_path, imagenet):
    url = put(tmp_path, "x.pth", saved(imagenet))
    model = build_model(RESNET18, len(GENRES), MEL.bands)
    assert set(read(url)) == {name for name in model.state_dict() if name.startswith("trunk.")}
    fresh = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    load_pretrained(model, read_pretrained(url, RESNET18, GENRES, "top", MEL))
    kept = {name for name, tensor in model.state_dict().items() if torch.equal(tensor, fresh[name])}
    assert kept == {name for name in fresh if not name.startswith("trunk.")}


def test_reading_pretrained_weights_leaves_the_random_state_alone(tmp_path, hollow):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    read(put(tmp_path, "CAPITALS.PTH", saved(hollow)))
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_of_one_channel_are_taken_as_they_are(tmp_path, hollow):
    grey = {**hollow, "conv1.weight": torch.rand(64, 1, 7, 7)}
    tensors = read(put(tmp_path, "x.pth", saved(grey)))
    assert torch.equal(tensors["trunk.conv1.weight"], grey["conv1.weight"])


def test_weights_come_from_a_web_server(tmp_path, http_url, hollow):
    put(tmp_path / "served", "x.pth", saved(hollow))
    assert len(read(f"{http_url}/x.pth?download=true")) == 120
    assert "no such file" in refusal(f"{http_url}/y.pth")


@pytest.mark.parametrize("form", ["zip.pth", "legacy.pt", "plain.safetensors"])
def test_a_file_cut_short_is_refused(tmp_path, imagenet, form):
    data = FORMS[form](imagenet)
    for length in (0, 7, 3_000, len(data) // 2, len(data) - 1):
        message = refusal(put(tmp_path, form, data[:length]))
        assert message.startswith(": cut short or damaged")
        assert "seek" not in message, "the message of zipfile does not help a reader"


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
@pytest.mark.parametrize("form", ["zip.pth", "legacy.pt", "plain.safetensors"])
def test_damaged_bytes_are_refused_or_do_no_harm(tmp_path, form):
    """Any damage to a file of too few weights ends in BadInput: nothing else is raised."""
    random = np.random.default_rng(0)
    whole = FORMS[form]({"conv1.weight": torch.ones(2, 3), "bn1.weight": torch.ones(2)})
    for length in range(0, len(whole), 11):
        assert "cut short" in refusal(put(tmp_path, form, whole[:length])) or form == "legacy.pt"
    messages = set()
    for number in range(120):
        data = bytearray(whole)
        for index in random.integers(
            min(len(data), (300, 1_500, len(data))[number % 3]), size=1 + number % 5
        ):
            data[index] = random.integers(256)
        messages.add(refusal(put(tmp_path, form, bytes(data)))[:12])
    assert len(messages) > 1


def test_a_flipped_bit_among_the_numbers_is_refused(tmp_path, imagenet):
    data = bytearray(saved(imagenet))
    data[len(data) // 2] ^= 1
    assert "a checksum is wrong" in refusal(put(tmp_path, "x.pth", bytes(data)))


def test_a_file_without_checksums_is_read(tmp_path, hollow):
    torch.serialization.set_crc32_options(False)
    try:
        data = saved(hollow)
    finally:
        torch.serialization.set_crc32_options(True)
    assert len(read(put(tmp_path, "x.pth", data))) == 120


class Harmful:
    """An object that runs a command as soon as it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_code_is_refused_and_not_run(tmp_path, hollow, zipped):
    state = {**hollow, "fc.bias": Harmful(f"touch {tmp_path}/ran")}
    url = put(tmp_path, "x.pth", saved(state, _use_new_zipfile_serialization=zipped))
    message = refusal(url)
    assert message.startswith(f": contains pickled code ({os.system.__module__}.system), which is never run")
    assert not (tmp_path / "ran").exists()
    torch.load(url, weights_only=False)  # it would have run
    assert (tmp_path / "ran").exists()


def test_a_whole_pickled_network_is_refused(tmp_path):
    url = put(tmp_path, "x.pth", saved(torch.nn.Linear(2, 2)))
    assert "pickled code (torch.nn.modules.linear.Linear)" in refusal(url)


@pytest.mark.parametrize("wrong", [[1, 2], {"state_dict": {}, "epoch": 3}, torch.ones(3), None])
def test_what_is_no_state_dict_is_refused(tmp_path, wrong):
    assert "save one with torch.save(model.state_dict()" in refusal(put(tmp_path, "x.pth", saved(wrong)))


@pytest.mark.parametrize(
    ("given", "wanted", "message"),
    [
        ("resnet18", "resnet34", ": has no layer1.2.conv1.weight; need all weights of resnet34"),
        ("resnet34", "resnet18", ": has layer1.2.conv1.weight, which resnet18 does not have"),
        ("resnet50", "resnet34", ": has layer1.0.conv3.weight, which resnet34 does not have"),
        ("resnet18", "resnet50", ": has no layer1.0.conv3.weight; need all weights of resnet50"),
        ("resnet18", "vgg16", ": has no features.0.weight; need all weights of vgg16"),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path, given, wanted, message):
    url = put(tmp_path, "x.pth", saved(zero_state(given)))
    assert refusal(url, ModelSettings(name=wanted)).startswith(message)


def test_a_wrong_shape_is_refused(tmp_path, hollow):
    narrow = {**hollow, "layer1.0.conv1.weight": torch.ones(64, 32, 3, 3)}
    message = refusal(put(tmp_path, "x.pth", saved(narrow)))
    assert "layer1.0.conv1.weight has shape (64, 32, 3, 3), that of resnet18 (64, 64, 3, 3)" in message
    four = {**hollow, "conv1.weight": torch.ones(64, 4, 7, 7)}
    assert "conv1.weight has shape (64, 4, 7, 7)" in refusal(put(tmp_path, "y.pth", saved(four)))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, hollow, value):
    bad = {**hollow, "layer4.1.bn2.running_var": torch.full((512,), value)}
    assert "layer4.1.bn2.running_var has NaN or infinite" in refusal(put(tmp_path, "x.pth", saved(bad)))


@pytest.mark.parametrize(
    "strange",
    [
        torch.ones(64, dtype=torch.complex64),
        torch.ones(64).to_sparse(),
        torch.ones(64, device="meta"),
        torch.ones(64, dtype=torch.bool),
    ],
)
def test_unsupported_tensors_are_refused(tmp_path, hollow, strange):
    message = refusal(put(tmp_path, "x.pth", saved({**hollow, "bn1.bias": strange})))
    assert "bn1.bias has dtype" in message


def test_torchvisions_weights_do_not_fit_our_own_networks(tmp_path, hollow):
    message = refusal(put(tmp_path, "x.pth", saved(hollow)), OURS)
    assert "short-chunk-resnet of width 4: set model.name to one of resnet18, resnet34" in message


def test_what_is_not_there_is_refused(tmp_path):
    assert "cannot be read (No such file" in refusal(str(tmp_path / "x.pth"))
    assert "no model version" in refusal(str(tmp_path / "20260101T000000-abcdef"))
    (tmp_path / "folder.pth").mkdir()
    assert "cannot be read (Is a directory)" in refusal(str(tmp_path / "folder.pth"))


def version_of(folder, model, *, settings=OURS, genres=GENRES, target="top", mel=MEL, **card):
    """Publish a network as a model version, with a card of its settings."""
    training = {"target": target, "model": settings.model_dump(), "epochs": 3}
    card = {"genres": genres, "mel": mel.model_dump(), "training": training, "code": "0.1", **card}
    weights = safetensors.torch.save(model.state_dict())
    return f"{folder}/{publish_version(str(folder), {'weights.safetensors': weights}, card)}"


@pytest.fixture
def ours():
    torch.manual_seed(1)
    return build_model(OURS, len(GENRES), MEL.bands)


def test_a_run_of_the_same_genres_takes_all_weights_of_a_model_version(tmp_path, ours):
    settings = OURS.model_copy(update={"dropout": 0.1})
    data = read_pretrained(version_of(tmp_path, ours), settings, list(GENRES), "top", MEL)
    torch.manual_seed(2)
    model = build_model(settings, len(GENRES), MEL.bands)
    load_pretrained(model, data)
    assert all(torch.equal(tensor, ours.state_dict()[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    "other",
    [
        {"genres": ("Rock", "Folk", "Blues")},
        {"genres": ("Folk", "Rock", "Jazz")},
        {"genres": ("Folk", "Rock")},
        {"target": "multi"},
    ],
)
def test_the_head_is_left_out_for_other_genres_or_another_target(tmp_path, ours, other):
    tensors = read(version_of(tmp_path, ours), OURS, **other)
    assert set(tensors) == {name for name in ours.state_dict() if not name.startswith("fc.")}
    assert all(torch.equal(tensor, ours.state_dict()[name]) for name, tensor in tensors.items())


def test_a_version_of_one_of_torchvisions_networks_has_no_width(tmp_path):
    model = build_model(RESNET18, len(GENRES), MEL.bands)
    url = version_of(tmp_path, model, settings=RESNET18)
    assert len(read(url, ModelSettings(name="resnet18", width=99))) == len(model.state_dict())


@pytest.mark.parametrize(
    "wanted", [ModelSettings(width=8), ModelSettings(name="shallow", width=4), ModelSettings(name="resnet18")]
)
def test_a_version_of_another_network_is_refused(tmp_path, ours, wanted):
    message = refusal(version_of(tmp_path, ours), wanted)
    assert f"is a short-chunk-resnet of width 4, the run trains a {wanted.architecture};" in message


def test_a_version_with_other_mel_settings_is_refused(tmp_path, ours):
    other = MelSettings(bands=16, hop=256)
    message = refusal(version_of(tmp_path, ours), OURS, mel=other)
    assert f"mel settings {MEL.settings_hash}, the spectrograms have {other.settings_hash};" in message


def test_a_version_with_an_incomplete_card_is_refused(tmp_path, ours):
    assert "/model.json: training: " in refusal(version_of(tmp_path, ours, training=None), OURS)


def test_a_version_with_weights_that_do_not_fit_its_card_is_refused(tmp_path, ours):
    fewer = version_of(tmp_path, ours, genres=("Folk", "Rock"))
    assert "fc.weight has shape (3, 64), that of" in refusal(fewer, OURS, genres=("Folk", "Rock"))
    extra = version_of(
        tmp_path, torch.nn.ModuleDict({"trunk": torch.nn.Linear(1, 1), **dict(ours.named_children())})
    )
    assert len(read(extra, OURS)) == len(ours.state_dict())  # the same module under its own name


def test_a_version_with_damaged_or_missing_weights_is_refused(tmp_path, ours):
    url = version_of(tmp_path, ours)
    file = f"{url}/weights.safetensors"
    data = read_pretrained(url, OURS, GENRES, "top", MEL)
    put(tmp_path, file, data[:-1])
    assert refusal(url, OURS).startswith("/weights.safetensors: cut short")
    ours.trunk.stem[1].running_mean.fill_(torch.nan)
    put(tmp_path, file, safetensors.torch.save(ours.state_dict()))
    assert "trunk.stem.1.running_mean has NaN" in refusal(url, OURS)
    os.unlink(file)
    assert "cannot be read" in refusal(url, OURS)


def test_the_file_of_a_version_is_not_its_folder(tmp_path, ours):
    url = version_of(tmp_path, ours) + "/weights.safetensors"
    assert "use the folder that contains it" in refusal(url, RESNET18)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("trunk.stem.0.weight"), "has no trunk.stem.0.weight"),
        (lambda state: state.pop("trunk.block5.bn2.running_var"), "has no trunk.block5.bn2.running_var"),
        (lambda state: state.update(head=torch.ones(2)), "has head, which this network does not have"),
        (lambda state: state.update({"fc.bias": torch.ones(7)}), r"fc.bias has shape \(7,\)"),
        (lambda state: state["fc.bias"].fill_(torch.nan), "fc.bias has NaN or infinite"),
    ],
)
def test_pretrained_weights_that_do_not_fit_change_nothing(ours, change, message):
    state = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    change(state)
    model = build_model(OURS, len(GENRES), MEL.bands)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(BadInput, match=f"pretrained.safetensors: {message}"):
        load_pretrained(model, safetensors.torch.save(state))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_truncated_pretrained_weights_are_refused(ours):
    data = safetensors.torch.save(ours.state_dict())
    with pytest.raises(BadInput, match=r"pretrained\.safetensors: cut short or damaged"):
        load_pretrained(ours, data[:-1])


def test_a_random_trunk_is_not_frozen():
    assert PretrainedSettings(weights="x.pth", frozen_epochs=2).frozen_epochs == 2
    with pytest.raises(ValidationError, match="--frozen-epochs 2 needs --weights: a random"):
        PretrainedSettings(frozen_epochs=2)
