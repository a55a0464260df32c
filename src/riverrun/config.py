"""A client's options: their types and their checks.

The docstring of `Client` explains each option and names its default. Here each is declared with its
type and its check. The code that reads options from an application's settings uses these
declarations, too.
"""

import os
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Any

import attrs
from attrs.converters import optional
from attrs.validators import optional as optional_of
from sqlalchemy import Engine, orm

from riverrun.clock import Clock, Duration
from riverrun.db.engines import check_engine, check_schemas
from riverrun.errors import InvalidOption
from riverrun.execution.handlers import ErrorHandler, JobStuckHandler
from riverrun.execution.plugins import Plugin, check_plugins
from riverrun.execution.workers import Workers
from riverrun.jobs.checks import (
    check_callable,
    check_duration,
    check_flag,
    check_int,
    check_queue,
    check_schema,
    plain_text,
)
from riverrun.policies.backoff import Backoff, RiverBackoff
from riverrun.policies.schedule import Schedule


class Notify(StrEnum):
    """When workers are notified of inserted jobs.

    PostgreSQL itself notifies when a transaction commits, but transactions that notify commit one
    after another, in the whole server.

    `adaptive` notifies by the INSERT while this process commits few of them, and like
    `after_commit` while it commits more than 10 in a second. Where notifying is quick, the limit is
    higher, up to 100: the number of commits that together keep others from notifying for a tenth of
    the time. `after_commit` notifies by a statement of its own once the transaction has committed,
    and costs the transaction nothing. If the process crashes between commit and notification, the
    job waits for the next poll. `in_transaction` is River's way: each transaction notifies. `off`
    sends no notifications; polling finds the jobs.

    Jobs of a two-phase transaction are always notified after its commit.
    """

    adaptive = "adaptive"
    after_commit = "after_commit"
    in_transaction = "in_transaction"
    off = "off"


def _max_workers(value: object) -> int:
    return check_int("max_workers", value, 1, 10_000)


def _poll_interval_or_none(value: object) -> Duration | None:
    return None if value is None else check_duration("poll_interval", value, 0.01)


def _claim_ahead(value: object) -> int:
    return check_int("claim_ahead", value, 0, 10_000)


@attrs.frozen(kw_only=True)
class QueueConfig:
    """How a client works one queue.

    Attributes:
        max_workers: Slots: how many jobs of this queue run at once in this client, 1 to 10,000.
            Default: 100.
        poll_interval: Seconds or a timedelta between polls when no notification comes. Default: the
            client's.
        claim_ahead: How many jobs may be claimed beyond the free slots, while jobs are shorter
            than the round trip that claims them. They wait in this process. They go back to the
            queue after 0.2 s, on a pause and on a stop. 0 turns it off. Default: 200.

    Raises:
        InvalidOption: If a value is out of range.
    """

    max_workers: int = attrs.field(default=100, converter=_max_workers)
    poll_interval: Duration | None = attrs.field(
        default=None,
        converter=_poll_interval_or_none,
    )
    claim_ahead: int = attrs.field(default=200, converter=_claim_ahead)


def check_queues(configs: object) -> Mapping[str, QueueConfig]:
    """Return the QueueConfigs by name, from a mapping to configs or slots, or from names alone.

    Raises:
        InvalidOption: If a name or a config is not valid.
    """
    if configs is None:
        return {}
    if isinstance(configs, Mapping):
        return {check_queue(name): check_queue_config(config) for name, config in configs.items()}
    if isinstance(configs, Iterable) and not isinstance(configs, str | bytes):
        return {check_queue(name): QueueConfig() for name in configs}
    raise InvalidOption("queues", configs, 'names: ["default"], or slots by name: {"default": 10}')


def check_queue_config(config: object) -> QueueConfig:
    """Return `config`, a QueueConfig or a number of slots, as a QueueConfig.

    Raises:
        InvalidOption: If it is neither.
    """
    if isinstance(config, QueueConfig):
        return config
    if isinstance(config, int):
        return QueueConfig(max_workers=config)
    expected = 'slots or QueueConfigs by name: {"default": 10, "mail": QueueConfig()}'
    raise InvalidOption("queues", config, expected)


def _seconds(value: Duration) -> float:
    return value.total_seconds() if isinstance(value, timedelta) else value


def _at_least(least: float) -> Callable[[object, Any, float], None]:
    def check(_: object, option: Any, value: float) -> None:
        check_duration(option.alias, value, least)

    return check


def _check_function(_: object, option: Any, value: Any) -> None:
    if value is not None:
        check_callable(option.alias, value, "a function or another callable")


def _check_flag(_: object, option: Any, value: bool) -> None:
    check_flag(option.alias, value)


def _workers(value: object) -> Workers | None:
    if value is None or isinstance(value, Workers):
        return value
    expected = "a Workers, with whose @workers.register each function is registered"
    raise InvalidOption("workers", value, expected)


