"""How a studio is started: its address, its workspace, and what the machine behind it allows.

Read before anything heavy is imported, so that the port can answer at once: no pydantic here, no gradio.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from ipaddress import ip_address
from pathlib import Path
from typing import Literal, NoReturn, get_args

import platformdirs

from pipelines.errors import BadInput, UnknownName

Device = Literal["auto", "cpu", "cuda"]

PULSE = "/studio/pulse"
"""Where a page asks once a second whether anything changed."""
ABOUT = """The studio in the browser: Train Concept, Compose, Edit, Identity, Compare."""
ENVIRONMENT = """
Every option has a twin in the environment, which the option overrules: LIKENESS_HOST, LIKENESS_PORT,
LIKENESS_SHARE, LIKENESS_AUTH, LIKENESS_WORKSPACE, LIKENESS_BASE, LIKENESS_DEVICE, LIKENESS_ROOT_PATH and
LIKENESS_NO_BROWSER. A studio that others can reach asks for a password; LIKENESS_OPEN=1 leaves the door
open. LIKENESS_ALLOWED_HOSTS=name,name adds names under which it may be reached.
"""


@dataclass(frozen=True)
class Hosting:
    """Where the studio stands and what one visitor may ask of it; a limit of 0 is no limit.

    `uploads_mb` is the size of one upload (every file of it together), `photos` the number of photos in a
    set, `steps` the steps of one training or drawing, `pixels` the longer side of a picture, `pictures` the
    number of pictures a job, `keep_hours` how long a visitor's workspace stands after their last visit.
    """

    kind: Literal["local", "space", "zero"] = "local"
    gpu: bool = False
    uploads_mb: int = 0
    photos: int = 0
    steps: int = 0
    pixels: int = 0
    pictures: int = 0
    keep_hours: int = 0
    bases: Literal["all", "toybox"] = "all"


LOCAL = Hosting()
SPACE = Hosting("space", False, 64, 30, 400, 256, 8, 12, "toybox")
"""Two CPU cores for everybody: Toybox alone, and trainings of a few minutes."""
SPACE_GPU = Hosting("space", True, 128, 60, 3000, 1024, 16, 24, "all")
ZERO = Hosting("zero", True, 64, 30, 1500, 1024, 8, 12, "all")
"""A GPU by the minute, out of each visitor's own quota."""


def default_workspace(space: bool = False) -> Path:
    """The user's data folder, where `likeness` keeps its runs too.

    On a Space the system's temporary folder: what visitors bring is to be gone with the machine, and SQLite
    does not work on the network disks that can be attached.
    """
    if space:
        return Path(tempfile.gettempdir()) / "likeness-studio"
    return Path(platformdirs.user_data_dir("likeness-studio", appauthor=False))


@dataclass(frozen=True)
class Settings:
    """What the command line and the environment say about a studio; `workspace` may not exist yet."""

    host: str = "127.0.0.1"
    port: int = 7860
    share: bool = False
    auth: tuple[tuple[str, str], ...] = ()
    workspace: Path = field(default_factory=default_workspace)
    base: str = "toybox"
    device: str = "auto"
    root_path: str = ""
    browser: bool = True
    hosting: Hosting = LOCAL
    allowed_hosts: tuple[str, ...] = ()
    password: bool = True
    """Whether a studio that others can reach gets a password where none was chosen."""

    @property
    def open(self) -> bool:
        """Whether others than this machine's user may reach the page."""
        return self.hosting.kind != "local" or self.share or not is_loopback(self.host)


def from_words(
    words: list[str], environment: Mapping[str, str] | None = None, program: str = "likeness studio"
) -> Settings | None:
    """Command line words as settings, or None when help or the version was asked for and printed.

    What the words leave open comes from the environment. Raises BadInput or UnknownName.
    """
    table = os.environ if environment is None else environment
    try:
        said, unknown = parser(program).parse_known_args(words)
    except SystemExit:  # argparse printed help or the version
        return None
    if unknown:
        _refuse(unknown[0], program)
    found = {
        name.removeprefix("LIKENESS_").lower(): value
        for name, value in table.items()
        if value and name in TWINS
    }
    found |= {name: value for name, value in vars(said).items() if value is not None}
    hosting = hosting_of(table)
    space = hosting.kind != "local"
    workspace = found.get("workspace")
    return Settings(
        host=_host(found.get("host", "0.0.0.0" if space else "127.0.0.1")),  # noqa: S104 -- a Space's proxy
        port=_port(found.get("port", "7860")),
        share=_yes("share", found.get("share", "")) and not space,
        auth=_auth(found.get("auth", "")),
        workspace=Path(workspace).expanduser() if workspace else default_workspace(space),
        base=found.get("base", "toybox").strip() or "toybox",
        device="cuda" if hosting is ZERO else _device(found.get("device", "auto")),
        root_path=_root_path(found.get("root_path", "")),
        browser=not (space or _yes("no_browser", found.get("no_browser", ""))),
        hosting=hosting,
        allowed_hosts=tuple(_words(table.get("LIKENESS_ALLOWED_HOSTS", "").lower())),
        password=not _yes("open", table.get("LIKENESS_OPEN", "")),
    )


