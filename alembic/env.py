"""The Alembic environment of this repository. DATABASE_URL names the database.

`-x schema=NAME` migrates River's tables in another schema.
"""

import os

from alembic import context
from sqlalchemy import create_engine, make_url


def url() -> str:
    """Return DATABASE_URL, with psycopg 3 as the driver of a bare postgresql:// URL."""
    given = make_url(os.environ["DATABASE_URL"])
    if given.drivername in {"postgresql", "postgres"}:
        given = given.set(drivername="postgresql+psycopg")
    return given.render_as_string(hide_password=False)


if context.is_offline_mode():
    context.configure(dialect_name="postgresql", literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    engine = create_engine(url())
    with engine.connect() as connection:
        context.configure(connection=connection, transaction_per_migration=True)
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()
