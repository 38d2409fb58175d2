"""The dependencies, decided on the machine that builds.

aiofastnet ships no wheels for 32-bit ARM, and wsbridge runs without it. An environment marker cannot tell: a 32-bit
Raspberry Pi OS runs on a 64-bit kernel and calls its machine aarch64. The width of a pointer is what counts.

So a wheel that requires aiofastnet carries the tag of its platform, and a 32-bit pip does not accept it. A wheel that is
built on a 32-bit system requires no aiofastnet, and is valid everywhere.
"""

import sys

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel

DEPENDENCIES = [
    # The minor version whose private names wsbridge/http/connection.py and wsbridge/peers/wsclient.py use.
    "aiohttp>=3.14,<3.15",
    "aio-pika>=10.2,<11",
    "pamqp>=4,<5",
    "click>=8.1",
    "msgspec>=0.19",
]
FAST = "aiofastnet>=1.2,<2; platform_machine in 'x86_64 aarch64 arm64'"

IS_64_BIT = sys.maxsize > 2**32


class PlatformWheel(bdist_wheel):
    """A wheel of pure Python code whose dependencies belong to a platform."""

    def finalize_options(self):
        super().finalize_options()
        self.root_is_pure = not IS_64_BIT

    def get_tag(self):
        return "py3", "none", super().get_tag()[2]


setup(install_requires=[*DEPENDENCIES, FAST] if IS_64_BIT else DEPENDENCIES, cmdclass={"bdist_wheel": PlatformWheel})
