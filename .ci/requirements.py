"""Prints the requirements that pyproject.toml names, so that they stand in one place.

    requirements.py build|test|bench

`build` is what running and building in place need; `test` and `bench` are the extras. Nothing is
installed of the project itself: it runs from the tree.
"""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
if sys.argv[1] == "build":
    names = project["build-system"]["requires"] + project["project"]["dependencies"]
else:
    names = project["project"]["optional-dependencies"][sys.argv[1]]
print("\n".join(name.replace(" ", "") for name in names))
