"""Downloading a dataset, from a real server on this machine that cuts, refuses and lies as real ones do."""

import hashlib
import io
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from layouts import write_visa
from typer.testing import CliRunner

from ladlib.cli import app
from ladlib.data import fetch, sources
from ladlib.data.check import check
from ladlib.data.download import download
from ladlib.data.layout import FOLDERS, RECOGNISE
from ladlib.data.sources import Source, SourceFile, read_sources
from ladlib.data.unpack import unpack
from ladlib.errors import UserError
from ladlib.progress import Progress


class Handler(BaseHTTPRequestHandler):
    """Serves ``server.content`` with ranges; ``server.behave`` changes one answer after the other."""

    def do_GET(self):
        asked = self.headers.get("Range", "")
        self.server.asked.append(asked)
        behave = self.server.behave.pop(0) if self.server.behave else {}
        if "status" in behave or "page" in behave:
            return self._answer(behave.get("status", 200), b"<html>", {"Content-Type": "text/html"})
        content, start = self.server.content, int(re.sub(r"\D", "", asked) or 0)
        if behave.get("ranges") is False or not asked:
            return self._answer(200, content, {}, behave)
        if start >= len(content):
            return self._answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
        headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        self._answer(206, content[start:], headers, behave)

    def _answer(self, status, body, headers, behave=None):
        behave = behave or {}
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: behave.get("cut", len(body))])
        self.wfile.flush()
        if "stall" in behave:
            behave["stall"].wait(30)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(fetch, "PAUSE", 0.0)
    one = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    one.daemon_threads = True
    one.content, one.behave, one.asked = visa_tar(), [], []
    one.url = f"http://127.0.0.1:{one.server_port}/VisA.tar"
    threading.Thread(target=one.serve_forever, args=(0.01,), daemon=True).start()
    yield one
    one.shutdown()
    one.server_close()


