"""Options in all their forms, and the errors for wrong ones."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import attrs
import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from riverrun import (
    Client,
    Constant,
    Cron,
    Explicit,
    Exponential,
    InsertOpts,
    Interval,
    JobArgs,
    JobSnooze,
    JobState,
    PeriodicJob,
    QueueConfig,
    UniqueKey,
    UniqueOpts,
    Workers,
)
from riverrun.errors import InvalidArgs, InvalidOption, NotATransaction
from riverrun.jobs.args import kind_of
from riverrun.jobs.options import UniqueMark, with_options
from riverrun.verbs.draft import draft, drafts

NOW = datetime(2026, 1, 2, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
ENGINE = create_engine("postgresql+psycopg:///nowhere")


@attrs.frozen
class Send(JobArgs, kind="send"):
    to: str = "alice"


@attrs.frozen
class Counted(JobArgs, kind="counted"):
    count: int


@attrs.frozen
class Slow(JobArgs, kind="slow", insert_opts=InsertOpts(delay=60, queue="slow")):
    pass


class Table(DeclarativeBase):
    pass


class User(Table):
    __tablename__ = "user"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(default="admin")


@pytest.mark.parametrize("delay", [90, 90.0, timedelta(seconds=90)])
def test_a_delay_counts_from_the_insert(delay: Any) -> None:
    """A delay in seconds or as a timedelta schedules the job from when it is inserted."""
    opts = InsertOpts(delay=delay)
    for moment in (NOW, LATER):  # the same options, used twice
        job = draft(Send(), opts, now=moment)
        assert (job.scheduled_at, job.state) == (
            moment + timedelta(seconds=90),
            JobState.scheduled,
        )
        assert drafts([(Send(), opts)], now=moment)[0].scheduled_at == job.scheduled_at
    assert draft(Send(), InsertOpts(delay=0), now=NOW).state is JobState.available


def test_a_class_may_have_a_delay_that_an_insert_replaces() -> None:
    """A delay of the args' class is for inserts that say no time of their own."""
    assert draft(Slow(), now=NOW).scheduled_at == NOW + timedelta(seconds=60)
    assert draft(Slow(), InsertOpts(queue="fast"), now=NOW).scheduled_at is not None
    assert draft(Slow(), InsertOpts(delay=5), now=NOW).scheduled_at == NOW + timedelta(seconds=5)
    assert draft(Slow(), InsertOpts(scheduled_at=LATER), now=NOW).scheduled_at == LATER
    assert draft(Slow(), InsertOpts(delay=0), now=NOW).scheduled_at is None


def test_keywords_win_over_options() -> None:
    """An insert's keywords are options too, and win over `opts`; None leaves them as they are."""
    unique = UniqueOpts(by_queue=True)
    assert with_options(None, {}) is None
    assert with_options(None, {"queue": "mail", "unique": unique}) == InsertOpts(
        queue="mail", unique=unique
    )
    opts = InsertOpts(queue="mail", priority=2, scheduled_at=LATER, metadata={"a": 1})
    assert with_options(opts, {"priority": 3, "queue": None}) == attrs.evolve(opts, priority=3)
    assert with_options(opts, {"delay": 5}) == attrs.evolve(opts, scheduled_at=None, delay=5)
    assert with_options(InsertOpts(delay=5), {"scheduled_at": LATER}) == InsertOpts(
        scheduled_at=LATER
    )


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"queu": "mail"}, "option is 'queu'; expected one of queue, priority"),
        ({"delay": -1}, "delay is -1"),
        ({"delay": "soon"}, "delay is 'soon'"),
        ({"delay": True}, "delay is True"),
        ({"delay": timedelta.max}, "delay"),
        ({"delay": 5, "scheduled_at": LATER}, "delay is 5.0; expected none beside scheduled_at"),
        ({"scheduled_at": timedelta(5)}, "for a time from now, pass delay="),
        ({"unique": True}, "unique is True"),
        ({"tags": "abc"}, "tags is 'abc'"),
        ({"priority": 9}, "priority is 9"),
    ],
)
def test_refuses_keywords(options: dict[str, Any], problem: str) -> None:
    """A keyword that is no option, or out of range, is refused by its name."""
    client = Client(ENGINE)
    with pytest.raises(InvalidOption, match=problem):
        client.insert(ENGINE, Send(), **options)


