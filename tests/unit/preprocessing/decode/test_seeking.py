"""Windows of real music in real formats, held against the spectrogram of the whole track."""

from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from preprocessing.decode import decode, seeking
from preprocessing.decode.sandbox import Sandbox
from preprocessing.decode.seeking import spool_windows
from preprocessing.decode.settings import LimitSettings, WindowSettings
from preprocessing.decode.spool import open_window
from preprocessing.decode.windows import FrameRange
from preprocessing.errors import BadAudio
from preprocessing.mel.settings import MelSettings
from preprocessing.mel.transform import log_mel
from tests.support.audio_formats import CODECS, DEMO_TRACK, encode
from tests.support.crashing_decoder import install_crashing_decoder, write_crashing_mp3

MEL = MelSettings()
WINDOWS = WindowSettings(count=3, length_s=2.0)
LONGEST_S = 1e5
SEEKED = [
    (".mp3", 22_050),
    (".mp3", 44_100),
    (".flac", 44_100),
    (".flac", 48_000),
    (".ogg", 44_100),
    (".opus", 48_000),
    (".wav", 44_100),
    (".wav", 32_000),
    (".aiff", 22_050),
    (".wv", 44_100),
]


@pytest.fixture
def no_whole(monkeypatch):
    """Have a decoding of all of a track fail the test."""
    monkeypatch.setattr(seeking, "decode_blocks", lambda *_, **__: pytest.fail("all of it was decoded"))


def spooled(path, tmp_path, windows=WINDOWS, *, as_waves=False):
    with (tmp_path / "spool").open("w+b") as spool:
        windows_on_spool = spool_windows(
            path, spool, mel=MEL, windows=windows, as_waves=as_waves, max_duration_s=LONGEST_S
        )
        read = [open_window(spool.fileno(), window, MEL, as_waves=as_waves) for window in windows_on_spool]
        return [(window.start_frame, window.read(0, window.frames)) for window in read]


def whole_mel(path):
    return log_mel(decode(str(path), sample_rate_hz=MEL.sample_rate_hz), MEL)


def in_format(tmp_path, suffix, rate_hz, seconds=12.0, **options):
    path = tmp_path / f"music{suffix}"
    codec, _, container = CODECS[suffix]
    encode(path, codec, rate_hz, container, seconds, **options)
    return path


def errors_db(path, found):
    """Hold windows against the whole: the difference of every cell that is above -60 dB there."""
    mel_FM = whole_mel(path)
    for start, part_FM in found:
        wanted_FM = mel_FM[start : start + len(part_FM)]
        yield np.abs(part_FM - wanted_FM)[wanted_FM > -60]


@pytest.mark.parametrize(("suffix", "rate_hz"), SEEKED)
def test_a_seeked_window_is_part_of_the_whole_spectrogram(tmp_path, no_whole, suffix, rate_hz):
    path = in_format(tmp_path, suffix, rate_hz)
    found = spooled(path, tmp_path)
    assert [len(part_FM) for _, part_FM in found] == [MEL.count_frames(2.0)] * 3
    for error in errors_db(path, found):
        assert error.size > 5_000
        assert error.max() < 0.005


def test_of_m4a_all_is_equal_but_the_noise_that_the_decoder_draws_itself(tmp_path, no_whole):
    """AAC may say "noise here, so loud" (perceptual noise substitution), and FFmpeg draws other noise each time."""
    path = in_format(tmp_path, ".m4a", 44_100, aac_pns="0")
    assert max(error.max() for error in errors_db(path, spooled(path, tmp_path))) < 0.005
    path = in_format(tmp_path, ".m4a", 44_100)
    assert max(np.mean(error) for error in errors_db(path, spooled(path, tmp_path))) < 0.5


def pcm(path, wave_S, rate_hz=22_050, container="wav", codec="pcm_s16le", **options):
    bare = {"write_xing": "0"} if container == "mp3" else {}
    with av.open(str(path), "w", format=container, options=bare) as sink:
        stream = sink.add_stream(codec, rate=rate_hz, layout="mono", options=options)
        frame = av.AudioFrame.from_ndarray(wave_S[None].astype(np.float32), "fltp", "mono")
        frame.rate = rate_hz
        resampler = av.AudioResampler(stream.format, "mono", rate_hz, stream.codec_context.frame_size or None)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            sink.mux(stream.encode(part))
        sink.mux(stream.encode(None))
    return path


