"""`python -m service.keeper` is `python -m service.dispatcher.supervisor` now. The old name stays for one version."""

import sys

from service.dispatcher.supervisor import main

if __name__ == "__main__":
    sys.exit(main())
