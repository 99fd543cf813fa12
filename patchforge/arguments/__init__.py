"""The command line's grammar: its parser, and what each command takes. Nothing here is slow to import."""
