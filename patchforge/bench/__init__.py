"""What a release costs on a device, in exact counts, and how two runs differ."""
