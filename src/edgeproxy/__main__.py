"""`python -m edgeproxy` is the `edgeproxy` command."""

import sys

from edgeproxy.cli import main

if __name__ == "__main__":
    sys.exit(main())
