"""Hosts and servers vanish without a word."""

import os
import socket
from typing import Any

import pytest
from sqlalchemy import create_engine

from faults.proxy import Proxy
from riverrun import Client


@pytest.mark.parametrize(("given", "expected_ms"), [({}, 25_000), ({"tcp_user_timeout": 7}, 7)])
def test_a_server_that_vanished_is_noticed(
    proxy: Proxy, given: dict[str, Any], expected_ms: int
) -> None:
    """A client's connections notice within 25 s a server that answers no more, unless told else."""
    engine = create_engine(proxy.url, connect_args=given)
    Client(engine)
    with engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        with socket.socket(fileno=os.dup(driver.fileno())) as end:
            assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == expected_ms
            assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 10
    engine.dispose()
