import os
import shutil
import struct
import subprocess
import sys
import uuid
from pathlib import Path

import av
import fsspec
import librosa
import numpy as np
import pytest
import scipy.signal
import soundfile

from preprocessing.decode import decode
from preprocessing.decode.decoders import DecodeResult, decode_blocks
from preprocessing.errors import BadAudio
from tests.support.audio_formats import CODECS, DEMO_TRACK, encode
from tests.support.rounding import sample_tolerance

BUNDLED = Path("tests/data/demo_music/fma_small/200")
RATE_HZ = 22_050
SECONDS = 4.0
RESAMPLER_TAPS = 100  # products that soxr HQ adds up for a sample, about


def decode_track(path, **window):
    """Decode and keep nothing but what is said of the track."""
    return decode_blocks(
        lambda waves: sum(wave_S.size for wave_S in waves), path, sample_rate_hz=RATE_HZ, **window
    )


@pytest.fixture(scope="session")
def formats(tmp_path_factory):
    folder = tmp_path_factory.mktemp("formats")
    for suffix, (codec, rate, container) in CODECS.items():
        encode(folder / f"music{suffix}", codec, rate, container, SECONDS)
    return folder


@pytest.mark.parametrize("number", [1, 17, 33, 48])
def test_real_mp3s_decode_as_librosa_does(number):
    path = BUNDLED / f"{200_000 + number}.mp3"
    theirs_S, _ = librosa.load(path, sr=RATE_HZ)
    ours_S = decode(str(path), sample_rate_hz=RATE_HZ)
    np.testing.assert_allclose(ours_S, theirs_S, atol=sample_tolerance(RESAMPLER_TAPS))


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100, 48_000])
def test_blocks_resample_as_one(rate_hz):
    native_S, native_hz = soundfile.read(DEMO_TRACK, dtype="float32")
    whole_S = librosa.resample(native_S, orig_sr=native_hz, target_sr=rate_hz, res_type="soxr_hq")
    ours_S = decode(str(DEMO_TRACK), sample_rate_hz=rate_hz)
    assert abs(len(ours_S) - len(whole_S)) <= 1
    count = min(len(ours_S), len(whole_S))
    np.testing.assert_allclose(ours_S[:count], whole_S[:count], atol=sample_tolerance(RESAMPLER_TAPS))


@pytest.mark.parametrize("suffix", CODECS)
def test_every_format_plays_the_same_music(suffix, formats):
    wave_S = decode(str(formats / f"music{suffix}"), sample_rate_hz=RATE_HZ)
    assert wave_S.dtype == np.float32
    assert wave_S.ndim == 1
    assert abs(len(wave_S) / RATE_HZ - SECONDS) < 0.15
    truth_S = decode(str(DEMO_TRACK), sample_rate_hz=RATE_HZ, duration_s=SECONDS + 1)
    # Codecs may add a delay of their own: compare where the two fit best.
    middle_S = wave_S[RATE_HZ : 3 * RATE_HZ]
    power_S = scipy.signal.fftconvolve(truth_S**2, np.ones_like(middle_S), "valid")
    fit = scipy.signal.correlate(truth_S, middle_S, "valid") / (
        np.linalg.norm(middle_S) * np.sqrt(power_S + 1e-9)
    )
    assert fit.max() > 0.95


@pytest.mark.parametrize("suffix", [".mp3", ".flac", ".wav", ".opus", ".ogg"])
def test_a_window_is_a_part_of_the_whole(suffix, formats):
    url = str(formats / f"music{suffix}")
    whole_S = decode(url, sample_rate_hz=RATE_HZ)
    part_S = decode(url, sample_rate_hz=RATE_HZ, start_s=1.5, duration_s=1.0)
    assert len(part_S) == RATE_HZ
    edge = 200  # the resampler's filter reaches beyond the window, into silence
    first = round(1.5 * RATE_HZ)
    np.testing.assert_allclose(part_S[edge:-edge], whole_S[first + edge : first + RATE_HZ - edge], atol=2e-3)


@pytest.mark.parametrize("suffix", [".m4a", ".wma"])
def test_a_window_of_a_format_only_ffmpeg_knows_has_the_length_asked_for(suffix, formats):
    part_S = decode(str(formats / f"music{suffix}"), sample_rate_hz=RATE_HZ, start_s=1.0, duration_s=2.0)
    assert abs(len(part_S) - 2 * RATE_HZ) <= 2


