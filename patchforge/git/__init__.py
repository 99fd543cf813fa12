"""Git: the one door to it, addresses, repositories that are only read, their objects, and clones in the cache."""
