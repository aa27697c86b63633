"""Run the command line as ``python -m geo_retina``."""

import sys

from geo_retina.cli import main

if __name__ == "__main__":
    sys.exit(main())
