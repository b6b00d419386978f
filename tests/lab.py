"""The real JupyterLab, driven through headless Chromium as a reader drives it: by menus, keys and typing.

with serve(folder) as address:
    lab = Lab(page, address, "03_grpo")
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import nbformat

PATIENCE = 60_000  # milliseconds for anything but the running of a notebook
RUNNING = 240_000
SETTINGS = {  # all cells in the page, and no question about news
    "notebook-extension/tracker": '{"windowingMode": "none"}',
    "apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false}',
}
BUSY = "() => [...document.querySelectorAll('.jp-InputPrompt')].some(one => one.textContent.includes('[*]'))"
IDLE = f"() => !({BUSY})() && document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status === 'idle'"
CONTROL = "select, input, textarea, [role=slider]"
BLANK = "\u200b\xa0 \n"  # ipywidgets puts a space without width where a label is empty


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """JupyterLab on ``folder``, with settings of its own; gives the address."""
    for name, text in SETTINGS.items():
        file = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    port = free_port()
    own = {"JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces", "IPYTHONDIR": "ipython"}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}"]
    command += ["--ServerApp.port_retries=0", "--IdentityProvider.token=", "--ServerApp.password="]
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(
            command, cwd=folder, env=os.environ | {name: str(folder / path) for name, path in own.items()}, stdout=log,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            yield answering(f"http://localhost:{port}", folder / "server.log")
        finally:
            server.terminate()  # it ends its kernels
            server.wait(30)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return one.getsockname()[1]


def answering(address: str, log: Path) -> str:
    for _ in range(240):
        try:
            httpx.get(f"{address}/api").raise_for_status()
            return address
        except httpx.HTTPError:
            time.sleep(0.25)
    raise AssertionError(f"JupyterLab does not answer:\n{log.read_text()}")


def whole(file: Path) -> bool:
    """Whether ``file`` is not just being written."""
    try:
        return bool(json.loads(file.read_text(encoding="utf-8")))
    except ValueError:
        return False


class Lab:
    """A notebook, ``file`` of the folder that ``address`` serves, open in a page of the browser."""

    def __init__(self, page, address: str, file: Path) -> None:
        self.page, self.file = page, file
        page.set_default_timeout(PATIENCE)
        page.goto(f"{address}/lab/tree/{file.name}?reset")
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        page.get_by_text(re.compile(r"\(ipykernel\) \| Idle")).wait_for()

    def run_all(self) -> nbformat.NotebookNode:
        """Run All Cells from the menu; the notebook as it was saved when all had come to rest."""
        for _ in range(4):  # a menu that still loads swallows a click
            self.page.keyboard.press("Escape")
            for name in ("Run", "Run All Cells"):
                self.page.get_by_role("menuitem", name=name, exact=True).click()
            if self.until(lambda: self.page.evaluate(BUSY), 5_000):
                break
        self.page.wait_for_function(IDLE, timeout=RUNNING)
        before = self.file.stat().st_mtime_ns
        self.page.keyboard.press("Control+s")
        self.until(lambda: self.file.stat().st_mtime_ns != before and whole(self.file))
        return nbformat.read(self.file, as_version=4)

    def explorers(self) -> dict[str, "Shown"]:
        """The widgets of this notebook, by title, from the top down."""
        boxes = self.page.locator(".widget-vbox:has([role=region])").all()
        return {one.title: one for one in (Shown(self, box) for box in boxes)}

    def until(self, happened: Callable[[], bool], patience: int = PATIENCE) -> bool:
        """Wait for what may take a while, ``patience`` in milliseconds; whether it came."""
        for _ in range(patience // 100):
            if happened():
                return True
            self.page.wait_for_timeout(100)
        return False


class Shown:
    """An explorer in the page: ``controls`` by what they are called, and the view that should follow them."""

    def __init__(self, lab: Lab, box) -> None:
        self.lab, self.box, self.view = lab, box, box.get_by_role("region")
        self.title = self.view.get_attribute("aria-label")

    @property
    def controls(self) -> dict:
        rows = self.box.locator(":scope > :not(.widget-html)").all()
        return {row.inner_text().strip(BLANK).splitlines()[0]: row for row in rows}

    def move(self, name: str, what: tuple[str, ...] | str) -> bool:
        """Work one control by keyboard: keys or a text to type; whether the view changed."""
        before, control = self.settled(), self.controls[name].locator(CONTROL)
        control.focus()
        if isinstance(what, str):
            control.fill(what)
            control.press("Tab")
        else:
            for key in what:
                self.lab.page.keyboard.press(key)
                self.lab.page.wait_for_timeout(200)  # a menu takes a moment to open
        return self.lab.until(lambda: self.view.inner_html() != before)

    def settled(self) -> str:
        """The view as HTML, once nothing moves it any more: one control may move another."""
        before = ""
        while (now := self.view.inner_html()) != before or not self.lab.page.evaluate(IDLE):
            before = now
            self.lab.page.wait_for_timeout(300)
        return now
