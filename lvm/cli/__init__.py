"""The command `lvm`, a subcommand a file."""
