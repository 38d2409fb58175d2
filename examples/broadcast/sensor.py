#!/usr/bin/env python3
"""A sensor with one reading per second for all browsers: the processor's temperature or, without such a sensor, the load.

    wsbridge broadcast --port 8080 --exchange temps --join history --staticdir examples/broadcast examples/broadcast/sensor.py
    (then open http://localhost:8080/plot.html in any number of browsers)

The arguments are the seconds between two readings, and the file of another sensor in thousandths of a degree, such as
/sys/class/hwmon/hwmon0/temp1_input.

wsbridge starts the program once, not for each browser: it runs with or without browsers, and wsbridge restarts it when it
fails. In Python, print() buffers 8 KiB if stdout is a pipe, so the program uses `flush=True`.
"""

import glob
import json
import os
import signal
import sys
import time

period = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
sensors = sys.argv[2:] or sorted(glob.glob("/sys/class/thermal/thermal_zone*/temp"))


def reading():
    for sensor in sensors:
        try:
            with open(sensor) as file:
                return {"celsius": int(file.read()) / 1000}
        except (OSError, ValueError):
            pass  # a sensor that cannot be read, as of a modem that is switched off: try the next
    return {"load": os.getloadavg()[0]}


signal.signal(signal.SIGINT, signal.SIG_DFL)  # wsbridge ends the program with INT: exit without a traceback
while True:
    print(json.dumps({"time": round(time.time(), 3), **reading()}), flush=True)
    time.sleep(period)
