"""`python -m untrusted_s3`."""

import sys

from untrusted_s3.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
