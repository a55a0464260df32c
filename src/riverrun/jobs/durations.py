"""Durations as texts of ISO 8601: `P1DT2H` is 26 hours."""

import re
from datetime import timedelta

_DURATION = re.compile(
    r"(?P<sign>[-+]?)P(?:(?P<years>\d+)Y)?(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+)D)?"
    r"(?:T(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+)(?:\.(?P<part>\d{1,6})\d*)?S)?)?"
)


def duration_text(value: timedelta) -> str:
    """Return `value` in the form of ISO 8601 that pydantic writes."""
    sign, value = ("-", -value) if value.days < 0 else ("", value)
    minutes, seconds = divmod(value.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    part = f".{value.microseconds:06}".rstrip("0") if value.microseconds else ""
    clock = "".join(
        (
            f"{hours}H" if hours else "",
            f"{minutes}M" if minutes else "",
            f"{seconds}{part}S" if seconds or part else "",
        )
    )
    if not clock and not value.days:
        clock = "0S"
    return f"{sign}P{f'{value.days}D' if value.days else ''}{f'T{clock}' if clock else ''}"


def duration(text: str) -> timedelta:
    """Return the duration in a text of ISO 8601.

    Raises:
        ValueError: If it is not one, or is too long.
    """
    found = _DURATION.fullmatch(text)
    if found is None or text[-1] in "PT":
        raise ValueError(text)
    part = found["part"] or ""
    number = {name: int(value or 0) for name, value in found.groupdict().items() if name != "sign"}
    try:
        value = timedelta(
            days=number["years"] * 365 + number["days"],
            weeks=number["weeks"],
            hours=number["hours"],
            minutes=number["minutes"],
            seconds=number["seconds"],
            microseconds=int(part.ljust(6, "0")) if part else 0,
        )
        return -value if found["sign"] == "-" else value
    except OverflowError as error:
        raise ValueError(text) from error
