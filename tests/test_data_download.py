"""Downloading a dataset, from a real server on this machine that cuts, refuses and lies as real ones do."""

import hashlib
import io
import os
import re
import shutil
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from ladlib.cli import app
from ladlib.data import download as downloads
from ladlib.data.download import download, read_sources, unpack
from ladlib.data.layout import FOLDERS
from ladlib.errors import UserError

WHOLE = ["VisA.tar", "visa/pcb4/noise.bin", "visa/split_csv/1cls.csv"]


class Handler(BaseHTTPRequestHandler):
    """Serves ``server.content``; ``server.behave`` changes one answer after the other."""

    def do_GET(self):
        self.server.asked += 1
        behave = self.server.behave.pop(0) if self.server.behave else {}
        body = b"<html>" if "status" in behave or "page" in behave else self.server.content
        body *= behave.get("times", 1)
        self.send_response(behave.get("status", 200))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: behave.get("cut", len(body))])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between attempts
    one = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    one.daemon_threads = True
    one.content, one.behave, one.asked = visa_tar(), [], 0
    one.url = f"http://127.0.0.1:{one.server_port}/VisA.tar"
    threading.Thread(target=one.serve_forever, args=(0.01,), daemon=True).start()
    yield one
    one.shutdown()
    one.server_close()


def visa_tar(top=""):
    """An archive in VisA's layout, about 600 kB."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in (("split_csv/1cls.csv", b"object,split\n"), ("pcb4/noise.bin", os.urandom(600_000))):
            member = tarfile.TarInfo(top + name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def source_of(content, *urls, unpacked=2_000_000):
    digest = hashlib.sha256(content).hexdigest()
    file = {"name": "VisA.tar", "size": len(content), "unpacked": unpacked, "sha256": digest, "urls": urls}
    return read_sources()["visa"] | {"files": [file]}


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_an_archive_is_fetched_checked_and_unpacked_once(server, tmp_path, capsys):
    source = source_of(server.content, server.url)
    assert download("visa", source, tmp_path) == download("visa", source, tmp_path) == tmp_path / "visa"
    assert names(tmp_path) == WHOLE and server.asked == 1
    assert f"{tmp_path / 'visa'} exists already." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("behave", "links"), [([{"cut": 200_000}, {"status": 503}], 1), ([{"page": True}], 1), ([{"status": 404}] * 4, 2)]
)
def test_cut_connections_and_busy_servers_are_asked_again_and_a_dead_link_has_a_successor(
    server, tmp_path, behave, links
):
    server.behave = list(behave)
    download("visa", source_of(server.content, *[server.url] * links), tmp_path)
    assert names(tmp_path) == WHOLE and server.asked == len(behave) + 1


@pytest.mark.parametrize(
    ("behave", "answer"),
    [
        ({"status": 403}, "HTTP 403"),
        ({"page": True}, "another file than the published one"),
        ({"times": 9}, "more than the published file"),
    ],
)
def test_a_gated_source_says_what_to_download_by_hand_and_keeps_nothing(server, tmp_path, capsys, behave, answer):
    server.behave = [behave] * 9
    source = source_of(server.content, server.url)
    with pytest.raises(UserError, match=f"127.0.0.1: {answer}.*by hand"):
        download("visa", source, tmp_path)
    printed = capsys.readouterr().out
    assert names(tmp_path) == []
    assert f"VisA.tar (0.6 MB) as {tmp_path / 'VisA.tar'}" in printed and source["page"] in printed


def test_a_file_put_by_hand_is_used_and_refused_with_a_wrong_checksum(server, tmp_path):
    (tmp_path / "VisA.tar").write_bytes(server.content)
    download("visa", source_of(server.content, server.url), tmp_path)
    shutil.rmtree(tmp_path / "visa")
    (tmp_path / "VisA.tar").write_bytes(b"half")
    with pytest.raises(UserError, match="Remove it"):
        download("visa", source_of(server.content, server.url), tmp_path)
    assert server.asked == 0


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.write_text("")])
def test_something_else_in_the_place_of_a_dataset_is_one_line(server, tmp_path, make):
    make(tmp_path / "visa")
    with pytest.raises(UserError, match="visa exists, but does not hold VisA.tar"):
        download("visa", source_of(server.content, server.url), tmp_path)
    assert server.asked == 0


def test_a_disk_that_is_too_small_is_refused_with_numbers_before_the_first_byte(server, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=300_000_000))
    source = source_of(server.content, server.url, unpacked=5_000_000_000)
    with pytest.raises(UserError, match=r"needs 5\.0 GB, and .* has 0\.3 GB free"):
        download("visa", source, tmp_path / "new" / "folder")
    assert server.asked == 0


# Unpacking (unsafe and broken archives: tests/rotten.py)


@pytest.mark.parametrize("top", ["", "VisA/"])
def test_the_dataset_is_found_in_the_archives_only_folder_and_what_a_killed_call_left_is_cleared(tmp_path, top):
    (tmp_path / ".visa.unpacking" / "half").mkdir(parents=True)
    (tmp_path / "VisA.tar").write_bytes(visa_tar(top=top))
    unpack(tmp_path / "VisA.tar", tmp_path / "visa", "visa")
    assert names(tmp_path) == WHOLE and not (tmp_path / ".visa.unpacking").exists()


# The command and its table


def test_the_command_shows_the_licence_and_downloads_only_once_it_is_accepted(server, tmp_path, monkeypatch):
    table = read_sources() | {"visa": source_of(server.content, server.url)}
    monkeypatch.setattr(downloads, "read_sources", lambda: table)
    command = ["data", "download", "visa", "--out", str(tmp_path)]
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 2 and "--accept-licence" in refused.stderr and len(refused.stderr.splitlines()) == 1
    assert server.asked == 0 and names(tmp_path) == []
    result = CliRunner().invoke(app, [*command, "--accept-licence"])
    assert result.exit_code == 0, result.output
    assert "CC BY 4.0" in result.output.splitlines()[0] and names(tmp_path) == WHOLE
    assert result.output.splitlines()[-1] == f"Check it: ladlib data check {tmp_path / 'visa'}"


def test_every_committed_file_has_a_checksum_a_size_and_a_safe_link():
    assert list(read_sources()) == list(FOLDERS)
    for source in read_sources().values():
        for file in source["files"]:
            assert re.fullmatch(r"[0-9a-f]{64}", file["sha256"]) and file["size"] > 0
            assert file["urls"] and all(url.startswith("https://") for url in file["urls"])
