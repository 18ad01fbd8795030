"""`python -m service.lease` is `python -m service.database.lease` now. The old name stays for one version."""

import sys

from service.database.lease import main

if __name__ == "__main__":
    sys.exit(main())
