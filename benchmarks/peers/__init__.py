"""Programs that run other job queues, in a virtual environment of their own; see common.py."""
