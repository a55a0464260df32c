"""The client, with which applications insert jobs and work them."""
