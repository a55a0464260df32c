"""`riverrun bench`: how many jobs a second this machine and database work, and how soon."""
