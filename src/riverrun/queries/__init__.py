"""The statements: built here from plain values, executed in verbs."""
