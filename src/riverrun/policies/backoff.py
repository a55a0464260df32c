"""Backoff policies: when a failed job may be claimed again."""

import random
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Protocol

import attrs

from riverrun.clock import Duration
from riverrun.errors import InvalidOption
from riverrun.jobs.checks import check_duration
from riverrun.jobs.row import JobRow

_MAX_S = (2**63 - 1) / 1e9
"""Go's longest duration, about 292 years, which River never exceeds."""


class Backoff(Protocol):
    """A policy for when a failed job may be claimed again."""

    def __call__(self, job: JobRow, now: datetime) -> datetime:
        """Return when `job` may be claimed again.

        Args:
            job: The job as claimed; its `errors` do not yet include this failure.
            now: The database's time, aware.

        Returns:
            A time after `now`. A time in the past is replaced by that of River's policy.
        """


@attrs.frozen(kw_only=True)
class _Delay:
    """A delay that depends on how often the job has failed, including this time.

    Attributes:
        jitter: The fraction of the delay, 0 to 1, that is randomly added or subtracted at most.
        rng: The source of random numbers from 0 to 1.
    """

    jitter: float = attrs.field(default=0.1)
    rng: Callable[[], float] = attrs.field(default=random.random, repr=False, eq=False)

    @jitter.validator
    def _check_jitter(self, _: object, value: float) -> None:
        if not isinstance(value, int | float) or not 0 <= value <= 1:
            raise InvalidOption("jitter", value, "a share from 0 to 1")

    def delay_s(self, failures: int) -> float:
        """Return the seconds to wait after the job has failed `failures` times, without jitter."""
        raise NotImplementedError

    def __call__(self, job: JobRow, now: datetime) -> datetime:
        """Return `now` plus the delay, with jitter."""
        delay_s = min(self.delay_s(len(job.errors) + 1), _MAX_S)
        # Jobs that failed together must not return together.
        if delay_s < _MAX_S:
            delay_s = min(delay_s * (1 + self.jitter * (2 * self.rng() - 1)), _MAX_S)
        try:
            return now + timedelta(seconds=delay_s)
        except OverflowError:
            return datetime.max.replace(tzinfo=now.tzinfo)


def _initial(value: object) -> Duration:
    return check_duration("initial", value, 0.0)


def _cap(value: object) -> Duration:
    return check_duration("cap", value, 0.0)


def _step(value: object) -> Duration:
    return check_duration("step", value, 0.0)


def _delay(value: object) -> Duration:
    return check_duration("delay", value, 0.0)


@attrs.frozen(kw_only=True)
class RiverBackoff(_Delay):
    """River's default: failures to the fourth power, in seconds, 10 % up or down.

    1 s, 16 s, 81 s, 4 m 16 s, ... the 25th about 4.5 days.

    Source: River 0.51, internal/retrypolicy/default.go.
    """

    def delay_s(self, failures: int) -> float:
        """Return the fourth power of `failures`."""
        return float(failures**4)


@attrs.frozen(kw_only=True)
class Exponential(_Delay):
    """A delay of `initial` times `base` to the power of earlier failures, at most `cap`.

    Attributes:
        base: The factor from one delay to the next, at least 1.
        initial: The first delay, seconds or a timedelta.
        cap: The longest delay, seconds or a timedelta.
    """

    base: float = attrs.field(default=2.0)
    initial: Duration = attrs.field(default=1.0, converter=_initial)
    cap: Duration = attrs.field(default=86_400.0, converter=_cap)

    @base.validator
    def _check_base(self, _: object, value: float) -> None:
        if not isinstance(value, int | float) or not value >= 1:
            raise InvalidOption("base", value, "a factor of at least 1")

    def delay_s(self, failures: int) -> float:
        """Return the delay after `failures` failures, in seconds."""
        initial, cap = _float(self.initial), _float(self.cap)
        try:
            return min(initial * self.base ** (failures - 1), cap)
        except OverflowError:
            return cap


@attrs.frozen(kw_only=True)
class Linear(_Delay):
    """A delay that grows by `step` with each failure, up to `cap`.

    Attributes:
        step: The time that each failure adds, seconds or a timedelta.
        cap: The longest delay, seconds or a timedelta.
    """

    step: Duration = attrs.field(default=10.0, converter=_step)
    cap: Duration = attrs.field(default=86_400.0, converter=_cap)

    def delay_s(self, failures: int) -> float:
        """Return the delay after `failures` failures, in seconds."""
        return min(_float(self.step) * failures, _float(self.cap))


@attrs.frozen(kw_only=True)
class Constant(_Delay):
    """The same delay after every failure.

    Attributes:
        delay: The delay, seconds or a timedelta.
    """

    delay: Duration = attrs.field(default=10.0, converter=_delay)

    def delay_s(self, failures: int) -> float:  # noqa: ARG002
        """Return the delay, in seconds."""
        return _float(self.delay)


def _delays(values: object) -> tuple[float, ...]:
    if not isinstance(values, Iterable) or isinstance(values, str):
        raise InvalidOption("delays", values, "a list of delays, such as [10, 60, 600]")
    delays = tuple(check_duration("delay", value, 0.0) for value in values)
    if not delays:
        raise InvalidOption("delays", values, "at least one delay")
    return delays


@attrs.frozen
class Explicit(_Delay):
    """A list of delays, one per failure; the last one is used for all later failures.

    Attributes:
        delays: The delays, seconds or timedeltas; at least one.
    """

    delays: Sequence[Duration] = attrs.field(converter=_delays, kw_only=False)

    def delay_s(self, failures: int) -> float:
        """Return the delay for this failure, in seconds."""
        return _float(self.delays[min(failures, len(self.delays)) - 1])


def _float(duration: Duration) -> float:
    # The converters have turned it into seconds; only the annotation still allows a timedelta.
    assert not isinstance(duration, timedelta)  # noqa: S101
    return duration
