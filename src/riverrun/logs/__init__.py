"""The texts that riverrun writes to a log, and the checks that keep a job's values out of it."""
