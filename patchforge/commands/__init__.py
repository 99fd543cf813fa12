"""One command, one file; each has ``add_arguments(parser)`` and ``run(options) -> exit status``."""