def test_a_periodic_job_takes_args() -> None:
    """Args in place of a function are inserted at each run; what cannot be is refused at once."""
    job = PeriodicJob(Cron("@daily"), Send("bob"))
    assert job.constructor() == job.constructor() == Send("bob")
    pair = (Send("bob"), InsertOpts(queue="mail"))
    assert PeriodicJob(Cron("@daily"), pair).constructor() == pair  # type: ignore[arg-type]
    assert PeriodicJob(Cron("@daily"), Send).constructor() == Send()
    with pytest.raises(InvalidArgs, match=r"\$\.to is None"):
        PeriodicJob(Cron("@daily"), Send(None))  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="constructor is 'send'; expected args, or a function"):
        PeriodicJob(Cron("@daily"), "send")  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="schedule is '@daily'; expected a function, such as C"):
        PeriodicJob("@daily", Send)  # type: ignore[arg-type]


def test_queues_may_be_names_or_numbers() -> None:
    """Queues are names, slots by name, or QueueConfigs by name, mixed as one likes."""
    mail = QueueConfig(max_workers=2)
    client = Client(ENGINE, queues={"default": 10, "mail": mail})
    assert client.queues.configs == {"default": QueueConfig(max_workers=10), "mail": mail}
    for names in (["default", "mail"], ("default", "mail"), {"default", "mail"}):
        found = Client(ENGINE, queues=names).queues.configs
        assert found == {"default": QueueConfig(), "mail": QueueConfig()}
    client.queues.add("slow", 1)
    assert client.queues.configs["slow"] == QueueConfig(max_workers=1)


def function(args: Send) -> None:
    """Work."""


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"queues": "default"}, r'queues is \'default\'; expected names: \["default"\], or'),
        ({"queues": 10}, "queues is 10; expected names"),
        ({"queues": {"default": "10"}}, "queues is '10'; expected slots or QueueConfigs"),
        ({"queues": {"default": 0}}, "max_workers is 0"),
        ({"queues": {"default": True}}, "max_workers is True"),
        ({"queues": [QueueConfig()]}, "queue is QueueConfig"),
        ({"queues": {"default": None}}, "queues is None; expected slots"),
        ({"workers": [function]}, "expected a Workers, with whose @workers.register"),
        ({"workers": function}, "expected a Workers"),
        ({"periodic_jobs": PeriodicJob(Cron("@daily"), Send)}, "expected a list of PeriodicJobs"),
        ({"periodic_jobs": [Send]}, "expected a PeriodicJob"),
        ({"plugins": object()}, "plugins is"),
        ({"backoff": 5}, "backoff is 5; expected a function"),
        ({"error_handler": "log"}, "error_handler is 'log'"),
        ({"job_stuck_handler": 1}, "job_stuck_handler is 1"),
        ({"reindexer_schedule": "@daily"}, "reindexer_schedule is '@daily'"),
    ],
)
def test_refuses_wrong_shapes(options: dict[str, Any], problem: str) -> None:
    """An option of a wrong shape is refused when the client is made, by its name."""
    with pytest.raises(InvalidOption, match=problem):
        Client(ENGINE, **options)


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (Session(), r"expected args second, after the transaction: insert\(session, args\)"),
        (ENGINE, "expected args second, after the transaction"),
        (User(id=1), "pass the id of the User in a field of a JobArgs class"),
        ({"to": "alice"}, r"RawArgs\(kind=..., encoded=\{...\}\) for plain JSON"),
        ("send", "an object of a JobArgs class"),
        (None, "a class with a kind"),
        (5, "a class with a kind"),
    ],
)
@pytest.mark.parametrize("workers", [None, "some"])
def test_what_is_no_args_is_named(args: Any, problem: str, workers: str | None) -> None:
    """Every insert refuses a wrong value for args, and names what was expected."""
    registry = Workers()
    registry.register(function)
    client = Client(ENGINE, workers=registry if workers else None)
    with pytest.raises(InvalidOption, match=problem):
        client.insert(ENGINE, args)
    with pytest.raises(InvalidOption, match=problem):
        client.insert_many(ENGINE, [args])
    with pytest.raises(InvalidOption, match=problem):
        client.insert_many_fast(ENGINE, [(args, None)])


