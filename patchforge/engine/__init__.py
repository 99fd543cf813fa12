"""From a tree and a set of transforms to findings and edits."""
