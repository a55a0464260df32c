"""Health: the services of a working client, and the problems that make it unhealthy."""

from typing import Any

from riverrun.runtime.completer import Completer
from riverrun.runtime.producers import Producers
from riverrun.runtime.service import Service
from riverrun.runtime.vitals import Vitals

HELD_S = 15.0
"""Seconds for which an outcome may be held before the client counts as unhealthy."""

FAILING_S = 15.0
"""Seconds for which each claim of a queue may fail before the client counts as unhealthy."""

BEYOND_REPAIR_S = 60.0
"""Seconds for which a service may fail before the client counts as beyond repair."""


class Health:
    """Looks at the services of a client, its producers among them."""

    def __init__(self, producers: Producers, completer: Completer, vitals: Vitals) -> None:
        self._producers = producers
        self._completer = completer
        self._vitals = vitals
        self._services: list[Service] = [completer]

    def watch(self, *services: Service) -> None:
        """Include `services` in the checks."""
        self._services += services

    def services(self) -> list[Service]:
        """Return all services. Those that were started should have a living thread."""
        return [*self._services, *self._producers]

    def problems(self) -> list[str]:
        """Return the problems of the client's own threads and outcomes, a sentence each."""
        found = [
            f"{service.name} has been failing for {failing_s:.0f} s"
            for service in self.services()
            if (failing_s := service.failing_s)
        ]
        completer = self._completer
        if (held_s := completer.held_s) > HELD_S:
            found.append(f"outcomes are held, the oldest for {held_s:.0f} s")
        if refused := len(completer.refused):
            found.append(f"{refused} jobs stay running, because the database refuses their outcome")
        if not completer.wait_for_room(timeout=0):
            found.append("claiming is stopped: too many outcomes wait to be written")
        found += [
            f"jobs of queue {producer.queue!r} cannot be claimed, for {no_claim_s:.0f} s"
            for producer in self._producers
            if (no_claim_s := producer.no_claim_s) > FAILING_S
        ]
        found += [
            f"queue {producer.queue!r} works nothing: each of its {producer.config.max_workers} "
            "slots has a job that goes on although it was cancelled"
            for producer in self._producers
            if producer.is_stuck
        ]
        return found

    def state(self) -> dict[str, Any]:
        """Return this client's state as its heartbeat writes it, for other clients."""
        return {
            "slots": {producer.queue: producer.config.max_workers for producer in self._producers},
            "problems": self.problems(),
            **self._vitals.state(),
        }

    @property
    def beyond_repair(self) -> bool:
        """Whether a service has failed for so long that the process should be replaced."""
        return any(service.failing_s > BEYOND_REPAIR_S for service in self.services())
