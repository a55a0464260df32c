"""The column types of River's tables in PostgreSQL."""

from typing import Any

from sqlalchemy import DateTime, Dialect, String, TypeDecorator
from sqlalchemy.dialects.postgresql import ARRAY, BIT, ENUM, JSONB

from riverrun.jobs.states import JobState


def job_state_type(schema: str | None) -> ENUM:
    """Return the type of a job's state in the schema of River's tables."""
    return ENUM(
        JobState,
        name="river_job_state",
        values_callable=lambda states: [state.value for state in states],
        create_type=False,
        schema=schema,
    )


JobStateType = job_state_type(None)


Json = JSONB(none_as_null=True)


JsonList = ARRAY(JSONB)


TextList = ARRAY(String)


TagList = ARRAY(String(255))


Timestamp = DateTime(timezone=True)


class StateMask(TypeDecorator[int]):
    """A unique mask: an int in Python, and bit(8) in the row, with the highest bit leftmost."""

    impl = BIT(8)
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> Any:  # noqa: ARG002
        """Return `value` as eight binary digits."""
        return None if value is None else f"{value:08b}"

    def process_result_value(self, value: Any | None, dialect: Dialect) -> int | None:  # noqa: ARG002
        """Return the int of eight binary digits."""
        if value is None:
            return None
        # asyncpg returns a class of its own, and SQLAlchemy 2.0 passes it on unchanged.
        digits = value if isinstance(value, str) else value.as_string()
        return int(digits.replace(" ", ""), 2)