def visa_tar(extra=(), top=""):
    """An archive in VisA's layout, about 600 kB; ``extra`` members follow."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in (("split_csv/1cls.csv", b"object,split\n"), ("pcb4/noise.bin", os.urandom(600_000))):
            add(tar, top + name, content)
        for member in extra:
            tar.addfile(member)
    return file.getvalue()


def add(tar, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def link(name, target, kind=tarfile.SYMTYPE):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def source_of(content, *urls, unpacked=2_000_000, name="VisA.tar"):
    digest = hashlib.sha256(content).hexdigest()
    file = SourceFile(name=name, size=len(content), unpacked=unpacked, sha256=digest, urls=urls)
    return read_sources()["visa"].model_copy(update={"files": (file,)})


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


WHOLE = ["VisA.tar", "visa/pcb4/noise.bin", "visa/split_csv/1cls.csv"]


def test_an_archive_is_fetched_checked_and_unpacked_into_the_folder_that_check_reads(server, tmp_path):
    assert download("visa", source_of(server.content, server.url), tmp_path) == tmp_path / "visa"
    assert names(tmp_path) == WHOLE
    assert server.asked == [""]


def test_a_second_call_fetches_nothing(server, tmp_path, capsys):
    source = source_of(server.content, server.url)
    download("visa", source, tmp_path)
    download("visa", source, tmp_path)
    assert len(server.asked) == 1
    assert f"{tmp_path / 'visa'} is there already." in capsys.readouterr().out


def test_a_cut_connection_is_resumed_where_it_was_cut(server, tmp_path):
    server.behave = [{"cut": 200_000}, {"cut": 150_000}]
    download("visa", source_of(server.content, server.url), tmp_path)
    assert server.asked == ["", "bytes=200000-", "bytes=350000-"]
    assert names(tmp_path) == WHOLE


def test_a_killed_download_goes_on_in_the_next_run(server, tmp_path):
    stall = threading.Event()
    server.behave = [{"cut": 300_000, "stall": stall}]
    digest = hashlib.sha256(server.content).hexdigest()
    code = (
        "import sys, pathlib; from ladlib.data.fetch import fetch; "
        "fetch((sys.argv[1],), pathlib.Path(sys.argv[2]), sys.argv[3])"
    )
    path = tmp_path / "VisA.tar"
    process = subprocess.Popen([sys.executable, "-c", code, server.url, str(path), digest])
    wait_until(lambda: fetch.arrived(path) >= 200_000)
    process.send_signal(signal.SIGKILL)
    process.wait()
    stall.set()
    begun = fetch.arrived(path)
    download("visa", source_of(server.content, server.url), tmp_path)
    assert server.asked == ["", f"bytes={begun}-"]
    assert names(tmp_path) == WHOLE


def wait_until(true, seconds=20):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_time_left_is_that_of_the_bytes_of_this_run(capsys):
    progress = Progress("VisA.tar", "MB", total=100, begun=80)
    progress.started -= 10.0
    progress.tell(90)
    assert capsys.readouterr().out == "VisA.tar · MB 90/100 · about 0:10 left\n"


def test_a_server_without_ranges_begins_anew(server, tmp_path):
    server.behave = [{"cut": 200_000}, {"ranges": False}]
    download("visa", source_of(server.content, server.url), tmp_path)
    assert names(tmp_path) == WHOLE


def test_a_busy_server_is_asked_again(server, tmp_path):
    server.behave = [{"status": 503}, {"status": 429}]
    download("visa", source_of(server.content, server.url), tmp_path)
    assert len(server.asked) == 3


def test_a_wrong_checksum_keeps_nothing_and_says_so(server, tmp_path):
    source = source_of(b"something else", server.url)
    with pytest.raises(UserError, match="SHA-256 .* not the published .*nothing of it was kept"):
        download("visa", source, tmp_path)
    assert names(tmp_path) == []


def test_a_file_put_by_hand_is_used_and_refused_with_a_wrong_checksum(server, tmp_path):
    (tmp_path / "VisA.tar").write_bytes(server.content)
    download("visa", source_of(server.content, server.url), tmp_path)
    assert server.asked == []
    shutil.rmtree(tmp_path / "visa")
    (tmp_path / "VisA.tar").write_bytes(b"half")
    with pytest.raises(UserError, match="Remove it"):
        download("visa", source_of(server.content, server.url), tmp_path)


def test_the_second_link_serves_where_the_first_is_dead(server, tmp_path):
    server.behave = [{"status": 404}]
    download("visa", source_of(server.content, server.url, server.url), tmp_path)
    assert names(tmp_path) == WHOLE


@pytest.mark.parametrize(
    ("behave", "answer"), [({"status": 403}, "HTTP 403"), ({"page": True}, "a web page instead of the file")]
)
def test_a_gated_source_says_what_to_fetch_by_hand_and_where_to_put_it(server, tmp_path, capsys, behave, answer):
    server.behave = [behave]
    source = source_of(server.content, server.url)
    with pytest.raises(UserError, match=f"127.0.0.1: {answer}.*Fetch it by hand"):
        download("visa", source, tmp_path)
    told = capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    assert f"VisA.tar (0.6 MB) as {tmp_path / 'VisA.tar'}" in told
    assert source.page in told
    assert str(tmp_path / "visa") in told and "split_csv/1cls.csv" in told


def test_a_connection_that_stays_away_keeps_what_has_arrived(server, tmp_path):
    server.behave = [{"cut": 200_000}, *[{"status": 500}] * fetch.ATTEMPTS]
    with pytest.raises(UserError, match=r"HTTP 500.*0\.2 MB stay"):
        download("visa", source_of(server.content, server.url), tmp_path)
    assert fetch.arrived(tmp_path / "VisA.tar") == 200_000


def test_a_disk_that_is_too_small_is_refused_with_numbers_before_the_first_byte(server, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=300_000_000))
    source = source_of(server.content, server.url, unpacked=5_000_000_000)
    with pytest.raises(
        UserError, match=r"needs 5\.0 GB \(0\.6 MB to download and 5\.0 GB unpacked\).* has 0\.3 GB free"
    ):
        download("visa", source, tmp_path / "new" / "folder")
    assert server.asked == []


def test_what_has_arrived_needs_no_more_room(server, tmp_path, monkeypatch):
    fetch.part_of(tmp_path / "VisA.tar").write_bytes(server.content[:500_000])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2_300_000))
    download("visa", source_of(server.content, server.url), tmp_path)
    assert server.asked == ["bytes=500000-"]


def test_plain_files_are_put_into_the_folder_of_the_dataset(server, tmp_path):
    source = source_of(server.content, server.url, unpacked=0, name="mmad.json")
    assert download("mmad", source, tmp_path) == tmp_path / "mmad"
    assert names(tmp_path) == ["mmad/mmad.json"]


# Unpacking


def write_tar(path, *extra, top=""):
    path.write_bytes(visa_tar(extra, top))
    return path


EVIL = {
    "parent": tarfile.TarInfo("../evil"),
    "inner parent": tarfile.TarInfo("pcb4/../../evil"),
    "absolute": tarfile.TarInfo("/tmp/evil"),
    "windows": tarfile.TarInfo("C:\\evil"),
    "link out": link("evil", "../../evil"),
    "absolute link": link("evil", "/etc/passwd"),
    "hard link out": link("evil", "../evil", tarfile.LNKTYPE),
    "device": link("evil", "", tarfile.CHRTYPE),
}


@pytest.mark.parametrize("member", EVIL.values(), ids=EVIL.keys())
def test_a_member_that_leads_outside_is_refused_and_leaves_nothing(tmp_path, member):
    archive = write_tar(tmp_path / "VisA.tar", member)
    with pytest.raises(UserError, match="evil"):
        unpack(archive, tmp_path / "out" / "visa", RECOGNISE["visa"])
    assert names(tmp_path) == ["VisA.tar"]
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(("name", "mode"), [("../evil", 0o644), ("/tmp/evil", 0o644), ("evil", 0o120777)])
def test_a_zip_is_unpacked_and_one_that_leads_outside_is_refused(tmp_path, name, mode):
    path = tmp_path / "VisA.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("split_csv/1cls.csv", "object,split\n")
    unpack(path, tmp_path / "visa", RECOGNISE["visa"])
    assert names(tmp_path / "visa") == ["split_csv/1cls.csv"]
    with zipfile.ZipFile(path, "a") as archive:
        member = zipfile.ZipInfo(name)
        member.external_attr = mode << 16
        archive.writestr(member, "/etc/passwd")
    with pytest.raises(UserError, match="evil"):
        unpack(path, tmp_path / "other", RECOGNISE["visa"])
    assert not (tmp_path / "other").exists()


def test_what_a_killed_extraction_left_is_cleared(tmp_path):
    (tmp_path / ".visa.unpacking" / "half").mkdir(parents=True)
    unpack(write_tar(tmp_path / "VisA.tar"), tmp_path / "visa", RECOGNISE["visa"])
    assert names(tmp_path) == WHOLE
    assert not (tmp_path / ".visa.unpacking").exists()


def test_an_archive_with_one_folder_around_all_gives_the_folder_inside(tmp_path):
    unpack(write_tar(tmp_path / "VisA.tar", top="VisA/"), tmp_path / "visa", RECOGNISE["visa"])
    assert names(tmp_path) == WHOLE


def test_a_broken_archive_and_one_of_something_else_leave_no_folder(tmp_path):
    archive = write_tar(tmp_path / "VisA.tar")
    with pytest.raises(UserError, match="does not hold the dataset"):
        unpack(archive, tmp_path / "mvtec", RECOGNISE["mvtec_ad"])
    archive.write_bytes(archive.read_bytes()[:100_000])
    with pytest.raises(UserError, match="cannot be unpacked"):
        unpack(archive, tmp_path / "visa", RECOGNISE["visa"])
    assert names(tmp_path) == ["VisA.tar"]


# The command and its table


@pytest.fixture
def served(server, monkeypatch):
    """The committed table, with VisA from the server."""
    table = read_sources() | {"visa": source_of(server.content, server.url)}
    monkeypatch.setattr(sources, "read_sources", lambda: table)
    return server


def test_the_command_shows_the_licence_downloads_and_names_the_check(served, tmp_path):
    result = CliRunner().invoke(app, ["data", "download", "visa", "--out", str(tmp_path), "--accept-licence"])
    assert result.exit_code == 0, result.output
    assert "CC BY 4.0" in result.output.splitlines()[0]
    assert result.output.splitlines()[-1] == f"Check it: ladlib data check {tmp_path / 'visa'}"
    assert names(tmp_path) == WHOLE


def test_without_a_terminal_a_licence_that_is_not_accepted_is_refused(served, tmp_path):
    result = CliRunner().invoke(app, ["data", "download", "visa", "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert "--accept-licence" in result.stderr and len(result.stderr.splitlines()) == 1
    assert served.asked == [] and names(tmp_path) == []


def test_on_a_terminal_the_licence_is_asked_for(tmp_path):
    terminal, other_end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "ladlib", "data", "download", "mmad", "--out", str(tmp_path)],
        stdin=other_end, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.write(terminal, b"n\n")
    told, error = process.communicate(timeout=60)
    os.close(terminal), os.close(other_end)
    assert "Do you accept this licence?" in told
    assert process.returncode == 2 and "was not accepted" in error
    assert names(tmp_path) == []


def test_every_committed_file_has_a_checksum_a_size_and_a_safe_link():
    assert list(read_sources()) == list(FOLDERS)
    for source in read_sources().values():
        for file in source.files:
            assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
            assert file.size > 0 and file.urls
            assert all(url.startswith("https://") for url in file.urls)


def test_the_layout_that_is_told_is_one_that_check_takes_for_the_dataset(tmp_path):
    for dataset, source in read_sources().items():
        folder = tmp_path / FOLDERS[dataset]
        for line in source.layout:
            path = folder / re.sub(r"\{(\w+),\w+\}", r"\1", line.replace("<", "").replace(">", ""))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        assert RECOGNISE[dataset](folder), dataset


def test_a_downloaded_copy_passes_on_to_check(server, tmp_path):
    write_visa(tmp_path / "drawn")
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.add(tmp_path / "drawn", arcname=".")
    server.content = file.getvalue()
    folder = download("visa", source_of(server.content, server.url), tmp_path)
    assert {one.dataset for one in check(folder)} == {"visa"}


def test_unknown_keys_in_the_table_are_refused():
    values = read_sources()["visa"].model_dump()
    with pytest.raises(ValueError, match="mirror"):
        Source.model_validate(values | {"mirror": "x"})
