"""The subcommands of `moodline`; `services.cli` puts them together."""
