"""URLs in settings, which are stored with models and shown in the Prefect UI: they may not contain a password."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator


def has_password(url: str) -> bool:
    """Return whether a URL contains a password: ftp://USER:PASSWORD@HOST, also behind another protocol."""
    return any(
        "@" in authority and ":" in authority.rpartition("@")[0]
        for authority in (part.split("/", 1)[0] for part in url.split("://")[1:])
    )


def hide_password(url: str) -> str:
    """Return a URL without user name and password."""
    scheme, separator, rest = url.partition("://")
    return scheme + separator + rest.rpartition("@")[2]


def refuse_password(url: str) -> str:
    """Raises: ValueError if a URL contains a password; its message does not repeat it."""
    if has_password(url):
        host = urlsplit("//" + url.split("://", 1)[1]).netloc.rpartition("@")[2]
        raise ValueError(
            f"the URL of {host} contains a password, which would be stored with the results; set it in the environment "
            "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)"
        )
    return url


Location = Annotated[str, AfterValidator(refuse_password)]  # a folder or a URL
