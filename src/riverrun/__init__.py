"""Background jobs for SQLAlchemy applications, inside your own transaction, on River's tables."""

__version__ = "0.1.0"
