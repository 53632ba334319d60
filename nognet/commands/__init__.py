"""The umbrella command `nognet`, one file a subcommand."""
