"""Go's River and riverrun on a fresh schema or an empty database."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from interop.clients import Clients
from interop.peers import Peers, StartPeer, build

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Limit each test's function, but not its fixtures: the first test waits for a build."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.timeout(120, func_only=True))


@pytest.fixture(scope="session")
def peer_program() -> Path:
    """The Go peer, `peer/`, which is built once."""
    return build("peer")


@pytest.fixture
def peers(engine: Engine, schema: str) -> Iterator[Peers]:
    """Adapter processes whose search path is a fresh schema."""
    peers = Peers(engine, schema)
    yield peers
    peers.close()


@pytest.fixture
def empty_peers(empty_database: Engine) -> Iterator[Peers]:
    """Adapter processes on a database without tables."""
    peers = Peers(empty_database, None)
    yield peers
    peers.close()


@pytest.fixture
def go_peer(peers: Peers, peer_program: Path) -> StartPeer:
    """Start a Go process on the test's schema."""
    return lambda: peers.go(peer_program)


@pytest.fixture
def python_peer(peers: Peers) -> StartPeer:
    """Start a Python process, the conformance adapter, on the test's schema."""
    return peers.python


@pytest.fixture
def empty_go_peer(empty_peers: Peers, peer_program: Path) -> StartPeer:
    """Start a Go process on the empty database."""
    return lambda: empty_peers.go(peer_program)


@pytest.fixture
def here(engine: Engine, schema: str) -> Iterator[Clients]:
    """Clients of riverrun on the test's schema, all of which are stopped when the test ends."""
    clients = Clients(engine, schema)
    yield clients
    clients.stop()