def without_xing(path, target):
    with (
        av.open(str(path)) as source,
        av.open(str(target), "w", format="mp3", options={"write_xing": "0", "id3v2_version": "0"}) as sink,
    ):
        stream = sink.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(audio=0):
            if packet.dts is not None:
                packet.stream = stream
                sink.mux(packet)
    return target


def test_an_mp3_that_does_not_state_its_length_is_seeked_too(tmp_path, no_whole):
    path = without_xing(in_format(tmp_path, ".mp3", 44_100), tmp_path / "bare.mp3")
    assert b"Xing" not in path.read_bytes()
    assert b"Info" not in path.read_bytes()
    found = spooled(path, tmp_path)
    assert len(found) == 3
    assert max(error.max() for error in errors_db(path, found)) < 0.005


def test_an_mp3_of_varying_bit_rate_that_libsndfile_takes_for_shorter_is_decoded_where_it_should(tmp_path):
    """It estimates the length from the first frames, and would seek no further."""
    path = tmp_path / "varying.mp3"
    noise_S = np.random.default_rng(0).normal(0, 0.2, 6 * 44_100)
    tone_S = 0.3 * np.sin(0.05 * np.arange(20 * 44_100))
    varying = {"flags": "+qscale", "global_quality": "236"}
    pcm(path, np.concatenate([noise_S, tone_S]), 44_100, "mp3", "libmp3lame", **varying)
    assert soundfile.info(path).duration < 20
    found = spooled(path, tmp_path)
    assert len(found) == 3
    assert max(error.max() for error in errors_db(path, found)) < 0.005


def test_waveforms_are_what_the_spectrograms_are_made_of(tmp_path):
    path = in_format(tmp_path, ".flac", 44_100)
    mels, waves = spooled(path, tmp_path), spooled(path, tmp_path, as_waves=True)
    for (start, mel_FM), (wave_start, wave_S) in zip(mels, waves, strict=True):
        assert start == wave_start
        np.testing.assert_array_equal(log_mel(wave_S, MEL), mel_FM)


@pytest.mark.parametrize("as_waves", [False, True])
def test_a_part_of_a_window_is_read_alone(tmp_path, as_waves):
    with (tmp_path / "spool").open("w+b") as spool:
        windows_on_spool = spool_windows(
            DEMO_TRACK, spool, mel=MEL, windows=WINDOWS, as_waves=as_waves, max_duration_s=LONGEST_S
        )
        window = open_window(spool.fileno(), windows_on_spool[1], MEL, as_waves=as_waves)
        all_of_it, part = window.read(0, window.frames), window.read(20, 9)
        first, samples = FrameRange(20, 9).sample_range(MEL) if as_waves else (20, 9)
        np.testing.assert_array_equal(part, all_of_it[first : first + samples])
        with pytest.raises(OSError, match="ends before its windows do"):
            open_window(spool.fileno(), windows_on_spool[2], MEL, as_waves=as_waves).read(10, 10_000)


@pytest.mark.parametrize(
    "windows", [WindowSettings(whole_track=True), WindowSettings(count=3, length_s=10.0)], ids=str
)
def test_a_short_track_or_one_decoded_whole_is_one_window(tmp_path, windows):
    ((start, mel_FM),) = spooled(DEMO_TRACK, tmp_path, windows)
    assert start == 0
    np.testing.assert_array_equal(mel_FM, whole_mel(DEMO_TRACK))