def test_a_class_in_place_of_args_is_named() -> None:
    """A class of args that was not called is refused as such."""
    with pytest.raises(InvalidArgs, match="the class Send, not an object of it: Send"):
        Client(ENGINE).insert(ENGINE, Send)
    workers = Workers()

    @workers.register
    def send(args: Send) -> None: ...

    with pytest.raises(InvalidArgs, match="the class Send, not an object of it: Send"):
        Client(ENGINE, workers=workers).insert(ENGINE, Send)


def test_a_kind_that_a_metaclass_drops() -> None:
    """Where the keyword `kind=` is lost, as in SQLModel's classes, the error shows another way."""

    class Dropping(type):
        def __new__(cls, name: str, bases: Any, namespace: Any, **_: object) -> "Dropping":
            return super().__new__(cls, name, bases, namespace)

        def __init__(cls, name: str, bases: Any, namespace: Any, **_: object) -> None:
            super().__init__(name, bases, namespace)

    class Lost(JobArgs, kind="lost", metaclass=Dropping): ...

    with pytest.raises(InvalidOption, match=r"drops keywords, kind: ClassVar\[str\] = \"...\" in"):
        Client(ENGINE).insert(ENGINE, Lost())

    class Kept(JobArgs, metaclass=Dropping):
        kind: ClassVar[str] = "kept"

    assert kind_of(Kept) == "kept"


def test_exchanged_arguments_are_named() -> None:
    """Args before the transaction, and jobs that are none, are named as such."""
    client = Client(ENGINE)
    with pytest.raises(InvalidOption, match="args second, after the transaction"):
        client.insert(Send(), Session())  # type: ignore[arg-type]
    with pytest.raises(NotATransaction, match=r"then the args: insert\(session, args\)"):
        client.insert(Send(), Send())  # type: ignore[arg-type]
    for jobs in (Session(), ENGINE):
        with pytest.raises(InvalidOption, match=r"jobs is .*after the transaction"):
            client.insert_many([Send()], jobs)  # type: ignore[arg-type]
    for jobs in (Send(), "send", {"to": "a"}, 5, None):
        for insert in (client.insert_many, client.insert_many_fast):
            with pytest.raises(InvalidOption, match="expected a list of args, or of pairs"):
                insert(ENGINE, jobs)  # type: ignore[arg-type]


class Detached:
    """An object that fails to show itself, as a mapped object does whose session is closed."""

    def __repr__(self) -> str:
        raise LookupError("refresh")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (
            {"delay": 10**5000},
            "delay is a value of type int that cannot be shown; expected seconds",
        ),
        ({"priority": 10**5000}, "priority is a value of type int that"),
        ({"metadata": {"of": Detached()}}, r"a JSON object; \$\.of is of type Detached"),
        ({"metadata": {"big": [10**5000]}}, r"\$\.big\[0\] is an int of more than 4,300 digits"),
        ({"queue": Detached()}, "queue is a value of type Detached that cannot be shown"),
    ],
)
def test_what_cannot_be_shown_is_refused_by_name(options: dict[str, Any], problem: str) -> None:
    """An error names the option even if its value has no text."""
    with pytest.raises(InvalidOption) as caught:
        draft(Send("alice"), InsertOpts(**options))
    assert re.search(problem, str(caught.value))


def test_a_number_without_a_text_is_refused() -> None:
    """A number that Python does not read back is refused with its place in the args."""
    with pytest.raises(InvalidArgs, match=r"\$\.count is an int of more than 4,300 digits"):
        draft(Counted(10**5000))


HUGE = 10**400  # no float, and so no timedelta


NOT_CLASS = r"such as \w+\(...\), not the class"


