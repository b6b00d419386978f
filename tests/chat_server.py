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
REJECTIONS = {
    "429": (429, {"message": "slow down", "code": "rate_limit_exceeded"}, {}),
    "429 with a time": (429, {"message": "slow down"}, {"Retry-After": "0.3"}),
    "429 for ever": (429, {"message": "daily quota"}, {"Retry-After": "inf"}),
    "429 for a day": (429, {"message": "daily quota"}, {"Retry-After": "86400"}),
    "no credit": (429, {"message": "You exceeded your quota", "code": "insufficient_quota"}, {}),
    "filtered prompt": (400, {"message": "The prompt was filtered.", "code": "content_filter"}, {}),
    "400": (400, {"message": "bad image ECHO", "type": "BadRequestError"}, {}),
    "401": (401, {"message": "Incorrect API key provided: ECHO"}, {}),
    "404": (404, {"message": "The model does not exist."}, {}),
    "redirect": (307, {}, {"Location": "/elsewhere"}),
}  # status, error, headers
BODIES = {
    "500": (500, "<html>oops</html>"),
    "error": (200, '{"error": {"message": "upstream failed"}}'),
    "stream": (200, 'data: {"choices": []}\n\n'),
    "tool": (200, '{"choices": [{"message": {"content": null, "tool_calls": [{"function": {"name": "look"}}]}}]}'),
    "malformed": (200, '{"choices": [{"message": {"content": "<think>'),
    "no choices": (200, '{"error": {"message": "upstream failed"}, "choices": []}'),
    "escaped key": (200, '{"choices": [{"message": {"content": "a ESCAPED b"}}]}'),
    "escaped error": (401, '{"error": {"message": "a ESCAPED b"}}'),
}  # status, body
UNFINISHED = {"cut": '{"choices": [{"mess', "drip": "\n"}
ANSWERED = ("filtered prompt", "escaped key", "refusal", "filter", "")  # what is paid for


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

    def close(self):
        self.release.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        pass  # a client that gave up or was killed


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body, server = json.loads(self.rfile.read(int(self.headers["Content-Length"]))), self.server
        server.bodies.append(body)
        server.keys.add(self.headers.get("Authorization"))
        server.paths.add(self.path)
        pair = pair_of(body)
        with server.lock:
            server.asked[pair] += 1
            number, attempt = server.numbers.setdefault(pair, len(server.numbers)), server.asked[pair]
        trouble = server.trouble(number, attempt)
        with server.lock:
            server.given[pair] += trouble in ANSWERED
        self.reply(trouble, number, body)

    def reply(self, trouble, number, body):
        if trouble in REJECTIONS:
            status, error, headers = REJECTIONS[trouble]
            self.write(status, json.dumps({"error": error}).replace("ECHO", self.server.echo), headers)
        elif trouble in BODIES:
            status, text = BODIES[trouble]
            key = self.headers.get("Authorization", "").removeprefix("Bearer ")
            escaped = "".join(f"\\u{ord(letter):04x}" for letter in key)
            self.write(status, text.replace("ESCAPED", escaped), {})
        elif trouble in UNFINISHED:
            self.write(200, UNFINISHED[trouble], {}, length=10_000)
            while trouble == "drip" and not self.server.release.wait(0.05):
                self.wfile.write(b"\n")  # until the client has gone
            self.close_connection = True
        elif trouble == "drip header":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not self.server.release.wait(0.05):
                self.wfile.write(b"a")
            self.close_connection = True
        elif trouble == "no HTTP":
            key = self.headers.get("Authorization", "").removeprefix("Bearer ")
            self.wfile.write(f"no key like {key} or {key.replace('/', '&#47;').upper()}\r\n\r\n".encode())
            self.close_connection = True
        elif trouble in ("stall", "hang up"):
            self.server.release.wait(20 if trouble == "stall" else 0)
            self.close_connection = True
            self.connection.close()
        elif trouble == "refusal":
            self.write(200, json.dumps(choice({"content": None, "refusal": "I cannot judge this product."})), {})
        elif trouble == "filter":
            self.write(200, json.dumps(choice({"content": "<think>the produ"}, finish="content_filter")), {})
        else:
            self.write(200, json.dumps(completion(number, body, self.server)), {})

    def write(self, status, text, headers, length=None):
        self.send_response(status)
        fixed = {"Content-Type": "application/json", "Content-Length": str(length or len(text.encode()))}
        for name, value in (fixed | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


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