@pytest.mark.parametrize("suffix", [".mp3", ".flac", ".m4a"])
def test_a_file_that_breaks_off_is_decoded_whole_and_its_windows_lie_in_what_plays(tmp_path, suffix):
    path = in_format(tmp_path, suffix, 44_100)
    data = path.read_bytes()
    if suffix != ".m4a":  # whose index, at its end, makes it no file without
        path.write_bytes(data[: int(0.8 * len(data))])
    else:
        cut_at = int(0.8 * data.index(b"moov"))
        path.write_bytes(
            data[:cut_at] + bytes(data.index(b"moov") - 4 - cut_at) + data[data.index(b"moov") - 4 :]
        )
    found = spooled(path, tmp_path)
    assert len(found) == 3
    for start, part_FM in found:
        np.testing.assert_array_equal(part_FM, whole_mel(path)[start : start + len(part_FM)])


def test_half_a_file_is_as_truncated_as_it_always_was(tmp_path):
    path = in_format(tmp_path, ".mp3", 44_100)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 5])
    with pytest.raises(BadAudio, match=r"truncated: .* of 12.* s can be decoded"):
        spooled(path, tmp_path)


def test_damage_that_libsndfile_stops_at_leaves_the_windows_that_play(tmp_path):
    path = in_format(tmp_path, ".mp3", 44_100)
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 3)
    path.write_bytes(data)
    assert spooled(path, tmp_path)


def with_silence(path, quiet_s, seconds=12):
    wave_S = np.random.default_rng(0).normal(0, 0.1, seconds * 22_050)
    for first_s, last_s in quiet_s:
        wave_S[int(first_s * 22_050) : int(last_s * 22_050)] = 0
    return pcm(path, wave_S)


def test_a_silent_window_is_left_out_as_long_as_another_is_not(tmp_path, no_whole):
    path = with_silence(tmp_path / "pause.wav", [(4, 8)])
    assert [round(start * MEL.hop / 22_050) for start, _ in spooled(path, tmp_path)] == [1, 9]


def test_windows_that_are_all_silent_are_silence(tmp_path):
    path = with_silence(tmp_path / "pauses.wav", [(0.5, 3.5), (4.5, 7.5), (8.5, 11.5)])
    with pytest.raises(BadAudio, match="silent: none of its 3 windows is ever above -80 dB"):
        spooled(path, tmp_path)
    with pytest.raises(BadAudio, match=r"silent: 12\.0 s, never above -80 dB"):
        spooled(with_silence(tmp_path / "silence.wav", [(0, 12)]), tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"<html>" * 99, "not-audio"),
        (None, "missing"),
    ],
)
def test_what_is_no_audio_is_named_as_it_always_was(tmp_path, content, reason):
    path = tmp_path / "song.mp3"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadAudio, match=reason):
        spooled(path, tmp_path)


def test_longer_than_is_allowed_is_too_long(tmp_path):
    with (tmp_path / "spool").open("w+b") as spool, pytest.raises(BadAudio, match="too-long"):
        spool_windows(DEMO_TRACK, spool, mel=MEL, windows=WINDOWS, as_waves=False, max_duration_s=10.0)


def test_the_sandbox_gives_the_windows_of_one_file_after_the_other(tmp_path):
    sandbox = Sandbox(LimitSettings())
    for path in (DEMO_TRACK, in_format(tmp_path, ".flac", 44_100), DEMO_TRACK):
        decoded = sandbox.decode_windows(path, MEL, WINDOWS)
        for window, (start, mel_FM) in zip(decoded, spooled(path, tmp_path), strict=True):
            assert window.start_frame == start
            np.testing.assert_array_equal(window.read(0, window.frames), mel_FM)
    wave_S = sandbox.decode_windows(DEMO_TRACK, MEL, WINDOWS, as_waves=True)[0].read(0, 3)
    assert wave_S.shape == (2 * MEL.hop + MEL.window,)
    with pytest.raises(BadAudio, match="missing: no such file"):
        sandbox.decode_windows(Path("nowhere.mp3"), MEL, WINDOWS)
    sandbox.close()


def test_a_file_that_kills_its_decoder_costs_that_file_only(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", install_crashing_decoder(tmp_path))
    sandbox = Sandbox(LimitSettings())
    with pytest.raises(BadAudio, match="decoder-killed"):
        sandbox.decode_windows(write_crashing_mp3(tmp_path, "segfault"), MEL, WINDOWS)
    assert len(sandbox.decode_windows(DEMO_TRACK, MEL, WINDOWS)) == 3
    sandbox.close()
