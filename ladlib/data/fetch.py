"""One file over HTTP, resumed where an earlier attempt or run broke off, kept only with the right checksum.

What has arrived lies in ``<name>.part`` beside the file, and the rest is asked for with HTTP's Range
(RFC 9110, section 14). pooch 1.9 checks the same SHA-256, but downloads into a temporary file that no later
call finds again, and never asks for a range: after an interruption it begins 6 GB anew.
"""

import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from ladlib.data.images import sha256
from ladlib.errors import UserError
from ladlib.progress import Progress

MB = 1_000_000
ATTEMPTS = 5  # in a row that bring nothing, before a link is given up
PAUSE = 1.0  # seconds before the second attempt, doubled before each further one
TIMEOUT = httpx.Timeout(60.0, connect=15.0)  # seconds without a byte
BUSY = frozenset({408, 425, 429})  # and everything from 500: worth another attempt


class Unavailable(Exception):
    """No link gives the file. ``str()`` says what each of them answered."""


class _Refused(Exception):
    """A link answers, and not with the file."""


class _Busy(Exception):
    """A link may give the file later."""


def fetch(urls: tuple[str, ...], path: Path, expected: str) -> None:
    """Bring the file with the SHA-256 ``expected`` to ``path``, from the first of ``urls`` that gives it.

    Raises :class:`Unavailable` where none does; what has arrived stays for the next call. Raises
    :class:`UserError` for a wrong checksum; then nothing stays.
    """
    part, answers = part_of(path), []
    for url in urls:
        try:
            _fill(url, part, path.name)
        except _Refused as error:
            answers.append(f"{urlsplit(url).hostname}: {error}")
        else:
            return _keep(part, path, expected)
    raise Unavailable("; ".join(answers))


def part_of(path: Path) -> Path:
    """Where the bytes of ``path`` lie until all of them are there."""
    return path.with_name(f"{path.name}.part")


def arrived(path: Path) -> int:
    """How many bytes of the file ``path`` are there, whole or in part."""
    return next((one.stat().st_size for one in (path, part_of(path)) if one.is_file()), 0)


def _fill(url: str, part: Path, title: str) -> None:
    """Fetch what ``part`` lacks, as often as it takes while something arrives."""
    failures = 0
    while True:
        before = _size(part)
        try:
            return _receive(url, part, title)
        except (httpx.RequestError, _Busy) as error:
            failures = 1 if _size(part) > before else failures + 1
            if failures >= ATTEMPTS:
                raise _Refused(str(error) or type(error).__name__) from error
            time.sleep(PAUSE * 2 ** (failures - 1))


def _receive(url: str, part: Path, title: str) -> None:
    have = _size(part)
    # As it lies there: a range of bytes that were compressed on the way is a range of another file.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with httpx.stream("GET", url, headers=headers, follow_redirects=True, timeout=TIMEOUT) as response:
        if have and response.status_code == 416:
            return  # nothing lies beyond what is there: the checksum decides
        begun = _begin(response, have)
        _write(response, part, begun, title)


def _begin(response: httpx.Response, have: int) -> int:
    """The first byte of the file that ``response`` brings: ``have``, or 0 from a server without ranges."""
    status = response.status_code
    if status in BUSY or status >= 500:
        raise _Busy(f"HTTP {status}")
    if status not in (200, 206):
        raise _Refused(f"HTTP {status}")
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise _Refused("a web page instead of the file")
    if status == 206 and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        raise _Refused("another range than the one asked for")
    return have if status == 206 else 0


def _write(response: httpx.Response, part: Path, begun: int, title: str) -> None:
    length = int(response.headers.get("Content-Length", 0))  # 0: the server does not tell, and neither do we
    progress, done = Progress(title, "MB", (begun + length) // MB, begun // MB), begun
    part.parent.mkdir(parents=True, exist_ok=True)
    with part.open("ab" if begun else "wb") as file:
        for block in response.iter_bytes():
            file.write(block)
            told, done = done // MB, done + len(block)
            if length and done // MB > told:
                progress.tell(done // MB)


def _keep(part: Path, path: Path, expected: str) -> None:
    print(f"{path.name}: checking the SHA-256")
    found = sha256(part)
    if found != expected:
        part.unlink()
        raise UserError(
            f"{path.name} arrived with the SHA-256 {found}, not the published {expected}; nothing of it was kept.",
            "Run the command again; if the same happens, the link serves another file.",
        )
    part.replace(path)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
