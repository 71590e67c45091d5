import gc
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from preprocessing.decode import decode
from preprocessing.decode.sandbox import Sandbox, thread_sandbox
from preprocessing.decode.settings import ExcerptSettings, LimitSettings
from preprocessing.errors import BadAudio
from preprocessing.mel.settings import MelSettings
from preprocessing.mel.transform import log_mel
from tests.support.audio_formats import DEMO_TRACK
from tests.support.crashing_decoder import (
    CRASH_KINDS,
    decoders_started,
    install_crashing_decoder,
    write_crashing_mp3,
)

MUSIC = DEMO_TRACK.parent
LONGEST_S = 60


@pytest.fixture(scope="module")  # its process starts again where a test ended it
def sandbox():
    sandbox = Sandbox(LimitSettings())
    yield sandbox
    sandbox.close()


@pytest.fixture
def poisonous(monkeypatch, tmp_path):
    """Have decoding processes use a decoder that some files crash, hang or exhaust."""
    monkeypatch.setenv("PYTHONPATH", install_crashing_decoder(tmp_path))


def mel_of(sandbox, path, sha1=None):
    spooled, pieces = sandbox.decode_mel(path, MelSettings(), ExcerptSettings(), sha1)
    return spooled, np.concatenate(list(pieces))


def children():
    """Return the processes that this one has started and not yet waited for."""
    lists = (it.read_text() for it in Path("/proc/self/task").glob("*/children"))
    return {int(pid) for line in lists for pid in line.split()}


def started_by(sandbox):
    """Have a fresh sandbox start its process, and return that."""
    before = children()
    mel_of(sandbox, DEMO_TRACK)
    (pid,) = children() - before
    return pid


def nameless_bytes():
    """Return the size of all temporary files without a name that this process holds open."""
    descriptors = [it for it in Path("/proc/self/fd").iterdir() if it.is_symlink()]
    return sum(it.stat().st_size for it in descriptors if os.readlink(it).endswith("(deleted)"))


def wait_until(condition):
    """Return whether a condition came true; the limit is for what never comes, not for a slow machine."""
    deadline = time.monotonic() + LONGEST_S
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def test_the_spectrogram_is_that_of_the_decoded_wave(sandbox):
    spooled, mel_FM = mel_of(sandbox, DEMO_TRACK)
    wave_S = decode(str(DEMO_TRACK), sample_rate_hz=22_050)
    np.testing.assert_array_equal(mel_FM, log_mel(wave_S, MelSettings()))
    assert (spooled.frames, spooled.bands) == mel_FM.shape
    assert spooled.decoded_s == pytest.approx(24, abs=0.1)
    assert len(bytes.fromhex(spooled.fingerprint)) == 64


def test_a_longer_track_leaves_nothing_behind_for_a_shorter_one(sandbox):
    short = ExcerptSettings(duration_s=2.0)
    others_bytes = nameless_bytes()
    _, pieces = sandbox.decode_mel(DEMO_TRACK, MelSettings(), short)
    alone_FM = np.concatenate(list(pieces))
    mel_of(sandbox, MUSIC / "200002.mp3")
    _, pieces = sandbox.decode_mel(DEMO_TRACK, MelSettings(), short)
    np.testing.assert_array_equal(np.concatenate(list(pieces)), alone_FM)
    assert nameless_bytes() - others_bytes == alone_FM.nbytes


def test_a_bad_file_is_reported_and_the_process_lives_on(sandbox):
    mel_of(sandbox, DEMO_TRACK)
    before = children()
    with pytest.raises(BadAudio, match="not-audio: it begins with"):
        mel_of(sandbox, MUSIC / "200050.mp3")
    with pytest.raises(BadAudio, match="missing: no such file"):
        mel_of(sandbox, MUSIC / "nowhere.mp3")
    mel_of(sandbox, DEMO_TRACK)
    assert children() == before


@pytest.mark.parametrize(
    ("poison", "limits", "message"),
    [
        ("segfault", LimitSettings(), "decoder-killed: decoding it ended the decoder with SIGSEGV"),
        # The poisoned file has 4 kB, and so 1 s; the good one has 100 times as much, on a busy machine too.
        (
            "sleep",
            LimitSettings(timeout_s=0.2, timeout_s_per_mb=200),
            "decoder-hung: no response of the decoding process within 1 s",
        ),
        (
            "allocate",
            LimitSettings(memory_gib=0.25),
            "decoder-out-of-memory: decoding it needs more memory than",
        ),
    ],
    ids=CRASH_KINDS,
)
def test_what_ends_its_decoder_is_rejected_and_the_next_file_is_decoded(
    poison, limits, message, poisonous, tmp_path
):
    sandbox = Sandbox(limits)
    with pytest.raises(BadAudio, match=message):
        mel_of(sandbox, write_crashing_mp3(tmp_path, poison))
    mel_of(sandbox, DEMO_TRACK)
    sandbox.close()


def test_a_process_that_was_killed_from_outside_costs_no_file(sandbox):
    os.kill(started_by(sandbox), signal.SIGKILL)
    _, mel_FM = mel_of(sandbox, DEMO_TRACK)
    assert len(mel_FM) > 1_000


