"""A user's own checkout or pack: examined, patched in place, put back, put right."""
