"""Generates the stubs of proto/valuescope/v1 while the package is built, so that they never go stale in the repository."""

import subprocess
import sys

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithStubs(build_py):
    def run(self):
        subprocess.run([sys.executable, "generate_stubs.py"], check=True)
        super().run()


setup(cmdclass={"build_py": BuildWithStubs})
