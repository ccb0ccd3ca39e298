"""How the service runs: workers, sockets, the HTTP protocol, the doctor."""
