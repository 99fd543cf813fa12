"""What is copied into the files of a pack."""
