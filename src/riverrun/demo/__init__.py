"""The demo: a real sign-up service with jobs, two workers, a mail server and a CRM.

`story.py` starts each part in a process of its own and runs them for half a minute. `audit.py` then
checks that each job ran once, by the database, the mails, the files and the CRM's log; the workers
are not asked.
"""
