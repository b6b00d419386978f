"""The audit of the lock: known vulnerabilities fail it, a database out of reach is said."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ladlib import audit
from ladlib.errors import UserError

LOCK = Path(__file__).parents[1] / "requirements.lock"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(asked)
        body = json.dumps(self.server.answer(asked["queries"])).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def database():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.status = [], 200
    server.answer = lambda queries: {"results": [{} for _ in queries]}
    server.url = f"http://127.0.0.1:{server.server_port}/v1/querybatch"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def lock(tmp_path):
    path = tmp_path / "lock"
    path.write_text("# pins\na==1.0 ; python_version > '3'\nb[extra]==2.0+cpu\n")
    return path


def test_every_pin_of_the_lock_is_asked_about(database):
    lines, is_clean = audit.audit(LOCK, database.url)
    pinned = [line for line in LOCK.read_text().splitlines() if "==" in line and not line.startswith("#")]
    assert is_clean and lines == [f"audited: {len(pinned)} pins, 0 vulnerabilities that are not accepted"]
    (asked,) = database.asked
    assert {"package": {"name": "torch", "ecosystem": "PyPI"}, "version": "2.13.0"} in asked["queries"]


def test_a_known_vulnerability_fails_unless_it_is_accepted_with_a_reason(database, lock, monkeypatch):
    database.answer = lambda queries: {"results": [{}, {"vulns": [{"id": "GHSA-1"}]}]}
    assert audit.audit(lock, database.url) == (
        ["b 2.0+cpu: GHSA-1", "audited: 2 pins, 1 vulnerabilities that are not accepted"], False,
    )  # fmt: skip
    monkeypatch.setitem(audit.ACCEPTED, "GHSA-1", "not reached from here")
    lines, is_clean = audit.audit(lock, database.url)
    assert is_clean and lines[0] == "b 2.0+cpu: GHSA-1, accepted: not reached from here"


@pytest.mark.parametrize("answer", [[], {}, {"results": []}, {"results": "no"}])
def test_an_answer_in_another_form_is_no_audit(database, lock, answer):
    database.answer = lambda queries: answer
    (line,), _ = audit.audit(lock, database.url)
    assert line.startswith("not audited: ")


def test_a_database_out_of_reach_is_said_in_one_line(database, lock):
    database.status = 503
    for url in (database.url, "http://127.0.0.1:9/v1/querybatch"):
        (line,), is_clean = audit.audit(lock, url)
        assert line.startswith(f"not audited: {url} gives no answer (") and "\n" not in line and is_clean


def test_a_file_without_pins_is_refused(tmp_path):
    (tmp_path / "empty").write_text("torch>=2\n")
    with pytest.raises(UserError, match="holds no pins"):
        audit.read_pins(tmp_path / "empty")
