"""The tools of this folder work: without them, no other test here would prove anything."""

import pytest

from interop.peers import StartPeer
from interop.rpc import NOT_FOUND, RpcError


def test_go_inserts_and_works_its_own_job(go_peer: StartPeer) -> None:
    """The peer is River itself: it inserts and works a job, and reports a missing one."""
    peer = go_peer()
    hello = peer.call("handshake")
    assert (hello["implementation"], hello["implementation_version"]) == ("go", "0.51.2")
    job = peer.call("insert", message="hi", behavior="output", opts={"tags": ["alpha"]})
    assert (job["state"], job["tags"], job["errors"]) == ("available", ["alpha"], [])
    assert (job["attempted_by"], job["unique_key"]) == ([], None)
    done = peer.call("work", id=job["id"])
    assert (done["state"], done["metadata"]["output"]) == ("completed", {"message": "hi"})
    with pytest.raises(RpcError) as caught:
        peer.call("get", id=job["id"] + 1)
    assert caught.value.code == NOT_FOUND


def test_a_peer_that_ends_says_why(go_peer: StartPeer) -> None:
    """A call to a peer that has exited fails at once, with the reason."""
    peer = go_peer()
    peer.call("handshake")
    peer.kill()
    with pytest.raises(AssertionError, match=r"does not answer handshake|ended instead"):
        peer.call("handshake")