def test_a_disk_that_fails_is_no_fault_of_the_file(sandbox, tmp_path):
    """The spool is what is written: let it hold no more than 4 KiB, as on a full disk."""
    resource.prlimit(started_by(sandbox), resource.RLIMIT_FSIZE, (4_096, 4_096))
    with pytest.raises(OSError, match="File too large"):
        mel_of(sandbox, DEMO_TRACK)
    _, mel_FM = mel_of(sandbox, DEMO_TRACK)  # nothing of it is left in a buffer
    assert len(mel_FM) > 1_000


def test_a_file_must_end_two_processes_and_a_good_one_needs_no_second(poisonous, tmp_path):
    sandbox = Sandbox(LimitSettings())
    path = write_crashing_mp3(tmp_path, "segfault")
    with pytest.raises(BadAudio, match="decoder-killed"):
        mel_of(sandbox, path)
    assert decoders_started(tmp_path) == 2
    mel_of(sandbox, DEMO_TRACK)
    mel_of(sandbox, DEMO_TRACK)
    assert decoders_started(tmp_path) == 3
    sandbox.close()


def test_the_response_that_nobody_waited_for_is_not_that_of_the_next_file(sandbox):
    """A caller that is interrupted, by Ctrl-C or by a signal, may go on with the same sandbox."""
    pid = started_by(sandbox)
    expected, _ = mel_of(sandbox, MUSIC / "200002.mp3")

    class Interrupted(BaseException):
        pass

    def interrupt(*_):
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, interrupt)
    os.kill(pid, signal.SIGSTOP)  # so it cannot respond before the signal comes
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    with pytest.raises(Interrupted):
        mel_of(sandbox, DEMO_TRACK)
    timer.join()
    signal.signal(signal.SIGUSR1, before)
    if Path(f"/proc/{pid}").exists():
        os.kill(pid, signal.SIGCONT)
    assert mel_of(sandbox, MUSIC / "200002.mp3")[0] == expected


def test_a_large_file_may_take_longer():
    large = Sandbox(LimitSettings(timeout_s=1e-6, timeout_s_per_mb=300.0))
    assert len(mel_of(large, DEMO_TRACK)[1]) > 1_000
    large.close()


def test_a_mistake_of_ours_is_no_fault_of_the_file_and_leaves_the_sandbox_usable(sandbox):
    wrong = MelSettings.model_construct(sample_rate_hz=1, window=2_048, hop=512, bands=128)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"200001\.mp3: the decoding process ended: .*pydantic"):
            sandbox.decode_mel(DEMO_TRACK, wrong, ExcerptSettings())
    mel_of(sandbox, DEMO_TRACK)


def test_a_process_that_hangs_ends_with_its_parent_however_that_ends():
    program = (
        "import pathlib, time\n"
        "from preprocessing.mel import MelSettings\n"
        "from preprocessing.decode.sandbox import Sandbox\n"
        "from preprocessing.decode.settings import ExcerptSettings, LimitSettings\n"
        "sandbox = Sandbox(LimitSettings())\n"
        f"sandbox.decode_mel(pathlib.Path('{DEMO_TRACK}'), MelSettings(), ExcerptSettings())\n"
        "print(pathlib.Path('/proc/thread-self/children').read_text(), flush=True)\n"
        "time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    pid = int(parent.stdout.readline())
    os.kill(pid, signal.SIGSTOP)  # it cannot see that its requests end
    parent.kill()
    parent.wait()
    parent.stdout.close()
    ended = wait_until(lambda: not is_running(pid))
    if not ended:
        os.kill(pid, signal.SIGKILL)
    assert ended


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("signal_", [signal.SIGINT, signal.SIGTERM])
def test_signals_meant_for_its_parent_do_not_end_it(signal_, sandbox):
    pid = started_by(sandbox)
    os.kill(pid, signal_)
    mel_of(sandbox, DEMO_TRACK)
    assert is_running(pid)


def test_a_missing_file_with_a_checksum_is_missing(sandbox):
    with pytest.raises(BadAudio, match="missing: no such file"):
        mel_of(sandbox, MUSIC / "nowhere.mp3", sha1="0" * 40)


def test_another_checksum_than_the_publisher_says(sandbox):
    with pytest.raises(BadAudio, match=r"checksum: its SHA-1 is \w{40}; its publisher states 00"):
        mel_of(sandbox, DEMO_TRACK, sha1="0" * 40)


def test_a_thread_has_one_sandbox_as_long_as_the_limits_are_the_same():
    limits = LimitSettings(timeout_s=9.0)
    one = thread_sandbox(limits)
    assert thread_sandbox(limits) is one
    assert thread_sandbox(LimitSettings(timeout_s=8.0)) is not one
    others = []
    thread = threading.Thread(target=lambda: others.append(thread_sandbox(limits)))
    thread.start()
    thread.join()
    assert others[0] is not one


def test_the_process_ends_with_its_sandbox():
    open_before = len(os.listdir("/proc/self/fd"))
    sandbox = Sandbox(LimitSettings())
    pid = started_by(sandbox)
    sandbox.close()
    assert pid not in children()
    del sandbox
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= open_before
    one = Sandbox(LimitSettings())
    pid = started_by(one)
    del one
    gc.collect()
    assert pid not in children()