def test_mono_is_the_mean_of_the_channels(tmp_path):
    random = np.random.default_rng(0)
    for channels in (1, 2, 6):
        wave_SC = random.uniform(-0.5, 0.5, (3_000, channels)).astype(np.float32)
        soundfile.write(tmp_path / "it.wav", wave_SC, RATE_HZ, subtype="FLOAT")
        ours_S = decode(str(tmp_path / "it.wav"), sample_rate_hz=RATE_HZ)
        np.testing.assert_allclose(ours_S, wave_SC.mean(axis=1), atol=sample_tolerance(channels))


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_every_depth_reads_alike(subtype, tmp_path):
    wave_S = np.sin(np.arange(4_000) / 9).astype(np.float32) * 0.7
    soundfile.write(tmp_path / "it.wav", wave_S, RATE_HZ, subtype=subtype)
    ours_S = decode(str(tmp_path / "it.wav"), sample_rate_hz=RATE_HZ)
    np.testing.assert_allclose(ours_S, wave_S, atol=1 / 128)  # a step of the coarsest, of 8 bits


def test_a_file_in_memory_or_on_an_object_store_decodes_alike():
    url = f"memory://{uuid.uuid4().hex}/track.mp3"
    fs, path = fsspec.url_to_fs(url)
    fs.pipe_file(path, DEMO_TRACK.read_bytes())
    np.testing.assert_array_equal(
        decode(url, sample_rate_hz=RATE_HZ), decode(str(DEMO_TRACK), sample_rate_hz=RATE_HZ)
    )


def test_the_name_may_lie(formats, tmp_path):
    shutil.copy(formats / "music.m4a", tmp_path / "liar.mp3")
    assert abs(len(decode(str(tmp_path / "liar.mp3"), sample_rate_hz=RATE_HZ)) / RATE_HZ - SECONDS) < 0.15


def damaged(kind, tmp_path):
    whole = DEMO_TRACK.read_bytes()
    path = tmp_path / "damaged.mp3"
    match kind:
        case "no such file":
            return tmp_path / "nowhere.mp3"
        case "a folder":
            path.mkdir()
            return path
        case "empty":
            path.write_bytes(b"")
        case "a page":
            path.write_bytes(b"<!DOCTYPE html><html><head><title>404</title></head></html>" * 40)
        case "a tenth":
            path.write_bytes(whole[: len(whole) // 10])
        case "silence":
            soundfile.write(tmp_path / "damaged.wav", np.zeros(30_000, np.float32), RATE_HZ)
            return tmp_path / "damaged.wav"
        case "nan":
            wave_S = np.full(30_000, 0.1, np.float32)
            wave_S[9] = np.nan
            soundfile.write(tmp_path / "damaged.wav", wave_S, RATE_HZ, subtype="FLOAT")
            return tmp_path / "damaged.wav"
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no such file", "missing: no such file"),
        ("a folder", "not-audio: it is a folder"),
        ("empty", "empty: 0 bytes"),
        ("a page", "not-audio: it begins with b'<!DOCTYPE html><', like no audio format"),
        ("a tenth", r"truncated: 2\.\d of 24\.0 s can be decoded"),
        ("silence", r"silent: 1\.4 s, never above -80 dB"),
        ("nan", "not-audio: the file decodes to NaN or infinite samples"),
    ],
)
def test_what_cannot_be_used_is_rejected_with_its_reason(kind, message, tmp_path):
    with pytest.raises(BadAudio, match=message):
        decode(str(damaged(kind, tmp_path)), sample_rate_hz=RATE_HZ)


@pytest.mark.parametrize(("number", "reason"), [(49, "empty"), (50, "not-audio"), (51, "truncated")])
def test_the_three_broken_files_of_the_demo_are_rejected(number, reason):
    with pytest.raises(BadAudio, match=f"^{reason}: "):
        decode(str(BUNDLED / f"2000{number}.mp3"), sample_rate_hz=RATE_HZ)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp3")
    with pytest.raises(BadAudio, match="not-audio: it is a pipe or a device, not a file"):
        decode(str(tmp_path / "pipe.mp3"), sample_rate_hz=RATE_HZ)