@pytest.mark.parametrize(
    ("make", "args", "options", "problem"),
    [
        (InsertOpts, [], {"pending": "no"}, "pending is 'no'; expected True or False"),
        (InsertOpts, [], {"coalesce": 1}, "coalesce is 1; expected True or False"),
        (InsertOpts, [], {"delay": HUGE}, "delay is 1000.*; expected seconds or a timedelta"),
        (InsertOpts, [], {"unique": UniqueOpts}, NOT_CLASS),
        (UniqueOpts, [], {"by_queue": "mail"}, "by_queue is 'mail'; expected True or False"),
        (UniqueOpts, [], {"by_args": True, "exclude_kind": "no"}, "exclude_kind is 'no'"),
        (UniqueOpts, [], {"by_period": timedelta.max}, "by_period is .*; expected a shorter time"),
        (UniqueKey, ["k"], {"exclude_kind": "no"}, "exclude_kind is 'no'"),
        (UniqueMark, [], {"key": "k", "states": JobState}, "key is 'k'; expected bytes"),
        (UniqueMark, [], {"key": b"k", "states": ["done"]}, "states is .*; expected job states"),
        (Workers().register, [], {"interrupt": "no"}, "interrupt is 'no'"),
        (Workers().register, [], {"backoff": Exponential}, NOT_CLASS),
        (
            Client,
            [ENGINE],
            {"id": "web\0"},
            "id is .*; expected 1 to 100 characters, all printable",
        ),
        (Client, [ENGINE], {"id": "web\ud800"}, "id is .*; expected 1 to 100 characters"),
        (Client, [ENGINE], {"poll_only": "no"}, "poll_only is 'no'"),
        (Client, [ENGINE], {"job_timeout": HUGE}, "job_timeout is 1000"),
        (Client, [ENGINE], {"backoff": Exponential}, NOT_CLASS),
        (Interval, [timedelta.max], {}, "every is .*; expected a shorter time"),
        (PeriodicJob, [Interval(60), Send], {"run_on_start": "no"}, "run_on_start is 'no'"),
        (PeriodicJob, [Interval(60), Send], {"missed": "all"}, "missed is 'all'; expected one of"),
        (PeriodicJob, [Interval, Send], {}, NOT_CLASS),
        (Constant, [], {"jitter": "10%"}, "jitter is '10%'; expected a share from 0 to 1"),
        (Exponential, [], {"base": "2"}, "base is '2'; expected a factor of at least 1"),
        (Explicit, [3], {}, "delays is 3; expected a list of delays"),
        (JobSnooze, [HUGE], {}, "delay is 1000"),
        (JobSnooze, ["soon"], {}, "delay is 'soon'; expected seconds or a timedelta, 0 or more"),
    ],
)
def test_refuses_values_of_a_wrong_type(
    make: Callable[..., object], args: list[Any], options: dict[str, Any], problem: str
) -> None:
    """A value of a wrong type, and a class in place of its object, are refused by name."""
    with pytest.raises(InvalidOption, match=problem):
        make(*args, **options)


def test_refuses_a_policy_that_returns_no_mark() -> None:
    """What a uniqueness policy of the application returns is checked."""
    policy: Any = lambda job, now: "key"  # noqa: E731
    with pytest.raises(InvalidOption, match="unique is 'key'; expected a policy that returns a U"):
        draft(Send(), InsertOpts(unique=policy), now=NOW)


def test_refuses_options_of_a_class_that_are_none() -> None:
    """The options of a class of args are checked when it is defined, or else by the insert."""
    wrong: Any = {"queue": "mail"}
    problem = "insert_opts is {'queue': 'mail'}; expected an InsertOpts, such as"
    with pytest.raises(InvalidOption, match=problem):
        type("Wrong", (JobArgs,), {}, kind="wrong", insert_opts=wrong)

    @attrs.frozen
    class Own:
        kind: ClassVar[str] = "own"
        insert_opts: ClassVar[Any] = wrong

    with pytest.raises(InvalidOption, match=problem):
        draft(Own(), now=NOW)
