"""`python -m moodline`: the command line."""

from services.cli import main

main()
