"""One command, one file of its name with ``run(options) -> exit status``."""
