"""The dependencies, decided on the machine that installs.

aiofastnet ships no wheels for 32-bit ARM, and wsbridge runs without it. An environment marker cannot tell: a 32-bit
Raspberry Pi OS runs on a 64-bit kernel and calls its machine aarch64. The width of a pointer is what counts.
"""

import sys

from setuptools import setup

DEPENDENCIES = ["aiohttp>=3.14,<4", "click>=8.1", "msgspec>=0.19"]
FAST = "aiofastnet>=1.2,<2; platform_machine in 'x86_64 aarch64 arm64'"

setup(install_requires=[*DEPENDENCIES, FAST] if sys.maxsize > 2**32 else DEPENDENCIES)
