"""Statements that a test executes on its schema, with tables named as River names them."""

from typing import Any

from sqlalchemy import Engine, text


class Rows:
    """Reads and writes the rows of one schema."""

    engine: Engine
    schema: str

    def rows(self, statement: str, **values: Any) -> list[Any]:
        """Return the rows that a statement on the schema reads."""
        with self.engine.begin() as connection:
            connection.execute(text(f"SET LOCAL search_path TO {self.schema}"))
            return list(connection.execute(text(statement), values))

    def one(self, statement: str, **values: Any) -> Any:
        """Return the single value that a statement on the schema reads."""
        ((value,),) = self.rows(statement, **values)
        return value

    def do(self, statement: str, **values: Any) -> None:
        """Execute a statement on the schema."""
        with self.engine.begin() as connection:
            connection.execute(text(f"SET LOCAL search_path TO {self.schema}"))
            connection.execute(text(statement), values)
