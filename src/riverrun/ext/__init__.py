"""At home in other people's applications: their sessions, their settings, their lifecycles."""
