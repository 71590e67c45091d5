"""The native libraries that decode and resample audio."""

import av
import soundfile
import soxr


def library_versions() -> dict[str, str]:
    """Load the libraries; return their versions."""
    avcodec = ".".join(map(str, av.library_versions["libavcodec"]))
    return {
        "libsndfile": soundfile.__libsndfile_version__,
        "FFmpeg's libavcodec": avcodec,
        "soxr": soxr.__libsoxr_version__,
    }
