#!/usr/bin/env python3
"""A sensor: one reading a second, for everyone who watches. The processor's temperature, or the load where there is no such sensor.

    wsbridge broadcast --port 8080 --exchange temps --join history --staticdir examples/broadcast examples/broadcast/sensor.py
    (then open http://localhost:8080/plot.html, on as many screens as you like)

Arguments are the seconds between two readings, and the file of another sensor that holds thousandths of a degree, such as
/sys/class/hwmon/hwmon0/temp1_input.

The program is started once, with wsbridge, and not for each visitor: it runs whether anybody watches or not, and when it fails
it is started again. What to know in Python: print() into a pipe waits until 8 KiB have come together, so `flush=True`.
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
            pass  # one that is there and cannot be read, as a modem's that is switched off: the next
    return {"load": os.getloadavg()[0]}


signal.signal(signal.SIGINT, signal.SIG_DFL)  # wsbridge ends it with INT: to go without a traceback
while True:
    print(json.dumps({"time": round(time.time(), 3), **reading()}), flush=True)
    time.sleep(period)
