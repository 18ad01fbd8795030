"""`python -m service.serve` is `python -m service.api` now. The old name stays for one version."""

from service.api.__main__ import main

if __name__ == "__main__":
    main()
