"""Running the services around Retune: for now the two user interfaces on loopback."""
