"""One command, one file; each has ``run(options) -> exit status``."""