def test_a_track_longer_than_allowed_is_given_up_on_the_way():
    with pytest.raises(BadAudio, match=r"too-long: it is longer than 0\.005 h"):
        decode_track(DEMO_TRACK, max_duration_s=18.0)


def test_many_channels_take_no_more_memory(tmp_path):
    soundfile.write(tmp_path / "wide.wav", np.full((3_000, 1_024), 0.1, np.float32), RATE_HZ)
    seen = []
    decode_blocks(
        lambda waves: seen.extend(wave_S.size for wave_S in waves),
        tmp_path / "wide.wav",
        sample_rate_hz=RATE_HZ,
    )
    assert (max(seen), sum(seen)) == (256, 3_000)


def without_xing(path, tmp_path):
    """Drop the frame that states the length: a decoder must then estimate it."""
    data = path.read_bytes()
    start = data.index(b"Info") if b"Info" in data[:400] else data.index(b"Xing")
    first = data.index(b"\xff", start)
    (tmp_path / "bare.mp3").write_bytes(data[first:])
    return tmp_path / "bare.mp3"


def test_an_mp3_that_states_no_length_is_counted_frame_by_frame(tmp_path):
    path = without_xing(DEMO_TRACK, tmp_path)
    decoded = decode_track(path)
    assert decoded.stated_s == pytest.approx(24.0, abs=0.1)
    assert not decoded.is_truncated


def test_where_the_estimated_length_is_too_short_the_rest_is_decoded_too(tmp_path):
    """A slow start at 320 kbit/s, then 64: libsndfile estimates from the start, and stops there."""
    bare = without_xing(DEMO_TRACK, tmp_path).read_bytes()
    encode(tmp_path / "fast.mp3", "libmp3lame", 22_050, "mp3", 2.0, bit_rate=160_000)
    joined = tmp_path / "joined.mp3"
    joined.write_bytes(without_xing(tmp_path / "fast.mp3", tmp_path).read_bytes() + bare)
    decoded = decode_track(joined)
    assert decoded.decoded_s > 25
    assert not decoded.is_truncated


def test_a_window_beyond_the_end_is_too_short():
    with pytest.raises(BadAudio, match="too-short: there is no audio from 500 s on"):
        decode(str(DEMO_TRACK), sample_rate_hz=RATE_HZ, start_s=500, duration_s=3)


