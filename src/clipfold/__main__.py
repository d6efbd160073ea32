"""``python -m clipfold``."""

import sys

from clipfold.cli import main

if __name__ == "__main__":
    sys.exit(main())
