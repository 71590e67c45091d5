"""Values as text for people, and the environment of the page templates."""

import base64
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jinja2


def percent(share: float) -> str:
    """Return a share as a percentage; with a decimal where it would be rounded to none or all."""
    whole = f"{share:.0%}"
    if whole in ("0%", "100%") and share not in (0.0, 1.0):
        whole = f"{min(max(share, 0.001), 0.999):.1%}"
    return whole.replace("%", "\N{NARROW NO-BREAK SPACE}%")


def format_setting(value: Any) -> str:
    """Return the value of a setting as text."""
    match value:
        case None:
            return "not set"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.6g}"
        case list() | tuple():
            return ", ".join(map(str, value))
        case _:
            return str(value)


def join_names(names: Sequence[str]) -> str:
    """Return "a, b and c"."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def data_uri(png: bytes) -> str:
    """Return a picture as a URL that contains it."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def make_environment(finalize: Callable[[Any], Any] | None = None) -> jinja2.Environment:
    """Return the environment of this folder's templates; `finalize` is applied to every value that is shown."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "join_names": join_names}
    return environment
