"""`python -m service.migrate` is `python -m service.database.migrate` now. The old name stays for one version."""

from service.database.migrate import main

if __name__ == "__main__":
    main()
