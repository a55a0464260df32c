"""SQLAlchemy statements, built from plain values. The functions in `verbs` execute them."""
