"""systemd: a service of `Type=notify` says when it is ready, that it stops, and that it lives."""

import os
import socket


def notify(state: str) -> bool:
    """Tell systemd `state`, such as "READY=1", if it listens; return whether it does.

    Source: systemd 257, sd_notify(3): datagrams to the socket in $NOTIFY_SOCKET.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.settimeout(1.0)  # nobody may keep us from our work by not listening
            connection.connect(address)
            connection.sendall(state.encode())
    except OSError:
        return False
    return True


def alive() -> None:
    """Tell systemd that this process lives, if it wants to know."""
    if watchdog_s() is not None:
        notify("WATCHDOG=1")


def watchdog_s() -> float | None:
    """Return how many seconds may pass between signs of life; None if systemd wants none."""
    said = os.environ.get("WATCHDOG_USEC", "")
    ours = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(said) / 2_000_000 if said.isdigit() and int(said) and ours else None
