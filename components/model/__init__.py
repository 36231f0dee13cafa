"""What a registered version carries: tasks, methods, metrics and the code that answers. It imports only artifacts and core."""
