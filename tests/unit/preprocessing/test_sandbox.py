import os
import resource
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from preprocessing.decode import decode
from preprocessing.errors import BadAudio
from preprocessing.mel import MelSettings, log_mel
from preprocessing.sandbox import Sandbox, sandbox_of_this_thread
from preprocessing.spectrogram import ExcerptSettings, LimitSettings
from tests.formats import DEMO_TRACK
from tests.poison import POISON, poisoned, with_poisonous_decoder

MUSIC = DEMO_TRACK.parent
LONGEST_S = 60


@pytest.fixture
def sandbox():
    sandbox = Sandbox(LimitSettings(time_s=3.0, time_s_per_mb=0.0, memory_gib=0.5))
    yield sandbox
    sandbox.close()


@pytest.fixture
def poisonous(monkeypatch, tmp_path):
    """Have decoding processes use a decoder that some files are the end of."""
    monkeypatch.setenv("PYTHONPATH", with_poisonous_decoder(tmp_path))


def mel_of(sandbox, path, sha1=None):
    spooled, pieces = sandbox.mel(path, MelSettings(), ExcerptSettings(), sha1)
    return spooled, np.concatenate(list(pieces))


def children():
    """The processes that this one has started and that still run."""
    told = (Path(it).read_text() for it in Path("/proc/self/task").glob("*/children"))
    return {int(pid) for line in told for pid in line.split()}


def test_the_spectrogram_is_that_of_the_decoded_wave(sandbox):
    spooled, mel_FM = mel_of(sandbox, DEMO_TRACK)
    wave_S = decode(str(DEMO_TRACK), sample_rate_hz=22_050)
    np.testing.assert_allclose(mel_FM, log_mel(wave_S, MelSettings()), atol=1e-4)
    assert (spooled.frames, spooled.bands) == mel_FM.shape
    assert spooled.decoded_s == pytest.approx(24, abs=0.1)
    assert len(bytes.fromhex(spooled.fingerprint)) == 64


def test_a_longer_track_leaves_nothing_behind_for_a_shorter_one(sandbox):
    _, alone_FM = mel_of(sandbox, MUSIC / "200002.mp3")
    mel_of(sandbox, MUSIC / "200001.mp3")
    _, again_FM = mel_of(sandbox, MUSIC / "200002.mp3")
    np.testing.assert_array_equal(alone_FM, again_FM)


def test_a_bad_file_is_an_answer_and_the_process_lives_on(sandbox):
    mel_of(sandbox, DEMO_TRACK)
    before = children()
    with pytest.raises(BadAudio, match="not-audio: it begins with"):
        mel_of(sandbox, MUSIC / "200050.mp3")
    with pytest.raises(BadAudio, match="missing: no such file"):
        mel_of(sandbox, MUSIC / "nowhere.mp3")
    mel_of(sandbox, DEMO_TRACK)
    assert children() == before


@pytest.mark.parametrize(
    ("poison", "message"),
    [
        ("segfault", "decoder-killed: decoding it ended the decoder with SIGSEGV"),
        ("sleep", "decoder-hung: no answer of the decoding process within 3 s"),
        ("allocate", "decoder-out-of-memory: decoding it wants more memory than"),
    ],
)
def test_what_ends_its_decoder_is_rejected_and_the_next_file_is_decoded(poison, message, poisonous, tmp_path):
    assert poison in POISON
    sandbox = Sandbox(LimitSettings(time_s=3.0, time_s_per_mb=0.0, memory_gib=0.25))
    with pytest.raises(BadAudio, match=message):
        mel_of(sandbox, poisoned(tmp_path, poison))
    mel_of(sandbox, DEMO_TRACK)
    sandbox.close()


def test_a_process_that_was_killed_from_outside_costs_no_file(sandbox):
    mel_of(sandbox, DEMO_TRACK)
    (pid,) = children() & {sandbox._process._process.pid}
    os.kill(pid, signal.SIGKILL)
    _, mel_FM = mel_of(sandbox, DEMO_TRACK)
    assert len(mel_FM) > 1_000


def test_a_disk_that_fails_is_no_fault_of_the_file(sandbox, tmp_path):
    """The spool is what is written: let it hold no more than 4 KiB, as on a full disk."""
    mel_of(sandbox, DEMO_TRACK)
    resource.prlimit(sandbox._process._process.pid, resource.RLIMIT_FSIZE, (4_096, 4_096))
    with pytest.raises(OSError, match="File too large"):
        mel_of(sandbox, DEMO_TRACK)


def test_another_checksum_than_the_publisher_says(sandbox):
    with pytest.raises(BadAudio, match=r"checksum: its SHA-1 is \w{40}; its publisher says 00"):
        mel_of(sandbox, DEMO_TRACK, sha1="0" * 40)


def test_a_thread_has_one_sandbox_as_long_as_the_limits_are_the_same():
    limits = LimitSettings(time_s=9.0)
    one = sandbox_of_this_thread(limits)
    assert sandbox_of_this_thread(limits) is one
    assert sandbox_of_this_thread(LimitSettings(time_s=8.0)) is not one
    others = []
    thread = threading.Thread(target=lambda: others.append(sandbox_of_this_thread(limits)))
    thread.start()
    thread.join()
    assert others[0] is not one


def test_the_process_ends_with_its_sandbox():
    sandbox = Sandbox(LimitSettings())
    mel_of(sandbox, DEMO_TRACK)
    before = children()
    sandbox.close()
    assert len(children()) == len(before) - 1
    one = Sandbox(LimitSettings())
    mel_of(one, DEMO_TRACK)
    before = children()
    del one
    deadline = time.monotonic() + LONGEST_S
    while len(children()) == len(before) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(children()) == len(before) - 1
