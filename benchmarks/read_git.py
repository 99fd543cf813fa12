"""Reads every Python file of one release from a clone's objects: ``read_git.py patchforge|pygit2 CLONE VERSION``."""

import sys
from collections.abc import Iterator


def with_patchforge(clone: str, release: str) -> Iterator[bytes]:
    """Through one ``git cat-file --batch`` process."""
    from patchforge.sources import open_upstream  # noqa: PLC0415

    with open_upstream(clone) as upstream:
        tree = upstream.tree(upstream.resolve(release))
        yield from (tree.read(path) for path in tree.entries() if path.endswith(".py"))


def with_pygit2(clone: str, release: str) -> Iterator[bytes]:
    """Through libgit2, in the process itself."""
    import pygit2  # noqa: PLC0415

    from patchforge.project import load_project, release_index  # noqa: PLC0415

    commit = next(known.commit for known in release_index(load_project()) if str(known.version) == release)
    repository = pygit2.Repository(clone)
    folders = [repository[commit].peel(pygit2.Tree)]
    while folders:
        for item in folders.pop():
            if isinstance(item, pygit2.Tree):
                folders.append(item)
            elif isinstance(item, pygit2.Blob) and (item.name or "").endswith(".py"):
                yield item.data


if __name__ == "__main__":
    read = {"patchforge": with_patchforge, "pygit2": with_pygit2}[sys.argv[1]]
    sizes = [len(data) for data in read(sys.argv[2], sys.argv[3])]
    print(len(sizes), sum(sizes))
