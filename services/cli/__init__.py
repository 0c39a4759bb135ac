"""The command `moodline`: one module for each command."""