def parser(program: str = "likeness studio") -> argparse.ArgumentParser:
    """The options of the studio; each also has a twin in the environment, named in `TWINS`."""
    made = _Parser(prog=program, allow_abbrev=False, description=ABOUT, epilog=ENVIRONMENT)
    made.add_argument("--version", action="version", version=f"likeness {_version()}")
    add = made.add_argument
    add("--host", metavar="NAME", help="address to listen on; 0.0.0.0 for the whole network (127.0.0.1)")
    add("--port", metavar="N", help="port; the next free one of 20 is taken where it is in use (7860)")
    add(
        "--share",
        action="store_const",
        const="1",
        help="also give the studio a public link through Gradio's servers; it lasts for at most a week",
    )
    add("--auth", metavar="USER:PASSWORD", help="who may enter; several separated by commas")
    add("--workspace", metavar="DIR", help="folder of runs, uploads and the list of jobs")
    add("--base", metavar="NAME", help="the base model that is chosen at first (toybox)")
    add("--device", metavar="{auto,cpu,cuda}", help="where jobs run; auto takes a GPU if there is one")
    add("--root-path", metavar="PATH", help="path or address under which a proxy serves the studio")
    add("--no-browser", action="store_const", const="1", help="do not open the browser")
    return made


TWINS = frozenset(
    f"LIKENESS_{each}"
    for each in ("HOST", "PORT", "SHARE", "AUTH", "WORKSPACE", "BASE", "DEVICE", "ROOT_PATH", "NO_BROWSER")
)
"""The environment variables that stand for options."""


def hosting_of(environment: Mapping[str, str]) -> Hosting:
    """Where this process runs, as Hugging Face tells a Space by its environment."""
    if not environment.get("SPACE_ID"):
        return LOCAL
    if environment.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true"):
        return ZERO
    return SPACE_GPU if Path("/dev/nvidia0").exists() else SPACE


def is_loopback(host: str) -> bool:
    """Whether an address means this machine alone."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


class _Parser(argparse.ArgumentParser):
    """An argparse parser whose complaints have a remedy."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print."""
        raise BadInput(f"{message[:1].upper()}{message[1:]}.", f"See: {self.prog} --help")


def _refuse(word: str, program: str) -> NoReturn:
    if not word.startswith("-"):
        raise BadInput(f'"{word}" is one word too many.', f"See: {program} --help")
    flags = [each for action in parser()._actions for each in action.option_strings if each[:2] == "--"]
    raise UnknownName("option", word.partition("=")[0], flags)


def _host(text: str) -> str:
    host = text.strip().strip("[]")
    if not host or any(each.isspace() or each in "/@?#" for each in host):
        raise BadInput(
            f'"{text}" is no address to listen on.', "Give a name or a number, such as 127.0.0.1 (--host)."
        )
    return host


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) < 65536):
        raise BadInput(
            f'"{text}" is no port.', "Give a number from 1 to 65535; 0 takes any free one (--port)."
        )
    return int(text)


def _device(text: str) -> str:
    if text not in get_args(Device):
        raise UnknownName("device", text, get_args(Device))
    return text


def _auth(text: str) -> tuple[tuple[str, str], ...]:
    pairs = [each.partition(":") for each in _words(text)]
    for user, _, password in pairs:
        if not user.strip() or not password:
            raise BadInput(
                "--auth needs a name and a password for everybody who may enter.",
                "Write it as NAME:PASSWORD, several separated by commas.",
            )
    return tuple((user.strip(), password) for user, _, password in pairs)


def _root_path(text: str) -> str:
    path = text.strip().rstrip("/")
    if not path or path.startswith(("http://", "https://")):
        return path
    if any(each.isspace() or each in "?#" for each in path):
        raise BadInput(f'"{text}" is no path.', "Write it as /studio, or as a whole address (--root-path).")
    return f"/{path.lstrip('/')}"


def _yes(name: str, text: str) -> bool:
    word = text.strip().lower()
    if word in ("", "0", "false", "no", "off"):
        return False
    if word in ("1", "true", "t", "yes", "on"):
        return True
    raise BadInput(f'LIKENESS_{name.upper()} is "{text}".', "Set it to 1 or 0.")


def _words(text: str) -> list[str]:
    return [each.strip() for each in text.split(",") if each.strip()]


def _version() -> str:
    try:
        return version("likeness-studio")
    except PackageNotFoundError:
        return "(not installed)"
