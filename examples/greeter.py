#!/usr/bin/env python3
"""The greeter in Python.

    wsbridge --port 8080 --devconsole examples/greeter.py

In Python, print() buffers 8 KiB if stdout is a pipe, so every answer needs `flush=True` (or start the program with
`python3 -u`).
"""

import sys

for number, line in enumerate(sys.stdin, start=1):
    name = line.removesuffix("\n")
    print(f"Hello, {name}! You are number {number}.", flush=True)
