"""Integrations with Flask, Pyramid, Alembic and pytest."""