def _id(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not 1 <= len(value) <= 100 or not value.isprintable():
        raise InvalidOption("id", value, "1 to 100 characters, all printable")
    return plain_text(value)


def _notify(value: Notify | str) -> Notify:
    try:
        return Notify(value)
    except ValueError:
        raise InvalidOption("notify", value, f"one of {', '.join(Notify)}") from None


def _listen_engine(value: Engine | None) -> Engine | None:
    return None if value is None else check_engine(value)


def _sessionmaker(value: Any) -> "orm.sessionmaker[Any] | None":
    if value is None or isinstance(value, orm.sessionmaker):
        return value
    expected = "a sessionmaker, such as sessionmaker(engine); of a scoped_session, its own"
    raise InvalidOption("sessionmaker", value, expected)


def _async_sessionmaker(value: Any) -> Any:
    # Checked by its name, because SQLAlchemy needs greenlet to import its class.
    if value is None or type(value).__name__ == "async_sessionmaker":
        return value
    expected = "an async_sessionmaker, such as async_sessionmaker(async_engine)"
    raise InvalidOption("async_sessionmaker", value, expected)


def _processes(value: int | None) -> int:
    return os.cpu_count() or 1 if value is None else check_int("processes", value, 1, 1_000)


def _backoff(value: Backoff | None) -> Backoff:
    return RiverBackoff() if value is None else value


def _max_attempts(value: int) -> int:
    return check_int("max_attempts", value, 1, 32_767)


def _clock(value: Clock | None) -> Clock:
    if value is None or isinstance(value, Clock):
        return value or Clock()
    raise InvalidOption("clock", value, "a Clock, such as riverrun.testing.FrozenClock")


def _rng(value: random.Random | None) -> random.Random:
    if value is None or isinstance(value, random.Random):
        return value or random.Random()
    raise InvalidOption("rng", value, "a random.Random, such as random.Random(7)")


def _index_names(value: Sequence[str]) -> tuple[str, ...]:
    if isinstance(value, Iterable) and not isinstance(value, str):
        names = tuple(value)
        if all(isinstance(name, str) and "\x00" not in name for name in names):
            return names
    raise InvalidOption("reindexer_index_names", value, "a sequence of names of indexes")


@attrs.frozen(kw_only=True)
class ClientConfig:
    """A client's options, checked, with durations converted to seconds.

    Raises:
        InvalidOption: If an option is out of range.
    """

    engine: Engine = attrs.field(converter=check_engine)
    workers: Workers | None = attrs.field(converter=_workers)
    queues: Mapping[str, QueueConfig] = attrs.field(converter=check_queues)
    schema: str | None = attrs.field(converter=check_schema)
    id: str | None = attrs.field(converter=_id)
    notify: Notify = attrs.field(converter=_notify)
    poll_only: bool = attrs.field(validator=_check_flag)
    listen_engine: Engine | None = attrs.field(converter=_listen_engine)
    poll_interval_s: float = attrs.field(
        alias="poll_interval", converter=_seconds, validator=_at_least(0.01)
    )
    job_timeout_s: float = attrs.field(
        alias="job_timeout", converter=_seconds, validator=_at_least(0.0)
    )
    soft_stop_timeout_s: float | None = attrs.field(
        alias="soft_stop_timeout",
        converter=optional(_seconds),
        validator=optional_of(_at_least(0.0)),
    )
    hard_stop_timeout_s: float = attrs.field(
        alias="hard_stop_timeout", converter=_seconds, validator=_at_least(0.0)
    )
    processes: int = attrs.field(converter=_processes)
    job_stuck_threshold_s: float = attrs.field(
        alias="job_stuck_threshold", converter=_seconds, validator=_at_least(0.0)
    )
    job_stuck_handler: JobStuckHandler | None = attrs.field(validator=_check_function)
    backoff: Backoff = attrs.field(converter=_backoff, validator=_check_function)
    leader_election_disabled: bool = attrs.field(validator=_check_flag)
    periodic_jobs: Iterable[Any]  # checked by the client's PeriodicJobs
    plugins: tuple[Plugin, ...] = attrs.field(converter=check_plugins)
    error_handler: ErrorHandler | None = attrs.field(validator=_check_function)
    max_attempts: int = attrs.field(converter=_max_attempts)
    rescue_after_s: float = attrs.field(
        alias="rescue_after", converter=_seconds, validator=_at_least(1.0)
    )
    cancelled_retention_s: float | None = attrs.field(
        alias="cancelled_retention",
        converter=optional(_seconds),
        validator=optional_of(_at_least(0.0)),
    )
    completed_retention_s: float | None = attrs.field(
        alias="completed_retention",
        converter=optional(_seconds),
        validator=optional_of(_at_least(0.0)),
    )
    discarded_retention_s: float | None = attrs.field(
        alias="discarded_retention",
        converter=optional(_seconds),
        validator=optional_of(_at_least(0.0)),
    )
    reindexer_index_names: tuple[str, ...] = attrs.field(converter=_index_names)
    reindexer_schedule: Schedule | None = attrs.field(validator=_check_function)
    reindexer_timeout_s: float = attrs.field(
        alias="reindexer_timeout", converter=_seconds, validator=_at_least(0.0)
    )
    sessionmaker: "orm.sessionmaker[Any] | None" = attrs.field(converter=_sessionmaker)
    async_sessionmaker: Any = attrs.field(converter=_async_sessionmaker)
    skip_unknown_job_check: bool = attrs.field(validator=_check_flag)
    clock: Clock = attrs.field(converter=_clock)
    rng: random.Random = attrs.field(converter=_rng)

    def __attrs_post_init__(self) -> None:
        if self.poll_only and self.listen_engine is not None:
            raise InvalidOption("listen_engine", self.listen_engine, "none with poll_only=True")
        if self.sessionmaker is not None:
            check_schemas(self.sessionmaker, self.engine)
