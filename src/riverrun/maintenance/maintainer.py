"""Maintainer: starts the leader's services on election, and stops them on its loss."""

import threading
from collections.abc import Sequence

from riverrun.runtime.service import Service


class Maintainer:
    """The services that only the leader runs."""

    def __init__(self, services: Sequence[Service]) -> None:
        self._services = services
        self._lock = threading.Lock()  # guards the services while they start and stop

    def start(self) -> None:
        """Start every service: this client leads."""
        with self._lock:
            for service in self._services:
                service.start()

    def stop(self) -> None:
        """Stop every service at once, then wait for each: this client leads no more."""
        with self._lock:
            for service in self._services:
                service.stopping.set()
            for service in self._services:
                service.stop()
