"""On the path of a process and all it starts: no connection but to this machine, and what was tried is written down."""

import os
import socket

HERE = ("127.", "localhost", "::1", "0.0.0.0")


def _refuse(what: object) -> None:
    with open(os.environ["TRIED"], "a", encoding="utf-8") as file:
        file.write(f"{what}\n")
    raise OSError(101, "Network is unreachable", str(what))


def _guarded(connect):
    def guarded(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and not str(address[0]).startswith(HERE):
            _refuse(address)
        return connect(self, address)

    return guarded


def _looked_up(host, *rest, _look_up=socket.getaddrinfo, **more):
    if host and not str(host).startswith(HERE) and host != socket.gethostname():
        _refuse(host)
    return _look_up(host, *rest, **more)


socket.socket.connect = _guarded(socket.socket.connect)
socket.socket.connect_ex = _guarded(socket.socket.connect_ex)
socket.getaddrinfo = _looked_up
