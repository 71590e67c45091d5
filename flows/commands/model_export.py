"""The network of a model version exported as an ONNX file."""

from store.fs.files import absolute, last_part
from store.model_registry import resolve_version
from training.inference.model_version import read_identity
from training.inference.onnx_export import export_onnx


def export_model(root: str, which: str, target: str) -> str:
    """Write the network of a version as an ONNX file, compared with the network first; return a line.

    Raises: BadInput if there is no such version, the two differ, or the extra `onnx` is not installed.
    """
    url = resolve_version(root, which)
    worst = export_onnx(url, read_identity(url), absolute(target))
    version = last_part(url)
    return f"{target}: ONNX of {version}; its logits differ by {worst:.0e} at most (input in dB)"
