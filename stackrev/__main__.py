"""`python -m stackrev` is `stackrev`."""

import sys

from stackrev.cli import program

if __name__ == "__main__":
    sys.exit(program())
