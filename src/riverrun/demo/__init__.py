"""A sign-up service, its jobs, two workers and the world they talk to: all real, for half a minute.

`story.py` starts every part in a process of its own and plays the story; `audit.py` then asks the
database, the mails, the files and the CRM, and never the workers, whether each job ran once.
"""