def test_the_end_of_a_track_may_be_missing_if_it_is_said(tmp_path):
    whole = DEMO_TRACK.read_bytes()
    (tmp_path / "cut.mp3").write_bytes(whole[: len(whole) * 3 // 4])
    cut = decode_track(tmp_path / "cut.mp3")
    assert cut.is_truncated
    assert cut.stated_s == pytest.approx(24.0, abs=0.1)
    assert 17 < cut.decoded_s < 19
    assert not decode_track(DEMO_TRACK).is_truncated


def test_where_libsndfile_breaks_off_without_a_word_the_second_decoder_goes_on(tmp_path):
    data = bytearray(DEMO_TRACK.read_bytes())
    random = np.random.default_rng(1)
    for at in random.integers(5_000, len(data), len(data) // 1_000):  # one byte of a thousand is another
        data[at] ^= int(random.integers(1, 256))
    path = tmp_path / "flipped.mp3"
    path.write_bytes(data)
    wave_S, rate_hz = soundfile.read(path)
    assert len(wave_S) / rate_hz < 10, "the premise: it stops, and raises nothing"
    assert decode_track(path).decoded_s > 23


def test_peaks_of_damaged_frames_are_cut(tmp_path):
    wave_S = np.full(5_000, 0.5, np.float32)
    wave_S[100:110] = 1e5
    soundfile.write(tmp_path / "loud.wav", wave_S, RATE_HZ, subtype="FLOAT")
    assert np.abs(decode(str(tmp_path / "loud.wav"), sample_rate_hz=RATE_HZ)).max() == 2.0


def test_a_file_this_user_may_not_read_is_rejected(tmp_path):
    path = tmp_path / "secret.mp3"
    shutil.copy(DEMO_TRACK, path)
    path.chmod(0)
    program = (
        "import os; from preprocessing.decode import decode; from preprocessing.errors import BadAudio\n"
        "if os.getuid() == 0: os.seteuid(65534)\n"
        "try: decode('secret.mp3', sample_rate_hz=22050)\n"
        "except BadAudio as why: print(why)"
    )
    env = {"PYTHONPATH": str(Path.cwd()), "PATH": "/usr/bin:/bin"}
    tmp_path.chmod(0o755)
    child = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    assert child.stdout == "no-permission: this user may not read the file\n"


@pytest.mark.parametrize(
    ("decoded_s", "stated_s", "is_truncated"),
    [
        (9.81, 10, False),
        (9.79, 10, True),
        (23.8, 24, False),
        (23.7, 24, True),
        (3_565, 3_600, False),
        (3_563, 3_600, True),
        (11, 10, False),
        (1, None, False),
    ],
)
def test_a_file_is_cut_short_if_it_lacks_a_fifth_of_a_second_and_one_percent(
    decoded_s, stated_s, is_truncated
):
    assert DecodeResult(None, decoded_s, stated_s).is_truncated == is_truncated


@pytest.mark.parametrize(("share", "is_usable"), [(0.47, False), (0.53, True)])
def test_half_of_a_track_is_a_track_and_less_is_not(share, is_usable, tmp_path):
    whole = DEMO_TRACK.read_bytes()
    (tmp_path / "cut.mp3").write_bytes(whole[: int(len(whole) * share)])
    if is_usable:
        assert decode_track(tmp_path / "cut.mp3").is_truncated
    else:
        with pytest.raises(BadAudio, match="truncated: "):
            decode_track(tmp_path / "cut.mp3")


@pytest.mark.parametrize(("level", "is_usable"), [(0.9e-4, False), (1.1e-4, True)])
@pytest.mark.parametrize("sign", [1, -1])
def test_silence_is_what_never_exceeds_minus_80_db(level, sign, is_usable, tmp_path):
    wave_S = np.zeros(30_000, np.float32)
    wave_S[9_000] = sign * level
    soundfile.write(tmp_path / "it.wav", wave_S, RATE_HZ, subtype="FLOAT")
    if is_usable:
        assert decode_track(tmp_path / "it.wav").result == 30_000
    else:
        with pytest.raises(BadAudio, match="silent: "):
            decode_track(tmp_path / "it.wav")


def test_a_wavpack_file_that_breaks_off_plays_up_to_there(formats, tmp_path):
    """FFmpeg reports the end that is missing as an error of the container: no reason to drop the rest."""
    whole = (formats / "music.wv").read_bytes()
    (tmp_path / "cut.wv").write_bytes(whole[: len(whole) * 4 // 5])
    cut = decode_track(tmp_path / "cut.wv")
    assert cut.is_truncated
    assert cut.stated_s == pytest.approx(SECONDS, abs=0.1)
    assert 0.5 * SECONDS < cut.decoded_s < 0.85 * SECONDS


def test_integers_of_64_bits_play(tmp_path):
    """Libsndfile does not read them, and PyAV cannot convert them to an array."""
    wave_S = np.sin(np.arange(4_000) / 9) * 0.7
    data = (wave_S * 2.0**63).astype("<i8").tobytes()
    shape = struct.pack("<IHHIIHH", 16, 1, 1, RATE_HZ, RATE_HZ * 8, 8, 64)
    body = b"WAVEfmt " + shape + b"data" + struct.pack("<I", len(data)) + data
    (tmp_path / "it.wav").write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    ours_S = decode(str(tmp_path / "it.wav"), sample_rate_hz=RATE_HZ)
    np.testing.assert_allclose(ours_S, wave_S, atol=sample_tolerance(2))  # to float32, and scaled


def test_a_film_without_sound_is_unsupported(tmp_path):
    with av.open(str(tmp_path / "film.mp4"), "w") as sink:
        stream = sink.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        for _ in range(25):
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            sink.mux(stream.encode(frame))
        sink.mux(stream.encode(None))
    with pytest.raises(BadAudio, match="unsupported: the file has no audio stream"):
        decode_track(tmp_path / "film.mp4")


def test_a_track_that_is_too_long_is_not_decoded_a_second_time():
    attempts = []

    def consume(waves):
        attempts.append(waves)
        return sum(wave_S.size for wave_S in waves)

    with pytest.raises(BadAudio, match="too-long"):
        decode_blocks(consume, DEMO_TRACK, sample_rate_hz=RATE_HZ, max_duration_s=18.0)
    assert len(attempts) == 1
