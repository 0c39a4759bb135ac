"""`python -m moodline`: the command line."""

from moodline.services.cli.app import main

main()
