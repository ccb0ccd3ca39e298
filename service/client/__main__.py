"""The client's command line: `python -m service.client`."""

from service.client.client import main

if __name__ == "__main__":
    main()
