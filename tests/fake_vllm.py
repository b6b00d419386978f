"""Stands for the command ``vllm``: serves a model by transformers, in the forms that vLLM takes and gives.

    python fake_vllm.py serve FOLDER --host H --port P …

FAKE_VLLM says what goes wrong: "dies" before it serves, "resizes" images, "keeps" its token ids to itself.
"""

import argparse
import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch
from chat_server import images_of

from ladlib.config import load_profile
from ladlib.models import decode, load_model, load_processor
from ladlib.prompts import QUESTION, prompt_text

FAULT = os.environ.get("FAKE_VLLM", "")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send({})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        images = [one.resize((one.width * 2, one.height)) if FAULT == "resizes" else one for one in images_of(body)]
        text = prompt_text(self.server.processor, QUESTION, images=2)
        inputs = self.server.processor(text=[text], images=[images], return_tensors="pt")
        with torch.inference_mode():
            (ids,) = self.server.model.generate(**inputs, max_new_tokens=body["max_tokens"]).tolist()
        prompt, completion = ids[: inputs["input_ids"].shape[1]], ids[inputs["input_ids"].shape[1] :]
        content, finish = decode(self.server.processor.tokenizer, completion)
        choice = {"message": {"content": content}, "finish_reason": finish}
        told = body.get("return_token_ids") and FAULT != "keeps"
        tokens = {"prompt_token_ids": prompt, "choices": [choice | {"token_ids": completion}]} if told else {}
        usage = {"prompt_tokens": len(prompt), "completion_tokens": len(completion)}
        self.send({"choices": [choice], "usage": usage} | tokens)

    def send(self, body):
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("folder")
    parser.add_argument("--port", type=int)
    given, _ = parser.parse_known_args()
    if FAULT == "dies":
        sys.exit("ValueError: no kernel for this GPU")
    profile = load_profile("smoke")
    server = ThreadingHTTPServer(("127.0.0.1", given.port), Handler)
    server.model = load_model(given.folder, profile.model)
    server.processor = load_processor(given.folder, profile.data.model_copy(update={"max_pixels": 10**6}))
    server.serve_forever()


if __name__ == "__main__":
    main()
