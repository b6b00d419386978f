"""A server on this machine that speaks OpenAI's chat completions, and fails in the ways that real ones do."""

import base64
import hashlib
import io
import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image

ANSWER = "<think>made up</think><answer>{}</answer>"
TROUBLES = (
    "stall", "429", "429 with a time", "500", "cut", "malformed", "no choices", "refusal", "filter", "hang up",
    "drip",
)  # fmt: skip


class ChatServer(ThreadingHTTPServer):
    """Counts what each pair was asked and given; ``trouble(number, attempt)`` names what goes wrong, "" nothing.

    ``number`` counts pairs in the order in which they first came, ``attempt`` the requests for that pair.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.trouble = lambda number, attempt: ""
        self.asked, self.given = Counter(), Counter()  # by the hash of the test image's data URL
        self.numbers, self.bodies, self.keys, self.paths = {}, [], set(), set()
        self.lock, self.release = threading.Lock(), threading.Event()
        self.logprobs, self.echo = True, ""
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def count(self, pair):
        """(number, attempt) of the request for ``pair`` that came now."""
        with self.lock:
            self.asked[pair] += 1
            return self.numbers.setdefault(pair, len(self.numbers)), self.asked[pair]

    def close(self):
        self.release.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        pass  # a client that gave up or was killed


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        self.server.keys.add(self.headers.get("Authorization"))
        self.server.paths.add(self.path)
        self.pair = pair_of(body)
        number, attempt = self.server.count(self.pair)
        trouble = self.server.trouble(number, attempt)
        if trouble:
            getattr(self, f"_{trouble.replace(' ', '_')}")(number)
        else:
            self._answer(completion(number, body, self.server))

    def _stall(self, number):
        self.server.release.wait(20)
        self.close_connection = True

    def _429(self, number):
        self._send(429, {"error": {"message": "slow down", "code": "rate_limit_exceeded"}})

    def _429_with_a_time(self, number):
        self._send(429, {"error": {"message": "slow down"}}, {"Retry-After": "0.3"})

    def _429_for_a_day(self, number):
        self._send(429, {"error": {"message": "daily quota"}}, {"Retry-After": "86400"})

    def _no_credit(self, number):
        self._send(429, {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}})

    def _500(self, number):
        self._write(500, b"<html>oops</html>", "text/html")

    def _cut(self, number):
        self._write(200, b'{"choices": [{"mess', "application/json", length=400)
        self.close_connection = True

    def _drip(self, number):
        self._write(200, b"\n", "application/json", length=10_000)
        while not self.server.release.wait(0.05):
            self.wfile.write(b"\n")  # until the client has gone

    def _hang_up(self, number):
        self.close_connection = True
        self.connection.close()

    def _malformed(self, number):
        self._write(200, b'{"choices": [{"message": {"content": "<think>', "application/json")

    def _no_choices(self, number):
        self._send(200, {"error": {"message": "upstream failed"}, "choices": []})

    def _refusal(self, number):
        self._answer(choice({"content": None, "refusal": "I cannot judge this product."}))

    def _filter(self, number):
        self._answer(choice({"content": "<think>the produ"}, finish="content_filter"))

    def _filtered_prompt(self, number):
        self._given()
        self._send(400, {"error": {"message": "The prompt was filtered.", "code": "content_filter"}})

    def _400(self, number):
        self._send(400, {"error": {"message": f"bad image {self.server.echo}", "type": "BadRequestError"}})

    def _401(self, number):
        self._send(401, {"error": {"message": f"Incorrect API key provided: {self.server.echo}"}})

    def _escaped_key(self, number):
        text = f'{{"choices": [{{"message": {{"content": "a {escaped(self)} b"}}}}]}}'
        self._given()
        self._write(200, text.encode(), "application/json")

    def _escaped_error(self, number):
        self._write(401, f'{{"error": {{"message": "a {escaped(self)} b"}}}}'.encode(), "application/json")

    def _redirect(self, number):
        self._send(307, {}, {"Location": "/elsewhere"})

    def _404(self, number):
        self._send(404, {"error": {"message": "The model does not exist."}})

    def _answer(self, body):
        self._given()
        self._send(200, body)

    def _given(self):
        with self.server.lock:
            self.server.given[self.pair] += 1

    def _send(self, status, body, headers=None):
        self._write(status, json.dumps(body).encode(), "application/json", headers)

    def _write(self, status, body, kind, headers=None, length=None):
        self.send_response(status)
        fixed = {"Content-Type": kind, "Content-Length": str(length or len(body))}
        for name, value in (fixed | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def escaped(handler):
    """The key that was sent, every letter in JSON's escapes."""
    return "".join(f"\\u{ord(letter):04x}" for letter in handler.headers["Authorization"].removeprefix("Bearer "))


def pair_of(body):
    """What tells one pair from another: the hash of its test image."""
    return hashlib.sha256(urls_of(body)[1].encode()).hexdigest()


def urls_of(body):
    (message,) = body["messages"]
    return [part["image_url"]["url"] for part in message["content"] if part["type"] == "image_url"]


def images_of(body):
    """The images of a request as a server decodes them."""
    found = [base64.b64decode(url.removeprefix("data:image/png;base64,"), validate=True) for url in urls_of(body)]
    return [Image.open(io.BytesIO(one)) for one in found]


def completion(number, body, server):
    text = ANSWER.format(("yes", "no")[number % 2]) + server.echo
    logprobs = {"content": tokens(text)} if server.logprobs and body.get("logprobs") else None
    return choice({"content": text}, logprobs=logprobs)


def choice(message, finish="stop", logprobs=None):
    one = {"index": 0, "message": {"role": "assistant"} | message, "finish_reason": finish, "logprobs": logprobs}
    usage = {"prompt_tokens": 500, "completion_tokens": 20, "total_tokens": 520}
    return {"id": "chatcmpl-1", "object": "chat.completion", "model": "m", "choices": [one], "usage": usage}


def tokens(text):
    """A token a word or tag: the answer at probability 0.8, the other word at 0.2."""
    head, _, tail = text.partition("<answer>")
    word, _, _ = tail.partition("<")
    other = {"yes": "no", "no": "yes"}[word]
    listed = [{"token": word, "logprob": -0.2231436, "bytes": None}, {"token": other, "logprob": -1.6094379}]
    plain = [{"token": part, "logprob": 0.0, "top_logprobs": []} for part in (head, "<answer", ">")]
    return [*plain, listed[0] | {"top_logprobs": listed}, {"token": "</answer>", "logprob": 0.0, "top_logprobs": []}]
