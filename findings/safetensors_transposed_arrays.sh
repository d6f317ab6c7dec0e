#!/usr/bin/env bash
# safetensors 0.8.0, numpy side: an array that is not row-major is written as it lies in memory, under its own shape.
#
# Guess: save_file stores the array's values, as np.save does, or refuses it. A transposed view (x.T) and the column-major factors
# of LAPACK based libraries are ordinary arrays, and 0.7.0 stored their values.
# Seen with numpy 2.4.6: no error; the shape comes back and the numbers are in another order. [[0, 2, 4], [1, 3, 5]], the transpose of
# a 3 x 2 array, is read back as [[0, 1, 2], [3, 4, 5]].
# So: np.ascontiguousarray before saving, and a check of norms or values after loading a file that somebody else wrote.
#
# Exits 0 while that is so, 1 when either version does something else.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/probe.py" <<'PYTHON'
import sys

import numpy as np
import safetensors
from safetensors.numpy import load_file, save_file

rows = np.arange(6, dtype=np.float32).reshape(3, 2)
transposed = rows.T
save_file({"x": transposed, "row_major": np.ascontiguousarray(transposed)}, sys.argv[1])
read = load_file(sys.argv[1])
print(f"safetensors {safetensors.__version__}, numpy {np.__version__}")
print("saved      ", transposed.tolist())
print("read       ", read["x"].tolist())
print("as row-major", read["row_major"].tolist())
assert read["x"].shape == transposed.shape
assert (read["row_major"] == transposed).all()
keeps_values = bool((read["x"] == transposed).all())
as_in_memory = bool((read["x"].ravel() == rows.ravel()).all())
assert keeps_values != as_in_memory
sys.exit(0 if keeps_values == (sys.argv[2] == "keeps_values") else 1)
PYTHON
for expectation in 0.7.0:keeps_values 0.8.0:as_in_memory; do
  version=${expectation%%:*}
  python3 -m venv "$folder/$version"
  "$folder/$version/bin/pip" install -q --disable-pip-version-check "safetensors==$version" numpy==2.4.6
  "$folder/$version/bin/python" "$folder/probe.py" "$folder/$version.safetensors" "${expectation#*:}" ||
    { echo "safetensors $version no longer does what this file says" >&2; exit 1; }
done
