"""The environment that Prefect reads when it is imported, corrected for this machine before that."""

import os
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from flows.security.addresses import LOOPBACK_HOSTS

HEARTBEATS = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}  # s; by them a run whose host died becomes Crashed
HOME_IN_WORKING_FOLDER = Path("data", "prefect")  # beside data/store and data/models
UI_VARIABLES = {"PREFECT_SERVER_UI_STATIC_DIRECTORY", "PREFECT_UI_STATIC_DIRECTORY"}


def bypass_proxies_on_loopback() -> None:
    """Exempt this machine from the proxies of the environment, for this process and those that it starts.

    HTTP clients follow HTTP_PROXY and ALL_PROXY for 127.0.0.1 too, and a proxy on another host cannot reach it.
    Both spellings are set: of two, most programs read the one in small letters.
    """
    before = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = [host for host in before.split(",") if host.strip()]
    missing = [host for host in LOOPBACK_HOSTS if host not in map(str.strip, hosts)]
    if "*" not in map(str.strip, hosts) and missing:
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join([*hosts, *missing])


def share_auth_string() -> None:
    """Have this process's requests authenticated as the server that it starts wants them.

    A client reads another variable than the server. One that is set is left as it is.
    """
    auth_string = os.environ.get("PREFECT_SERVER_API_AUTH_STRING")
    if auth_string and not os.environ.get("PREFECT_API_URL"):
        os.environ.setdefault("PREFECT_API_AUTH_STRING", auth_string)


def choose_prefect_home() -> None:
    """Have Prefect use a folder in the working folder if the home of this user cannot be written.

    Profiles of the home stay in use, since they may name a server. A PREFECT_HOME that was set is left as it is.
    """
    if "PREFECT_HOME" in os.environ:
        return
    home = Path("~/.prefect").expanduser()
    if is_writable(home) or not is_writable(HOME_IN_WORKING_FOLDER):
        return
    os.environ["PREFECT_HOME"] = str(HOME_IN_WORKING_FOLDER.absolute())
    if (home / "profiles.toml").is_file():
        os.environ.setdefault("PREFECT_PROFILES_PATH", str(home / "profiles.toml"))


def choose_prefect_ui_folder() -> None:
    """Have Prefect copy its UI below its home if this user cannot write into the installation, its default.

    Otherwise it serves the API alone. A folder that was set is left as it is.
    """
    prefect = find_spec("prefect")
    if UI_VARIABLES & os.environ.keys() or prefect is None or prefect.origin is None:
        return
    if not is_writable(Path(prefect.origin).with_name("server")):
        home = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()
        os.environ["PREFECT_SERVER_UI_STATIC_DIRECTORY"] = str(home.absolute() / "ui")


def choose_matplotlib_folder() -> None:
    """Have matplotlib keep its list of fonts in the working folder if the home of this user cannot be written."""
    folder = HOME_IN_WORKING_FOLDER.with_name("matplotlib")
    if not is_writable(Path("~/.config").expanduser()) and is_writable(folder):
        os.environ.setdefault("MPLCONFIGDIR", str(folder.absolute()))


def make_prefect_home() -> None:
    """Create the folder that was chosen: Prefect creates none below one that does not exist."""
    if "PREFECT_HOME" in os.environ:
        with suppress(OSError):  # reported when the server is to be started
            Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)


def is_writable(folder: Path) -> bool:
    """Return whether this user may write into a folder, or create it."""
    existing = next(
        (it for it in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(it)), None
    )
    return existing is not None and existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
