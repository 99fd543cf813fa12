"""Runs several command lines in one process: a JSON list of them as argument, a JSON list of what became of each."""

import contextlib
import io
import json
import os
import sys
import warnings

from patchforge.cli import main

warnings.filterwarnings("ignore")  # without fcntl, filelock says that its locks are soft
ran = []
for line in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(line)
        except SystemExit as ended:
            status = int(ended.code or 0)
    ran.append([status, out.getvalue(), err.getvalue()])
os.write(1, json.dumps(ran).encode())
