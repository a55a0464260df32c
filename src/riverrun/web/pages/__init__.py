"""The pages: each turns a request into data, of which HTML, JSON and CSV are made."""
