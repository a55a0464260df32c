"""Ports to listen on, and requests to what listens there."""

import secrets
import socket
import urllib.error
import urllib.request

from waiting import DEADLINE_S

FIRST = 15_000
CLIENTS_FIRST = 32_768
"""The first port that Linux gives to clients, by default; other systems begin higher."""


def fetch(url: str) -> tuple[int, str]:
    """Return the status and body of a GET."""
    try:
        with urllib.request.urlopen(url, timeout=DEADLINE_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def free_ports(count: int) -> int:
    """Return the first of `count` ports in a row that nobody listens on.

    They are below those that the system gives to clients. A client that asks for a server which
    does not listen yet could otherwise get its port, and connect to itself.
    """
    while True:
        first = FIRST + secrets.randbelow(CLIENTS_FIRST - FIRST - count)
        sockets = [socket.socket() for _ in range(count)]
        try:
            for offset, each in enumerate(sockets):
                each.bind(("127.0.0.1", first + offset))
        except OSError:
            continue
        finally:
            for each in sockets:
                each.close()
        return first
