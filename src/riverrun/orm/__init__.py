"""riverrun and the ORM: references to mapped objects, and jobs that a session's flush inserts."""
