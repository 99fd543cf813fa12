"""What a trial leaves: evidence, and pages and tables of it."""
