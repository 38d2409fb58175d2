#!/usr/bin/env python3
"""The greeter in Python.

    wsbridge --port 8080 --devconsole examples/greeter.py

What to know in Python: print() into a pipe waits until 8 KiB have come together, so every answer needs `flush=True`
(or start the whole program with `python3 -u`).
"""

import sys

for number, line in enumerate(sys.stdin, start=1):
    name = line.removesuffix("\n")
    print(f"Hello, {name}! You are number {number}.", flush=True)
