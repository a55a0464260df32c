"""Notifications to systemd, for a service of `Type=notify`: ready, stopping, and still alive."""

import os
import socket


def notify(state: str) -> bool:
    """Send `state`, such as "READY=1", to systemd; return whether it could be sent.

    Source: systemd 257, sd_notify(3): datagrams to the socket in $NOTIFY_SOCKET.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.settimeout(1.0)  # a receiver that does not read must not block us
            connection.connect(address)
            connection.sendall(state.encode())
    except OSError:
        return False
    return True


def alive() -> None:
    """Tell systemd's watchdog that this process is alive, if the unit has a watchdog."""
    if watchdog_s() is not None:
        notify("WATCHDOG=1")


def watchdog_s() -> float | None:
    """Return the seconds between two calls of `alive`: half the watchdog's limit.

    Returns:
        None if the unit has no watchdog, or it watches another process.
    """
    limit_us = os.environ.get("WATCHDOG_USEC", "")
    ours = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(limit_us) / 2_000_000 if limit_us.isdigit() and int(limit_us) and ours else None
