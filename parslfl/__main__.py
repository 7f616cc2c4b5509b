"""`python -m parslfl` is the command `parslfl`.

Does not know: any command.
"""

import sys

from parslfl.cli import main

if __name__ == "__main__":
    sys.exit(main())
