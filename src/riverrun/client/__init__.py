"""The client: what applications insert jobs with, and what works them."""
