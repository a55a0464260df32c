"""Policies that users may replace: backoff, periodic schedules, and uniqueness."""
