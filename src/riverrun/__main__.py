"""`python -m riverrun` is `riverrun`."""

from riverrun.cli.main import main

main()
