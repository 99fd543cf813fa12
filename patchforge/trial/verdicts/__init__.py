"""The sessions of a trial, their tests, and what each shows."""
