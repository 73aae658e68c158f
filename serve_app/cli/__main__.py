"""`python -m serve_app.cli`, for where the console script is not on the path."""

import sys

from serve_app.cli import main

if __name__ == "__main__":
    sys.exit(main())
