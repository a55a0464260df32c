"""Unit of work: the methods of a client that insert jobs with the flush of a session."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from sqlalchemy.orm import InstrumentedAttribute, Session, scoped_session

from riverrun.client.inserter import Inserter
from riverrun.jobs.args import AnyArgs
from riverrun.jobs.options import InsertOptions, InsertOpts, with_options
from riverrun.orm.added import AddedJob, session_of
from riverrun.orm.rules import Rule, Rules

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session

T = TypeVar("T")
V = TypeVar("V")


class UnitOfWork:
    """The part of a client that takes part in a session's unit of work."""

    rules: Rules
    _inserter: Inserter

    def add(
        self,
        session: "Session | scoped_session[Any] | AsyncSession | async_scoped_session[Any]",
        args: AnyArgs,
        opts: InsertOpts | None = None,
        **options: Unpack[InsertOptions],
    ) -> AddedJob:
        """Add a job to the session: its next flush inserts it, with the objects in its args.

            session.add(order)
            client.add(session, SendReceipt(order=order))
            session.commit()

        Like `session.add` for an object, it executes no statement, and begins the session's
        transaction if necessary. The jobs of one flush are inserted by one statement. They are gone
        if the flush fails, or if their transaction or savepoint is rolled back.

        Args:
            session: A Session, scoped_session, AsyncSession or async_scoped_session. The call needs
                no `await` for any of them.
            args: An object of a class with a kind. A mapped object in it needs no key yet, if it is
                in the session.
            opts: How the job is inserted, as for `insert`. A delay counts from now, or from the
                flush if the args wait for it. With `coalesce=True`, equal jobs of one transaction
                become one.
            **options: The same as keywords, as for `insert`.

        Returns:
            The added job. Its `job` is there after the flush.

        Raises:
            InvalidArgs: If nothing that the flush does could make the args valid. Otherwise the
                flush raises it, such as for an object that was expunged from the session meanwhile.
            NotATransaction: If `session` is not a session.
            RiverrunError: As for `insert`, by this call or by the flush.
        """
        return self._inserter.add(session_of(session), args, with_options(opts, options))

    def on_insert(
        self,
        entity: type[T],
        make: Callable[[T], object],
        *,
        opts: InsertOpts | None = None,
        strict: bool = False,
    ) -> Rule[T]:
        """Make a job for each object of a class that is inserted, in the same transaction.

            client.on_insert(User, lambda user: Welcome(user=user))

        The rule applies to the flushes of every session in every thread. An object that is inserted
        and deleted in one transaction makes no job.

        Args:
            entity: The mapped class. Its subclasses count, too.
            make: Called with the object when its transaction commits. It returns args, or None for
                no job.
            opts: How the job is inserted.
            strict: Whether a bulk statement that the ORM sees, such as `insert(User)`, is refused
                with RuleBypassed. Default: False, and there is one warning for the rule. What the
                ORM does not see passes: `text()`, statements on the connection, `bulk_*`, and the
                database's cascades.

        Returns:
            The rule. It stays in `client.rules` until its `remove()` is called.

        Raises:
            InvalidOption: If `entity` is not a mapped class, or `make` not a function.
        """
        return self.rules.add("insert", entity, make, opts=opts, strict=strict)

    def on_update(
        self,
        attribute: InstrumentedAttribute[V],
        make: Callable[[Any], object],
        *,
        when: Callable[[V], object] | None = None,
        opts: InsertOpts | None = None,
        strict: bool = False,
    ) -> Rule[Any]:
        """Make a job for each object whose attribute is changed, in the same transaction.

            client.on_update(Order.status, OrderChanged, when=lambda new: new == "paid")

        Many changes to one object in one transaction make one job. Whether there is a job is
        decided when the transaction commits: there is none if the attribute has its old value
        again, provided that the old value was loaded.

        Args:
            attribute: An attribute of a mapped class, such as `Order.status`. The subclasses of
                the class count, too.
            make: Called with the object when its transaction commits. It returns args, or None for
                no job.
            when: Called with the new value; returns whether the change counts. Default: None, and
                every change counts.
            opts: How the job is inserted.
            strict: Whether a bulk statement that sets the attribute is refused, as for `on_insert`.
                Default: False.

        Returns:
            The rule.

        Raises:
            InvalidOption: If `attribute` is not one of a mapped class, or `make` not a function.
        """
        return self.rules.add("update", attribute, make, when=when, opts=opts, strict=strict)

    def on_delete(
        self,
        entity: type[T],
        make: Callable[[T], object],
        *,
        opts: InsertOpts | None = None,
        strict: bool = False,
    ) -> Rule[T]:
        """Make a job for each object of a class that is deleted, in the same transaction.

            client.on_delete(Upload, lambda upload: DeleteFile(path=upload.path))

        Orphans count as deleted. A deleted object whose row another object takes over in the same
        flush does not: the row is still there. Rows that only the database's own ON DELETE CASCADE
        deletes are not seen, unless they are loaded.

        Args:
            entity: The mapped class. Its subclasses count, too.
            make: Called with the object in the flush that deletes it. It returns args, or None for
                no job.
            opts: How the job is inserted.
            strict: Whether a bulk statement is refused, as for `on_insert`. Default: False.

        Returns:
            The rule.

        Raises:
            InvalidOption: If `entity` is not a mapped class, or `make` not a function.
        """
        return self.rules.add("delete", entity, make, opts=opts, strict=strict)
