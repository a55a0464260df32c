"""An adapter that serves River's conformance contract: JSON-RPC on the standard streams.

The methods are in `python_side/`, one module for each topic. They call riverrun's public API.
Only the methods that the contract names raw_ or fault_ use the tables directly.

    RIVER_CONFORMANCE_DATABASE_URL=postgres://... python adapter.py
"""

import logging
import os
import sys

from python_side import controls, faults, jobs, migrations, queues, transactions, work
from python_side.protocol import serve
from python_side.state import State

TOPICS = (controls, faults, jobs, migrations, queues, transactions, work)


def main() -> None:
    """Answer requests until the input ends."""
    # Diagnostics go to standard error: standard output belongs to the protocol.
    level = logging.DEBUG if os.environ.get("PEER_DEBUG") else logging.WARNING
    logging.basicConfig(stream=sys.stderr, level=level, format="%(threadName)s %(message)s")
    state = State(
        os.environ["RIVER_CONFORMANCE_DATABASE_URL"],
        os.environ.get("RIVER_CONFORMANCE_APPLICATION_NAME", "river-conformance-riverrun"),
    )
    try:
        serve(state, sys.stdin, sys.stdout)
    finally:
        state.close()


if __name__ == "__main__":
    main()
