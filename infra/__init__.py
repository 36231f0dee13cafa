"""Run the services around Retune: user interfaces, background services, the shared stack, containers and Kubernetes."""
