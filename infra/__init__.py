"""Running the services around Retune: the two user interfaces on loopback."""
