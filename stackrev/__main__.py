"""`python -m stackrev` is `stackrev`."""

import sys

from stackrev.cli import main

if __name__ == "__main__":
    sys.exit(main())
