"""Start the leader's services when this client is elected, and stop them when its term ends."""

import threading
from collections.abc import Sequence

from riverrun.runtime.service import Service


class Maintainer:
    """The services that only the leader runs."""

    def __init__(self, services: Sequence[Service]) -> None:
        self._services = services
        self._lock = threading.Lock()  # guards the services while they start and stop

    def start(self) -> None:
        """Start every service that was not started, while this client leads."""
        with self._lock:
            for service in self._services:
                service.start()

    def stop(self) -> None:
        """Ask every service to stop, then wait for each, when this client no longer leads."""
        with self._lock:
            for service in self._services:
                service.stopping.set()
            for service in self._services:
                service.stop()
