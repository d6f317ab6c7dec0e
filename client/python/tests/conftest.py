import pathlib
import subprocess
import sys

PACKAGE = pathlib.Path(__file__).resolve().parent.parent
subprocess.run([sys.executable, str(PACKAGE / "generate_stubs.py")], check=True)
sys.path.insert(0, str(PACKAGE))
