#!/usr/bin/env bash
# Run once, when Gradescope builds the image.
set -euo pipefail
apt-get update
apt-get install -y python3-venv
python3 -m venv /autograder/uv
/autograder/uv/bin/pip install uv
/autograder/uv/bin/uv venv --seed --python 3.12 /autograder/venv
/autograder/venv/bin/pip install --no-cache-dir -r /autograder/source/requirements.txt
