"""Runs several command lines in one process: a JSON list of them as argument, a JSON list of what became of each.

Standard output and error have the encoding that the second argument names, and refuse what it does not hold.
"""

import contextlib
import io
import json
import os
import sys
import warnings

from patchforge.cli import main

warnings.filterwarnings("ignore")  # without fcntl, filelock says that its locks are soft
encoding = sys.argv[2]
ran = []
for line in json.loads(sys.argv[1]):
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding, errors="strict", newline="\n") for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(line)
        except SystemExit as ended:
            status = int(ended.code or 0)
    said = []
    for stream in (out, err):
        stream.flush()
        said.append(stream.buffer.getvalue().decode(encoding))
    ran.append([status, *said])
os.write(1, json.dumps(ran).encode())
